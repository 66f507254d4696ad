//! Everything between a packet of plain telephone audio and samples at 48 kHz: what libopus does for Opus packets,
//! done here for the codecs that are not Opus.
//!
//! ```text
//!  payload ─▶ pcm ─▶ samples at the codec's rate ─▶ resample ─▶ 48 kHz, zero delay
//!             g722      ▲ conceal: what a lost packet       ▲ conceal: comfort noise
//!                         is filled with
//! ```
//! Samples are `f32` in −1..1, one channel. Nothing here knows packets, sequence numbers or a clock.
//! The same input gives the same samples, whatever it is cut into.

pub mod conceal;
mod g722;
pub mod pcm;
pub mod resample;

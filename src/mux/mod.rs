//! The recording's bytes: two channels of Opus frames on one grid, in one Ogg Opus file.
//!
//! [`lane`] brings one channel's packets to the grid, [`cells`] cuts the time into cells that both channels can fill,
//! [`lossless`] writes each cell as one Ogg packet, [`ogg`] makes pages of them. Where the channels share no grid,
//! or a channel is no Opus, [`anew`] encodes it. [`compat`] is the other format.

pub mod anew;
pub mod cells;
pub mod compat;
pub mod lane;
pub mod lossless;
pub mod ogg;

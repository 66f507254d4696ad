//! Opus (RFC 6716): packets taken apart and put together without touching a frame.

pub mod packet;

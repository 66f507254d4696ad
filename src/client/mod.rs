//! The other end of the daemon's sockets: for whoever sends frames.

pub mod tap_client;

//! The other end of the daemon's sockets: for whoever sends frames.

mod link;
pub mod tap_client;

pub use link::{Endpoint, EndpointError};

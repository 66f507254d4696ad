//! The other end of the daemon's sockets: for whoever sends frames, in Rust.
//!
//! | | for whom | when the daemon is slow or gone |
//! | --- | --- | --- |
//! | [`Sender`] | a gateway, beside its media threads | never waits: queues up to a limit, then drops and counts; sends the rest later |
//! | [`tap_client::TapClient`] | a program that has the call in a file (`replay`, `load`, `demo`) | waits, or says that it cannot go on |
//!
//! Senders in Go, Python and Node that do the same as [`Sender`] are in `deploy/senders/`, and an example in Rust.
//!
//! ```no_run
//! use sidetape::client::{Options, Sender};
//! use sidetape::id::{Channel, ConnectionId, Scope};
//!
//! # async fn gateway(packets: Vec<Vec<u8>>) -> Result<(), Box<dyn std::error::Error>> {
//! let sender = Sender::start(Options::new("unix-stream:/run/sidetape/tap-stream.sock".parse()?));
//! let call = ConnectionId::new("call-1")?;
//! sender.meta(&call, Scope::Whole, serde_json::from_str(r#"{"conversation_id":"c-42"}"#)?);
//! for packet in packets {
//!     sender.rtp(&call, Channel::Caller, &packet); // on the media thread: never waits
//! }
//! sender.end(&call);
//! sender.settle(std::time::Duration::from_secs(5)).await; // only where the gateway itself stops
//! # Ok(())
//! # }
//! ```

mod backlog;
mod link;
mod sender;
pub mod tap_client;

pub use backlog::Counters;
pub use link::{Endpoint, EndpointError};
pub use sender::{Options, Sender};

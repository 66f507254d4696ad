//! The gate: whether a frame's sender is believed, before anything else of the frame is read.
//!
//! Without a key everything passes, at no cost. With one, what comes over UDP must be signed; what comes over a Unix
//! socket, which file permissions guard, may be.

use std::sync::Mutex;

use super::clock::Clock;
use super::spool_writer::lock;
use crate::config::Secret;
use crate::frame::has_trailer;
use crate::tap_key::{Distrust, Senders, TapKey};

/// The way by which a frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// UDP, where anybody may send who reaches the port.
    Udp,
    /// A Unix socket.
    Unix,
    /// A port for plain RTP, which HTTP has opened.
    Ports,
}

/// Believes frames or not.
#[derive(Debug, Default)]
pub struct Gate {
    key: Option<TapKey>,
    /// Held for a look at one sender; the tag is computed before.
    senders: Mutex<Senders>,
}

impl Gate {
    /// Makes a gate with a key, or one that is open.
    #[must_use]
    pub fn new(secret: Option<&Secret>) -> Self {
        Self { key: secret.map(|secret| TapKey::new(secret.expose())), senders: Mutex::default() }
    }

    /// Tells whether a frame is believed, and remembers that it was there.
    ///
    /// # Errors
    /// [`Distrust`] says why not.
    pub fn check(&self, bytes: &[u8], via: Via, clock: &Clock) -> Result<(), Distrust> {
        let Some(key) = &self.key else { return Ok(()) };
        if via != Via::Udp && !has_trailer(bytes) {
            return Ok(());
        }
        let stamp = key.verify(bytes)?;
        lock(&self.senders).admit(stamp, clock.now(), clock.wall())
    }
}

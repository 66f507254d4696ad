//! What the operator has chosen about connections.

use std::time::Duration;

/// The waiting times that the operator configures.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long stragglers are waited for after the last reference.
    pub linger: Duration,
    /// How long a connection may be without a frame before the sweep closes it.
    pub retention: Duration,
    /// How long a connection found in the spool waits for its gateway after a restart.
    pub resume: Duration,
    /// The longest recording; a longer call goes on as another part.
    pub max_duration: Duration,
    /// Whether a call is kept before META has said so.
    pub is_recorded: bool,
    /// Whether the digits of key presses are left out.
    pub masks_digits: bool,
}

impl Rules {
    /// What there is to know for reading a spool file, where nothing is waited for.
    #[must_use]
    pub fn for_reading(masks_digits: bool) -> Self {
        let (linger, retention, resume, max_duration) = Default::default();
        Self { linger, retention, resume, max_duration, is_recorded: true, masks_digits }
    }

    /// How long a connection of so many holds may be without a frame. A hold says that somebody will go on, however silent it
    /// is, for as long as a recording may be.
    #[must_use]
    pub fn patience(&self, holds: u32) -> Duration {
        if holds > 0 { self.retention.max(self.max_duration) } else { self.retention }
    }
}

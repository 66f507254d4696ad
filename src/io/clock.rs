//! The daemon's two clocks, read nowhere else.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Mono, Wall, micros};

/// The steady clock, counted from the moment this was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

impl Clock {
    /// Starts the steady clock.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Reads the steady clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono(micros(self.started.elapsed()))
    }

    /// Reads the wall clock, which may step.
    #[must_use]
    pub fn wall(&self) -> Wall {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

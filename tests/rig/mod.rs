//! The rig: drives the real binary from outside, as a gateway would, and reads what it leaves behind.
//!
//! [`place`] is a folder with a daemon's settings, [`daemon`] the running program, [`gateway`] a sender over one of
//! its sockets, [`media`] what is sent, [`http`] a client of its port, [`metrics`] the page that it has there, [`captures`] real calls, [`peers`] programs that send plain RTP, [`recording`] the reader of finished files, and
//! [`judges`] the other programs that have to accept them; [`gcs`] and [`stores`] are object stores, [`cloud`] shows them alike, [`proxy`] lets things go
//! wrong on the way to them, and all three speak HTTP through [`wire`]; [`picture`] reads what is drawn of one. [`spool`] does
//! without the daemon. Nothing here uses the project's own parsers, except for opening captures.
#![allow(dead_code, reason = "each file of tests takes what it needs")]

pub(crate) mod captures;
pub(crate) mod cloud;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod gateway;
pub(crate) mod gcs;
pub(crate) mod http;
pub(crate) mod judges;
pub(crate) mod media;
pub(crate) mod metrics;
pub(crate) mod peers;
pub(crate) mod picture;
pub(crate) mod place;
pub(crate) mod proxy;
pub(crate) mod recording;
pub(crate) mod spool;
pub(crate) mod stores;
pub(crate) mod wire;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: ample, because test machines are slow and busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until there is an answer.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether what a test needs and cannot find must be there: then the test fails, else it says so and passes.
pub(crate) fn is_strict() -> bool {
    std::env::var("SIDETAPE_REQUIRE_JUDGES").is_ok_and(|value| value == "1")
}

//! How the file descriptors that the system allows this process are shared out, so that strangers who connect cannot
//! take the last of them and a new call can always be spooled.
//!
//! | share | for what |
//! | --- | --- |
//! | a half | spool files held open ([`super::spool_writer`], which writes on with fewer) |
//! | a quarter | ports for plain RTP, four a call |
//! | an eighth | HTTP: a connection, and the file that it may be sending |
//! | a sixteenth | byte streams |
//! | the rest | sockets that listen, finishing, the store |

use rustix::process::{Resource, getrlimit};

/// Connections over HTTP, at most. A scraper, probes and some people need a few dozen.
const HTTP_MAX: u64 = 256;
/// Byte streams, at most. A gateway needs one.
const STREAMS_MAX: u64 = 1024;
/// Each has at least so many, even where the system allows hardly any.
const LEAST: u64 = 2;
/// Sockets of a call that sends plain RTP.
const PORTS_A_CALL: u64 = 4;

/// How many of each may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Connections over HTTP.
    pub http: usize,
    /// Byte streams.
    pub streams: usize,
    /// Calls with ports for plain RTP.
    pub port_calls: usize,
}

impl Shares {
    /// Shares out what the system allows this process now.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    /// Shares out so many descriptors.
    #[must_use]
    pub fn of(allowed: u64) -> Self {
        let share = |count: u64| usize::try_from(count.max(LEAST)).unwrap_or(usize::MAX);
        Self {
            http: share(HTTP_MAX.min(allowed / 16)),
            streams: share(STREAMS_MAX.min(allowed / 16)),
            port_calls: share(allowed / 4 / PORTS_A_CALL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_a_sixteenth_is_left_beside_all_shares() {
        for allowed in [64u64, 256, 1024, 4096, 65_536, 1_048_576] {
            let Shares { http, streams, port_calls } = Shares::of(allowed);
            let taken = allowed / 2 + u64::try_from(2 * http + streams + 4 * port_calls).unwrap();
            assert!(taken + allowed / 16 <= allowed, "{allowed}: {taken}");
        }
        assert_eq!(Shares::of(1024), Shares { http: 64, streams: 64, port_calls: 64 });
        assert_eq!(Shares::of(65_536).http, 256);
        assert_eq!(Shares::of(0), Shares { http: 2, streams: 2, port_calls: 2 });
        assert_eq!(Shares::of(u64::MAX).streams, 1024);
    }
}

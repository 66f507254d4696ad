//! Draws ids for recordings from the system's randomness.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::{ConnectionId, RecordingId};
use crate::time::Wall;

/// Recordings whose ids could not be drawn.
static DERIVED: AtomicU64 = AtomicU64::new(0);

/// Draws the id of a recording of `connection` that is opened now. A system that has no randomness to give costs no call its
/// recording: the id is made of what else tells recordings apart, then.
#[must_use]
pub(super) fn draw(connection: &ConnectionId, opened: Wall) -> RecordingId {
    let mut random = [0; 10];
    match getrandom::fill(&mut random) {
        Ok(()) => RecordingId::draw(opened, random),
        Err(_) => derive(connection, opened),
    }
}

fn derive(connection: &ConnectionId, opened: Wall) -> RecordingId {
    // Relaxed: the numbers only have to differ.
    let number = DERIVED.fetch_add(1, Ordering::Relaxed);
    let (id, opened, number) = (connection.as_str().as_bytes(), opened.0.to_be_bytes(), number.to_be_bytes());
    RecordingId::derived(&[&opened[..], &number, id].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_recordings_have_one_id_even_of_one_call_at_one_time() {
        let connection = ConnectionId::new("c").unwrap();
        let opened = Wall(1_767_323_045_678_901);
        assert_ne!(draw(&connection, opened), draw(&connection, opened));
        assert_ne!(derive(&connection, opened), derive(&connection, opened));
    }
}

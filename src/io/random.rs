//! Random bytes from the system.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

/// Draws random bytes. Where the system has none, which Linux knows only in the first moments after a start of the machine,
/// they are made of what is another each time: no two draws are alike, but somebody might guess them.
#[must_use]
pub(super) fn draw<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        make_up(&mut bytes);
    }
    bytes
}

fn make_up(bytes: &mut [u8]) {
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for piece in bytes.chunks_mut(32) {
        let seed = (DRAWS.fetch_add(1, Ordering::Relaxed), std::process::id(), since);
        let sum = Sha256::digest(format!("{seed:?}"));
        piece.iter_mut().zip(sum).for_each(|(to, from)| *to = from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_draws_are_alike() {
        assert_ne!(draw::<16>(), draw::<16>());
        let (mut one, mut other) = ([0; 44], [0; 44]);
        make_up(&mut one);
        make_up(&mut other);
        assert_ne!(one, other);
    }
}

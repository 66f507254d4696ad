//! Redundant audio (RFC 2198): a packet that carries copies of earlier ones, taken apart.
//!
//! | bits | field of a block header |
//! | --- | --- |
//! | 1 | F: another header follows |
//! | 7 | payload type of the block |
//! | 14 | how many timestamp ticks the block is older than the packet (only if F) |
//! | 10 | length of the block in bytes (only if F) |
//!
//! The last block is the packet's own audio. The format has no sequence numbers: a sender repeats its packets one for
//! one, so the block next to the last is one number older, the one before that two.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

/// Copies in one packet. Senders use one or two; 341 ms of timestamp offset leave room for few more.
pub const COPIES_MAX: usize = 32;

/// One block of a redundant packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its payload type.
    pub payload_type: u8,
    /// How many packets it is older than the one that carries it: 0 for that packet's own audio.
    pub age: u16,
    /// How many ticks of the RTP clock it is older.
    pub older_ticks: u32,
    /// Its audio; empty where the sender had none.
    pub payload: &'a [u8],
}

/// Takes a payload apart, the oldest block first, the packet's own audio last. `None` where it is malformed.
#[must_use]
pub fn blocks(payload: &[u8]) -> Option<Vec<Block<'_>>> {
    let mut headers = Vec::new();
    let mut rest = payload;
    let own = loop {
        let (first, after) = rest.split_first()?;
        let payload_type = first & 0x7f;
        if first & 0x80 == 0 {
            rest = after;
            break payload_type;
        }
        let ([high, middle, low], after) = after.split_first_chunk::<3>()?;
        let bits = u32::from_be_bytes([0, *high, *middle, *low]);
        let length = usize::try_from(bits & 0x3ff).ok()?;
        headers.push((payload_type, bits >> 10, length));
        if headers.len() > COPIES_MAX {
            return None;
        }
        rest = after;
    };
    let mut age = u16::try_from(headers.len()).ok()?;
    let mut found = Vec::with_capacity(headers.len().saturating_add(1));
    for (payload_type, older_ticks, length) in headers {
        let (block, after) = rest.split_at_checked(length)?;
        found.push(Block { payload_type, age, older_ticks, payload: block });
        rest = after;
        age = age.saturating_sub(1);
    }
    found.push(Block { payload_type: own, age: 0, older_ticks: 0, payload: rest });
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copies_come_out_with_their_age_and_the_own_audio_last() {
        let payload =
            [0xef, 0x1e, 0x00, 0x02, 0xef, 0x0f, 0x00, 0x01, 0x6f, b'a', b'b', b'c', b'd', b'e', b'f'];
        let found = blocks(&payload).unwrap();
        let told: Vec<_> = found.iter().map(|b| (b.payload_type, b.age, b.older_ticks, b.payload)).collect();
        assert_eq!(told, [(111, 2, 1920, &b"ab"[..]), (111, 1, 960, b"c"), (111, 0, 0, b"def")]);
    }

    #[test]
    fn a_packet_without_copies_is_its_own_audio() {
        assert_eq!(blocks(&[0x6f, 1, 2]).unwrap()[0].payload, [1, 2]);
        assert_eq!(blocks(&[]), None);
        assert_eq!(blocks(&[0xef, 0, 0]), None);
        assert_eq!(blocks(&[0xef, 0x0f, 0x00, 0x09, 0x6f, 1]), None, "a copy longer than the packet");
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_or_refused(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(found) = blocks(&payload) {
                prop_assert_eq!(found.last().map(|block| block.age), Some(0));
            }
        }
    }
}

//! Frames that prove where they come from: the trailer that flag bit 0 announces, and the senders that write it.
//!
//! | offset from the end | size | field |
//! | --- | --- | --- |
//! | 28 | 4 | sender: chosen at random by a sender when it starts |
//! | 24 | 8 | counter: the sender's wall clock in microseconds since 1970, but more than in the frame before |
//! | 16 | 16 | tag: the first 128 bits of HMAC-SHA-256 (RFC 2104) over all bytes of the frame before the tag |
//!
//! Integers are big-endian. [`TapKey`] tells whether a frame is genuine, [`Senders`] whether it is new.
//!
//! Invariants: no counter of a sender is believed twice while the sender is remembered, and none is forgotten before
//! it is too old for [`FRESH_US`]. So a frame that somebody has copied off the wire can be sent again only after a
//! restart of the daemon, and only for half a minute. The frames are not encrypted.
//!
//! Limits: 1024 senders of 1024 counters each, 16 MiB at most, and only who has the key takes any of it.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::frame::{HEADER_BYTES, TRAILER_BYTES, TRAILER_FLAG, has_trailer};
use crate::time::{Mono, Wall};

/// The bytes of a tag: 128 bits are what RFC 2104 section 5 asks of a truncated HMAC-SHA-256.
pub const TAG_BYTES: usize = 16;
/// How far the counter of a sender that is not yet known may lie from the daemon's wall clock.
pub const FRESH_US: u64 = 30_000_000;
/// Counters remembered of each sender: frames may overtake each other by so many.
pub const WINDOW: usize = 1024;
/// Senders remembered at once. A gateway is one, or a few with as many processes.
pub const SENDERS_MAX: usize = 1024;
/// How long a sender must have been silent before another may take its place.
pub const SILENT_FOR: Duration = Duration::from_secs(60);

/// Why a frame is not believed. Each is counted under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// No trailer, or a tag that the key does not make.
    #[error("frame is not signed with the key")]
    Unauthenticated,
    /// The counter was there before, or is older than all that are remembered.
    #[error("frame was there before, or is too old to tell")]
    Replayed,
    /// The first counter of a sender is too far from the daemon's wall clock.
    #[error("counter of a new sender is not within 30 s of the wall clock")]
    Clock,
    /// As many senders as can be remembered have sent within the last minute.
    #[error("too many senders")]
    TooManySenders,
}

/// What the trailer of a genuine frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Who sent the frame.
    pub sender: u32,
    /// Which of the sender's frames it is.
    pub counter: u64,
}

/// The shared secret, ready for use.
#[derive(Clone)]
pub struct TapKey {
    hmac: Hmac<Sha256>,
}

impl fmt::Debug for TapKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("TapKey")
    }
}

impl TapKey {
    /// Makes a key of a secret of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { hmac: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length") }
    }

    /// Tells whether the bytes of a frame are genuine, in a time that does not depend on what is wrong.
    ///
    /// # Errors
    /// [`Distrust::Unauthenticated`].
    pub fn verify(&self, frame: &[u8]) -> Result<Stamp, Distrust> {
        if !has_trailer(frame) || frame.len() < HEADER_BYTES.saturating_add(TRAILER_BYTES) {
            return Err(Distrust::Unauthenticated);
        }
        let (signed, tag) = frame.split_last_chunk::<TAG_BYTES>().ok_or(Distrust::Unauthenticated)?;
        self.hmac
            .clone()
            .chain_update(signed)
            .verify_truncated_left(tag)
            .map_err(|_| Distrust::Unauthenticated)?;
        let (rest, counter) = signed.split_last_chunk().ok_or(Distrust::Unauthenticated)?;
        let (_, sender) = rest.split_last_chunk().ok_or(Distrust::Unauthenticated)?;
        Ok(Stamp { sender: u32::from_be_bytes(*sender), counter: u64::from_be_bytes(*counter) })
    }

    fn tag(&self, signed: &[u8]) -> [u8; TAG_BYTES] {
        let whole: [u8; 32] = self.hmac.clone().chain_update(signed).finalize().into_bytes().into();
        *whole.first_chunk().expect("16 bytes are less than 32")
    }
}

/// A sender's side: signs frames, one after the other.
#[derive(Debug)]
pub struct Signer {
    key: TapKey,
    sender: u32,
    counter: u64,
}

impl Signer {
    /// Begins as `sender`, a number that nobody has signed with before.
    #[must_use]
    pub fn new(key: TapKey, sender: u32) -> Self {
        Self { key, sender, counter: 0 }
    }

    /// Returns a frame that has no trailer with one.
    #[must_use]
    pub fn sign(&mut self, frame: &[u8], now: Wall) -> Vec<u8> {
        let clock = u64::try_from(now.0).unwrap_or(0);
        self.counter = clock.max(self.counter.saturating_add(1));
        let mut signed = Vec::with_capacity(frame.len().saturating_add(TRAILER_BYTES));
        signed.extend_from_slice(frame);
        if let Some(flags) = signed.get_mut(7) {
            *flags |= TRAILER_FLAG;
        }
        signed.extend_from_slice(&self.sender.to_be_bytes());
        signed.extend_from_slice(&self.counter.to_be_bytes());
        let tag = self.key.tag(&signed);
        signed.extend_from_slice(&tag);
        signed
    }
}

/// The senders that have been believed, and what they have sent lately.
#[derive(Debug, Default)]
pub struct Senders {
    known: HashMap<u32, Sender>,
}

#[derive(Debug)]
struct Sender {
    /// Counters up to this one are not believed any more.
    floor: u64,
    /// The greatest counters that were believed, in order. Not a bitmap: counters follow a clock, so that a window of
    /// as many microseconds would be over before a frame is overtaken.
    seen: VecDeque<u64>,
    heard: Mono,
}

impl Senders {
    /// Enters a genuine frame that came at `now`, unless it was there before.
    ///
    /// # Errors
    /// Any [`Distrust`] but the first.
    pub fn admit(&mut self, stamp: Stamp, now: Mono, wall: Wall) -> Result<(), Distrust> {
        let clock = u64::try_from(wall.0).unwrap_or(0);
        if let Some(sender) = self.known.get_mut(&stamp.sender) {
            return sender.admit(stamp.counter, now);
        }
        if stamp.counter.abs_diff(clock) > FRESH_US {
            return Err(Distrust::Clock);
        }
        self.make_room(now, clock)?;
        let floor = clock.saturating_sub(FRESH_US).saturating_sub(1);
        let mut sender = Sender { floor, seen: VecDeque::new(), heard: now };
        sender.admit(stamp.counter, now)?;
        self.known.insert(stamp.sender, sender);
        Ok(())
    }

    /// Forgets the sender that has been silent for longest, if there is no room for another. None is forgotten whose
    /// frames, sent once more, would pass for those of a newcomer.
    fn make_room(&mut self, now: Mono, clock: u64) -> Result<(), Distrust> {
        if self.known.len() < SENDERS_MAX {
            return Ok(());
        }
        let is_over = |sender: &Sender| {
            let newest = sender.seen.back().copied().unwrap_or(sender.floor);
            now.since(sender.heard) > SILENT_FOR && newest < clock.saturating_sub(FRESH_US)
        };
        let silent = self.known.iter().filter(|(_, sender)| is_over(sender));
        let longest = silent.min_by_key(|(_, sender)| sender.heard).map(|(id, _)| *id);
        self.known.remove(&longest.ok_or(Distrust::TooManySenders)?);
        Ok(())
    }
}

impl Sender {
    fn admit(&mut self, counter: u64, now: Mono) -> Result<(), Distrust> {
        let Err(place) = self.seen.binary_search(&counter) else { return Err(Distrust::Replayed) };
        if counter <= self.floor {
            return Err(Distrust::Replayed);
        }
        self.seen.insert(place, counter);
        if self.seen.len() > WINDOW
            && let Some(oldest) = self.seen.pop_front()
        {
            self.floor = oldest;
        }
        self.heard = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::{Message, encode, parse};
    use crate::id::{Channel, ConnectionId, Scope};

    const SECRET: &[u8] = b"a shared secret of the test";
    const NOW_US: u64 = 1_767_323_045_000_000;
    const NOW: Wall = Wall(1_767_323_045_000_000);

    /// The frame that Python's `hmac` and `struct` make of what is asserted below.
    const FROM_PYTHON: &str = "53540101000600010006475ef64cf34063616c6c2d31806f0001000003c00000cafef8fffe010203040006475ef64cf3414725f24b790fe116fe128d31b781d093";

    fn from_python() -> Vec<u8> {
        let digits = FROM_PYTHON.as_bytes().chunks(2);
        digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    fn frame() -> Vec<u8> {
        let id = ConnectionId::new("call-1").unwrap();
        let rtp = b"\x80\x6f\x00\x01\x00\x00\x03\xc0\x00\x00\xca\xfe\xf8\xff\xfe";
        encode(Message::Rtp.kind(), Scope::Channel(Channel::Caller), Some(NOW), &id, rtp)
    }

    fn stamp(sender: u32, counter: u64) -> Stamp {
        Stamp { sender, counter }
    }

    fn after(secs: u64) -> (Mono, Wall) {
        (Mono(secs * 1_000_000), Wall(NOW.0 + i64::try_from(secs).unwrap() * 1_000_000))
    }

    #[test]
    fn a_frame_signed_by_another_program_is_genuine_and_ours_is_the_same() {
        let bytes = from_python();
        assert_eq!(TapKey::new(SECRET).verify(&bytes), Ok(stamp(0x0102_0304, NOW_US + 1)));
        assert_eq!(parse(&bytes).unwrap(), parse(&frame()).unwrap(), "the trailer is no part of the message");
        let mut signer = Signer::new(TapKey::new(SECRET), 0x0102_0304);
        assert_eq!(signer.sign(&frame(), Wall(NOW.0 + 1)), bytes);
        let next = signer.sign(&frame(), NOW);
        let next = TapKey::new(SECRET).verify(&next).unwrap();
        assert_eq!(next.counter, NOW_US + 2, "a clock that steps back does not turn the counter back");
    }

    #[test]
    fn a_frame_with_any_bit_changed_or_cut_off_is_not_genuine() {
        let (bytes, key) = (from_python(), TapKey::new(SECRET));
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.verify(&changed), Err(Distrust::Unauthenticated), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(key.verify(&bytes[..length]), Err(Distrust::Unauthenticated), "{length} bytes");
        }
        assert_eq!(key.verify(&frame()), Err(Distrust::Unauthenticated));
        assert_eq!(
            TapKey::new(b"a shared secret of the tesT").verify(&bytes),
            Err(Distrust::Unauthenticated)
        );
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", TapKey::new(SECRET)), "TapKey");
    }

    #[test]
    fn a_new_sender_is_believed_only_near_the_wall_clock() {
        for (counter, expected) in [
            (NOW_US - FRESH_US - 1, Err(Distrust::Clock)),
            (NOW_US - FRESH_US, Ok(())),
            (NOW_US + FRESH_US, Ok(())),
            (NOW_US + FRESH_US + 1, Err(Distrust::Clock)),
            (0, Err(Distrust::Clock)),
            (u64::MAX, Err(Distrust::Clock)),
        ] {
            assert_eq!(Senders::default().admit(stamp(1, counter), Mono(0), NOW), expected, "{counter}");
        }
    }

    #[test]
    fn a_known_sender_may_count_as_it_likes_as_long_as_it_counts_up() {
        let mut senders = Senders::default();
        let (now, wall) = after(7200);
        senders.admit(stamp(1, NOW_US), Mono(0), NOW).unwrap();
        senders.admit(stamp(1, NOW_US + 1), now, wall).unwrap();
        senders.admit(stamp(1, u64::MAX), now, wall).unwrap();
        assert_eq!(senders.admit(stamp(1, u64::MAX), now, wall), Err(Distrust::Replayed));
    }

    #[test]
    fn frames_may_overtake_each_other_by_the_window_and_no_more() {
        let mut senders = Senders::default();
        let window = u64::try_from(WINDOW).unwrap();
        let at = |n: u64| stamp(1, NOW_US + n * 20_000);
        for n in (0..=window + 2).filter(|n| ![1, 2].contains(n)) {
            senders.admit(at(n), Mono(n), NOW).unwrap();
        }
        senders.admit(at(2), Mono(0), NOW).expect("as many as the window came later");
        assert_eq!(senders.admit(at(1), Mono(0), NOW), Err(Distrust::Replayed));
        assert_eq!(senders.admit(at(2), Mono(0), NOW), Err(Distrust::Replayed));
    }

    #[test]
    fn no_sender_is_forgotten_while_its_frames_could_be_sent_again() {
        let mut senders = Senders::default();
        let full = u32::try_from(SENDERS_MAX).unwrap();
        // The first is silent for longest, but its clock runs ahead.
        senders.admit(stamp(0, NOW_US + FRESH_US), Mono(0), NOW).unwrap();
        for sender in 1..full {
            senders.admit(stamp(sender, NOW_US), Mono(u64::from(sender)), NOW).unwrap();
        }
        let newcomer = |secs: u64| stamp(full, NOW_US + secs * 1_000_000);
        for secs in [0, 30, 60] {
            let (now, wall) = after(secs);
            assert_eq!(senders.admit(newcomer(secs), now, wall), Err(Distrust::TooManySenders), "{secs} s");
        }
        // The daemon's wall clock has been set back meanwhile.
        let (now, _) = after(100);
        assert_eq!(senders.admit(newcomer(0), now, NOW), Err(Distrust::TooManySenders));
        let (_, wall) = after(59);
        senders.admit(newcomer(59), now, wall).unwrap();
        assert_eq!(senders.known.len(), SENDERS_MAX);
        assert!(senders.known.contains_key(&0) && !senders.known.contains_key(&1));
        assert_eq!(senders.admit(stamp(1, NOW_US), now, wall), Err(Distrust::Clock), "it was forgotten");
        assert_eq!(senders.admit(stamp(0, NOW_US + FRESH_US), now, wall), Err(Distrust::Replayed));
    }

    proptest! {
        /// Whatever is copied off the wire and sent again, in any order, by senders that come and go: it is believed
        /// once at most.
        #[test]
        fn nothing_is_believed_twice(
            steps in vec((0..3u32, 0..90_000_000u64, 0..40u64, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut senders = Senders::default();
            // All places but one are taken for good, so that the three must make room for each other.
            for sender in 1..u32::try_from(SENDERS_MAX).unwrap() {
                senders.admit(stamp(1000 + sender, NOW_US), Mono(0), NOW).unwrap();
                senders.admit(stamp(1000 + sender, u64::MAX), Mono(0), NOW).unwrap();
            }
            let mut believed: Vec<Stamp> = Vec::new();
            let mut clock = 0;
            for (sender, passed, ahead, again) in steps {
                clock += passed;
                let (now, wall) = (Mono(clock), Wall(NOW.0 + i64::try_from(clock).unwrap()));
                let fresh = stamp(sender, NOW_US + clock + ahead);
                if senders.admit(fresh, now, wall).is_ok() {
                    prop_assert!(!believed.contains(&fresh));
                    believed.push(fresh);
                }
                if !believed.is_empty() {
                    let copied = believed[again.index(believed.len())];
                    prop_assert!(senders.admit(copied, now, wall).is_err());
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let announced = [&[0, 0, 0, 0, 0, 0, 0, 1], bytes.as_slice()].concat();
            prop_assert!(TapKey::new(SECRET).verify(&bytes).is_err());
            prop_assert!(TapKey::new(SECRET).verify(&announced).is_err());
        }
    }
}

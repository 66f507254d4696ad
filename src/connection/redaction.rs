//! What a PAUSE keeps out although it comes after the RESUME: a packet that was overtaken, and copies of paused audio in
//! packets that follow. The same holds behind a time in which the call was not wanted.
//!
//! Packets repeat what was said before them, so that a loss can be mended: as RFC 2198 copies (up to 341 ms at 48 kHz, 2 s
//! at 8 kHz), as in-band FEC of Opus (the packet before), as DRED in its padding (up to a second). The packets of a key press
//! say all of it again (RFC 4733). After a PAUSE each of these could bring back a digit that nobody wanted to keep. None of it
//! reaches the spool.
//!
//! The packets of a PAUSE may be lost, or not forwarded. So what counts is not which of them came: the first packet of each
//! source behind the PAUSE is its front, and whatever says something from before the front is kept out. A source of
//! which no packet came since has its front yet to come, and so has one that there was no room to remember: forgetting costs
//! copies, and leaks nothing.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use serde::{Deserialize, Serialize};

use super::repeats::{Reach, is_unknown, key_press_type, wraps_key_press};
use crate::packet::{Rtp, parse_rtp};
use crate::rtpmap::Rtpmap;
use crate::time::Wall;

/// No copy is of a packet farther back than this: 16,383 ticks of 8 kHz are 103 packets of 20 ms, and 410 of 5 ms.
const REACH_PACKETS: i16 = 512;
/// No copy is older than this: its offset has 14 bits.
const REACH_TICKS: u32 = 0x3fff;
/// Sources of a channel that are remembered. A call has one or two at a time.
const SOURCES_MAX: usize = 8;
/// A channel that has had so many more is one of ever new sources. Each new one could not but be taken for the first packet
/// behind the PAUSE, for the rest of the call; so [`FORGOTTEN_US`] behind it this ends.
const FORGOTTEN_MAX: u16 = 64;
const FORGOTTEN_US: i64 = 60_000_000;
/// Two ends of which the later one was noted first are put in order if they are no farther apart: the clock was not set.
const SAME_CLOCK_US: i64 = 60_000_000;

/// What of a packet that comes after a PAUSE may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redacted {
    /// All.
    Whole,
    /// Its header: it was spoken in the PAUSE, or says again what was.
    HeaderOnly,
    /// This, in which the bytes that are to be kept out are zero.
    Body(Vec<u8>),
}

/// What has been withheld of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// When the last PAUSE was over, by the packets' own time. Where a state does not say, there may have been one.
    #[serde(default = "some_time")]
    ended: Option<Wall>,
    /// Those that came last, the latest at the end.
    #[serde(default)]
    sources: Vec<Source>,
    /// How many more there were since then.
    #[serde(default)]
    forgotten: u16,
}

/// What is known of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Source {
    ssrc: u32,
    pub(super) withheld: Option<Withheld>,
    /// The timestamp of the key press that was withheld last.
    pub(super) event: Option<u32>,
    front: Option<Front>,
    /// The first packet behind a PAUSE of those that nobody knows the meaning of: it is no front, and tells how near they are.
    near: Option<Front>,
}

/// The packets of a PAUSE, as far as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Withheld {
    first: u16,
    last: u16,
    pub(super) last_timestamp: u32,
}

/// The first packet behind a PAUSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Front {
    sequence: u16,
    pub(super) timestamp: u32,
    own: Wall,
    /// Whether packets are behind it by more than any copy reaches.
    is_past: bool,
}

impl Front {
    /// The same, where a packet with this number came.
    fn passed_by(self, sequence: u16) -> Self {
        let behind = distance(self.sequence, sequence);
        let is_past = behind > REACH_PACKETS || behind < REACH_PACKETS.saturating_neg();
        Self { is_past: self.is_past || is_past, ..self }
    }

    /// Whether a packet is no farther behind it than copies reach.
    fn is_near(self, sequence: u16, timestamp: u32) -> bool {
        let ticks = timestamp.wrapping_sub(self.timestamp);
        !self.is_past && (ticks <= REACH_TICKS || distance(self.sequence, sequence) <= 0)
    }
}

/// Where a packet stands that came outside a PAUSE.
enum Place {
    /// Where no copy reaches back into one, or before it.
    Outside,
    /// Among the packets of one.
    Within,
    /// Behind one.
    Behind(Reach),
}

impl Redaction {
    /// Notes a packet that came during a PAUSE. `said` is what the gateway has said of a payload type.
    pub fn withhold(&mut self, packet: &Rtp<'_>, said: impl Fn(u8) -> Option<Rtpmap>) {
        let Rtp { ssrc, sequence, timestamp, .. } = *packet;
        let is_event = key_press_type(packet, &said).is_some();
        let source = self.source(ssrc);
        let begin = Withheld { first: sequence, last: sequence, last_timestamp: timestamp };
        let is_near =
            |known: &Withheld| distance(known.last, sequence).unsigned_abs() <= REACH_PACKETS.unsigned_abs();
        let mut known = source.withheld.filter(is_near).unwrap_or(begin);
        if distance(known.last, sequence) > 0 {
            (known.last, known.last_timestamp) = (sequence, timestamp);
        }
        if distance(known.first, sequence) < 0 {
            known.first = sequence;
        }
        source.withheld = Some(known);
        source.event = if is_event { Some(timestamp) } else { source.event };
        (source.front, source.near) = (None, None);
    }

    /// Notes that a PAUSE is over, at this time of the packets' own.
    pub fn end(&mut self, own: Wall) {
        let is_before = |last: &Wall| last.0.saturating_sub(own.0) <= SAME_CLOCK_US;
        self.ended = Some(self.ended.filter(is_before).map_or(own, |last| last.max(own)));
        self.forgotten = 0;
        self.sources.iter_mut().for_each(|source| (source.front, source.near) = (None, None));
    }

    /// Notes a packet of which the spool has what may be kept, to say the same of those behind it as when it came.
    pub fn note(&mut self, own: Wall, packet: &Rtp<'_>, is_whole: bool, said: impl Fn(u8) -> Option<Rtpmap>) {
        if self.ended.is_none() && self.sources.is_empty() {
            return;
        }
        let is_event = key_press_type(packet, &said).is_some();
        if is_event && !is_whole {
            self.note_event(packet);
        }
        self.place(own, packet, &said);
    }

    /// Decides what of a packet's `body` may be kept, outside a PAUSE. `own` is its time, `said` what the gateway has said
    /// of a payload type.
    pub fn redact(&mut self, own: Wall, body: &[u8], said: impl Fn(u8) -> Option<Rtpmap>) -> Redacted {
        if self.ended.is_none() && self.sources.is_empty() {
            return Redacted::Whole;
        }
        let Ok(packet) = parse_rtp(body) else { return Redacted::Whole };
        let is_event = key_press_type(&packet, &said).is_some();
        let reach = match self.place(own, &packet, &said) {
            Place::Outside => return Redacted::Whole,
            Place::Within => return Redacted::HeaderOnly,
            Place::Behind(reach) => reach,
        };
        let redacted = reach.redact(body, &packet, &said);
        if redacted == Redacted::HeaderOnly && is_event {
            self.note_event(&packet);
        }
        redacted
    }

    fn note_event(&mut self, packet: &Rtp<'_>) {
        self.source(packet.ssrc).event = Some(packet.timestamp);
    }

    /// Finds where a packet stands. The first of its source behind a PAUSE becomes its front, unless it is of a key press, or
    /// may be: that may have begun before, and the audio behind it says again what the audio before it said.
    fn place(&mut self, own: Wall, packet: &Rtp<'_>, said: &impl Fn(u8) -> Option<Rtpmap>) -> Place {
        let Rtp { ssrc, sequence, timestamp, .. } = *packet;
        let ended = self.ended;
        if !self.sources.iter().any(|source| source.ssrc == ssrc) {
            let Some(ended) = ended else { return Place::Outside };
            let is_over = own.0.saturating_sub(ended.0) > FORGOTTEN_US;
            if self.forgotten >= FORGOTTEN_MAX && is_over {
                return Place::Outside;
            }
        }
        let source = self.source(ssrc);
        if let Some(withheld) = source.withheld {
            let behind = distance(withheld.last, sequence);
            if behind.unsigned_abs() > REACH_PACKETS.unsigned_abs() {
                source.withheld = None;
            } else if behind <= 0 {
                let is_within = distance(withheld.first, sequence) >= 0;
                return if is_within { Place::Within } else { Place::Outside };
            }
        }
        // A packet from before the PAUSE that was overtaken by its end is no front.
        let is_since = |own: Wall| ended.is_none_or(|ended| own >= ended);
        let holds = |front: &Front| is_since(front.own) || !is_since(own);
        let this = Front { sequence, timestamp, own, is_past: false };
        let known = source.front.filter(holds);
        let near = source.near.filter(holds);
        let front = known.unwrap_or(this).passed_by(sequence);
        let is_unknown = is_unknown(packet, said);
        // The header that is left of a key press of a type that nobody told does not tell it.
        let is_of_event = said(packet.payload_type).is_none() && source.event == Some(timestamp);
        let is_front = !is_unknown && !is_of_event && key_press_type(packet, said).is_none();
        source.front = Some(front).filter(|_| known.is_some() || is_front);
        let is_first = is_unknown && !is_of_event && !wraps_key_press(packet.payload);
        let near = near.or(Some(this).filter(|_| is_first)).map(|near| near.passed_by(sequence));
        source.near = near;
        if front.is_past {
            (source.withheld, source.event) = (None, None);
            return Place::Outside;
        }
        let behind = distance(front.sequence, sequence);
        let near = near.filter(|_| is_unknown && known.is_none()).unwrap_or(front);
        let is_near = near.is_near(sequence, timestamp);
        Place::Behind(Reach { source: *source, front, behind, is_near, own, ended })
    }

    /// What is known of a source, which is the latest from now on.
    fn source(&mut self, ssrc: u32) -> &mut Source {
        let last = self.sources.len().saturating_sub(1);
        match self.sources.iter().position(|source| source.ssrc == ssrc) {
            Some(at) if at == last => {}
            Some(at) => self.sources.get_mut(at..).unwrap_or_default().rotate_left(1),
            None => {
                if self.sources.len() >= SOURCES_MAX {
                    self.sources.remove(0);
                    self.forgotten = self.forgotten.saturating_add(1);
                }
                self.sources.push(Source { ssrc, withheld: None, event: None, front: None, near: None });
            }
        }
        self.sources.last_mut().expect("one that was found or pushed")
    }
}

fn some_time() -> Option<Wall> {
    Some(Wall(i64::MIN))
}

/// How many numbers `to` lies behind `from`, modulo 2^16.
fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::super::repeats::SEGMENT_TICKS;
    use super::*;
    use proptest::prelude::*;

    const OPUS: u8 = 111;
    const RED: u8 = 63;
    const KEYS: u8 = 101;

    fn said(payload_type: u8) -> Option<Rtpmap> {
        match payload_type {
            RED => Rtpmap::parse("red/48000/2").ok(),
            KEYS => Rtpmap::parse("telephone-event/48000").ok(),
            _ => None,
        }
    }

    fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&7u32.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    /// The timestamp of the packet with this number, and its time: 20 ms each, packet 2 a millisecond behind the pause.
    fn time(sequence: u16) -> (u32, Wall) {
        let behind = i32::from(distance(2, sequence));
        (3880u32.wrapping_add_signed(behind * 960), Wall(1000 + i64::from(behind) * 20_000))
    }

    /// Three packets withheld, 65,535 to 1.
    fn paused() -> Redaction {
        let mut redaction = Redaction::default();
        for sequence in [65_535, 1, 0] {
            redaction.withhold(&parse_rtp(&rtp(OPUS, sequence, time(sequence).0, &[])).unwrap(), said);
        }
        redaction.end(Wall(0));
        redaction
    }

    fn enter(redaction: &mut Redaction, sequence: u16, payload_type: u8, payload: &[u8]) -> Redacted {
        let (timestamp, own) = time(sequence);
        redaction.redact(own, &rtp(payload_type, sequence, timestamp, payload), said)
    }

    /// What is kept of a packet of which the one with the number 2 is the first behind the pause.
    fn redact(sequence: u16, payload_type: u8, payload: &[u8]) -> Redacted {
        let mut redaction = paused();
        if distance(2, sequence) > 0 {
            assert_eq!(enter(&mut redaction, 2, OPUS, &silk(false)), Redacted::Whole);
        }
        enter(&mut redaction, sequence, payload_type, payload)
    }

    /// A SILK packet of 20 ms: voice activity, and with `fec` the flag of a copy.
    fn silk(fec: bool) -> [u8; 3] {
        [9 << 3, 0x80 | if fec { 0x40 } else { 0 }, 1]
    }

    /// A redundant payload: blocks of one type, each so many packets older than the last, which is the packet's own.
    fn red(payload_type: u8, copies: &[(u32, &[u8])], own: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        for (age, copy) in copies {
            let bits = (age * 960) << 10 | u32::try_from(copy.len()).unwrap();
            payload.push(0x80 | payload_type);
            payload.extend_from_slice(&bits.to_be_bytes()[1..]);
        }
        payload.push(payload_type);
        copies.iter().for_each(|(_, copy)| payload.extend_from_slice(copy));
        [&payload, own].concat()
    }

    /// A packet of a key press that has lasted so many packets.
    fn key(packets: u16) -> [u8; 4] {
        let [high, low] = (packets * 960).to_be_bytes();
        [9, 10, high, low]
    }

    fn is_body(redacted: &Redacted, holds: &[u8]) -> bool {
        matches!(redacted, Redacted::Body(body) if body.windows(holds.len()).any(|found| found == holds))
    }

    #[test]
    fn what_was_overtaken_by_the_resume_is_kept_out() {
        for sequence in [65_535, 0, 1] {
            assert_eq!(redact(sequence, OPUS, &silk(false)), Redacted::HeaderOnly, "{sequence}");
        }
        assert_eq!(redact(65_534, OPUS, &silk(false)), Redacted::Whole, "from before the pause");
        assert_eq!(redact(2, OPUS, &silk(false)), Redacted::Whole);
    }

    #[test]
    fn in_band_fec_of_the_last_paused_packet_is_kept_out() {
        assert_eq!(redact(2, OPUS, &silk(true)), Redacted::HeaderOnly);
        assert_eq!(redact(3, OPUS, &silk(true)), Redacted::Whole, "a copy of packet 2, which is kept");
        assert_eq!(enter(&mut paused(), 3, OPUS, &silk(true)), Redacted::HeaderOnly, "packet 2 did not come");
        let mut unseen = Redaction::default();
        unseen.end(Wall(0));
        assert_eq!(enter(&mut unseen, 2, OPUS, &silk(true)), Redacted::HeaderOnly, "none came");
        assert_eq!(
            enter(&mut unseen, 3, OPUS, &silk(true)),
            Redacted::Whole,
            "and only that one pays for it"
        );
    }

    #[test]
    fn padding_may_hold_deep_redundancy_and_is_zeroed() {
        // Code 3, one frame, four bytes of padding.
        let padded = [(9 << 3) | 3, 0x41, 4, 0x80, 5, 6, 1, 2, 3, 4];
        let Redacted::Body(body) = redact(40, OPUS, &padded) else { panic!("not changed") };
        assert_eq!(body[12..], [(9 << 3) | 3, 0x41, 4, 0x80, 5, 6, 0, 0, 0, 0]);
        assert_eq!(redact(600, OPUS, &padded), Redacted::Whole, "out of reach");
        let mut unseen = Redaction::default();
        unseen.end(Wall(0));
        assert!(
            matches!(enter(&mut unseen, 2, OPUS, &padded), Redacted::Body(_)),
            "no packet of the pause came"
        );
    }

    #[test]
    fn copies_of_paused_packets_are_zeroed_and_the_others_stay() {
        let copies: [(u32, &[u8]); 2] = [(2, b"\xfctwo"), (1, b"\xfcone")];
        let is_left = |redacted: &Redacted| [b"\xfctwo", b"\xfcone"].map(|copy| is_body(redacted, copy));
        let payload = red(OPUS, &copies, &silk(false));
        assert_eq!(
            redact(2, RED, &red(OPUS, &copies, &silk(true))),
            Redacted::HeaderOnly,
            "its FEC is of packet 1"
        );
        let redacted = redact(2, RED, &payload);
        assert!(is_body(&redacted, &silk(false)));
        assert_eq!(is_left(&redacted), [false, false]);
        assert_eq!(is_left(&redact(3, RED, &payload)), [false, true], "the newer one is of packet 2");
        assert_eq!(redact(4, RED, &payload), Redacted::Whole);
        let fec: [(u32, &[u8]); 1] = [(1, &silk(true))];
        let redacted = redact(3, RED, &red(OPUS, &fec, &silk(false)));
        assert!(
            !is_body(&redacted, &silk(true)) && is_body(&redacted, &silk(false)),
            "it says packet 1 again"
        );
        assert_eq!(redact(2, RED, &payload[..3]), Redacted::HeaderOnly, "what cannot be taken apart");
    }

    #[test]
    fn copies_of_paused_packets_that_did_not_come_are_zeroed() {
        let copies: [(u32, &[u8]); 2] = [(2, b"\xfctwo"), (1, b"\xfcone")];
        let mut unseen = Redaction::default();
        unseen.end(Wall(0));
        let redacted = enter(&mut unseen, 2, RED, &red(OPUS, &copies, b"\xfcown"));
        assert!(
            is_body(&redacted, b"\xfcown")
                && !is_body(&redacted, b"\xfcone")
                && !is_body(&redacted, b"\xfctwo")
        );
        let redacted = enter(&mut paused(), 3, RED, &red(OPUS, &copies, b"\xfcown"));
        assert!(!is_body(&redacted, b"\xfcone"), "packet 2 may have been of the pause, nobody knows");
    }

    #[test]
    fn a_packet_from_before_the_pause_is_not_the_first_behind_it() {
        let mut redaction = Redaction::default();
        redaction.end(Wall(0));
        assert_eq!(enter(&mut redaction, 65_500, OPUS, &silk(false)), Redacted::Whole);
        let copies: [(u32, &[u8]); 1] = [(1, b"\xfcone")];
        assert!(!is_body(&enter(&mut redaction, 2, RED, &red(OPUS, &copies, b"\xfcown")), b"\xfcone"));
        assert_eq!(enter(&mut redaction, 3, RED, &red(OPUS, &copies, b"\xfcown")), Redacted::Whole);
    }

    #[test]
    fn copies_are_kept_out_before_anybody_says_what_a_payload_type_means() {
        let copies: [(u32, &[u8]); 2] = [(2, b"\xfctwo"), (1, b"\xfcone")];
        for unnamed in [35, 112] {
            let redacted = redact(2, unnamed, &red(OPUS, &copies, b"\xfcown"));
            assert!(is_body(&redacted, b"\xfcown") && !is_body(&redacted, b"\xfcone"), "{unnamed}");
        }
        assert_eq!(redact(3, 35, b"who knows"), Redacted::HeaderOnly);
        assert_eq!(redact(40, 35, b"who knows"), Redacted::Whole, "no copy reaches so far");
        assert_eq!(redact(2, OPUS, &silk(false)), Redacted::Whole, "and what needs no name is kept");
    }

    #[test]
    fn a_source_that_nobody_knows_the_codec_of_is_kept_where_no_copy_reaches() {
        const G729: u8 = 18;
        let mut unseen = Redaction::default();
        unseen.end(Wall(0));
        for mut redaction in [paused(), unseen] {
            // At 48 kHz the reach ends in packet 20.
            let kept: Vec<_> = (2..=1200u16)
                .filter(|sequence| enter(&mut redaction, *sequence, G729, &[0xff; 20]) == Redacted::Whole)
                .collect();
            assert_eq!(kept, (20..=1200).collect::<Vec<_>>());
            assert_eq!(
                enter(&mut redaction, 1201, OPUS, &silk(true)),
                Redacted::HeaderOnly,
                "the first of a codec"
            );
            redaction.end(time(1202).1);
            assert_eq!(
                enter(&mut redaction, 1203, G729, &[0xff; 20]),
                Redacted::HeaderOnly,
                "the next pause"
            );
            assert_eq!(enter(&mut redaction, 1230, G729, &[0xff; 20]), Redacted::Whole);
        }
    }

    #[test]
    fn a_key_of_a_payload_type_that_nobody_told_keeps_no_digit_behind_the_pause() {
        let in_red = |packets| red(96, &[], &key(packets));
        for (untold, is_wrapped) in [(96, false), (35, false), (35, true)] {
            let mut unseen = Redaction::default();
            unseen.end(Wall(0));
            for mut redaction in [paused(), unseen] {
                let mut event = |sequence: u16, began: u16, packets| {
                    let payload = if is_wrapped { in_red(packets) } else { key(packets).to_vec() };
                    redaction.redact(time(sequence).1, &rtp(untold, sequence, time(began).0, &payload), said)
                };
                for (sequence, packets) in [(2, 3), (3, 4), (60, 61), (61, 61)] {
                    assert_eq!(event(sequence, 0, packets), Redacted::HeaderOnly, "{untold} {sequence}");
                }
                assert_eq!(event(1000, 1000, 1), Redacted::Whole, "{untold}: the next key");
                assert_eq!(enter(&mut redaction, 1001, OPUS, &silk(true)), Redacted::HeaderOnly, "no front");
            }
        }
    }

    #[test]
    fn a_key_pressed_in_a_pause_keeps_no_digit_behind_it() {
        let event = |redaction: &mut Redaction, sequence, began: u16, kind, payload: &[u8]| {
            let (_, own) = time(sequence);
            redaction.redact(own, &rtp(kind, sequence, time(began).0, payload), said)
        };
        let in_red = |packets| red(KEYS, &[], &key(packets));
        let mut unseen = Redaction::default();
        unseen.end(Wall(0));
        for mut redaction in [paused(), unseen] {
            // Pressed in packet 0, and at its end told three times.
            for (sequence, packets) in [(2, 3), (3, 4), (4, 4), (5, 4)] {
                let mut other = redaction.clone();
                let one = event(&mut redaction, sequence, 0, KEYS, &key(packets));
                assert_eq!(one, Redacted::HeaderOnly, "{sequence}");
                assert_eq!(event(&mut other, sequence, 0, RED, &in_red(packets)), Redacted::HeaderOnly);
            }
            assert_eq!(event(&mut redaction, 6, 6, KEYS, &key(1)), Redacted::Whole, "the next key");
            let copies: [(u32, &[u8]); 1] = [(6, &key(4))];
            let redundant = red(KEYS, &copies, &key(2));
            assert!(!is_body(&event(&mut redaction, 7, 6, RED, &redundant), &key(4)));
        }
        let mut redaction = paused();
        assert_eq!(enter(&mut redaction, 2, OPUS, &silk(false)), Redacted::Whole);
        assert_eq!(event(&mut redaction, 3, 1, KEYS, &key(0)), Redacted::HeaderOnly, "behind other packets");
        let long = rtp(KEYS, 4, time(1).0 + SEGMENT_TICKS, &key(1));
        assert_eq!(redaction.redact(Wall(2_000_000), &long, said), Redacted::HeaderOnly, "its next segment");
    }

    #[test]
    fn each_source_has_its_own_pause() {
        let mut redaction = Redaction::default();
        let from = |source: u8, sequence: u16, payload_type: u8, payload: &[u8]| {
            let mut packet = rtp(payload_type, sequence, time(sequence).0, payload);
            packet[11] = source;
            packet
        };
        for source in [7, 8, 7, 8] {
            redaction.withhold(&parse_rtp(&from(source, 1, OPUS, &[])).unwrap(), said);
        }
        redaction.end(Wall(0));
        let copies: [(u32, &[u8]); 1] = [(1, b"\xfcone")];
        for source in [8, 7, 9] {
            let redacted =
                redaction.redact(Wall(1000), &from(source, 2, RED, &red(OPUS, &copies, b"\xfcown")), said);
            assert!(is_body(&redacted, b"\xfcown") && !is_body(&redacted, b"\xfcone"), "{source}");
            let redacted =
                redaction.redact(Wall(1000), &from(source, 3, RED, &red(OPUS, &copies, b"\xfcown")), said);
            assert_eq!(redacted, Redacted::Whole, "{source}");
        }
    }

    #[test]
    fn of_ever_new_sources_few_are_remembered_and_none_brings_a_copy_soon_behind_the_pause() {
        let mut redaction = paused();
        let copies: [(u32, &[u8]); 1] = [(1, b"\xfcone")];
        let mut enter = |source: u8, own: i64| {
            let mut packet = rtp(RED, 9, 9, &red(OPUS, &copies, b"\xfcown"));
            packet[11] = source;
            redaction.redact(Wall(own), &packet, said)
        };
        assert!((0..=255).all(|source| !is_body(&enter(source, 1000), b"\xfcone")));
        assert_eq!(enter(1, FORGOTTEN_US + 1), Redacted::Whole);
        assert_eq!(redaction.sources.len(), SOURCES_MAX);
    }

    #[test]
    fn a_channel_never_paused_is_left_alone() {
        let packet = rtp(OPUS, 2, 0, &silk(true));
        assert_eq!(Redaction::default().redact(Wall(0), &packet, said), Redacted::Whole);
    }

    #[test]
    fn a_state_of_one_source_is_taken_for_one_of_which_nothing_is_known() {
        let before = r#"{"withheld":{"ssrc":7,"first":2,"last":3,"last_timestamp":4}}"#;
        let mut redaction: Redaction = serde_json::from_str(before).unwrap();
        assert_eq!(enter(&mut redaction, 2, OPUS, &silk(true)), Redacted::HeaderOnly);
        assert_eq!(enter(&mut redaction, 3, OPUS, &silk(true)), Redacted::Whole);
    }

    proptest! {
        #[test]
        fn any_packet_keeps_its_length_and_its_header(
            sequence in any::<u16>(), is_red in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let body = rtp(if is_red { RED } else { OPUS }, sequence, 2920, &payload);
            if let Redacted::Body(redacted) = paused().redact(Wall(0), &body, said) {
                prop_assert_eq!(redacted.len(), body.len());
                prop_assert_eq!(&redacted[..12], &body[..12]);
            }
        }
    }
}

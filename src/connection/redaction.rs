//! What a PAUSE keeps out although it comes after the RESUME: a packet that was overtaken, and copies of paused audio in
//! packets that follow.
//!
//! Packets repeat what was said before them, so that a loss can be mended: as RFC 2198 copies (up to 341 ms at 48 kHz, 2 s
//! at 8 kHz), as in-band FEC of Opus (the packet before), as DRED in its padding (up to a second). After a PAUSE each of
//! these could bring back a digit that nobody wanted to keep. None of it reaches the spool.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use serde::{Deserialize, Serialize};

use crate::opus::packet::{has_redundancy, padding_bytes};
use crate::packet::{Rtp, parse_rtp};
use crate::red;
use crate::rtpmap::{Codec, Rtpmap};

/// No copy is of a packet farther back than this: 16,383 ticks of 8 kHz are 103 packets of 20 ms, and 410 of 5 ms.
const REACH_PACKETS: i16 = 512;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    withheld: Option<Withheld>,
}

/// The packets of a PAUSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Withheld {
    ssrc: u32,
    first: u16,
    last: u16,
    last_timestamp: u32,
}

impl Redaction {
    /// Notes a packet that came during a PAUSE.
    pub fn withhold(&mut self, packet: &Rtp<'_>) {
        let Rtp { ssrc, sequence, timestamp, .. } = *packet;
        let begin = Withheld { ssrc, first: sequence, last: sequence, last_timestamp: timestamp };
        let known = self.withheld.filter(|known| {
            known.ssrc == ssrc
                && distance(known.last, sequence).unsigned_abs() <= REACH_PACKETS.unsigned_abs()
        });
        let mut known = known.unwrap_or(begin);
        if distance(known.last, sequence) > 0 {
            (known.last, known.last_timestamp) = (sequence, timestamp);
        }
        if distance(known.first, sequence) < 0 {
            known.first = sequence;
        }
        self.withheld = Some(known);
    }

    /// Decides what of a packet's `body` may be kept, outside a PAUSE. `rtpmap` says what a payload type means.
    pub fn redact(&mut self, body: &[u8], rtpmap: impl Fn(u8) -> Rtpmap) -> Redacted {
        let Some(withheld) = self.withheld else { return Redacted::Whole };
        let Ok(packet) = parse_rtp(body) else { return Redacted::Whole };
        if packet.ssrc != withheld.ssrc {
            return Redacted::Whole;
        }
        let behind = distance(withheld.last, packet.sequence);
        if behind <= 0 {
            let is_within = distance(withheld.first, packet.sequence) >= 0;
            return if is_within { Redacted::HeaderOnly } else { Redacted::Whole };
        }
        if behind > REACH_PACKETS {
            self.withheld = None;
            return Redacted::Whole;
        }
        match rtpmap(packet.payload_type).codec {
            Codec::Opus if says_again(packet.payload, behind) => Redacted::HeaderOnly,
            Codec::Opus => {
                let mut zeroed = Zeroed::of(body, &packet);
                zeroed.padding_of(packet.payload);
                zeroed.done()
            }
            Codec::Red => withheld.redact_copies(body, &packet, behind, rtpmap),
            _ => Redacted::Whole,
        }
    }
}

impl Withheld {
    /// Keeps out those blocks of a redundant packet that are of the PAUSE, or say again what was said in it.
    fn redact_copies(
        &self,
        body: &[u8],
        packet: &Rtp<'_>,
        behind: i16,
        rtpmap: impl Fn(u8) -> Rtpmap,
    ) -> Redacted {
        // What cannot be taken apart may hold anything.
        let Some(blocks) = red::blocks(packet.payload) else { return Redacted::HeaderOnly };
        let mut zeroed = Zeroed::of(body, packet);
        for block in blocks {
            let age = i16::try_from(block.age).unwrap_or(i16::MAX);
            let behind = behind.saturating_sub(age);
            let timestamp = packet.timestamp.wrapping_sub(block.older_ticks);
            let is_old = block.age > 0 && (behind <= 0 || !is_later(timestamp, self.last_timestamp));
            let is_opus = rtpmap(block.payload_type).codec == Codec::Opus;
            if is_old || (is_opus && says_again(block.payload, behind)) {
                if block.age == 0 {
                    return Redacted::HeaderOnly;
                }
                zeroed.all_of(block.payload);
            } else if is_opus {
                zeroed.padding_of(block.payload);
            }
        }
        zeroed.done()
    }
}

/// Whether an Opus packet so many numbers behind the PAUSE repeats its last packet.
fn says_again(payload: &[u8], behind: i16) -> bool {
    behind == 1 && has_redundancy(payload)
}

/// A body in which some bytes are zeroed.
struct Zeroed<'a> {
    body: &'a [u8],
    /// Where the payload ends.
    payload: &'a [u8],
    copy: Option<Vec<u8>>,
}

impl<'a> Zeroed<'a> {
    fn of(body: &'a [u8], packet: &Rtp<'a>) -> Self {
        Self { body, payload: packet.payload, copy: None }
    }

    /// Zeroes a part of the payload.
    fn all_of(&mut self, part: &[u8]) {
        self.end_of(part, part.len());
    }

    /// Zeroes the padding of an Opus packet in the payload.
    fn padding_of(&mut self, packet: &[u8]) {
        self.end_of(packet, padding_bytes(packet));
    }

    /// Zeroes the last `count` bytes of a part of the payload.
    fn end_of(&mut self, part: &[u8], count: usize) {
        if count == 0 || part.is_empty() {
            return;
        }
        debug_assert!(self.payload.as_ptr_range().contains(&part.as_ptr()), "a part of the payload");
        let end = part.as_ptr_range().end.addr().saturating_sub(self.body.as_ptr().addr());
        let copy = self.copy.get_or_insert_with(|| self.body.to_vec());
        if let Some(bytes) = copy.get_mut(end.saturating_sub(count)..end) {
            bytes.fill(0);
        }
    }

    fn done(self) -> Redacted {
        match self.copy {
            Some(body) if body != self.body => Redacted::Body(body),
            _ => Redacted::Whole,
        }
    }
}

/// How many numbers `to` lies behind `from`, modulo 2^16.
fn distance(from: u16, to: u16) -> i16 {
    to.wrapping_sub(from).cast_signed()
}

fn is_later(timestamp: u32, than: u32) -> bool {
    timestamp.wrapping_sub(than).cast_signed() > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPUS: u8 = 111;
    const RED: u8 = 63;

    fn rtpmap(payload_type: u8) -> Rtpmap {
        match payload_type {
            RED => Rtpmap::parse("red/48000/2").unwrap(),
            _ => Rtpmap::default_for(payload_type),
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

    /// Three packets withheld, 65,535 to 1.
    fn paused() -> Redaction {
        let mut redaction = Redaction::default();
        for (sequence, timestamp) in [(65_535, 1000), (1, 2920), (0, 1960)] {
            redaction.withhold(&parse_rtp(&rtp(OPUS, sequence, timestamp, &[])).unwrap());
        }
        redaction
    }

    fn redact(sequence: u16, payload_type: u8, payload: &[u8]) -> Redacted {
        let timestamp = 2920 + u32::from(sequence.wrapping_sub(1)) * 960;
        paused().redact(&rtp(payload_type, sequence, timestamp, payload), rtpmap)
    }

    /// A SILK packet of 20 ms: voice activity, and with `fec` the flag of a copy.
    fn silk(fec: bool) -> [u8; 3] {
        [9 << 3, 0x80 | if fec { 0x40 } else { 0 }, 1]
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
    }

    #[test]
    fn padding_may_hold_deep_redundancy_and_is_zeroed() {
        // Code 3, one frame, four bytes of padding.
        let padded = [(9 << 3) | 3, 0x41, 4, 0x80, 5, 6, 1, 2, 3, 4];
        let Redacted::Body(body) = redact(40, OPUS, &padded) else { panic!("not changed") };
        assert_eq!(body[12..], [(9 << 3) | 3, 0x41, 4, 0x80, 5, 6, 0, 0, 0, 0]);
        assert_eq!(redact(600, OPUS, &padded), Redacted::Whole, "out of reach");
    }

    #[test]
    fn copies_of_paused_packets_are_zeroed_and_the_others_stay() {
        // The packet before, and the packet itself.
        let mut payload = vec![0x80 | OPUS, 0x0f, 0, 3, OPUS];
        payload.extend_from_slice(&silk(false));
        payload.extend_from_slice(&silk(true));
        payload[2] = 0;
        let offset_960 = (960u32 << 10 | 3).to_be_bytes();
        payload[1..4].copy_from_slice(&offset_960[1..]);
        assert_eq!(redact(2, RED, &payload), Redacted::HeaderOnly, "its own FEC is of packet 1");
        let Some(fec) = payload.get_mut(9) else { panic!() };
        *fec &= !0x40;
        let Redacted::Body(body) = redact(2, RED, &payload) else { panic!("not changed") };
        assert_eq!(body[17..20], [0, 0, 0], "the copy of packet 1");
        assert_eq!(body[20..], payload[8..], "its own audio");
        assert_eq!(redact(3, RED, &payload), Redacted::Whole, "a copy of packet 2");
        payload[6] |= 0x40;
        let Redacted::Body(body) = redact(3, RED, &payload) else { panic!("not changed") };
        assert_eq!(body[17..20], [0, 0, 0], "a copy of packet 2 that says packet 1 again");
        assert_eq!(redact(2, RED, &payload[..3]), Redacted::HeaderOnly, "what cannot be taken apart");
    }

    #[test]
    fn another_source_and_a_channel_never_paused_are_left_alone() {
        let packet = rtp(OPUS, 2, 0, &silk(true));
        assert_eq!(Redaction::default().redact(&packet, rtpmap), Redacted::Whole);
        let mut other = packet;
        other[11] = 8;
        assert_eq!(paused().redact(&other, rtpmap), Redacted::Whole);
    }

    proptest! {
        #[test]
        fn any_packet_keeps_its_length_and_its_header(
            sequence in any::<u16>(), is_red in any::<bool>(), payload in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let body = rtp(if is_red { RED } else { OPUS }, sequence, 2920, &payload);
            if let Redacted::Body(redacted) = paused().redact(&body, rtpmap) {
                prop_assert_eq!(redacted.len(), body.len());
                prop_assert_eq!(&redacted[..12], &body[..12]);
            }
        }
    }
}

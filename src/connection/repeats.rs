//! What a packet says again of what was said before it: copies (RFC 2198), in-band FEC, padding that may be DRED, key presses.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use super::digits::{KEY_PRESSES, has_form_of_key, may_be_key_presses};
use super::redaction::{Front, Redacted, Source, Withheld};
use crate::opus::packet::{has_redundancy, padding_bytes};
use crate::packet::Rtp;
use crate::red;
use crate::rtpmap::{Codec, Rtpmap};
use crate::time::Wall;

/// A segment of a long event is no longer than this, in ticks; the next one is the same key press (RFC 4733 section 2.5.1.3).
pub(super) const SEGMENT_TICKS: u32 = 0xffff;

/// Of a packet behind a PAUSE, what may be of the PAUSE.
pub(super) struct Reach {
    pub(super) source: Source,
    pub(super) front: Front,
    /// How many numbers it is behind the front: 0 for the front itself.
    pub(super) behind: i16,
    /// Whether no more than a copy reaches back lies between it and the first.
    pub(super) is_near: bool,
    pub(super) own: Wall,
    pub(super) ended: Option<Wall>,
}

impl Reach {
    /// Decides what of a packet's `body` may be kept.
    pub(super) fn redact(
        &self,
        body: &[u8],
        packet: &Rtp<'_>,
        said: &impl Fn(u8) -> Option<Rtpmap>,
    ) -> Redacted {
        let rtpmap = meaning(packet.payload_type, packet.payload, said);
        // Nobody may have said yet that it is one of copies; and what nobody knows may be anything.
        let is_untold = said(packet.payload_type).is_none();
        let seems_red = || is_untold && self.is_near && seems_redundant(packet.payload);
        let wraps_key = || is_untold && wraps_key_press(packet.payload);
        match rtpmap.codec {
            Codec::Red => self.redact_copies(body, packet, said),
            Codec::Opus | Codec::Unknown if seems_red() => self.redact_copies(body, packet, said),
            Codec::Unknown if wraps_key() => self.redact_copies(body, packet, said),
            Codec::Unknown if self.is_near => Redacted::HeaderOnly,
            Codec::Opus if self.says_again(packet.payload, self.behind) => Redacted::HeaderOnly,
            Codec::Opus => {
                let mut zeroed = Zeroed::of(body, packet);
                zeroed.padding_of(packet.payload);
                zeroed.done()
            }
            Codec::TelephoneEvent if self.is_event(packet.timestamp, packet.payload, 0, rtpmap) => {
                Redacted::HeaderOnly
            }
            _ => Redacted::Whole,
        }
    }

    /// Keeps out those blocks of a redundant packet that are of the PAUSE, or say again what was said in it.
    fn redact_copies(&self, body: &[u8], packet: &Rtp<'_>, said: &impl Fn(u8) -> Option<Rtpmap>) -> Redacted {
        // What cannot be taken apart may hold anything.
        let Some(blocks) = red::blocks(packet.payload) else { return Redacted::HeaderOnly };
        let mut zeroed = Zeroed::of(body, packet);
        for block in blocks {
            let age = i16::try_from(block.age).unwrap_or(i16::MAX);
            let behind = self.behind.saturating_sub(age);
            let timestamp = packet.timestamp.wrapping_sub(block.older_ticks);
            let rtpmap = meaning(block.payload_type, block.payload, said);
            let is_old = block.age > 0 && (behind < 0 || is_later(self.front.timestamp, timestamp));
            let says_again = match rtpmap.codec {
                Codec::Opus => self.says_again(block.payload, behind),
                Codec::TelephoneEvent => self.is_event(timestamp, block.payload, block.older_ticks, rtpmap),
                // Copies of copies.
                Codec::Red => true,
                _ => false,
            };
            if is_old || says_again {
                if block.age == 0 {
                    return Redacted::HeaderOnly;
                }
                zeroed.all_of(block.payload);
            } else if rtpmap.codec == Codec::Opus {
                zeroed.padding_of(block.payload);
            }
        }
        zeroed.done()
    }

    /// Whether an Opus packet so many numbers behind the front repeats the packet before the front.
    fn says_again(&self, payload: &[u8], behind: i16) -> bool {
        behind <= 0 && has_redundancy(payload)
    }

    /// Whether a telephone event with this timestamp began before the PAUSE was over.
    fn is_event(&self, timestamp: u32, payload: &[u8], older_ticks: u32, rtpmap: Rtpmap) -> bool {
        let ticks_since = |known: u32| timestamp.wrapping_sub(known);
        let goes_on = |event: u32| matches!(ticks_since(event), 0 | SEGMENT_TICKS);
        let is_of = |withheld: Withheld| !is_later(timestamp, withheld.last_timestamp);
        // How long it has lasted, as it says.
        let ticks = match *payload {
            [_, _, high, low, ..] => u32::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        let us = i64::from(ticks.saturating_add(older_ticks)).saturating_mul(1_000_000);
        let us = us.checked_div(i64::from(rtpmap.clock_hz)).unwrap_or(0);
        self.source.event.is_some_and(goes_on)
            || self.source.withheld.is_some_and(is_of)
            || is_later(self.front.timestamp, timestamp)
            || self.ended.is_some_and(|ended| self.own.0.saturating_sub(us) < ended.0)
    }
}

/// What a payload is. One of a type that nobody told, and of the form of a key press, may be one.
fn meaning(payload_type: u8, payload: &[u8], said: &impl Fn(u8) -> Option<Rtpmap>) -> Rtpmap {
    said(payload_type).unwrap_or_else(|| {
        let default = Rtpmap::default_for(payload_type);
        if may_be_key_presses(default) && has_form_of_key(payload) { KEY_PRESSES } else { default }
    })
}

/// The payload type of the key press that a packet is of, by itself or with copies beside it.
pub(super) fn key_press_type(packet: &Rtp<'_>, said: &impl Fn(u8) -> Option<Rtpmap>) -> Option<u8> {
    let (payload_type, payload) = match meaning(packet.payload_type, packet.payload, said).codec {
        Codec::Red => {
            let own = *red::blocks(packet.payload)?.last()?;
            (own.payload_type, own.payload)
        }
        _ => (packet.payload_type, packet.payload),
    };
    (meaning(payload_type, payload, said).codec == Codec::TelephoneEvent).then_some(payload_type)
}

/// Whether nobody knows what a packet is, so that it may be anything: also a key press with copies beside it.
pub(super) fn is_unknown(packet: &Rtp<'_>, said: &impl Fn(u8) -> Option<Rtpmap>) -> bool {
    said(packet.payload_type).is_none()
        && meaning(packet.payload_type, packet.payload, said).codec == Codec::Unknown
}

/// Whether a payload has the form of a key press in a packet of copies, which may have none.
pub(super) fn wraps_key_press(payload: &[u8]) -> bool {
    red::blocks(payload).is_some_and(|blocks| blocks.last().is_some_and(|own| has_form_of_key(own.payload)))
}

/// Whether a payload has the form of one with copies: all of one kind, the oldest first. One in 2,000 packets of Opus has that
/// by chance.
fn seems_redundant(payload: &[u8]) -> bool {
    let Some(blocks) = red::blocks(payload) else { return false };
    let pairs = blocks.iter().zip(blocks.iter().skip(1));
    blocks.len() > 1
        && pairs.into_iter().all(|(older, newer)| {
            older.older_ticks > newer.older_ticks && older.payload_type == newer.payload_type
        })
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

fn is_later(timestamp: u32, than: u32) -> bool {
    timestamp.wrapping_sub(than).cast_signed() > 0
}

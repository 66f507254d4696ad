//! One payload of a call: where it stands in the spool file, and what it is to the timeline.

use std::num::NonZeroU8;

use crate::codec::pcm::{PcmFormat, energy_dbov};
use crate::opus::packet::{self, Shape};
use crate::packet::Rtp;
use crate::red::Block;
use crate::rtpmap::{Codec, Rtpmap};
use crate::sound::Format;
use crate::time::Wall;
use crate::timeline::{Rx, RxKind};

/// Louder than this is speech: -45 dB of full scale. A quiet line has -60 and less.
const SPEECH_DBOV: f32 = -45.0;

/// Where a payload stands in the spool, and what is known of it beside what placement asks for. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The place of its first byte in the file.
    pub offset: u64,
    /// Its RTP payload type.
    pub payload_type: u8,
    /// Its frames, if it is an Opus packet by its form.
    pub shape: Option<Shape>,
    /// One more than the level of the comfort noise packet in front of it.
    pub(super) noise: Option<NonZeroU8>,
    /// Whether it did not come by itself but as a copy in a later packet (RFC 2198).
    pub is_copy: bool,
    /// When it was received, by the daemon's clock.
    pub(super) received: Wall,
    pub(super) has_gateway_time: bool,
    /// How many meanings of its payload type had been told when it came, 63 at most; and in the two bits above, whether it is
    /// withheld, or encrypted.
    pub(super) meanings: u8,
}

/// The bits of [`Payload::meanings`] that are none of the count.
const WITHHELD: u8 = 0x80;
const ENCRYPTED: u8 = 0x40;

impl Payload {
    /// How many meanings of its payload type had been told when it came.
    #[must_use]
    pub fn meanings(&self) -> u8 {
        self.meanings & !(WITHHELD | ENCRYPTED)
    }

    /// Whether its payload may not be kept.
    pub(super) fn is_withheld(&self) -> bool {
        self.meanings & WITHHELD != 0
    }

    /// Whether it is no audio because it is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.meanings & ENCRYPTED != 0
    }

    /// Notes that it is.
    pub(super) fn note_encrypted(&mut self) {
        self.meanings |= ENCRYPTED;
    }

    /// Notes that its payload may not be kept.
    pub(super) fn withhold(&mut self) {
        self.meanings |= WITHHELD;
    }

    /// The level of the comfort noise packet in front of it, in −dBov.
    #[must_use]
    pub fn noise(&self) -> Option<u8> {
        self.noise.map(|more| more.get() - 1)
    }
}

/// What a packet, or a copy in it, is in the books.
pub(super) fn enter_block(
    packet: &Rtp<'_>,
    block: &Block<'_>,
    (rtpmap, meanings): (Rtpmap, u8),
    offset: u64,
    (arrival, received, has_gateway_time): (Wall, Wall, bool),
    is_withheld: bool,
) -> (Rx, Payload) {
    let bytes = u16::try_from(block.payload.len()).unwrap_or(u16::MAX);
    let is_loud = |format| energy_dbov(format, block.payload).map(|level| level > SPEECH_DBOV);
    let opus = packet::parse(block.payload).ok();
    let payload = Payload {
        offset,
        payload_type: block.payload_type,
        shape: opus.as_ref().map(packet::Packet::shape),
        noise: None,
        is_copy: block.age > 0,
        received,
        has_gateway_time,
        meanings: meanings.min(ENCRYPTED - 1) | if is_withheld { WITHHELD } else { 0 },
    };
    let rx = Rx {
        arrival,
        ssrc: packet.ssrc,
        timestamp: packet.timestamp.wrapping_sub(block.older_ticks),
        clock_hz: rtpmap.clock_hz,
        samples: 0,
        sequence: packet.sequence.wrapping_sub(block.age),
        bytes,
        digest: digest(block.payload),
        kind: RxKind::Unusable,
        is_speech: PcmFormat::of(rtpmap).map_or_else(|| opus.as_ref()?.is_speech(), is_loud),
    };
    (rx, payload)
}

fn digest(payload: &[u8]) -> u16 {
    let sum = crc32c::crc32c(payload).to_le_bytes();
    u16::from_le_bytes([sum[0], sum[1]])
}

/// How a payload is coded, if it is audio that can be decoded.
#[must_use]
pub fn format_of(rtpmap: Rtpmap, rx: &Rx, payload: &Payload) -> Option<Format> {
    if rtpmap.codec == Codec::Opus {
        return payload.shape.map(Format::Opus);
    }
    let format = PcmFormat::of(rtpmap)?;
    (format.samples(usize::from(rx.bytes)) > 0).then_some(Format::Pcm(format))
}

/// Decides what a packet is to the timeline.
pub(super) fn settle(rx: &mut Rx, payload: &Payload, rtpmap: Rtpmap) {
    // RFC 7587 section 4.1: the RTP clock of Opus is 48000 whatever an rtpmap says.
    rx.clock_hz = if rtpmap.codec == Codec::Opus { 48_000 } else { rtpmap.clock_hz };
    rx.kind = if payload.is_withheld() {
        RxKind::Withheld
    } else if rtpmap.codec.is_beside_audio() || rx.bytes == 0 {
        RxKind::Beside
    } else if payload.is_encrypted() {
        RxKind::Unusable
    } else if let Some(format) = format_of(rtpmap, rx, payload) {
        rx.samples = match format {
            Format::Opus(shape) => shape.samples(),
            Format::Pcm(format) => format.samples_48k(usize::from(rx.bytes)),
        };
        RxKind::Audio
    } else {
        RxKind::Unusable
    };
    if rx.kind != RxKind::Audio {
        rx.is_speech = None;
    }
}

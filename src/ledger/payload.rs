//! One payload of a call: where it stands in the spool file, and what it is to the timeline.

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

/// Where a payload stands in the spool, and what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The place of its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u16,
    /// Its RTP payload type.
    pub payload_type: u8,
    /// Its frames, if it is an Opus packet by its form.
    pub shape: Option<Shape>,
    /// Whether somebody speaks in it, if it is an Opus packet that says so, or by its level.
    pub is_speech: Option<bool>,
    /// The level of the comfort noise packet in front of it, in −dBov.
    pub noise: Option<u8>,
    /// Whether it did not come by itself but as a copy in a later packet (RFC 2198).
    pub is_copy: bool,
    /// When it was received, by the daemon's clock.
    pub(super) received: Wall,
    pub(super) has_gateway_time: bool,
    pub(super) is_withheld: bool,
}

/// What a packet, or a copy in it, is in the books.
pub(super) fn enter_block(
    packet: &Rtp<'_>,
    block: &Block<'_>,
    rtpmap: Rtpmap,
    offset: u64,
    (arrival, received, has_gateway_time): (Wall, Wall, bool),
    is_withheld: bool,
) -> (Rx, Payload) {
    let bytes = u16::try_from(block.payload.len()).unwrap_or(u16::MAX);
    let is_loud = |format| energy_dbov(format, block.payload).map(|level| level > SPEECH_DBOV);
    let opus = packet::parse(block.payload).ok();
    let payload = Payload {
        offset,
        length: bytes,
        payload_type: block.payload_type,
        shape: opus.as_ref().map(packet::Packet::shape),
        is_speech: PcmFormat::of(rtpmap).map_or_else(|| opus.as_ref()?.is_speech(), is_loud),
        noise: None,
        is_copy: block.age > 0,
        received,
        has_gateway_time,
        is_withheld,
    };
    let rx = Rx {
        arrival,
        ssrc: packet.ssrc,
        timestamp: packet.timestamp.wrapping_sub(block.older_ticks),
        clock_hz: rtpmap.clock_hz,
        samples: 0,
        sequence: packet.sequence.wrapping_sub(block.age),
        bytes,
        kind: RxKind::Unusable,
        is_speech: None,
    };
    (rx, payload)
}

/// How a payload is coded, if it is audio that can be decoded.
#[must_use]
pub fn format_of(rtpmap: Rtpmap, payload: &Payload) -> Option<Format> {
    if rtpmap.codec == Codec::Opus {
        return payload.shape.map(Format::Opus);
    }
    let format = PcmFormat::of(rtpmap)?;
    (format.samples(usize::from(payload.length)) > 0).then_some(Format::Pcm(format))
}

/// Decides what a packet is to the timeline.
pub(super) fn settle(rx: &mut Rx, payload: &Payload, rtpmap: Rtpmap) {
    // RFC 7587 section 4.1: the RTP clock of Opus is 48000 whatever an rtpmap says.
    rx.clock_hz = if rtpmap.codec == Codec::Opus { 48_000 } else { rtpmap.clock_hz };
    rx.kind = if payload.is_withheld {
        RxKind::Withheld
    } else if rtpmap.codec.is_beside_audio() || payload.length == 0 {
        RxKind::Beside
    } else if let Some(format) = format_of(rtpmap, payload) {
        rx.samples = match format {
            Format::Opus(shape) => shape.samples(),
            Format::Pcm(format) => format.samples_48k(usize::from(payload.length)),
        };
        rx.is_speech = payload.is_speech;
        RxKind::Audio
    } else {
        RxKind::Unusable
    };
}

//! What a payload type means: SDP rtpmaps, the defaults of RFC 3551, and the codecs that a recording can hold.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An audio format, or what stands in an audio stream beside audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 7587).
    Opus,
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 16 kHz, with the RTP clock of 8000 Hz that RFC 3551 gives it.
    G722,
    /// Linear 16-bit samples in network byte order.
    L16,
    /// Comfort noise (RFC 3389): its time is silence.
    ComfortNoise,
    /// DTMF and other events (RFC 4733): never audio.
    TelephoneEvent,
    /// Redundant audio (RFC 2198): packets with copies of earlier ones, of other payload types.
    Red,
    /// Anything else: kept in the spool, its time is silence.
    Unknown,
}

impl Codec {
    /// The word for it in manifests: the SDP encoding name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::L16 => "L16",
            Self::ComfortNoise => "CN",
            Self::TelephoneEvent => "telephone-event",
            Self::Red => "red",
            Self::Unknown => "unknown",
        }
    }

    /// Whether packets of this kind carry no audio of their own and yet belong to the stream.
    #[must_use]
    pub fn is_beside_audio(self) -> bool {
        matches!(self, Self::ComfortNoise | Self::TelephoneEvent)
    }
}

/// The meaning of one payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rtpmap {
    /// The format.
    pub codec: Codec,
    /// Ticks of the RTP timestamp in a second. Never zero.
    pub clock_hz: u32,
    /// Interleaved audio channels in a packet. Never zero.
    pub channels: u8,
}

/// Text that is no rtpmap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an rtpmap such as opus/48000/2: {0:?}")]
pub struct RtpmapError(String);

impl Rtpmap {
    /// Reads an SDP rtpmap such as `opus/48000/2`: encoding name (any case), clock rate, channels (1 if absent).
    ///
    /// # Errors
    /// [`RtpmapError`] where the clock rate or the channel count is missing or impossible.
    pub fn parse(text: &str) -> Result<Self, RtpmapError> {
        let wrong = || RtpmapError(text.chars().take(64).collect());
        let mut parts = text.trim().split('/');
        let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
        let clock_hz: u32 = parts.next().and_then(|rate| rate.parse().ok()).ok_or_else(wrong)?;
        let channels: u8 = parts.next().map_or(Ok(1), str::parse).map_err(|_| wrong())?;
        if !(1..=384_000).contains(&clock_hz) || channels == 0 || parts.next().is_some() {
            return Err(wrong());
        }
        let named = |known: &str| name.eq_ignore_ascii_case(known);
        let codec = if named("opus") {
            Codec::Opus
        } else if named("PCMU") {
            Codec::Pcmu
        } else if named("PCMA") {
            Codec::Pcma
        } else if named("G722") {
            Codec::G722
        } else if named("L16") {
            Codec::L16
        } else if named("CN") {
            Codec::ComfortNoise
        } else if named("telephone-event") {
            Codec::TelephoneEvent
        } else if named("red") {
            Codec::Red
        } else {
            Codec::Unknown
        };
        Ok(Self { codec, clock_hz, channels })
    }

    /// What a payload type means where the gateway has not said (contract section 3).
    #[must_use]
    pub fn default_for(payload_type: u8) -> Self {
        let map = |codec, clock_hz, channels| Self { codec, clock_hz, channels };
        match payload_type {
            0 => map(Codec::Pcmu, 8000, 1),
            8 => map(Codec::Pcma, 8000, 1),
            9 => map(Codec::G722, 8000, 1),
            10 => map(Codec::L16, 44_100, 2),
            11 => map(Codec::L16, 44_100, 1),
            // 19 is what comfort noise was before RFC 3389, and what some gateways still send.
            13 | 19 => map(Codec::ComfortNoise, 8000, 1),
            101 => map(Codec::TelephoneEvent, 8000, 1),
            96..=127 => map(Codec::Opus, 48_000, 2),
            _ => map(Codec::Unknown, 8000, 1),
        }
    }
}

impl fmt::Display for Rtpmap {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.codec.name(), self.clock_hz)?;
        if self.channels > 1 { write!(out, "/{}", self.channels) } else { Ok(()) }
    }
}

impl Serialize for Rtpmap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rtpmap {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtpmaps_are_read_in_any_case_and_with_or_without_channels() {
        assert_eq!(Rtpmap::parse("OPUS/48000/2").unwrap(), Rtpmap::default_for(111));
        assert_eq!(Rtpmap::parse("pcmu/8000").unwrap(), Rtpmap::default_for(0));
        assert_eq!(Rtpmap::parse("speex/16000").unwrap().codec, Codec::Unknown);
        assert_eq!(Rtpmap::default_for(19), Rtpmap::default_for(13));
        for wrong in
            ["", "opus", "opus/0", "opus/x", "opus/48000/0", "opus/48000/2/1", "/8000", "a/999999999"]
        {
            assert!(Rtpmap::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! The two headers of an Ogg Opus stream (RFC 7845 section 5): what they say, and whether it can be decoded here.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use super::ListenError;

/// The identification header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// One or two.
    pub channels: u8,
    /// Samples that players drop at the beginning.
    pub pre_skip: u16,
    /// The sampling rate before encoding, for information only.
    pub input_hz: u32,
    /// The gain that players apply, in 1/256 dB.
    pub gain_q8: i16,
    /// The channel mapping family, 0 or 1.
    pub family: u8,
    /// How many Opus streams each packet holds.
    pub streams: u8,
    /// How many of them are stereo.
    pub coupled: u8,
    /// Which decoded channel each channel is.
    pub mapping: Vec<u8>,
}

/// The first bytes of the identification header.
pub(super) const HEAD_MAGIC: &[u8] = b"OpusHead";
const TAGS_MAGIC: &[u8] = b"OpusTags";
/// Comments beyond these are not looked at.
const COMMENTS_MAX: usize = 1000;

/// The comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// Who wrote the file.
    pub vendor: String,
    /// Names, in upper case, and values.
    pub comments: Vec<(String, String)>,
}

impl Tags {
    /// The first comment of a name in upper case.
    #[must_use]
    pub fn comment(&self, name: &str) -> Option<&str> {
        self.comments.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Head {
    /// Reads the header.
    pub(super) fn parse(packet: &[u8]) -> Result<Self, ListenError> {
        let fixed = packet.strip_prefix(HEAD_MAGIC).ok_or(ListenError::NotOpus)?;
        let (fixed, rest) = fixed.split_first_chunk::<11>().ok_or(ListenError::BadHead("is too short"))?;
        let [version, channels, skip @ .., family] = *fixed;
        let [skip_0, skip_1, hz_0, hz_1, hz_2, hz_3, gain_0, gain_1] = skip;
        // RFC 7845 section 5.1: what has the major version 0 can be read.
        if version >= 16 {
            return Err(ListenError::BadHead("is of a later version"));
        }
        let (streams, coupled, mapping) = match (family, channels, rest) {
            (0, 1, _) => (1, 0, vec![0]),
            (0, 2, _) => (1, 1, vec![0, 1]),
            (0 | 1, 0, _) => return Err(ListenError::BadHead("names no channel")),
            (1, 1 | 2, [streams, coupled, mapping @ ..]) => {
                let mapping = mapping.get(..usize::from(channels));
                (*streams, *coupled, mapping.ok_or(ListenError::BadHead("is too short"))?.to_vec())
            }
            (1, 1 | 2, _) => return Err(ListenError::BadHead("is too short")),
            _ => return Err(ListenError::Unsupported { channels, family }),
        };
        let decoded = streams.saturating_add(coupled);
        let is_possible = streams >= 1 && coupled <= streams && decoded <= 2;
        if !is_possible || mapping.iter().any(|index| *index >= decoded && *index != 255) {
            return Err(ListenError::BadHead("names streams that there cannot be"));
        }
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes([skip_0, skip_1]),
            input_hz: u32::from_le_bytes([hz_0, hz_1, hz_2, hz_3]),
            gain_q8: i16::from_le_bytes([gain_0, gain_1]),
            family,
            streams,
            coupled,
            mapping,
        })
    }

    /// What the gain multiplies samples by.
    pub(super) fn factor(&self) -> f32 {
        10f32.powf(f32::from(self.gain_q8) / (20.0 * 256.0))
    }
}

impl Tags {
    /// Reads the comments, as far as they can be read.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(TAGS_MAGIC)?;
        let (vendor, rest) = split_text(rest)?;
        let (_, mut rest) = rest.split_first_chunk::<4>()?;
        let mut comments = Vec::new();
        while let Some((comment, after)) = split_text(rest) {
            if comments.len() == COMMENTS_MAX {
                break;
            }
            rest = after;
            if let Some((name, value)) = comment.split_once('=') {
                comments.push((name.to_ascii_uppercase(), value.to_owned()));
            }
        }
        Some(Self { vendor, comments })
    }
}

fn split_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::ogg::{Layout, PRE_SKIP, head, tags};

    #[test]
    fn the_headers_that_are_written_here_read_back() {
        let read = |layout| Head::parse(&head(layout, PRE_SKIP)).unwrap();
        let two = read(Layout::TwoMonoStreams);
        assert_eq!((two.channels, two.family, two.streams, two.coupled, two.pre_skip), (2, 1, 2, 0, 312));
        let stereo = read(Layout::Stereo);
        assert_eq!((stereo.family, stereo.streams, stereo.coupled, stereo.input_hz), (0, 1, 1, 48_000));
        assert_eq!(read(Layout::Mono).mapping, [0]);
        let packet = tags("v", &[("A", "b=c".to_owned()), ("long", "x".repeat(300))]);
        let read = Tags::parse(&packet).unwrap();
        assert_eq!((read.vendor.as_str(), read.comment("A"), read.comments.len()), ("v", Some("b=c"), 2));
        assert!(read.comment("LONG").is_some());
    }

    #[test]
    fn what_cannot_be_decoded_is_named_and_no_length_of_a_header_panics() {
        let mut surround = head(Layout::TwoMonoStreams, 0);
        surround[9] = 6;
        let error = Head::parse(&surround).unwrap_err();
        assert!(matches!(error, ListenError::Unsupported { channels: 6, family: 1 }));
        let mut discrete = head(Layout::TwoMonoStreams, 0);
        discrete[18] = 255;
        assert!(matches!(Head::parse(&discrete), Err(ListenError::Unsupported { channels: 2, family: 255 })));
        let good = head(Layout::TwoMonoStreams, 0);
        for length in 0..good.len() {
            assert!(Head::parse(&good[..length]).is_err(), "{length} bytes");
        }
        let text = tags("vendor", &[("NAME", "value".to_owned())]);
        for length in 0..text.len() {
            assert!(Tags::parse(&text[..length]).is_none_or(|tags| tags.comments.is_empty()));
        }
        for (at, byte) in [(19, 0), (19, 200), (20, 3), (21, 2)] {
            let mut wrong = good.clone();
            wrong[at] = byte;
            assert!(Head::parse(&wrong).is_err(), "byte {at}");
        }
    }
}

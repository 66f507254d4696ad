//! Names of things: connections, recordings and channels.

use std::borrow::Borrow;
use std::fmt;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::time::Wall;

/// The longest connection id, in bytes (contract: 1..=128).
pub const CONNECTION_ID_MAX_BYTES: usize = 128;

/// The name of one call, chosen by the gateway: 1 to 128 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ConnectionId(String);

/// Why bytes are no connection id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Empty, or more than 128 bytes.
    #[error("connection id is not 1 to 128 bytes long")]
    Length,
    /// Not UTF-8.
    #[error("connection id is not utf-8")]
    NotUtf8,
    /// Holds a control character, which would break logs and file names.
    #[error("connection id holds a control character")]
    Control,
}

impl ConnectionId {
    /// Checks bytes off the wire and lends them as the text of an id.
    ///
    /// # Errors
    /// [`IdError`] says which of the three rules is broken.
    pub fn check(bytes: &[u8]) -> Result<&str, IdError> {
        if bytes.is_empty() || bytes.len() > CONNECTION_ID_MAX_BYTES {
            return Err(IdError::Length);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| IdError::NotUtf8)?;
        // Nearly all ids are ASCII, and each packet brings one: bytes are looked at many at a time, characters are not.
        let is_plain = bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
        if !is_plain && text.chars().any(char::is_control) {
            return Err(IdError::Control);
        }
        Ok(text)
    }

    /// Makes an id of text that follows the rules.
    ///
    /// # Errors
    /// As [`ConnectionId::check`].
    pub fn new(text: &str) -> Result<Self, IdError> {
        Self::check(text.as_bytes()).map(|text| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ConnectionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// The name of one recording: a UUID (RFC 9562), drawn when its spool file is made. It stays the same over restarts, and
/// when the file is made anew; each part of a long call has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RecordingId(Uuid);

impl RecordingId {
    /// Makes an id that sorts by its time (version 7), of 74 of these random bits.
    #[must_use]
    pub fn draw(at: Wall, random: [u8; 10]) -> Self {
        let ms = u64::try_from(at.0.max(0) / 1000).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(ms, &random).into_uuid())
    }

    /// Makes the id of a recording that was never given one (version 8): the same seed gives the same id.
    #[must_use]
    pub fn derived(seed: &[u8]) -> Self {
        let sum = Sha256::digest(seed);
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(sum).for_each(|(byte, from)| *byte = from);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Reads an id as [`fmt::Display`] writes it: 36 characters, hexadecimal digits and hyphens.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Uuid::try_parse(text).ok().map(Self)?;
        (id.to_string() == text).then_some(id)
    }

    /// Makes an id of the bytes that [`RecordingId::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The sixteen bytes of the id.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(out)
    }
}

/// One of the two voices of a connection. The caller is the left channel of the recording, the AI the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// What the caller said: left.
    Caller,
    /// What the AI said: right.
    Ai,
}

impl Channel {
    /// Both channels, left first.
    pub const BOTH: [Self; 2] = [Self::Caller, Self::Ai];

    /// The place of the channel in a pair: 0 for the caller, 1 for the AI, as on the wire.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Caller => 0,
            Self::Ai => 1,
        }
    }

    /// The one that it talks with.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Ai,
            Self::Ai => Self::Caller,
        }
    }

    /// The word for it in logs and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Ai => "ai",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What a frame is about: one channel, or the connection as a whole (255 on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One channel.
    Channel(Channel),
    /// The whole connection.
    Whole,
}

impl Scope {
    /// Reads the channel byte of a frame.
    #[must_use]
    pub fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Channel(Channel::Caller)),
            1 => Some(Self::Channel(Channel::Ai)),
            255 => Some(Self::Whole),
            _ => None,
        }
    }

    /// The channel byte of a frame.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        match self {
            Self::Channel(Channel::Caller) => 0,
            Self::Channel(Channel::Ai) => 1,
            Self::Whole => 255,
        }
    }

    /// The channels that the scope takes in.
    pub fn channels(self) -> impl Iterator<Item = Channel> {
        Channel::BOTH.into_iter().filter(move |channel| self.covers(*channel))
    }

    /// Whether the scope takes in `channel`.
    #[must_use]
    pub fn covers(self, channel: Channel) -> bool {
        self == Self::Whole || self == Self::Channel(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_utf8_of_1_to_128_bytes_without_control_characters() {
        assert_eq!(ConnectionId::check("caf\u{e9}/../ x".as_bytes()), Ok("caf\u{e9}/../ x"));
        assert_eq!(ConnectionId::check(b""), Err(IdError::Length));
        assert_eq!(ConnectionId::check(&[b'x'; 129]), Err(IdError::Length));
        assert!(ConnectionId::check(&[b'x'; 128]).is_ok());
        assert_eq!(ConnectionId::check(b"\xff"), Err(IdError::NotUtf8));
        assert_eq!(ConnectionId::check(b"a\nb"), Err(IdError::Control));
        assert_eq!(ConnectionId::check("a\u{85}b".as_bytes()), Err(IdError::Control));
    }

    #[test]
    fn a_recording_id_reads_back_and_sorts_by_its_time() {
        let early = RecordingId::draw(Wall(1_767_323_045_678_901), [0xff; 10]);
        let late = RecordingId::draw(Wall(1_767_323_045_679_901), [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(RecordingId::parse(&early.to_string()), Some(early));
        assert_eq!(RecordingId::from_bytes(early.to_bytes()), early);
        assert_eq!(early.to_string().as_bytes()[14], b'7');
        assert_eq!(RecordingId::parse(&early.to_string().to_uppercase()), None, "one way to write it");
        let derived = RecordingId::derived(b"seed");
        assert_eq!((derived, derived.to_string().as_bytes()[14]), (RecordingId::derived(b"seed"), b'8'));
    }

    #[test]
    fn the_channel_byte_reads_back_as_it_was_written() {
        for byte in 0..=255u8 {
            match Scope::from_wire(byte) {
                Some(scope) => assert_eq!(scope.to_wire(), byte),
                None => assert!(!matches!(byte, 0 | 1 | 255)),
            }
        }
    }
}

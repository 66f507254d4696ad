//! The spool's file format, version 2: one append-only file per recording, which outlives the daemon.
//!
//! A file is a header, and then openings and blocks. Integers are big-endian; checksums are CRC-32C (Castagnoli).
//!
//! | header | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic "STSP" |
//! | 4 | 2 | format version, 2 |
//! | 6 | 2 | H, the bytes from here to the checksum |
//! | 8 | 8 | wall clock at the opening of the recording, microseconds since the Unix epoch |
//! | 16 | 8 | steady clock at the same moment, microseconds |
//! | 24 | 2 | part: 1, or more where a long call goes on, or a finished one was opened again |
//! | 26 | 16 | recording id, a UUID |
//! | 42 | 16 | file id: random, another for each file, also for one that takes the place of this one |
//! | 58 | H-50 | connection id, UTF-8 |
//! | 8+H | 4 | CRC-32C of all before it |
//!
//! Whoever opens the file for writing begins with an opening, and then writes blocks, which are numbered from 0 in each
//! opening ([`block`] has both, byte by byte). Nothing is ever appended under an earlier opening, so a file id, an opening's
//! random bytes and a block's number together name a block for ever. What a block holds is records:
//!
//! | record | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | N, the bytes that follow the checksum, at least 20 |
//! | 4 | 4 | CRC-32C of the four bytes of N and of the N bytes after this field |
//! | 8 | 1 | kind: 1..=10 as in the tap protocol, or one of the spool's own, [`RecordKind`] |
//! | 9 | 1 | channel byte, as in the tap protocol |
//! | 10 | 2 | zero |
//! | 12 | 8 | steady clock at the receipt |
//! | 20 | 8 | the gateway's timestamp, 0 = none |
//! | 28 | N-20 | body |
//!
//! The body of a record with a kind of the tap protocol is the frame's, or what may be kept of it: copies in an RTP packet
//! that say again what may not be kept are zero, and so is Opus padding behind it. The spool's own kinds:
//!
//! | kind | name | body |
//! | --- | --- | --- |
//! | `81` | WITHHELD | the header of an RTP packet whose payload may not be kept, of a pause or from behind it |
//! | `82` | RESUMED | 8 bytes: wall clock at the record's steady clock. The daemon was started again |
//! | `83` | SEAL | 1 byte: a [`SealCause`]; 16 bytes: the recording id. The recording is over |
//! | `84` | DROPPED | 4 bytes: so many frames were received here and could not be kept |
//! | `85` | STATE | JSON: the whole state of the connection at this moment |
//! | `86` | LOST | 8 bytes: so many bytes of this file were taken away by others |
//!
//! The first record of a file is a STATE, and each RESUMED is followed by one. No sender can write either. Where a part of the
//! file was cut off by others, a LOST and a STATE follow behind the next opening; where nothing was left of its header, behind
//! a new one. The steady clock of a record means something only against the pair of clocks noted last: in the header, or in a
//! RESUMED. A file is complete when its last record is a SEAL. Whether it is can be told from its last bytes alone, although a
//! payload may hold any bytes: no caller knows the recording id. What a crash leaves behind is a prefix, perhaps with a torn
//! last record; [`scan::Scanner`] reads around damage.
//!
//! Version 1 had neither recording id, file id, openings nor blocks: its connection id begins at 26, and records follow the
//! header. Its SEAL has no recording id. It is read like version 2, and written again as version 2 before anything is added to
//! it.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

pub mod block;
mod made;
pub mod name;
pub mod scan;

use crate::id::{ConnectionId, RecordingId, Scope};
use crate::time::{Mono, Wall};

/// The first bytes of a spool file.
pub const MAGIC: [u8; 4] = *b"STSP";
/// The format version written.
pub const VERSION: u16 = 2;
/// The format version that is still read.
const VERSION_BEFORE: u16 = 1;
/// The longest body: what one unit of the framed byte stream can hold.
pub const BODY_MAX_BYTES: usize = 65_535;
/// The longest body of a STATE: metadata of 64 KiB, written as JSON in JSON, and what else there is to say.
pub const STATE_MAX_BYTES: usize = 512 * 1024;

const FIXED_BYTES: usize = 20;
const PREFIX_BYTES: usize = 8;
/// Bytes of a record in front of its body.
pub const BODY_OFFSET: usize = 28;
/// The bytes of a file id.
pub const FILE_ID_BYTES: usize = 16;
/// The bytes of a SEAL.
pub const SEAL_BYTES: usize = 45;

/// What a spool file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose frames these are.
    pub connection: ConnectionId,
    /// Wall clock at the opening.
    pub opened: Wall,
    /// Steady clock at the same moment.
    pub opened_mono: Mono,
    /// 1, or more where a long call goes on in another file, or a finished one was opened again.
    pub part: u16,
    /// The recording that is made of this file.
    pub recording: RecordingId,
    /// Random bytes that no other file has; zero in version 1.
    pub file: [u8; FILE_ID_BYTES],
    /// The version of the format, 1 or 2.
    pub version: u16,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// A frame of the tap protocol, of this kind, with its body.
    Tap(u8),
    /// An RTP frame that came during a PAUSE: the packet's header alone.
    Withheld,
    /// The daemon started again and took the connection up: the body holds the wall clock (8 bytes).
    Resumed,
    /// The connection was closed: the body holds one byte, a [`SealCause`], and the recording id.
    Seal,
    /// So many frames (4 bytes) were received here and could not be kept: the disk was full or too slow.
    Dropped,
    /// The whole state of the connection at this moment, as JSON.
    State,
    /// So many bytes (8 bytes) of this file were taken away by others, or the whole file.
    Lost,
}

impl RecordKind {
    fn to_wire(self) -> u8 {
        match self {
            Self::Tap(kind) => kind,
            Self::Withheld => 0x81,
            Self::Resumed => 0x82,
            Self::Seal => 0x83,
            Self::Dropped => 0x84,
            Self::State => 0x85,
            Self::Lost => 0x86,
        }
    }

    /// The longest body of its records.
    fn body_max_bytes(self) -> usize {
        match self {
            Self::Tap(_) => BODY_MAX_BYTES,
            Self::State => STATE_MAX_BYTES,
            // More than any of these needs, for what later versions may add.
            Self::Withheld | Self::Resumed | Self::Seal | Self::Dropped | Self::Lost => 1024,
        }
    }

    fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            1..=10 => Some(Self::Tap(byte)),
            0x81 => Some(Self::Withheld),
            0x82 => Some(Self::Resumed),
            0x83 => Some(Self::Seal),
            0x84 => Some(Self::Dropped),
            0x85 => Some(Self::State),
            0x86 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// Why a connection was closed, as its SEAL record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealCause {
    /// Its last reference was released.
    Released,
    /// The sweep found it stale.
    Stale,
    /// The daemon was asked to stop.
    Shutdown,
    /// The daemon had been killed, and the gateway did not go on after the restart.
    NotResumed,
    /// It goes on as another part.
    PartFull,
}

impl SealCause {
    const ALL: [Self; 5] = [Self::Released, Self::Stale, Self::Shutdown, Self::NotResumed, Self::PartFull];

    fn to_wire(self) -> u8 {
        match self {
            Self::Released => 1,
            Self::Stale => 2,
            Self::Shutdown => 3,
            Self::NotResumed => 4,
            Self::PartFull => 5,
        }
    }

    /// Reads the body of a SEAL record.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        let (wire, recording) = body.split_first()?;
        let is_whole = recording.is_empty() || recording.len() == 16;
        Self::ALL.into_iter().find(|cause| is_whole && *wire == cause.to_wire())
    }

    /// Makes the body of a SEAL record.
    #[must_use]
    pub fn to_body(self, recording: RecordingId) -> [u8; 17] {
        let mut body = [self.to_wire(); 17];
        let (_, id) = body.split_at_mut(1);
        id.copy_from_slice(&recording.to_bytes());
        body
    }
}

/// One record, borrowed from the bytes that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The channel that it is about.
    pub scope: Scope,
    /// Steady clock at the receipt.
    pub at: Mono,
    /// The gateway's own timestamp.
    pub gateway: Option<Wall>,
    /// The frame's body, or what [`RecordKind`] says.
    pub body: &'a [u8],
}

/// Why bytes are no header of a spool file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file ends inside its header.
    #[error("spool file ends inside its header")]
    Short,
    /// Not a spool file at all.
    #[error("file does not begin with the magic STSP")]
    Magic,
    /// Written by another version of the program.
    #[error("spool file has format version {0}, this program reads versions 1 and 2")]
    Version(u16),
    /// The checksum or a field is wrong.
    #[error("header of the spool file is damaged")]
    Damaged,
}

/// What stands at the beginning of some bytes of a spool file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// The beginning of what may be a record.
    Incomplete,
    /// No record.
    Damaged,
}

impl Header {
    /// A header whose recording id is derived from the rest, where nobody has drawn one: the same for the same call.
    #[must_use]
    pub fn derived(connection: ConnectionId, opened: Wall, opened_mono: Mono, part: u16) -> Self {
        let seed = [connection.as_str().as_bytes(), &opened.0.to_be_bytes(), &part.to_be_bytes()].concat();
        let recording = RecordingId::derived(&seed);
        Self { connection, opened, opened_mono, part, recording, file: [0; FILE_ID_BYTES], version: VERSION }
    }

    /// Appends the header's bytes to `out`, in the version that it names.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let id = self.connection.as_str().as_bytes();
        let mut fields = Vec::with_capacity(192);
        fields.extend_from_slice(&self.opened.0.to_be_bytes());
        fields.extend_from_slice(&self.opened_mono.0.to_be_bytes());
        fields.extend_from_slice(&self.part.to_be_bytes());
        if self.version != VERSION_BEFORE {
            fields.extend_from_slice(&self.recording.to_bytes());
            fields.extend_from_slice(&self.file);
        }
        fields.extend_from_slice(id);
        let mut header = Vec::with_capacity(208);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&self.version.to_be_bytes());
        let length = u16::try_from(fields.len()).expect("an id has at most 128 bytes");
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&fields);
        let sum = crc32c::crc32c(&header);
        out.extend_from_slice(&header);
        out.extend_from_slice(&sum.to_be_bytes());
    }

    /// Reads the header at the beginning of a spool file; returns it and its length in bytes.
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(HeaderError::Short)?;
        if *magic != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(HeaderError::Short)?;
        let version = u16::from_be_bytes(*version);
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(HeaderError::Short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (fields, rest) = rest.split_at_checked(length).ok_or(HeaderError::Short)?;
        let (sum, _) = rest.split_first_chunk::<4>().ok_or(HeaderError::Short)?;
        let summed = bytes.get(..length.saturating_add(8)).ok_or(HeaderError::Short)?;
        if crc32c::crc32c(summed) != u32::from_be_bytes(*sum) {
            return Err(HeaderError::Damaged);
        }
        // Only now, so that a flipped bit does not pass for another version.
        if version != VERSION && version != VERSION_BEFORE {
            return Err(HeaderError::Version(version));
        }
        let (opened, rest) = fields.split_first_chunk::<8>().ok_or(HeaderError::Damaged)?;
        let (mono, rest) = rest.split_first_chunk::<8>().ok_or(HeaderError::Damaged)?;
        let (part, rest) = rest.split_first_chunk::<2>().ok_or(HeaderError::Damaged)?;
        let (recording, file, id) = if version == VERSION_BEFORE {
            (None, [0; FILE_ID_BYTES], rest)
        } else {
            let (recording, rest) = rest.split_first_chunk::<16>().ok_or(HeaderError::Damaged)?;
            let (file, id) = rest.split_first_chunk::<FILE_ID_BYTES>().ok_or(HeaderError::Damaged)?;
            (Some(RecordingId::from_bytes(*recording)), *file, id)
        };
        let id = std::str::from_utf8(id).map_err(|_| HeaderError::Damaged)?;
        let connection = ConnectionId::new(id).map_err(|_| HeaderError::Damaged)?;
        let (opened, mono) = (Wall(i64::from_be_bytes(*opened)), Mono(u64::from_be_bytes(*mono)));
        let header = Self::derived(connection, opened, mono, u16::from_be_bytes(*part));
        let recording = recording.unwrap_or(header.recording);
        let header = Self { recording, file, version, ..header };
        Ok((header, length.saturating_add(12)))
    }

    /// Whether nothing may be appended to the file before it has been written again as version 2.
    #[must_use]
    pub fn is_of_before(&self) -> bool {
        self.version == VERSION_BEFORE
    }
}

impl<'a> Record<'a> {
    /// The record of a RESUMED: from now on the steady clock counts from another beginning.
    #[must_use]
    pub fn resumed(at: Mono, wall: &'a [u8; 8]) -> Self {
        Self { kind: RecordKind::Resumed, scope: Scope::Whole, at, gateway: None, body: wall }
    }

    /// The record of a STATE.
    #[must_use]
    pub fn state(at: Mono, json: &'a [u8]) -> Self {
        Self { kind: RecordKind::State, scope: Scope::Whole, at, gateway: None, body: json }
    }

    /// Appends a note that so many bytes of the file are gone to `out`.
    pub fn append_lost(at: Mono, bytes: u64, out: &mut Vec<u8>) {
        let body = bytes.to_be_bytes();
        let kind = RecordKind::Lost;
        Record { kind, scope: Scope::Whole, at, gateway: None, body: &body }.append_to(out);
    }

    /// Appends a note that `count` frames could not be kept to `out`.
    pub fn append_dropped(at: Mono, count: u32, out: &mut Vec<u8>) {
        let body = count.to_be_bytes();
        let kind = RecordKind::Dropped;
        Record { kind, scope: Scope::Whole, at, gateway: None, body: &body }.append_to(out);
    }

    /// Appends a SEAL to `out`.
    pub fn append_seal(at: Mono, cause: SealCause, recording: RecordingId, out: &mut Vec<u8>) {
        let body = cause.to_body(recording);
        Record { kind: RecordKind::Seal, scope: Scope::Whole, at, gateway: None, body: &body }.append_to(out);
    }

    /// Whether `bytes` are the SEAL of a recording.
    #[must_use]
    pub fn is_seal_of(bytes: &[u8], recording: RecordingId) -> bool {
        let Parsed::Record(Record { kind: RecordKind::Seal, body, .. }, length) = Record::parse(bytes) else {
            return false;
        };
        length == bytes.len() && body.get(1..) == Some(&recording.to_bytes())
    }

    /// Appends the record's bytes to `out`.
    ///
    /// # Panics
    /// If the body is longer than [`BODY_MAX_BYTES`], or [`STATE_MAX_BYTES`] for a STATE: no frame can bring that about.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let longest = if self.kind == RecordKind::State { STATE_MAX_BYTES } else { BODY_MAX_BYTES };
        assert!(
            self.body.len() <= longest,
            "a frame's body is at most 65,535 bytes long, and metadata is bounded"
        );
        let start = out.len();
        let length = u32::try_from(self.body.len().saturating_add(FIXED_BYTES)).expect("checked above");
        let gateway = self.gateway.and_then(|wall| u64::try_from(wall.0).ok()).unwrap_or(0);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&[self.kind.to_wire(), self.scope.to_wire(), 0, 0]);
        out.extend_from_slice(&self.at.0.to_be_bytes());
        out.extend_from_slice(&gateway.to_be_bytes());
        out.extend_from_slice(self.body);
        let record = out.get_mut(start..).expect("start was the length of out");
        let (prefix, content) = record.split_at_mut(PREFIX_BYTES);
        let sum = checksum(length.to_be_bytes(), content);
        let (_, field) = prefix.split_at_mut(4);
        field.copy_from_slice(&sum.to_be_bytes());
    }

    /// Reads what stands at the beginning of `bytes`.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Parsed<'a> {
        Self::parse_with(bytes, false)
    }

    /// Reads what stands at the beginning of `bytes`, whose checksum somebody else has compared if `is_summed`.
    fn parse_with(bytes: &'a [u8], is_summed: bool) -> Parsed<'a> {
        let Some((length_bytes, rest)) = bytes.split_first_chunk::<4>() else { return Parsed::Incomplete };
        let Ok(length) = usize::try_from(u32::from_be_bytes(*length_bytes)) else { return Parsed::Damaged };
        if !(FIXED_BYTES..=FIXED_BYTES.saturating_add(STATE_MAX_BYTES)).contains(&length) {
            return Parsed::Damaged;
        }
        let Some((sum, rest)) = rest.split_first_chunk::<4>() else { return Parsed::Incomplete };
        if rest.split_first_chunk::<4>().is_some_and(|(begin, _)| !Self::may_begin(begin, length)) {
            return Parsed::Damaged;
        }
        let Some(content) = rest.get(..length) else { return Parsed::Incomplete };
        if !is_summed && checksum(*length_bytes, content) != u32::from_be_bytes(*sum) {
            return Parsed::Damaged;
        }
        match Self::parse_content(content) {
            Some(record) => Parsed::Record(record, length.saturating_add(PREFIX_BYTES)),
            None => Parsed::Damaged,
        }
    }

    /// Whether the content of a record of so many bytes may begin like this. Says no to nearly all that is none, before its
    /// checksum is taken.
    fn may_begin([kind, channel, ..]: &[u8; 4], length: usize) -> bool {
        let most = |kind: RecordKind| FIXED_BYTES.saturating_add(kind.body_max_bytes());
        RecordKind::from_wire(*kind).is_some_and(|kind| length <= most(kind))
            && Scope::from_wire(*channel).is_some()
    }

    /// The bytes of which a checksum is taken to tell whether a record stands at the beginning of `bytes`: none where that can be
    /// told without.
    fn summed_bytes(bytes: &[u8]) -> usize {
        let claimed = || {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            let content = rest.get(4..length.checked_add(4)?)?;
            Self::may_begin(content.first_chunk::<4>()?, length).then_some(length)
        };
        claimed().unwrap_or(0)
    }

    fn parse_content(content: &'a [u8]) -> Option<Self> {
        let ([kind, channel, _, _], rest) = content.split_first_chunk::<4>()?;
        let (at, rest) = rest.split_first_chunk::<8>()?;
        let (gateway, body) = rest.split_first_chunk::<8>()?;
        Some(Self {
            kind: RecordKind::from_wire(*kind)?,
            scope: Scope::from_wire(*channel)?,
            at: Mono(u64::from_be_bytes(*at)),
            gateway: Wall::stamp_from_wire(u64::from_be_bytes(*gateway)),
            body,
        })
    }
}

fn checksum(length: [u8; 4], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Channel;

    pub(super) fn header() -> Header {
        Header {
            connection: ConnectionId::new("call/1").unwrap(),
            opened: Wall(1_700_000_000_000_000),
            opened_mono: Mono(77),
            part: 1,
            recording: RecordingId::derived(b"call/1"),
            file: [7; FILE_ID_BYTES],
            version: VERSION,
        }
    }

    #[test]
    fn header_and_records_read_back_as_they_were_written() {
        let mut bytes = Vec::new();
        header().append_to(&mut bytes);
        let (read, length) = Header::parse(&bytes).unwrap();
        assert_eq!((read, length), (header(), bytes.len()));

        let before = Header { version: 1, file: [0; FILE_ID_BYTES], ..header() };
        let mut bytes = Vec::new();
        before.append_to(&mut bytes);
        let (read, length) = Header::parse(&bytes).unwrap();
        assert_eq!((&read.connection, read.opened, read.part), (&before.connection, before.opened, 1));
        assert!(read.is_of_before() && length == bytes.len());
        assert_eq!(
            Header::parse(&bytes).unwrap().0.recording,
            read.recording,
            "the same whenever it is read"
        );

        let record = Record {
            kind: RecordKind::Tap(1),
            scope: Scope::Channel(Channel::Ai),
            at: Mono(5),
            gateway: Some(Wall(6)),
            body: b"body",
        };
        let mut bytes = Vec::new();
        record.append_to(&mut bytes);
        assert_eq!(bytes.len(), BODY_OFFSET + 4);
        assert_eq!(&bytes[BODY_OFFSET..], b"body");
        assert_eq!(Record::parse(&bytes), Parsed::Record(record, bytes.len()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut bytes = Vec::new();
        Record::append_seal(Mono(9), SealCause::Stale, header().recording, &mut bytes);
        assert_eq!(bytes.len(), SEAL_BYTES);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Record::parse(&flipped), Parsed::Record(..)), "bit {bit}");
        }
        let mut bytes = Vec::new();
        header().append_to(&mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_hole_of_zero_bytes_is_no_record() {
        assert_eq!(Record::parse(&[0; 64]), Parsed::Damaged);
    }

    #[test]
    fn each_cause_of_a_seal_reads_back() {
        for cause in SealCause::ALL {
            assert_eq!(SealCause::from_body(&cause.to_body(header().recording)), Some(cause));
            assert_eq!(SealCause::from_body(&[cause.to_wire()]), Some(cause), "in version 1");
        }
        assert_eq!(SealCause::from_body(&[]), None);
        assert_eq!(SealCause::from_body(&[1, 0]), None);
    }
}

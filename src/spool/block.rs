//! Openings and blocks: what groups the records of a spool file.
//!
//! | opening | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | marker "STOP" |
//! | 4 | 1 | why the file was opened for writing, an [`OpeningCause`] |
//! | 5 | 3 | zero |
//! | 8 | 32 | random bytes, drawn for this opening |
//! | 40 | 4 | CRC-32C of all before it |
//!
//! | block | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | marker "STBK" |
//! | 4 | 4 | its number in this opening, from 0 |
//! | 8 | 4 | N, the bytes of its records |
//! | 12 | 4 | CRC-32C of its records |
//! | 16 | 4 | CRC-32C of all before it |
//! | 20 | N | records |
//!
//! A marker is no beginning of a record: no record is so long. A block is what the writer wrote in one round, or what of it
//! a crash left; then its own checksum is wrong, and those of the records count. A number that is missing tells that
//! blocks are.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

/// The bytes of a block in front of its records.
pub const HEADER_BYTES: usize = 20;
/// The bytes of an opening.
pub const OPENING_BYTES: usize = 44;
/// The random bytes of an opening.
pub const RANDOM_BYTES: usize = 32;
/// The most bytes of records that a block has: the most that waits for one connection, and the longest records.
pub const RECORDS_MAX_BYTES: usize = 4 * 1024 * 1024;

const OPENING: [u8; 4] = *b"STOP";
const BLOCK: [u8; 4] = *b"STBK";

/// Why a file was opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpeningCause {
    /// It is new.
    Made,
    /// Another process had written to it.
    Resumed,
    /// It, or a part of it, was taken away by others.
    MadeAnew,
    /// It takes the place of one that held what may not be kept, or was of another version.
    Rewritten,
}

impl OpeningCause {
    const ALL: [Self; 4] = [Self::Made, Self::Resumed, Self::MadeAnew, Self::Rewritten];

    fn to_wire(self) -> u8 {
        match self {
            Self::Made => 1,
            Self::Resumed => 2,
            Self::MadeAnew => 3,
            Self::Rewritten => 4,
        }
    }
}

/// What stands at a place where no record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// An opening.
    Opening,
    /// The beginning of a block.
    Block {
        /// Its number in the opening.
        number: u32,
        /// The bytes of its records.
        length: usize,
        /// Their checksum.
        sum: u32,
    },
    /// The beginning of one of these.
    Incomplete,
}

/// Appends an opening to `out`.
pub fn append_opening(cause: OpeningCause, random: &[u8; RANDOM_BYTES], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&OPENING);
    out.extend_from_slice(&[cause.to_wire(), 0, 0, 0]);
    out.extend_from_slice(random);
    let sum = crc32c::crc32c(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_be_bytes());
}

/// Appends room for the header of a block to `out`: the records follow it, and [`complete`] fills it in.
pub fn append_room(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; HEADER_BYTES]);
}

/// Fills in the header of a block of which `block` has the room and the records. Nothing is done where there is not even room.
pub fn complete(block: &mut [u8], number: u32) {
    let Some((header, records)) = block.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let length = u32::try_from(records.len()).unwrap_or(u32::MAX);
    let fields = [BLOCK, number.to_be_bytes(), length.to_be_bytes(), crc32c::crc32c(records).to_be_bytes()];
    let sum = crc32c::crc32c(fields.as_flattened()).to_be_bytes();
    header
        .chunks_exact_mut(4)
        .zip(fields.iter().chain([&sum]))
        .for_each(|(to, from)| to.copy_from_slice(from));
}

/// Reads what stands at the beginning of `bytes`, if that is no record.
pub(super) fn parse(bytes: &[u8]) -> Option<Mark> {
    // A file torn within a marker.
    if bytes.len() < 4 {
        let is_begun = !bytes.is_empty() && (OPENING.starts_with(bytes) || BLOCK.starts_with(bytes));
        return is_begun.then_some(Mark::Incomplete);
    }
    if bytes.starts_with(&OPENING) {
        let Some((opening, _)) = bytes.split_first_chunk::<OPENING_BYTES>() else {
            return Some(Mark::Incomplete);
        };
        let (content, sum) = opening.split_last_chunk::<4>()?;
        let is_known = OpeningCause::ALL.iter().any(|cause| content.get(4) == Some(&cause.to_wire()));
        return (crc32c::crc32c(content) == u32::from_be_bytes(*sum) && is_known).then_some(Mark::Opening);
    }
    if !bytes.starts_with(&BLOCK) {
        return None;
    }
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Some(Mark::Incomplete) };
    let (fields, header_sum) = header.split_last_chunk::<4>()?;
    if crc32c::crc32c(fields) != u32::from_be_bytes(*header_sum) {
        return None;
    }
    let (fields, sum) = fields.split_last_chunk::<4>()?;
    let (fields, length) = fields.split_last_chunk::<4>()?;
    let (_, number) = fields.split_last_chunk::<4>()?;
    let length =
        usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| *length <= RECORDS_MAX_BYTES)?;
    Some(Mark::Block { number: u32::from_be_bytes(*number), length, sum: u32::from_be_bytes(*sum) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_and_an_opening_read_back_as_they_were_written() {
        let mut bytes = Vec::new();
        append_room(&mut bytes);
        bytes.extend_from_slice(b"records");
        complete(&mut bytes, 5);
        assert_eq!(bytes.len(), HEADER_BYTES + 7);
        assert_eq!(
            parse(&bytes),
            Some(Mark::Block { number: 5, length: 7, sum: crc32c::crc32c(b"records") })
        );
        for cause in OpeningCause::ALL {
            let mut bytes = Vec::new();
            append_opening(cause, &[9; RANDOM_BYTES], &mut bytes);
            assert_eq!((parse(&bytes), bytes.len()), (Some(Mark::Opening), OPENING_BYTES));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_every_torn_one_is_a_beginning() {
        let mut opening = Vec::new();
        append_opening(OpeningCause::Made, &[9; RANDOM_BYTES], &mut opening);
        let mut block = Vec::new();
        append_room(&mut block);
        complete(&mut block, 1);
        for whole in [opening, block] {
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&flipped).is_none(), "bit {bit}");
            }
            for cut in 1..whole.len() {
                assert_eq!(parse(&whole[..cut]), Some(Mark::Incomplete), "cut at {cut}");
            }
        }
    }
}

//! Reads a spool file piece by piece, and reads around what is damaged.
//!
//! The shell feeds bytes, the scanner hands out records with their places in the file. Where a block's checksum is right,
//! those of its records are not looked at. At a damaged place it looks for the next byte at which a whole record with a right
//! checksum begins, or a block, and counts what it skipped: a bad sector costs the records in it, not the call. Memory: one
//! block and one piece fed.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use super::block::{self, Mark};
use super::{BODY_OFFSET, Header, HeaderError, PREFIX_BYTES, Parsed, Record, RecordKind};

/// Checksums may be taken in vain of so many times the bytes read so far, and these. A file that nobody has written to do harm
/// has hardly a place that looks like a record and is none.
const VAIN_SHARE: u64 = 4;
const VAIN_BYTES: u64 = 1024 * 1024;
/// Of no more than this, a checksum may always be taken: most records.
const SHORT_BYTES: usize = 256;
/// A reader of one spool file.
#[derive(Debug, Default)]
pub struct Scanner {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that have been handed out or skipped.
    used: usize,
    /// The place in the file of the first byte of `buffer`.
    base: u64,
    /// The place in the file behind the last whole record.
    valid_end: u64,
    /// Bytes skipped since the last whole record: damage if a record follows, else a torn tail.
    pending_bytes: u64,
    damaged_bytes: u64,
    /// The place in the file up to which a block's checksum has been found right.
    summed_until: u64,
    /// The number that the next block of this opening has, if one is known.
    next_block: Option<u32>,
    missing_blocks: u64,
    /// Bytes of which a checksum was taken that was not right.
    vain_bytes: u64,
    /// Whether `pending_bytes` begin as a record that the file is too short for.
    is_tear: bool,
    /// Whether a SEAL was read, behind which nobody writes.
    is_sealed: bool,
    is_ended: bool,
}

/// A record and where its body stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The record.
    pub record: Record<'a>,
    /// The place in the file of the first byte of the record's body.
    pub body_offset: u64,
}

/// How a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The length of the file without what a crash tore: where appending goes on.
    pub valid_bytes: u64,
    /// Bytes that are neither records nor torn by a crash.
    pub damaged_bytes: u64,
    /// Bytes at the end that are the beginning of a record: what a crash tore.
    pub torn_bytes: u64,
    /// Blocks whose numbers are missing between those of others.
    pub missing_blocks: u64,
}

impl Scanner {
    /// Adds the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.base = self.base.saturating_add(widen(self.used));
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Says that all bytes have been fed: what looks like the beginning of a record now is none.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Reads the header. `Ok(None)` asks for more bytes.
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong with it.
    pub fn header(&mut self) -> Result<Option<Header>, HeaderError> {
        match Header::parse(self.rest()) {
            Ok((header, length)) => {
                self.take(length);
                self.valid_end = self.position();
                Ok(Some(header))
            }
            Err(HeaderError::Short) if !self.is_ended => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Hands out the next whole record. `None` asks for more bytes, or ends the file after [`Scanner::end`].
    pub fn next_record(&mut self) -> Option<Located<'_>> {
        loop {
            let (bytes, is_summed) = self.next_bytes();
            let mark = if is_summed { None } else { block::parse(bytes) };
            let parsed = match mark {
                Some(Mark::Incomplete) => Parsed::Incomplete,
                Some(Mark::Opening) => {
                    self.next_block = Some(0);
                    self.take_mark(block::OPENING_BYTES);
                    continue;
                }
                Some(Mark::Block { number, length, sum }) => {
                    let records = bytes.get(block::HEADER_BYTES..).and_then(|rest| rest.get(..length));
                    if records.is_none() && !self.is_ended {
                        return None;
                    }
                    let may_sum = self.may_sum(length);
                    let is_right = may_sum && records.is_some_and(|records| crc32c::crc32c(records) == sum);
                    self.vain_bytes =
                        self.vain_bytes.saturating_add(if is_right { 0 } else { widen(length) });
                    self.enter_block(number, length, is_right);
                    continue;
                }
                None if !is_summed && !self.may_sum(Record::summed_bytes(bytes)) => Parsed::Damaged,
                None => Record::parse_with(bytes, is_summed),
            };
            let length = match parsed {
                Parsed::Record(_, length) => length,
                // What a block says of itself is right, and yet it holds something else: its records are looked at one by one.
                Parsed::Incomplete | Parsed::Damaged if is_summed => {
                    self.summed_until = 0;
                    continue;
                }
                Parsed::Incomplete if !self.is_ended || self.rest().is_empty() => return None,
                Parsed::Incomplete | Parsed::Damaged => {
                    if self.pending_bytes == 0 {
                        self.is_tear = parsed == Parsed::Incomplete;
                    }
                    let summed = Record::summed_bytes(self.rest());
                    let vain = if self.may_sum(summed) { widen(summed) } else { 0 };
                    self.vain_bytes = self.vain_bytes.saturating_add(vain);
                    let skipped = self.zeros_behind().saturating_add(1);
                    self.take(skipped);
                    self.pending_bytes = self.pending_bytes.saturating_add(widen(skipped));
                    continue;
                }
            };
            self.damaged_bytes = self.damaged_bytes.saturating_add(std::mem::take(&mut self.pending_bytes));
            let start = self.used;
            let body_offset = self.position().saturating_add(widen(BODY_OFFSET));
            self.take(length);
            self.valid_end = self.position();
            // Again from the buffer that is kept, and not summed a second time.
            let record =
                Record::parse_content(self.buffer.get(start.saturating_add(PREFIX_BYTES)..self.used)?)?;
            self.is_sealed |= record.kind == RecordKind::Seal;
            return Some(Located { record, body_offset });
        }
    }

    /// Whether the checksum of so many bytes may be taken, right or not. Payloads may be full of what looks like the beginnings
    /// of long records: whoever looks for the next whole one behind a bad sector must not read everything again for each.
    fn may_sum(&self, length: usize) -> bool {
        let allowed = self.position().saturating_add(VAIN_BYTES).saturating_mul(VAIN_SHARE);
        length <= SHORT_BYTES || self.vain_bytes <= allowed
    }

    /// How many places behind this one begin nothing because they, and the three behind each, are zero, as in a hole of a file.
    fn zeros_behind(&self) -> usize {
        let behind = self.rest().get(1..).unwrap_or_default();
        behind.iter().take_while(|byte| **byte == 0).count().saturating_sub(3)
    }

    /// What is looked at next, and whether a block's checksum has been found right for it: then no more than that block.
    fn next_bytes(&self) -> (&[u8], bool) {
        let rest = self.rest();
        let summed = usize::try_from(self.summed_until.saturating_sub(self.position())).unwrap_or(0);
        if summed == 0 { (rest, false) } else { (rest.get(..summed).unwrap_or(rest), true) }
    }

    /// Goes behind an opening or the header of a block: what was skipped before it was damaged.
    fn take_mark(&mut self, bytes: usize) {
        self.damaged_bytes = self.damaged_bytes.saturating_add(std::mem::take(&mut self.pending_bytes));
        self.take(bytes);
        self.valid_end = self.position();
    }

    fn enter_block(&mut self, number: u32, length: usize, is_right: bool) {
        let missing = self.next_block.map_or(0, |next| number.saturating_sub(next));
        self.missing_blocks = self.missing_blocks.saturating_add(missing.into());
        self.next_block = number.checked_add(1);
        self.take_mark(block::HEADER_BYTES);
        if is_right {
            self.summed_until = self.position().saturating_add(widen(length));
        }
    }

    /// How the file ended. Asked after [`Scanner::end`], when no record is left.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let Self { valid_end, pending_bytes, damaged_bytes, missing_blocks, .. } = *self;
        // A crash leaves the beginning of a record, and nothing at all behind a seal. All else was done by others.
        if self.is_tear && !self.is_sealed {
            return Tail { valid_bytes: valid_end, damaged_bytes, torn_bytes: pending_bytes, missing_blocks };
        }
        Tail {
            valid_bytes: valid_end.saturating_add(pending_bytes),
            damaged_bytes: damaged_bytes.saturating_add(pending_bytes),
            torn_bytes: 0,
            missing_blocks,
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.used..).unwrap_or_default()
    }

    fn take(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes).min(self.buffer.len());
    }

    fn position(&self) -> u64 {
        self.base.saturating_add(widen(self.used))
    }
}

fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Channel, RecordingId, Scope};
    use crate::spool::SealCause;
    use crate::spool::block::OpeningCause;
    use crate::time::Mono;

    /// A file of one opening, with so many records of 40 bytes, three in a block.
    fn file(records: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::spool::tests::header().append_to(&mut bytes);
        block::append_opening(OpeningCause::Made, &[3; block::RANDOM_BYTES], &mut bytes);
        let bodies: Vec<u8> = (0..records).collect();
        for (number, bodies) in bodies.chunks(3).enumerate() {
            append_block(u32::try_from(number).unwrap(), bodies, &mut bytes);
        }
        bytes
    }

    fn append_block(number: u32, bodies: &[u8], bytes: &mut Vec<u8>) {
        let start = bytes.len();
        block::append_room(bytes);
        bodies.iter().for_each(|n| record(&[*n; 40]).append_to(bytes));
        block::complete(&mut bytes[start..], number);
    }

    fn record(body: &[u8]) -> Record<'_> {
        Record {
            kind: RecordKind::Tap(1),
            scope: Scope::Channel(Channel::Caller),
            at: Mono(1),
            gateway: None,
            body,
        }
    }

    /// The first body byte of each record found, and the tail.
    fn scan(bytes: &[u8], piece: usize) -> (Vec<u8>, Tail) {
        let mut scanner = Scanner::default();
        let mut found = Vec::new();
        let mut header = None;
        for (index, part) in bytes.chunks(piece).enumerate() {
            scanner.feed(part);
            if (index + 1) * piece >= bytes.len() {
                scanner.end();
            }
            if header.is_none() {
                header = scanner.header().unwrap();
            }
            while header.is_some() {
                let Some(located) = scanner.next_record() else { break };
                let offset = usize::try_from(located.body_offset).unwrap();
                assert_eq!(&bytes[offset..offset + located.record.body.len()], located.record.body);
                found.push(located.record.body[0]);
            }
        }
        (found, scanner.tail())
    }

    fn length(bytes: &[u8]) -> u64 {
        u64::try_from(bytes.len()).unwrap()
    }

    #[test]
    fn records_are_found_whatever_the_size_of_the_pieces() {
        let bytes = file(5);
        for piece in [1, 7, 64, 100_000] {
            let (found, tail) = scan(&bytes, piece);
            assert_eq!(found, [0, 1, 2, 3, 4]);
            let valid_bytes = length(&bytes);
            assert_eq!(tail, Tail { valid_bytes, damaged_bytes: 0, torn_bytes: 0, missing_blocks: 0 });
        }
    }

    #[test]
    fn a_hole_of_zeros_is_damage_and_what_is_behind_it_is_found() {
        for zeros in [1, 3, 4, 5, 100, 5000] {
            let (begin, end) = (file(3), file(6));
            let records = &end[usize::try_from(length(&begin)).unwrap()..];
            let holed = [&begin[..], &vec![0; zeros], records].concat();
            for piece in [1, 7, 100_000] {
                let (found, tail) = scan(&holed, piece);
                assert_eq!(found, scan(&end, 100_000).0, "{zeros} zeros in pieces of {piece}");
                assert_eq!(tail.damaged_bytes, u64::try_from(zeros).unwrap(), "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_looks_like_long_records_is_read_a_few_times_at_most_and_what_is_whole_is_found() {
        let mut looks_like = Vec::new();
        record(&[0; 60_000]).append_to(&mut looks_like);
        let lure = looks_like[..BODY_OFFSET].repeat(9000);
        let mut bytes = file(3);
        let mut block = Vec::new();
        block::append_room(&mut block);
        lure.chunks(60_000).for_each(|lure| record(lure).append_to(&mut block));
        record(&[9; 40]).append_to(&mut block);
        block::complete(&mut block, 1);
        // A bad sector in each of the records, but not in the last.
        (200..block.len() - 80).step_by(50_000).for_each(|at| block[at] ^= 1);
        bytes.extend_from_slice(&block);
        let mut scanner = Scanner::default();
        scanner.feed(&bytes);
        scanner.end();
        scanner.header().unwrap();
        let mut found = Vec::new();
        while let Some(located) = scanner.next_record() {
            found.push(located.record.body[0]);
        }
        assert_eq!(found, [0, 1, 2, 9]);
        assert!(scanner.vain_bytes < 6 * length(&bytes) + 5 * VAIN_BYTES, "{}", scanner.vain_bytes);
    }

    #[test]
    fn records_of_version_1_stand_without_blocks() {
        let mut bytes = Vec::new();
        crate::spool::tests::header().append_to(&mut bytes);
        (0..3).for_each(|n| record(&[n; 40]).append_to(&mut bytes));
        let (found, tail) = scan(&bytes, 50);
        assert_eq!((found, tail.damaged_bytes), (vec![0, 1, 2], 0));
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_was_torn() {
        let (bytes, whole) = (file(3), file(0).len() + block::HEADER_BYTES);
        let step = (bytes.len() - whole) / 3;
        for cut in file(0).len() + 1..bytes.len() {
            let (found, tail) = scan(&bytes[..cut], 50);
            let records = cut.saturating_sub(whole) / step;
            assert_eq!(found.len(), records, "cut at {cut}");
            let valid = if cut < whole { file(0).len() } else { whole + records * step };
            assert_eq!(tail.valid_bytes, u64::try_from(valid).unwrap(), "cut at {cut}");
            assert_eq!(tail.torn_bytes, u64::try_from(cut - valid).unwrap());
        }
    }

    #[test]
    fn what_was_torn_and_resumed_is_no_damage() {
        let mut bytes = file(3);
        let step = 68;
        bytes.truncate(bytes.len() - step);
        block::append_opening(OpeningCause::Resumed, &[4; block::RANDOM_BYTES], &mut bytes);
        append_block(0, &[7, 8], &mut bytes);
        for piece in [1, 90, 100_000] {
            let (found, tail) = scan(&bytes, piece);
            assert_eq!(found, [0, 1, 7, 8]);
            let valid_bytes = length(&bytes);
            assert_eq!(tail, Tail { valid_bytes, damaged_bytes: 0, torn_bytes: 0, missing_blocks: 0 });
        }
    }

    #[test]
    fn a_block_that_was_taken_out_is_missed() {
        let (bytes, from) = (file(9), file(3).len());
        let cut = [&bytes[..from], &bytes[file(6).len()..]].concat();
        let (found, tail) = scan(&cut, 64);
        assert_eq!((found, tail.missing_blocks, tail.damaged_bytes), (vec![0, 1, 2, 6, 7, 8], 1, 0));
    }

    #[test]
    fn what_stands_at_the_end_and_was_not_torn_there_is_damage() {
        let whole = file(2);
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let hole = [whole.clone(), vec![0; 99]].concat();
        let mut sealed = whole.clone();
        Record::append_seal(Mono(9), SealCause::Released, RecordingId::derived(b"call/1"), &mut sealed);
        let behind_the_seal = [sealed.clone(), whole[file(1).len()..][..30].to_vec()].concat();
        for (bytes, damaged) in [(flipped, whole.len() - file(1).len()), (hole, 99), (behind_the_seal, 30)] {
            let (_, tail) = scan(&bytes, 64);
            let damaged_bytes = u64::try_from(damaged).unwrap();
            let valid_bytes = length(&bytes);
            assert_eq!(tail, Tail { valid_bytes, damaged_bytes, torn_bytes: 0, missing_blocks: 0 });
        }
    }

    #[test]
    fn a_damaged_place_costs_the_records_in_it_and_no_others() {
        let clean = file(6);
        let (first, second) = (file(0).len(), file(3).len());
        for at in first..clean.len() {
            let mut bytes = clean.clone();
            bytes[at] ^= 0xff;
            let begin = if at < second { first } else { second };
            let in_block = (at - begin).checked_sub(block::HEADER_BYTES);
            let hit = in_block.map(|at| u8::try_from(at / 68).unwrap() + if begin == second { 3 } else { 0 });
            let (found, _) = scan(&bytes, 33);
            let expected: Vec<u8> = (0..6).filter(|n| Some(*n) != hit).collect();
            assert_eq!(found, expected, "byte {at}");
        }
    }
}

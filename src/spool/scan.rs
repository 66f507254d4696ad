//! Reads a spool file piece by piece, and reads around what is damaged.
//!
//! The shell feeds bytes, the scanner hands out records with their places in the file. At a damaged place it looks
//! for the next byte at which a whole record with a right checksum begins, and counts what it skipped: a bad sector
//! costs the records in it, not the call. Memory: one record and one piece fed.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use super::{BODY_OFFSET, Header, HeaderError, PREFIX_BYTES, Parsed, Record, RecordKind};

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
            let length = match Record::parse(self.rest()) {
                Parsed::Record(_, length) => length,
                Parsed::Incomplete if !self.is_ended || self.rest().is_empty() => return None,
                parsed @ (Parsed::Incomplete | Parsed::Damaged) => {
                    if self.pending_bytes == 0 {
                        self.is_tear = parsed == Parsed::Incomplete;
                    }
                    self.take(1);
                    self.pending_bytes = self.pending_bytes.saturating_add(1);
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

    /// How the file ended. Asked after [`Scanner::end`], when no record is left.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let Self { valid_end, pending_bytes, damaged_bytes, .. } = *self;
        // A crash leaves the beginning of a record, and nothing at all behind a seal. All else was done by others.
        if self.is_tear && !self.is_sealed {
            return Tail { valid_bytes: valid_end, damaged_bytes, torn_bytes: pending_bytes };
        }
        Tail {
            valid_bytes: valid_end.saturating_add(pending_bytes),
            damaged_bytes: damaged_bytes.saturating_add(pending_bytes),
            torn_bytes: 0,
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
    use crate::id::{Channel, Scope};
    use crate::spool::SealCause;
    use crate::time::Mono;

    fn file(records: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::spool::tests::header().append_to(&mut bytes);
        for n in 0..records {
            record(&[n; 40]).append_to(&mut bytes);
        }
        bytes
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

    #[test]
    fn records_are_found_whatever_the_size_of_the_pieces() {
        let bytes = file(5);
        for piece in [1, 7, 64, 100_000] {
            let (found, tail) = scan(&bytes, piece);
            assert_eq!(found, [0, 1, 2, 3, 4]);
            let valid_bytes = u64::try_from(bytes.len()).unwrap();
            assert_eq!(tail, Tail { valid_bytes, damaged_bytes: 0, torn_bytes: 0 });
        }
    }

    #[test]
    fn a_torn_tail_is_cut_wherever_it_was_torn() {
        let bytes = file(3);
        let whole = file(2).len();
        for cut in whole..bytes.len() {
            let (found, tail) = scan(&bytes[..cut], 50);
            assert_eq!(found, [0, 1]);
            assert_eq!(tail.valid_bytes, u64::try_from(whole).unwrap());
            assert_eq!(tail.torn_bytes, u64::try_from(cut - whole).unwrap());
        }
    }

    #[test]
    fn what_stands_at_the_end_and_was_not_torn_there_is_damage() {
        let whole = file(2);
        let length = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap();
        let mut flipped = whole.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let hole = [whole.clone(), vec![0; 99]].concat();
        let mut sealed = whole.clone();
        Record::append_seal(Mono(9), SealCause::Released, &mut sealed);
        let behind_the_seal = [sealed.clone(), whole[file(1).len()..][..30].to_vec()].concat();
        for (bytes, damaged) in [(flipped, whole.len() - file(1).len()), (hole, 99), (behind_the_seal, 30)] {
            let (_, tail) = scan(&bytes, 64);
            let damaged_bytes = u64::try_from(damaged).unwrap();
            assert_eq!(tail, Tail { valid_bytes: length(&bytes), damaged_bytes, torn_bytes: 0 });
        }
    }

    #[test]
    fn a_damaged_place_costs_the_records_in_it_and_no_others() {
        let clean = file(6);
        let header = file(0).len();
        let step = (clean.len() - header) / 6;
        for at in header..clean.len() {
            let mut bytes = clean.clone();
            bytes[at] ^= 0xff;
            let hit = u8::try_from((at - header) / step).unwrap();
            let (found, _) = scan(&bytes, 33);
            let expected: Vec<u8> = (0..6).filter(|n| *n != hit).collect();
            assert_eq!(found, expected, "byte {at}");
        }
    }
}

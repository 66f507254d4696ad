//! Ogg pages out of bytes that may be damaged: the next whole page, or how much of the file is none.
//!
//! The `ogg` crate checks a page's checksum here, but its packet reader is not used: that one does not show a page's
//! number, so missing pages go unnoticed, and gives up on damage that one can read around. Memory is one page.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::io::{self, Read};

use ogg::reading::PageParser;

const HEADER_BYTES: usize = 27;
/// The longest page: its header, 255 segments' lengths, and 255 segments of 255 bytes.
const PAGE_MAX_BYTES: usize = 27 + 255 + 255 * 255;
const CAPTURE: &[u8] = b"OggS";

/// A whole page with a right checksum.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) serial: u32,
    /// Its number in the stream.
    pub(super) sequence: u32,
    /// The position at the end of the last packet that ends here; -1 where none does.
    pub(super) granule: i64,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    /// Whether it begins with the rest of a packet.
    pub(super) is_continued: bool,
    /// The segments' lengths.
    segments: Vec<u8>,
    body: Vec<u8>,
}

/// What the file holds at a place.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// A page.
    Page(Page),
    /// Bytes that are no page.
    Damage(Damage),
    /// The end.
    End,
}

/// Bytes that are no page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where they are in the file.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// What is wrong with them.
    pub fault: &'static str,
}

/// A reader of pages.
pub(super) struct Pages<R> {
    input: R,
    buffer: Vec<u8>,
    offset: u64,
}

impl<R: Read> Pages<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: Vec::with_capacity(PAGE_MAX_BYTES), offset: 0 }
    }

    /// Reads the next page, or as many bytes as stand before what may be one.
    pub(super) fn next(&mut self) -> io::Result<Found> {
        let missing = PAGE_MAX_BYTES.saturating_sub(self.buffer.len());
        let missing = u64::try_from(missing).map_err(io::Error::other)?;
        self.input.by_ref().take(missing).read_to_end(&mut self.buffer)?;
        if self.buffer.is_empty() {
            return Ok(Found::End);
        }
        match parse(&self.buffer) {
            Ok((page, length)) => {
                self.pass(length);
                Ok(Found::Page(page))
            }
            Err(fault) => {
                let offset = self.offset;
                let rest = self.buffer.get(1..).unwrap_or_default();
                let next = rest.windows(CAPTURE.len()).position(|window| window == CAPTURE);
                // The buffer's last bytes may be the beginning of the pattern; at the file's end they are not.
                let is_all = self.buffer.len() < PAGE_MAX_BYTES;
                let none = self.buffer.len().saturating_sub(if is_all { 0 } else { CAPTURE.len() });
                let skipped = next.map_or(none, |next| next.saturating_add(1));
                self.pass(skipped);
                let bytes = self.offset.saturating_sub(offset);
                Ok(Found::Damage(Damage { offset, bytes, fault }))
            }
        }
    }

    /// Gives the input back, of which the buffer has been read ahead.
    pub(super) fn into_input(self) -> R {
        self.input
    }

    fn pass(&mut self, bytes: usize) {
        self.buffer.drain(..bytes.min(self.buffer.len()));
        self.offset = self.offset.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

impl Page {
    /// The pieces of packets on the page, each with whether its packet ends here.
    pub(super) fn pieces(&self) -> Vec<(&[u8], bool)> {
        let mut pieces = Vec::new();
        let mut rest = self.body.as_slice();
        let mut length = 0usize;
        for (index, segment) in self.segments.iter().enumerate() {
            length = length.saturating_add(usize::from(*segment));
            let is_end = *segment < 255;
            let is_last = index.saturating_add(1) == self.segments.len();
            if is_end || is_last {
                let (piece, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                pieces.push((piece, is_end));
                rest = after;
                length = 0;
            }
        }
        pieces
    }
}

/// Reads a page at the beginning of bytes. Returns how long it is, too.
fn parse(bytes: &[u8]) -> Result<(Page, usize), &'static str> {
    const CUT: &str = "a page is cut off";
    if !bytes.starts_with(CAPTURE) {
        return Err(if CAPTURE.starts_with(bytes) { CUT } else { "no page begins here" });
    }
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(CUT)?;
    let segments = usize::from(*header.last().ok_or(CUT)?);
    let (segments, rest) = rest.split_at_checked(segments).ok_or(CUT)?;
    let length: usize = segments.iter().map(|segment| usize::from(*segment)).sum();
    let body = rest.get(..length).ok_or(CUT)?;
    let (mut parser, _) = PageParser::new(*header).map_err(|_| "a page of an unknown version")?;
    parser.parse_segments(segments.to_vec());
    parser.parse_packet_data(body.to_vec()).map_err(|_| "a page's checksum is wrong")?;
    let [_, _, _, _, _, flags, granule @ ..] = header;
    let (granule, rest) = granule.split_first_chunk::<8>().ok_or(CUT)?;
    let (serial, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    let (sequence, _) = rest.split_first_chunk::<4>().ok_or(CUT)?;
    let page = Page {
        serial: u32::from_le_bytes(*serial),
        sequence: u32::from_le_bytes(*sequence),
        granule: i64::from_le_bytes(*granule),
        is_first: flags & 2 != 0,
        is_last: flags & 4 != 0,
        is_continued: flags & 1 != 0,
        segments: segments.to_vec(),
        body: body.to_vec(),
    };
    let total = HEADER_BYTES.saturating_add(segments.len()).saturating_add(length);
    Ok((page, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogg::{PacketWriteEndInfo, PacketWriter};

    /// Three pages, of which the first ends in a packet that goes on in the second.
    fn three_pages() -> Vec<u8> {
        let mut writer = PacketWriter::new(Vec::new());
        let end = PacketWriteEndInfo::EndPage;
        writer.write_packet(vec![1; 300], 9, PacketWriteEndInfo::NormalPacket, 10).unwrap();
        writer.write_packet(vec![2; 70_000], 9, end, 20).unwrap();
        writer.write_packet(vec![3; 10], 9, PacketWriteEndInfo::EndStream, 30).unwrap();
        writer.into_inner()
    }

    fn all(bytes: &[u8]) -> (Vec<Page>, Vec<Damage>) {
        let mut reader = Pages::new(bytes);
        let (mut pages, mut damage) = (Vec::new(), Vec::new());
        loop {
            match reader.next().unwrap() {
                Found::Page(page) => pages.push(page),
                Found::Damage(bytes) => damage.push(bytes),
                Found::End => return (pages, damage),
            }
        }
    }

    #[test]
    fn packets_come_in_pieces_with_their_ends_told() {
        let (pages, damage) = all(&three_pages());
        assert!(damage.is_empty());
        let lengths = |page: &Page| {
            page.pieces().iter().map(|(piece, is_end)| (piece.len(), *is_end)).collect::<Vec<_>>()
        };
        assert_eq!(lengths(&pages[0])[0], (300, true));
        assert_eq!((pages[0].is_first, pages[1].is_continued, pages[2].is_last), (true, true, true));
        let second: usize = pages.iter().flat_map(lengths).map(|(length, _)| length).sum();
        assert_eq!(second, 300 + 70_000 + 10);
        assert_eq!(pages.iter().map(|page| page.sequence).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((pages[0].granule, pages[2].granule, pages[2].serial), (10, 30, 9));
    }

    #[test]
    fn a_damaged_page_costs_itself_only_and_the_bytes_add_up() {
        let good = three_pages();
        for at in (0..good.len()).step_by(701) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            let (pages, damage) = all(&bad);
            assert_eq!(pages.len(), 2, "byte {at}");
            let lost: u64 = damage.iter().map(|damage| damage.bytes).sum();
            let kept: usize =
                pages.iter().map(|page| HEADER_BYTES + page.segments.len() + page.body.len()).sum();
            assert_eq!(usize::try_from(lost).unwrap() + kept, good.len(), "byte {at}");
        }
    }

    #[test]
    fn what_is_cut_off_or_no_page_at_all_is_told_and_ends() {
        let good = three_pages();
        let (pages, damage) = all(&good[..good.len() - 1]);
        assert_eq!((pages.len(), damage[0].fault), (2, "a page is cut off"));
        let (pages, damage) = all(&[b'x'; 200_000]);
        assert!(pages.is_empty());
        assert_eq!(damage.iter().map(|damage| damage.bytes).sum::<u64>(), 200_000);
        let (pages, _) = all(&[&[b'O'; 70_000][..], &good].concat());
        assert_eq!(pages.len(), 3, "pages behind rubbish are found");
    }
}

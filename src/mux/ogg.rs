//! Ogg Opus pages (RFC 3533, RFC 7845): headers, one packet a cell, exact granule positions.
//!
//! A page ends after a second of audio, or when its segment table is full. It is finished only when the next packet
//! comes, because the last page must carry both audio and the end-of-stream flag: validators complain about an
//! empty last page. A page's granule position is the number of samples in all packets that end on or before it; the
//! last one is cut back to where the recording ends. Nothing is written here: [`Pages::bytes`] hands out what is
//! finished, so memory holds a page or two.
//!
//! | page | size | field |
//! | --- | --- | --- |
//! | 0 | 5 | magic "OggS", version 0 |
//! | 5 | 1 | flags: 1 begins within a packet, 2 first, 4 last |
//! | 6 | 8 | granule position, little-endian as all below; all ones where no packet ends |
//! | 14 | 4 | serial number of the stream |
//! | 18 | 4 | number of the page |
//! | 22 | 4 | CRC-32 of the page, these four bytes zero: polynomial 04C11DB7, high bit first, begun with 0 |
//! | 26 | 1 | N, the segments |
//! | 27 | N | the length of each; a packet ends with the first that is shorter than 255 |
//! | 27+N | rest | the packets |
//!
//! Written here and not by the `ogg` crate: that takes each packet in a buffer of its own and sums pages byte by byte,
//! which was a quarter of the time in which a call is finished.

/// Samples that a player drops at the beginning: libopus' look-ahead, with which a sample's place in the file is its
/// media time. RFC 7845 section 4.2 wants 3840 where decoding starts in mid-stream; here every channel starts with
/// its first packet, and a longer pre-skip would only put 80 ms of nothing in front of it.
pub const PRE_SKIP: u16 = 312;

/// A page for each second of audio, as opusenc does: players seek to within a second.
const PAGE_SAMPLES: u64 = 48_000;
/// Entries in a page's segment table.
const PAGE_SEGMENTS: usize = 255;
/// Flags of a page.
const GOES_ON: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// The granule position of a page on which no packet ends.
const NO_PACKET_ENDS: u64 = u64::MAX;
/// Where the checksum stands in a page.
const CHECKSUM_AT: usize = 22;

/// What the identification header says of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Mapping family 1: two mono streams, left and right. Readers that know only coupled stereo do not matter
    /// here; family 255 would be refused by most.
    TwoMonoStreams,
    /// Mapping family 0: one mono stream.
    Mono,
    /// Mapping family 0: one stream of two coupled channels.
    Stereo,
}

/// Makes the identification header, "OpusHead". Players drop `pre_skip` samples at the beginning.
#[must_use]
pub fn head(layout: Layout, pre_skip: u16) -> Vec<u8> {
    let channels = match layout {
        Layout::TwoMonoStreams | Layout::Stereo => 2,
        Layout::Mono => 1,
    };
    let mut head = b"OpusHead".to_vec();
    head.extend_from_slice(&[1, channels]);
    head.extend_from_slice(&pre_skip.to_le_bytes());
    head.extend_from_slice(&48_000u32.to_le_bytes());
    head.extend_from_slice(&0i16.to_le_bytes());
    match layout {
        // Family, streams, coupled streams, and the stream of each channel.
        Layout::TwoMonoStreams => head.extend_from_slice(&[1, 2, 0, 0, 1]),
        Layout::Mono | Layout::Stereo => head.push(0),
    }
    head
}

/// Makes the comment header, "OpusTags".
#[must_use]
pub fn tags(vendor: &str, comments: &[(&str, String)]) -> Vec<u8> {
    let mut tags = b"OpusTags".to_vec();
    push_text(vendor, &mut tags);
    push_count(comments.len(), &mut tags);
    for (name, value) in comments {
        push_text(&format!("{name}={value}"), &mut tags);
    }
    tags
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    push_count(text.len(), out);
    out.extend_from_slice(text.as_bytes());
}

fn push_count(count: usize, out: &mut Vec<u8>) {
    let count = u32::try_from(count).expect("ids and labels are bounded far below 4 GiB");
    out.extend_from_slice(&count.to_le_bytes());
}

/// A writer of one logical stream into memory.
#[derive(Debug)]
pub struct Pages {
    /// Pages that are finished.
    out: Vec<u8>,
    serial: u32,
    /// The number of the page in the making.
    number: u32,
    /// The flags of its header.
    flags: u8,
    /// Its segment table.
    segments: Vec<u8>,
    /// Its packets.
    body: Vec<u8>,
    /// Where the last of them begins in `body`.
    last_packet: usize,
    /// Samples in its packets.
    page_samples: u64,
    /// Samples in all packets so far.
    samples: u64,
}

impl Pages {
    /// Begins a stream with its two headers, each on a page of its own.
    #[must_use]
    pub fn new(serial: u32, head: &[u8], tags: &[u8]) -> Self {
        let mut pages = Self {
            out: Vec::new(),
            serial,
            number: 0,
            flags: FIRST,
            segments: Vec::with_capacity(PAGE_SEGMENTS),
            body: Vec::new(),
            last_packet: 0,
            page_samples: 0,
            samples: 0,
        };
        for header in [head, tags] {
            pages.packet().extend_from_slice(header);
            pages.list_packet(header.len());
            pages.end_page(0);
        }
        pages
    }

    /// Where to append the bytes of the next packet, before [`Pages::push`].
    pub fn packet(&mut self) -> &mut Vec<u8> {
        self.last_packet = self.body.len();
        &mut self.body
    }

    /// Adds the audio packet that was appended to [`Pages::packet`], of `samples` at 48 kHz.
    pub fn push(&mut self, samples: u64) {
        let length = self.body.len() - self.last_packet;
        let is_full = self.segments.len() + length / 255 + 1 > PAGE_SEGMENTS;
        if !self.segments.is_empty() && (self.page_samples >= PAGE_SAMPLES || is_full) {
            self.end_page_before(self.last_packet, self.samples);
        }
        self.list_packet(length);
        self.page_samples += samples;
        self.samples += samples;
    }

    /// Ends the stream at `granule`, which lies within the last packet.
    pub fn finish(&mut self, granule: u64) {
        if !self.segments.is_empty() {
            self.flags |= LAST;
            self.end_page(granule);
        }
    }

    /// The bytes of the pages finished so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Forgets the pages finished so far.
    pub fn clear(&mut self) {
        self.out.clear();
    }

    /// Enters the packet at the end of the page into its segment table. One that is longer than a page, which no other
    /// shares with it, goes on on the next.
    fn list_packet(&mut self, length: usize) {
        let mut left = length;
        while left >= 255 {
            self.segments.push(255);
            left -= 255;
            if self.segments.len() == PAGE_SEGMENTS {
                self.end_page_before(self.body.len() - left, NO_PACKET_ENDS);
                self.flags |= GOES_ON;
            }
        }
        self.segments.push(u8::try_from(left).expect("less than 255"));
    }

    /// Finishes the page, and begins the next one with what stands in this one from `end` on.
    fn end_page_before(&mut self, end: usize, granule: u64) {
        let behind = self.body.split_off(end);
        self.end_page(granule);
        self.body.extend_from_slice(&behind);
    }

    /// Finishes the page.
    fn end_page(&mut self, granule: u64) {
        let start = self.out.len();
        self.out.extend_from_slice(b"OggS\0");
        self.out.push(std::mem::take(&mut self.flags));
        self.out.extend_from_slice(&granule.to_le_bytes());
        self.out.extend_from_slice(&self.serial.to_le_bytes());
        self.out.extend_from_slice(&self.number.to_le_bytes());
        self.out.extend_from_slice(&[0; 4]);
        self.out.push(u8::try_from(self.segments.len()).expect("at most 255"));
        self.out.append(&mut self.segments);
        self.out.append(&mut self.body);
        let page = &mut self.out[start..];
        let sum = checksum(page);
        page[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&sum.to_le_bytes());
        self.number += 1;
        self.page_samples = 0;
    }
}

/// The checksum of a page. POSIX `cksum` has the same polynomial and begins likewise, but inverts the result.
fn checksum(page: &[u8]) -> u32 {
    let inverted = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Cksum, page);
    !u32::try_from(inverted).expect("a checksum of 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogg::PacketReader;
    use proptest::prelude::*;

    fn pages(layout: Layout, packets: impl IntoIterator<Item = (usize, u8)>) -> Pages {
        let mut pages = Pages::new(7, &head(layout, PRE_SKIP), &tags("test", &[("A", "b".to_owned())]));
        for (size, byte) in packets {
            let filled = pages.packet().len() + size;
            pages.packet().resize(filled, byte);
            pages.push(960);
        }
        pages
    }

    #[test]
    fn pages_hold_a_second_each_and_the_last_one_ends_the_stream_with_audio() {
        let mut pages = pages(Layout::TwoMonoStreams, (0..120).map(|n| (300, n)));
        pages.finish(120 * 960 - 500);
        let mut reader = PacketReader::new(std::io::Cursor::new(pages.bytes()));
        let mut granules = Vec::new();
        let mut count = 0u64;
        while let Some(packet) = reader.read_packet().unwrap() {
            if packet.last_in_page() {
                granules.push(packet.absgp_page());
                assert_eq!(packet.last_in_stream(), count == 121);
            }
            count += 1;
        }
        assert_eq!(granules, [0, 0, 48_000, 96_000, 120 * 960 - 500]);
        assert_eq!(count, 122);
    }

    #[test]
    fn large_packets_end_a_page_before_its_table_is_full() {
        let mut pages = pages(Layout::Mono, [(20_000, 1); 20]);
        pages.finish(20 * 960);
        let mut reader = PacketReader::new(std::io::Cursor::new(pages.bytes()));
        let mut on_pages = vec![0];
        while let Some(packet) = reader.read_packet().unwrap() {
            *on_pages.last_mut().unwrap() += 1;
            on_pages.extend((packet.last_in_page() && !packet.last_in_stream()).then_some(0));
        }
        assert_eq!(on_pages, [1, 1, 3, 3, 3, 3, 3, 3, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Packets of whole segments, of none, of more than a page holds: the reader compares each page's checksum.
        #[test]
        fn packets_of_any_size_are_read_back_as_they_were(
            sizes in prop::collection::vec(
                prop_oneof![0..600usize, 250..260usize, 64_000..66_000usize, Just(255 * 255), 130_000..131_000usize],
                1..80,
            ),
        ) {
            let packets = (0..=u8::MAX).cycle().zip(&sizes).map(|(byte, size)| (*size, byte));
            let mut pages = pages(Layout::Stereo, packets.clone());
            pages.finish(u64::try_from(sizes.len()).unwrap() * 960);
            let mut reader = PacketReader::new(std::io::Cursor::new(pages.bytes()));
            for _ in 0..2 {
                reader.read_packet_expected().unwrap();
            }
            for (size, byte) in packets {
                let packet = reader.read_packet_expected().unwrap();
                prop_assert!(packet.data.len() == size && packet.data.iter().all(|read| *read == byte));
            }
            prop_assert!(reader.read_packet().unwrap().is_none());
        }
    }
}

//! Ogg Opus pages (RFC 3533, RFC 7845): headers, one packet a cell, exact granule positions.
//!
//! A page ends after a second of audio, or when its segment table is full. A packet is held back until the next one
//! comes, because the last page must carry both audio and the end-of-stream flag: validators complain about an
//! empty last page. A page's granule position is the number of samples in all packets that end on or before it; the
//! last one is cut back to where the recording ends. Nothing is written here: [`Pages::take_bytes`] hands out what is
//! finished, so memory holds a page or two.

use ogg::writing::{PacketWriteEndInfo, PacketWriter};

/// Samples that a player drops at the beginning: libopus' look-ahead, with which a sample's place in the file is its
/// media time. RFC 7845 section 4.2 wants 3840 where decoding starts in mid-stream; here every channel starts with
/// its first packet, and a longer pre-skip would only put 80 ms of nothing in front of it.
pub const PRE_SKIP: u16 = 312;

/// A page for each second of audio, as opusenc does: players seek to within a second.
const PAGE_SAMPLES: u64 = 48_000;
/// Entries in a page's segment table.
const PAGE_SEGMENTS: usize = 255;

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
pub struct Pages {
    writer: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// Samples in the packets handed to the writer.
    samples: u64,
    page_samples: u64,
    page_segments: usize,
    held: Option<(Vec<u8>, u64)>,
}

impl Pages {
    /// Begins a stream with its two headers, each on a page of its own.
    #[must_use]
    pub fn new(serial: u32, head: Vec<u8>, tags: Vec<u8>) -> Self {
        let writer = PacketWriter::new(Vec::new());
        let mut pages = Self { writer, serial, samples: 0, page_samples: 0, page_segments: 0, held: None };
        pages.write(head, PacketWriteEndInfo::EndPage, 0);
        pages.write(tags, PacketWriteEndInfo::EndPage, 0);
        pages
    }

    /// Adds an audio packet of `samples` at 48 kHz.
    pub fn push(&mut self, packet: Vec<u8>, samples: u64) {
        let segments = packet.len() / 255 + 1;
        if let Some((held, held_samples)) = self.held.replace((packet, samples)) {
            let held_segments = held.len() / 255 + 1;
            self.page_samples += held_samples;
            self.page_segments += held_segments;
            let is_full = self.page_segments + segments > PAGE_SEGMENTS;
            let end = if self.page_samples >= PAGE_SAMPLES || is_full {
                self.page_samples = 0;
                self.page_segments = 0;
                PacketWriteEndInfo::EndPage
            } else {
                PacketWriteEndInfo::NormalPacket
            };
            self.samples += held_samples;
            self.write(held, end, self.samples);
        }
    }

    /// Ends the stream at `granule`, which lies within the last packet.
    pub fn finish(&mut self, granule: u64) {
        if let Some((held, _)) = self.held.take() {
            self.write(held, PacketWriteEndInfo::EndStream, granule);
        }
    }

    /// Takes the bytes of the pages finished so far.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.inner_mut())
    }

    fn write(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo, granule: u64) {
        self.writer.write_packet(packet, self.serial, end, granule).expect("writing to memory cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogg::PacketReader;

    #[test]
    fn pages_hold_a_second_each_and_the_last_one_ends_the_stream_with_audio() {
        let mut pages =
            Pages::new(7, head(Layout::TwoMonoStreams, PRE_SKIP), tags("test", &[("A", "b".to_owned())]));
        for n in 0..120u8 {
            pages.push(vec![n; 300], 960);
        }
        pages.finish(120 * 960 - 500);
        let bytes = pages.take_bytes();
        let mut reader = PacketReader::new(std::io::Cursor::new(bytes));
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
        let mut pages = Pages::new(7, head(Layout::Mono, PRE_SKIP), tags("test", &[]));
        for _ in 0..20 {
            pages.push(vec![1; 20_000], 960);
        }
        pages.finish(20 * 960);
        let mut reader = PacketReader::new(std::io::Cursor::new(pages.take_bytes()));
        let mut count = 0;
        while let Some(packet) = reader.read_packet().unwrap() {
            assert!(count < 2 || packet.data.len() == 20_000);
            count += 1;
        }
        assert_eq!(count, 22);
    }
}

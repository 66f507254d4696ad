//! The reader of finished recordings: pages, headers, both channels' frames, and what they decode to.
//!
//! Written from RFC 7845 and RFC 6716 alone, so that a mistake in the writer is not read back as right.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;

use ogg::{PacketReader, PacketWriteEndInfo, PacketWriter};
use opus::{Channels, Decoder, MSDecoder};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::media::samples_of;

/// Samples that players drop at the beginning.
pub(crate) const PRE_SKIP: u64 = 312;

/// A finished stereo recording.
pub(crate) struct Recording {
    /// The identification header.
    pub(crate) head: Vec<u8>,
    /// The comments, in order: name and value.
    pub(crate) comments: Vec<(String, String)>,
    /// The audio packets as they stand in the file.
    pub(crate) packets: Vec<Vec<u8>>,
    /// The frames of caller and AI.
    pub(crate) channels: [Vec<Placed>; 2],
    /// The granule position of the last page.
    pub(crate) granule: u64,
}

/// One Opus frame without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sound {
    /// The TOC byte without the count code: mode, bandwidth, frame size, mono or stereo.
    pub(crate) configuration: u8,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
}

/// One Opus frame in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Where it begins, in samples at 48 kHz.
    pub(crate) at: u64,
    /// How long it is.
    pub(crate) samples: u64,
    /// What it is.
    pub(crate) sound: Sound,
}

impl Sound {
    /// Whether a decoder has to make something up in its place.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it is CELT's frame of digital silence.
    pub(crate) fn is_silence(&self) -> bool {
        self.configuration >= 16 << 3 && self.bytes == [0xff, 0xfe]
    }

    /// Whether it carries sound.
    pub(crate) fn is_heard(&self) -> bool {
        !self.is_empty() && !self.is_silence()
    }
}

/// The frames of an Opus packet that carry sound.
pub(crate) fn sounds_of(packet: &[u8]) -> Vec<Sound> {
    let frames = frames_of(packet);
    frames.into_iter().filter(Sound::is_heard).collect()
}

/// The frames of Opus packets in a row that carry sound.
pub(crate) fn sounds_in(packets: &[Vec<u8>]) -> Vec<Sound> {
    packets.iter().flat_map(|packet| sounds_of(packet)).collect()
}

/// All frames of an Opus packet.
pub(crate) fn frames_of(packet: &[u8]) -> Vec<Sound> {
    let parsed = opus::packet::parse(packet).expect("libopus takes the packet");
    let configuration = parsed.toc & 0xfc;
    parsed.frames.iter().map(|frame| Sound { configuration, bytes: frame.to_vec() }).collect()
}

impl Recording {
    /// Reads a recording, and checks of its pages what each recording has to keep to.
    pub(crate) fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut reader = PacketReader::new(BufReader::new(file));
        let mut next = || reader.read_packet().expect("whole pages with right checksums");
        let head = next().expect("an identification header");
        assert!(head.first_in_stream() && head.last_in_page() && head.absgp_page() == 0);
        let tags = next().expect("a comment header");
        assert!(tags.first_in_page() && tags.last_in_page(), "the comments have pages of their own");
        assert_eq!(tags.absgp_page(), 0, "the granule position of the comments");

        let mut recording = Self {
            head: head.data.clone(),
            comments: read_comments(&tags.data),
            packets: Vec::new(),
            channels: [Vec::new(), Vec::new()],
            granule: 0,
        };
        let (mut samples, mut is_ended) = (0, false);
        while let Some(packet) = next() {
            assert!(!is_ended, "a packet behind the end of the stream");
            assert_eq!(packet.stream_serial(), head.stream_serial(), "one logical stream");
            samples += recording.push(&packet.data, samples);
            is_ended = packet.last_in_stream();
            if packet.last_in_page() && !is_ended {
                assert_eq!(packet.absgp_page(), samples, "the granule position of a page in the middle");
            }
            recording.granule = packet.absgp_page();
            recording.packets.push(packet.data);
        }
        assert!(is_ended, "the last packet ends the stream");
        assert!(recording.granule <= samples, "no page promises more than there is");
        recording
    }

    /// Adds a pair of packets that begins at `at`, and returns its length.
    fn push(&mut self, pair: &[u8], at: u64) -> u64 {
        let (caller, ai) = split_self_delimited(pair);
        let lengths = [caller.as_slice(), ai].map(|packet| u64::from(samples_of(packet)));
        assert_eq!(lengths[0], lengths[1], "both packets of a pair are of one length");
        for (channel, packet) in [caller.as_slice(), ai].into_iter().enumerate() {
            let sounds = frames_of(packet);
            let samples = lengths[channel] / u64::try_from(sounds.len()).expect("at most 48");
            let starts = (0..).map(|index| at + samples * index);
            let placed = sounds.into_iter().zip(starts).map(|(sound, at)| Placed { at, samples, sound });
            self.channels[channel].extend(placed);
        }
        lengths[0]
    }

    /// Checks what the headers say, and that the manifest tells the truth about the file.
    pub(crate) fn check(&self, path: &Path, manifest: &Value) {
        let head = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\x01\x02\0\0\x01";
        assert_eq!(self.head, head, "stereo made of two uncoupled mono streams, pre-skip 312");
        let text =
            |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {manifest}")).to_owned();
        assert_eq!(self.comment("CONNECTION_ID"), Some(text(&manifest["connection_id"]).as_str()));
        let outcome = manifest.get("outcome_told").unwrap_or(&manifest["outcome"]);
        for value in [outcome, &manifest["started_at"]] {
            let is_told = self.comments.iter().any(|(_, comment)| *comment == text(value));
            assert!(is_told, "{value} is in the comments: {:?}", self.comments);
        }
        assert!(self.comment("ENCODER").is_some_and(|encoder| encoder.contains("sidetape")));

        let samples = manifest["duration_ms"].as_u64().expect("a duration") * 48;
        assert!(
            samples.abs_diff(self.samples()) <= 24,
            "{} samples play {}",
            self.samples(),
            manifest["duration_ms"]
        );
        let bytes = std::fs::read(path).expect("the recording");
        assert_eq!(manifest["file"]["bytes"], bytes.len());
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(manifest["file"]["sha256"], sha256);
        assert_eq!(manifest["file"]["crc32c"], format!("{:08x}", crc32c::crc32c(&bytes)));
        assert_eq!(manifest["file"]["format"], "lossless");
        assert_eq!(manifest["schema"], 1);
    }

    /// How long it plays, in samples at 48 kHz.
    pub(crate) fn samples(&self) -> u64 {
        self.granule - PRE_SKIP
    }

    /// The value of a comment.
    pub(crate) fn comment(&self, name: &str) -> Option<&str> {
        self.comments.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The frames of a channel that carry sound, in order.
    pub(crate) fn sounds(&self, channel: usize) -> Vec<Sound> {
        self.heard(channel).map(|placed| placed.sound.clone()).collect()
    }

    /// The frames of a channel that carry sound, with their places.
    pub(crate) fn heard(&self, channel: usize) -> impl Iterator<Item = &Placed> {
        self.channels[channel].iter().filter(|placed| placed.sound.is_heard())
    }

    /// Where a channel's first sound begins, in milliseconds.
    pub(crate) fn first_heard_ms(&self, channel: usize) -> u64 {
        self.heard(channel).next().expect("the channel is not silent").at / 48
    }

    /// Both channels decoded from the pairs in the file, by libopus, with the samples that players drop.
    pub(crate) fn decode(&self) -> [Vec<f32>; 2] {
        let mut decoder = MSDecoder::new(48_000, 2, 0, &[0, 1]).expect("two mono streams");
        let mut channels = [Vec::new(), Vec::new()];
        let mut pcm = vec![0.0; 5760 * 2];
        for packet in &self.packets {
            let samples = decoder.decode_float(packet, &mut pcm, false).expect("libopus decodes each pair");
            let (pairs, _) = pcm[..samples * 2].as_chunks::<2>();
            for [left, right] in pairs {
                channels[0].push(*left);
                channels[1].push(*right);
            }
        }
        channels
    }

    /// One channel's frames decoded by themselves, one after the other, by a decoder that sees nothing else.
    ///
    /// Where the recording has an empty frame the decoder is told that a packet is missing. It makes something up in
    /// pieces of the length of the frame before, so that an empty frame of another length is given to it as it is.
    pub(crate) fn decode_alone(&self, channel: usize) -> Vec<f32> {
        let mut decoder = Decoder::new(48_000, Channels::Mono).expect("a mono decoder");
        let mut pcm = Vec::new();
        let mut before = None;
        for Placed { samples, sound, .. } in &self.channels[channel] {
            let is_missing = sound.is_empty() && before == Some(sound.configuration);
            let packet = [&[sound.configuration], sound.bytes.as_slice()].concat();
            let packet = if is_missing { Vec::new() } else { packet };
            before = Some(sound.configuration);
            pcm.extend(decode_one(&mut decoder, &packet, usize::try_from(*samples).expect("at most 2880")));
        }
        pcm
    }

    /// Writes one channel as a mono Ogg Opus file of its own, for decoders that only read files.
    pub(crate) fn write_mono(&self, channel: usize, path: &Path) {
        let file = File::create(path).expect("a new file");
        let mut writer = PacketWriter::new(file);
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend_from_slice(&self.head[10..18]);
        head.push(0);
        let tags = b"OpusTags\x03\0\0\0rig\0\0\0\0".to_vec();
        let mut write =
            |packet, end, granule| writer.write_packet(packet, 1, end, granule).expect("a new file");
        write(head, PacketWriteEndInfo::EndPage, 0);
        write(tags, PacketWriteEndInfo::EndPage, 0);
        let frames = &self.channels[channel];
        for (index, placed) in frames.iter().enumerate() {
            let packet = [&[placed.sound.configuration], placed.sound.bytes.as_slice()].concat();
            let is_last = index + 1 == frames.len();
            let end = if is_last { PacketWriteEndInfo::EndStream } else { PacketWriteEndInfo::NormalPacket };
            write(packet, end, if is_last { self.granule } else { placed.at + placed.samples });
        }
    }
}

/// Decodes packets with a decoder of their own.
pub(crate) fn decode_packets(packets: &[Vec<u8>]) -> Vec<f32> {
    let mut decoder = Decoder::new(48_000, Channels::Mono).expect("a mono decoder");
    packets.iter().flat_map(|packet| decode_one(&mut decoder, packet, 5760)).collect()
}

fn decode_one(decoder: &mut Decoder, packet: &[u8], room: usize) -> Vec<f32> {
    let mut pcm = vec![0.0; room];
    let samples = decoder.decode_float(packet, &mut pcm, false).expect("libopus decodes the packet");
    pcm.truncate(samples);
    pcm
}

/// The loudest sample of a stretch, 1 being full scale.
pub(crate) fn peak(pcm: &[f32], range: Range<usize>) -> f32 {
    pcm[range].iter().fold(0.0, |peak, sample| sample.abs().max(peak))
}

fn read_comments(tags: &[u8]) -> Vec<(String, String)> {
    let mut rest = tags.strip_prefix(b"OpusTags").expect("the comment header's magic");
    let mut take = |length: usize| {
        let (taken, after) = rest.split_at(length);
        rest = after;
        taken
    };
    let count = |bytes: &[u8]| {
        let number = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        usize::try_from(number).expect("a length within the packet")
    };
    let vendor_bytes = count(take(4));
    let vendor = std::str::from_utf8(take(vendor_bytes)).expect("the vendor is text");
    assert!(!vendor.is_empty(), "the vendor is named");
    let comments = count(take(4));
    let mut read = || {
        let length = count(take(4));
        let text = std::str::from_utf8(take(length)).expect("a comment is text");
        let (name, value) = text.split_once('=').expect("a comment has a name");
        (name.to_owned(), value.to_owned())
    };
    (0..comments).map(|_| read()).collect()
}

/// Splits the packet of the first stream, which says its own length (RFC 6716 appendix B), off a pair. Returns it in
/// the ordinary form, which is the same without that length, and the second stream's packet.
fn split_self_delimited(pair: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut rest = Cursor(pair);
    let toc = rest.byte();
    let mut plain = vec![toc];
    let bytes = match toc & 3 {
        0 => rest.length().0,
        1 => rest.length().0 * 2,
        2 => {
            let (first, written) = rest.length();
            plain.extend_from_slice(written);
            first + rest.length().0
        }
        _ => {
            let header = rest.byte();
            plain.push(header);
            let padding = if header & 0x40 == 0 { 0 } else { rest.padding(&mut plain) };
            let count = usize::from(header & 0x3f);
            if header & 0x80 == 0 {
                padding + rest.length().0 * count
            } else {
                let mut sum = padding;
                for _ in 1..count {
                    let (length, written) = rest.length();
                    plain.extend_from_slice(written);
                    sum += length;
                }
                sum + rest.length().0
            }
        }
    };
    let (frames, second) = rest.0.split_at(bytes);
    plain.extend_from_slice(frames);
    (plain, second)
}

struct Cursor<'p>(&'p [u8]);

impl<'p> Cursor<'p> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().expect("the packet is not cut off");
        self.0 = rest;
        *byte
    }

    /// A frame's length, and the one or two bytes in which it is written.
    fn length(&mut self) -> (usize, &'p [u8]) {
        let start = self.0;
        let first = usize::from(self.byte());
        if first < 252 {
            return (first, &start[..1]);
        }
        (first + 4 * usize::from(self.byte()), &start[..2])
    }

    /// The length of the padding; the bytes in which it is written are copied.
    fn padding(&mut self, copy: &mut Vec<u8>) -> usize {
        let mut padding = 0;
        loop {
            let byte = self.byte();
            copy.push(byte);
            if byte < 255 {
                return padding + usize::from(byte);
            }
            padding += 254;
        }
    }
}

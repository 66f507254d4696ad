//! Listens to an Ogg Opus file, any in the world of one or two channels: what its headers say, how loud each channel
//! is over time, and what is wrong with it.
//!
//! Every packet is decoded and nothing of it kept but its loudness, so memory does not grow with the file. Damage is
//! read around: what is missing by the pages' positions is silence in its place, so that times behind it stay right.
//! Nothing here judges; that is the command's.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

mod head;
mod meter;
mod pages;

use std::io::{self, BufReader, Read};

use opus::MSDecoder;
use sha2::{Digest as _, Sha256};

use crate::opus::packet::PACKET_MAX_SAMPLES;
use crate::picture::envelope::Envelope;
use crate::time::Samples48k;
pub use head::{Head, Tags};
pub use meter::Level;
use meter::{Likeness, Meter};
pub use pages::Damage;
use pages::{Found, Page, Pages};

/// After so many damaged places the rest is not looked at: each may cost a page's checksum.
const DAMAGE_MAX: usize = 1000;
/// The longest packet that is put together: two streams of 48 frames are an eighth of this.
const PACKET_MAX_BYTES: usize = 1 << 20;
/// A position this far ahead is not believed: a day.
const GAP_MAX_SAMPLES: i64 = 86_400 * 48_000;
/// Missing stretches that are told one by one.
const MISSING_MAX: usize = 1000;

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// The first stream's identification header.
    pub head: Head,
    /// The first stream's comments.
    pub tags: Option<Tags>,
    /// How long it plays.
    pub duration: Samples48k,
    /// The channels, left first.
    pub channels: Vec<HeardChannel>,
    /// Whether both channels are the same sound.
    pub is_identical: bool,
    /// Audio packets.
    pub packets: u64,
    /// Those that libopus refuses.
    pub undecodable: u64,
    /// Pages with a right checksum.
    pub pages: u64,
    /// Pages of another logical stream beside the one that is listened to.
    pub foreign_pages: u64,
    /// Pages whose numbers are missing.
    pub missing_pages: u64,
    /// Streams one behind the other.
    pub links: u64,
    /// Whether the last stream has its flag of the end.
    pub is_ended: bool,
    /// Pages whose position does not agree with the packets on them.
    pub wrong_positions: u64,
    /// Audio packets that end nowhere, or whose beginning is missing.
    pub torn_packets: u64,
    /// What is missing by the pages' positions.
    pub missing: Vec<(Samples48k, Samples48k)>,
    /// Bytes that are no page, in order.
    pub damage: Vec<Damage>,
    /// Why the rest was not looked at.
    pub stopped: Option<&'static str>,
}

/// How a channel sounds.
#[derive(Clone, Debug)]
pub struct HeardChannel {
    /// Its loudness over time.
    pub envelope: Envelope,
    /// Its loudness over all.
    pub level: Level,
}

/// There is nothing to listen to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The disk said no.
    #[error("reading the file")]
    Read(#[from] io::Error),
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Another format, or damaged beyond recognition.
    #[error("not an ogg file: there is no whole page in it")]
    NotOgg,
    /// Ogg with something else in it.
    #[error("not an ogg opus file: no stream in it begins with OpusHead")]
    NotOpus,
    /// Opus that is not for this program.
    #[error(
        "{channels} channels in mapping family {family}: only one or two, of families 0 and 1, can be looked at"
    )]
    Unsupported {
        /// How many channels.
        channels: u8,
        /// The channel mapping family.
        family: u8,
    },
    /// The identification header is wrong.
    #[error("the identification header {0}")]
    BadHead(&'static str),
    /// libopus has no memory.
    #[error("setting up libopus")]
    Codec(#[from] opus::Error),
}

/// Listens to a file from its beginning to its end.
///
/// # Errors
/// [`ListenError`] where not even the headers can be read. Everything else that is wrong is in what is returned.
pub fn listen(input: impl Read) -> Result<Heard, ListenError> {
    let mut pages = Pages::new(Hashed { input, sha256: Sha256::new(), bytes: 0 });
    let mut listener = Listener::default();
    loop {
        match pages.next()? {
            Found::Page(page) => listener.page(&page)?,
            Found::Damage(damage) => listener.damaged(damage),
            Found::End => break,
        }
        if listener.stopped.is_some() {
            break;
        }
    }
    let mut input = BufReader::new(pages.into_input());
    io::copy(&mut input, &mut io::sink())?;
    let Hashed { sha256, bytes, .. } = input.into_inner();
    let sha256 = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    listener.finish(bytes, sha256)
}

/// A reader that knows what it has read.
struct Hashed<R> {
    input: R,
    sha256: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(out)?;
        self.sha256.update(out.get(..length).unwrap_or_default());
        self.bytes = self.bytes.saturating_add(u64::try_from(length).unwrap_or(0));
        Ok(length)
    }
}

#[derive(Default)]
struct Listener {
    link: Option<Link>,
    first: Option<(Head, Option<Tags>)>,
    channels: Vec<(Envelope, Meter)>,
    likeness: Likeness,
    /// How much plays so far.
    position: i64,
    packets: u64,
    undecodable: u64,
    pages: u64,
    foreign_pages: u64,
    missing_pages: u64,
    links: u64,
    wrong_positions: u64,
    torn_packets: u64,
    missing: Vec<(Samples48k, Samples48k)>,
    damage: Vec<Damage>,
    stopped: Option<&'static str>,
}

/// A logical stream.
struct Link {
    serial: u32,
    decoder: MSDecoder,
    factor: f32,
    has_tags: bool,
    has_audio: bool,
    is_ended: bool,
    next_page: u32,
    /// Whether pages are missing since the last audio.
    is_torn: bool,
    /// The beginning of a packet that goes on.
    begun: Option<Vec<u8>>,
    /// The position at the end of the last page.
    granule: i64,
    /// Samples that are still to be dropped.
    to_skip: i64,
}

impl Listener {
    fn damaged(&mut self, damage: Damage) {
        let is_full = self.damage.len() == DAMAGE_MAX;
        match self.damage.last_mut() {
            Some(last) if last.offset.saturating_add(last.bytes) == damage.offset => {
                last.bytes = last.bytes.saturating_add(damage.bytes);
            }
            _ if is_full => {
                self.stopped = Some("the file is damaged in more than 1000 places");
            }
            _ => self.damage.push(damage),
        }
    }

    fn page(&mut self, page: &Page) -> Result<(), ListenError> {
        self.pages = self.pages.saturating_add(1);
        if page.is_first {
            return self.begin(page);
        }
        let Some(link) = self.link.as_mut().filter(|link| link.serial == page.serial && !link.is_ended)
        else {
            self.foreign_pages = self.foreign_pages.saturating_add(1);
            return Ok(());
        };
        let jumped = page.sequence.wrapping_sub(link.next_page);
        link.next_page = page.sequence.wrapping_add(1);
        // A number that goes back is no loss, but what was begun does not go on here either.
        if jumped != 0 {
            link.is_torn = true;
            self.torn_packets = self.torn_packets.saturating_add(u64::from(link.begun.take().is_some()));
            self.missing_pages =
                self.missing_pages.saturating_add(u64::from(if jumped < 1 << 31 { jumped } else { 1 }));
        }
        let mut packets = Vec::new();
        for (index, (piece, is_end)) in page.pieces().into_iter().enumerate() {
            let is_rest = index == 0 && page.is_continued;
            let begun = link.begun.take();
            if begun.is_some() != is_rest {
                self.torn_packets = self.torn_packets.saturating_add(1);
            }
            let mut packet = match (is_rest, begun) {
                (true, Some(begun)) => begun,
                (true, None) => continue,
                (false, _) => Vec::new(),
            };
            if packet.len() < PACKET_MAX_BYTES {
                packet.extend_from_slice(piece);
            }
            match is_end {
                true => packets.push(packet),
                false => link.begun = Some(packet),
            }
        }
        let mut audio = packets.as_slice();
        if !link.has_tags
            && let Some((tags, rest)) = audio.split_first()
        {
            link.has_tags = true;
            if let (1, Some((_, found))) = (self.links, &mut self.first) {
                *found = Tags::parse(tags);
            }
            audio = rest;
        }
        if page.is_last {
            link.is_ended = true;
        }
        if !audio.is_empty() {
            self.audio(audio, page.granule, page.is_last);
        }
        Ok(())
    }

    /// Begins a stream, unless one is going on: then it is another medium beside it.
    fn begin(&mut self, page: &Page) -> Result<(), ListenError> {
        let is_beside = self.link.as_ref().is_some_and(|link| !link.has_audio && !link.is_ended);
        let pieces = page.pieces();
        let packet = pieces.first().map_or(&[][..], |(piece, _)| piece);
        if is_beside || !packet.starts_with(head::HEAD_MAGIC) {
            self.foreign_pages = self.foreign_pages.saturating_add(1);
            return Ok(());
        }
        let head = match (Head::parse(packet), &self.first) {
            (Ok(head), None) => head,
            (Ok(head), Some((first, _))) if head.channels == first.channels => head,
            (Err(error), None) => return Err(error),
            (_, Some(_)) => {
                self.stopped = Some("another stream with other channels follows");
                return Ok(());
            }
        };
        self.links = self.links.saturating_add(1);
        self.link = Some(Link {
            serial: page.serial,
            decoder: MSDecoder::new(48_000, head.streams, head.coupled, &head.mapping)?,
            factor: head.factor(),
            has_tags: false,
            has_audio: false,
            is_ended: page.is_last,
            next_page: page.sequence.wrapping_add(1),
            is_torn: false,
            begun: None,
            granule: 0,
            to_skip: i64::from(head.pre_skip),
        });
        if self.first.is_none() {
            self.channels = vec![Default::default(); usize::from(head.channels)];
            self.first = Some((head, None));
        }
        Ok(())
    }

    /// Plays the packets that end on a page.
    fn audio(&mut self, packets: &[Vec<u8>], granule: i64, is_last: bool) {
        let Some(mut link) = self.link.take() else { return };
        let lengths: Vec<i64> = packets.iter().map(|packet| samples_of(packet)).collect();
        let total = lengths.iter().fold(0i64, |sum, length| sum.saturating_add(*length));
        // A stream may begin at any position (RFC 7845 section 4.3), but then no page before may be missing.
        if !link.has_audio && !link.is_torn && !is_last {
            link.granule = granule.saturating_sub(total).max(0);
        }
        let ahead = granule.saturating_sub(link.granule.saturating_add(total));
        let mut plays = total;
        if granule < 0 || ahead > GAP_MAX_SAMPLES || (ahead < 0 && !is_last) {
            self.wrong_positions = self.wrong_positions.saturating_add(1);
        } else if ahead < 0 {
            plays = plays.saturating_add(ahead).max(0);
        } else if ahead > 0 {
            self.gap(ahead, &mut link.to_skip);
        }
        link.granule = if granule < 0 { link.granule.saturating_add(total) } else { granule };
        link.has_audio = true;
        link.is_torn = false;
        for (packet, length) in packets.iter().zip(lengths) {
            self.packets = self.packets.saturating_add(1);
            let room = length.min(plays);
            plays = plays.saturating_sub(room);
            self.packet(packet, &mut link, room);
        }
        self.link = Some(link);
    }

    /// Decodes a packet, of which `room` samples play.
    fn packet(&mut self, packet: &[u8], link: &mut Link, room: i64) {
        let channels = self.channels.len();
        let most = usize::try_from(PACKET_MAX_SAMPLES).unwrap_or(0);
        let mut pcm = vec![0.0f32; most.saturating_mul(channels)];
        let is_refused = packet.is_empty() || link.decoder.decode_float(packet, &mut pcm, false).is_err();
        if is_refused {
            self.undecodable = self.undecodable.saturating_add(1);
            pcm.fill(0.0);
        }
        let dropped = link.to_skip.min(room);
        link.to_skip = link.to_skip.saturating_sub(dropped);
        let plays = room.saturating_sub(dropped);
        self.position = self.position.saturating_add(plays);
        let frames = pcm.chunks_exact(channels.max(1));
        for frame in
            frames.skip(usize::try_from(dropped).unwrap_or(0)).take(usize::try_from(plays).unwrap_or(0))
        {
            for ((envelope, meter), sample) in self.channels.iter_mut().zip(frame) {
                let sample = sample * link.factor;
                let sample = if sample.is_finite() { sample } else { 0.0 };
                envelope.push(sample);
                meter.push(sample);
            }
            if let [left, right] = frame {
                self.likeness.push(*left, *right);
            }
        }
    }

    /// Leaves out what is missing.
    fn gap(&mut self, samples: i64, to_skip: &mut i64) {
        let dropped = samples.min(*to_skip);
        *to_skip = to_skip.saturating_sub(dropped);
        let samples = samples.saturating_sub(dropped);
        let from = self.position;
        self.position = self.position.saturating_add(samples);
        for (envelope, _) in &mut self.channels {
            envelope.skip(u64::try_from(samples).unwrap_or(0));
        }
        if self.missing.len() < MISSING_MAX {
            self.missing.push((Samples48k(from), Samples48k(self.position)));
        }
    }

    fn finish(self, bytes: u64, sha256: String) -> Result<Heard, ListenError> {
        let Some((head, tags)) = self.first else {
            return Err(match (bytes, self.pages) {
                (0, _) => ListenError::Empty,
                (_, 0) => ListenError::NotOgg,
                _ => ListenError::NotOpus,
            });
        };
        let is_torn = self.link.as_ref().is_some_and(|link| link.begun.is_some());
        let channels = self.channels.into_iter();
        Ok(Heard {
            bytes,
            sha256,
            head,
            tags,
            duration: Samples48k(self.position),
            channels: channels
                .map(|(envelope, meter)| HeardChannel { envelope, level: meter.finish() })
                .collect(),
            is_identical: self.likeness.is_identical(),
            packets: self.packets,
            undecodable: self.undecodable,
            pages: self.pages,
            foreign_pages: self.foreign_pages,
            missing_pages: self.missing_pages,
            links: self.links,
            is_ended: self.link.is_some_and(|link| link.is_ended),
            wrong_positions: self.wrong_positions,
            torn_packets: self.torn_packets.saturating_add(u64::from(is_torn)),
            missing: self.missing,
            damage: self.damage,
            stopped: self.stopped,
        })
    }
}

/// How long an Ogg packet plays, by its first Opus packet. One that is no packet plays no time.
fn samples_of(packet: &[u8]) -> i64 {
    let samples =
        if packet.is_empty() { 0 } else { opus::packet::get_nb_samples(packet, 48_000).unwrap_or(0) };
    i64::try_from(samples).unwrap_or(0)
}

//! Opus packets as frames: parsing, joining, the self-delimiting form, and frames that stand for nothing.
//!
//! A packet is a TOC byte and up to 48 frames that all have the TOC's configuration (RFC 6716 section 3). Here a
//! packet is split into its frames and other packets are made of them; a frame's bytes are never changed. What is
//! dropped is padding, and the packet's own way of writing the lengths down.
//!
//! | code | frames | lengths written |
//! | --- | --- | --- |
//! | 0 | 1 | none |
//! | 1 | 2 of one size | none |
//! | 2 | 2 | of the first |
//! | 3 | 1..=48 | none (CBR), or of all but the last (VBR); padding possible |
//!
//! The self-delimiting form (appendix B) adds the length of the last frame, or of each frame where all are equal.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

/// The longest packet: 120 ms, in samples at 48 kHz.
pub const PACKET_MAX_SAMPLES: u32 = 5760;
/// The most frames in a packet: 48 of 2.5 ms.
pub const FRAMES_MAX: usize = 48;
/// The longest frame in bytes.
pub const FRAME_MAX_BYTES: usize = 1275;
/// The shortest frame, 2.5 ms: every Opus duration is a multiple of it. In samples at 48 kHz.
pub const UNIT_SAMPLES: u32 = 120;

/// The payload of a CELT frame that is digital silence, of any frame size: the silence flag and nothing else.
pub const CELT_SILENCE: [u8; 2] = [0xff, 0xfe];

/// What all frames of a packet have in common: the TOC byte without its count code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Configuration(u8);

/// How a configuration codes sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Linear prediction, 8 to 16 kHz.
    Silk,
    /// Linear prediction below 8 kHz, transform coding above.
    Hybrid,
    /// Transform coding.
    Celt,
}

impl Configuration {
    /// CELT, full band, mono, 20 ms: the configuration of silence that belongs to nothing.
    pub const CELT_FULL_BAND_20_MS: Self = Self(31 << 3);

    /// Reads the configuration out of a TOC byte.
    #[must_use]
    pub fn of_toc(toc: u8) -> Self {
        Self(toc & 0xfc)
    }

    /// The TOC byte of a packet with a single frame.
    #[must_use]
    pub fn toc(self) -> u8 {
        self.0
    }

    /// The configuration number, 0..=31, of RFC 6716 table 2.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0 >> 3
    }

    /// The coding mode.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self.number() {
            0..=11 => Mode::Silk,
            12..=15 => Mode::Hybrid,
            _ => Mode::Celt,
        }
    }

    /// The length of each frame, in samples at 48 kHz: 120 to 2880.
    #[must_use]
    pub fn frame_samples(self) -> u32 {
        match (self.mode(), self.number() & 3) {
            (Mode::Silk, 0) => 480,
            (Mode::Silk, 1) => 960,
            (Mode::Silk, 2) => 1920,
            (Mode::Silk, _) => 2880,
            (Mode::Hybrid, size) if size & 1 == 0 => 480,
            (Mode::Hybrid, _) => 960,
            (Mode::Celt, 0) => 120,
            (Mode::Celt, 1) => 240,
            (Mode::Celt, 2) => 480,
            (Mode::Celt, _) => 960,
        }
    }

    /// The configuration of the same mode, bandwidth and channels whose frames are the longest that divide
    /// `samples`: what a filler beside such frames is written in.
    #[must_use]
    pub fn dividing(self, samples: u32) -> Self {
        let sizes: &[u8] = match self.mode() {
            Mode::Silk | Mode::Celt => &[3, 2, 1, 0],
            Mode::Hybrid => &[1, 0],
        };
        let mask = if self.mode() == Mode::Hybrid { 1 } else { 3 };
        let of_size = |size: &u8| Self((self.0 & !(mask << 3)) | (size << 3));
        let divides = |candidate: &Self| samples.is_multiple_of(candidate.frame_samples());
        sizes.iter().map(of_size).find(divides).unwrap_or(Self::celt_dividing(samples))
    }

    /// The full-band mono CELT configuration with the longest frames that divide `samples`, a multiple of 120.
    #[must_use]
    pub fn celt_dividing(samples: u32) -> Self {
        let of_size = |size: u8| Self((28 | size) << 3);
        [3, 2, 1]
            .map(of_size)
            .into_iter()
            .find(|c| samples.is_multiple_of(c.frame_samples()))
            .unwrap_or(of_size(0))
    }
}

/// A packet taken apart: found to be whole, and no byte of it copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What the frames have in common.
    pub configuration: Configuration,
    /// The frames, at least one.
    pub frames: Frames<'a>,
    bytes: &'a [u8],
}

impl Packet<'_> {
    /// All that placement needs to know of it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape { configuration: self.configuration, frames: self.frames.left }
    }

    /// Whether somebody speaks in it, by the voice activity flags of its SILK frames (RFC 6716 section 4.2.3): the
    /// first bits of each Opus frame, one for each 20 ms. A packet of one or two bytes is comfort noise. `None` where
    /// the mode has no such flags.
    #[must_use]
    pub fn is_speech(&self) -> Option<bool> {
        if self.bytes.len() <= 2 {
            return Some(false);
        }
        if self.configuration.mode() == Mode::Celt {
            return None;
        }
        let flags = self.configuration.frame_samples().div_ceil(960);
        let shift = 8u32.saturating_sub(flags);
        let is_active = |frame: &[u8]| frame.first().is_some_and(|first| u32::from(*first) >> shift != 0);
        Some(self.frames.clone().any(is_active))
    }
}

/// The frames of a packet, in order; a frame may be empty. They point into the packet's bytes.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    left: u8,
    sizes: Sizes<'a>,
    bytes: &'a [u8],
}

/// How long frames are.
#[derive(Clone, Copy, Debug)]
enum Sizes<'a> {
    /// All of one size.
    Equal(usize),
    /// The lengths of all but the last, as the packet has them.
    Listed(&'a [u8]),
}

impl<'a> Iterator for Frames<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let size = match self.sizes {
            Sizes::Equal(size) => size,
            Sizes::Listed(_) if self.left == 0 => self.bytes.len(),
            Sizes::Listed(lengths) => {
                let (size, rest) = read_length(lengths).ok()?;
                self.sizes = Sizes::Listed(rest);
                size
            }
        };
        let (frame, rest) = self.bytes.split_at_checked(size)?;
        self.bytes = rest;
        Some(frame)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Frames<'_> {}

impl PartialEq for Frames<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl Eq for Frames<'_> {}

/// The shape of a packet: all that placement needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// What the frames have in common.
    pub configuration: Configuration,
    /// How many frames there are, 1..=48.
    pub frames: u8,
}

impl Shape {
    /// The packet's length in samples at 48 kHz.
    #[must_use]
    pub fn samples(self) -> u32 {
        self.configuration.frame_samples().saturating_mul(u32::from(self.frames))
    }
}

/// Bytes that break a rule of RFC 6716 section 3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an opus packet of rfc 6716")]
pub struct Malformed;

/// Splits a packet into its frames.
///
/// # Errors
/// [`Malformed`] where libopus would refuse the packet, too.
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (toc, rest) = bytes.split_first().ok_or(Malformed)?;
    let configuration = Configuration::of_toc(*toc);
    let frames = match toc & 3 {
        0 => Frames { left: 1, sizes: Sizes::Equal(rest.len()), bytes: rest },
        1 if rest.len().is_multiple_of(2) => {
            Frames { left: 2, sizes: Sizes::Equal(rest.len() / 2), bytes: rest }
        }
        1 => return Err(Malformed),
        2 => listed(2, rest)?,
        _ => parse_code_3(configuration, rest)?,
    };
    if frames.clone().any(|frame| frame.len() > FRAME_MAX_BYTES) {
        return Err(Malformed);
    }
    Ok(Packet { configuration, frames, bytes })
}

/// Reads the shape of a packet, checking all of it.
///
/// # Errors
/// As [`parse`].
pub fn shape(bytes: &[u8]) -> Result<Shape, Malformed> {
    Ok(parse(bytes)?.shape())
}

/// Whether a packet's first frame carries a copy of the frame before it, at a lower rate: in-band FEC, by the LBRR
/// flags of its SILK frames (RFC 6716 section 4.2.3), which stand behind the voice activity flags of each channel.
#[must_use]
pub fn has_redundancy(bytes: &[u8]) -> bool {
    let Ok(packet) = parse(bytes) else { return false };
    let Some(first) = packet.frames.clone().next().and_then(<[u8]>::first) else { return false };
    let is_stereo = packet.configuration.toc() & 4 != 0;
    let flags = packet.configuration.frame_samples().div_ceil(960);
    let bit = |number: u32| first & 0x80u8.checked_shr(number).unwrap_or(0) != 0;
    packet.configuration.mode() != Mode::Celt
        && (bit(flags) || (is_stereo && bit(flags.saturating_mul(2).saturating_add(1))))
}

fn parse_code_3(configuration: Configuration, rest: &[u8]) -> Result<Frames<'_>, Malformed> {
    let (header, mut rest) = rest.split_first().ok_or(Malformed)?;
    let count = header & 0x3f;
    if count == 0 || configuration.frame_samples().saturating_mul(u32::from(count)) > PACKET_MAX_SAMPLES {
        return Err(Malformed);
    }
    if header & 0x40 != 0 {
        rest = strip_padding(rest)?;
    }
    if header & 0x80 != 0 {
        return listed(count, rest);
    }
    if !rest.len().is_multiple_of(usize::from(count)) {
        return Err(Malformed);
    }
    let size = rest.len().checked_div(usize::from(count)).ok_or(Malformed)?;
    Ok(Frames { left: count, sizes: Sizes::Equal(size), bytes: rest })
}

/// Frames behind the lengths of all but the last.
fn listed(count: u8, bytes: &[u8]) -> Result<Frames<'_>, Malformed> {
    let (mut rest, mut sum) = (bytes, 0usize);
    for _ in 1..count {
        let (length, behind) = read_length(rest)?;
        (rest, sum) = (behind, sum.saturating_add(length));
    }
    if sum > rest.len() {
        return Err(Malformed);
    }
    Ok(Frames { left: count, sizes: Sizes::Listed(bytes), bytes: rest })
}

fn strip_padding(bytes: &[u8]) -> Result<&[u8], Malformed> {
    let (padding, rest) = read_padding_length(bytes)?;
    let kept = rest.len().checked_sub(padding).ok_or(Malformed)?;
    rest.get(..kept).ok_or(Malformed)
}

fn read_padding_length(bytes: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let mut rest = bytes;
    let mut padding = 0usize;
    loop {
        let (byte, after) = rest.split_first().ok_or(Malformed)?;
        rest = after;
        if *byte < 255 {
            return Ok((padding.saturating_add(usize::from(*byte)), rest));
        }
        padding = padding.saturating_add(254);
    }
}

/// How many bytes at the end of a packet are padding, in which extensions such as DRED travel. 0 if it is malformed.
#[must_use]
pub fn padding_bytes(packet: &[u8]) -> usize {
    match packet {
        [toc, header, rest @ ..] if toc & 3 == 3 && header & 0x40 != 0 => {
            let length = read_padding_length(rest).map(|(padding, rest)| padding.min(rest.len()));
            length.unwrap_or(0)
        }
        _ => 0,
    }
}

fn read_length(bytes: &[u8]) -> Result<(usize, &[u8]), Malformed> {
    let (first, rest) = bytes.split_first().ok_or(Malformed)?;
    if *first < 252 {
        return Ok((usize::from(*first), rest));
    }
    let (second, rest) = rest.split_first().ok_or(Malformed)?;
    let length = usize::from(*second).saturating_mul(4).saturating_add(usize::from(*first));
    Ok((length, rest))
}

/// Whether a packet is written with the length of its last frame, so that another can follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As in RTP: the packet's end is known from outside.
    Plain,
    /// RFC 6716 appendix B.
    SelfDelimited,
}

/// Appends one packet made of `frames`, which all have `configuration`: 1 to 48 frames, at most 120 ms together.
///
/// # Panics
/// If there is no frame, more than 120 ms of them, or a frame of more than 1275 bytes. Frames that [`parse`] handed
/// out, in a cell that the planner made, satisfy this.
pub fn join(configuration: Configuration, frames: &[&[u8]], framing: Framing, out: &mut Vec<u8>) {
    let (last, before) = frames.split_last().expect("a packet has at least one frame");
    let count = u8::try_from(frames.len()).ok().filter(|count| usize::from(*count) <= FRAMES_MAX);
    let count = count.expect("a packet has at most 48 frames");
    let samples = configuration.frame_samples().saturating_mul(u32::from(count));
    assert!(samples <= PACKET_MAX_SAMPLES, "a packet lasts at most 120 ms");
    let is_equal = before.iter().all(|frame| frame.len() == last.len());
    let toc = configuration.toc();
    match (count, is_equal) {
        (1, _) => out.push(toc),
        (2, true) => out.push(toc | 1),
        (2, false) => out.push(toc | 2),
        (_, true) => out.extend_from_slice(&[toc | 3, count]),
        (_, false) => out.extend_from_slice(&[toc | 3, count | 0x80]),
    }
    if !is_equal {
        before.iter().for_each(|frame| push_length(frame.len(), out));
    }
    if framing == Framing::SelfDelimited {
        push_length(last.len(), out);
    }
    frames.iter().for_each(|frame| out.extend_from_slice(frame));
}

fn push_length(length: usize, out: &mut Vec<u8>) {
    assert!(length <= FRAME_MAX_BYTES, "a frame has at most 1275 bytes");
    match u8::try_from(length).ok().filter(|short| *short < 252) {
        Some(short) => out.push(short),
        None => {
            // 252 + (length & 3) first, then the rest in units of four: RFC 6716 section 3.2.1.
            let low = u8::try_from(length & 3).expect("two bits");
            let first = 252u8.saturating_add(low);
            let units = length.saturating_sub(usize::from(first)) / 4;
            out.extend_from_slice(&[first, u8::try_from(units).expect("at most 255 for 1275 bytes")]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a self-delimited packet at the front of `bytes` by turning its form back into the plain one.
    fn split_self_delimited(bytes: &[u8]) -> (Configuration, Vec<Vec<u8>>, &[u8]) {
        let configuration = Configuration::of_toc(bytes[0]);
        let (count, is_vbr, mut rest) = match bytes[0] & 3 {
            0 => (1, false, &bytes[1..]),
            1 => (2, false, &bytes[1..]),
            2 => (2, true, &bytes[1..]),
            _ => (usize::from(bytes[1] & 63), bytes[1] & 0x80 != 0, &bytes[2..]),
        };
        let mut lengths = Vec::new();
        for _ in 0..if is_vbr { count } else { 1 } {
            let (length, after) = read_length(rest).unwrap();
            lengths.push(length);
            rest = after;
        }
        let mut frames = Vec::new();
        for index in 0..count {
            let length = if is_vbr { lengths[index] } else { lengths[0] };
            frames.push(rest[..length].to_vec());
            rest = &rest[length..];
        }
        (configuration, frames, rest)
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_as_libopus_parses_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let ours = parse(&bytes);
            let theirs = ::opus::packet::parse(&bytes);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}", bytes);
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!(ours.frames.collect::<Vec<_>>(), theirs.frames);
                let samples = ::opus::packet::get_samples_per_frame(&bytes, 48_000).unwrap();
                prop_assert_eq!(usize::try_from(ours.configuration.frame_samples()).unwrap(), samples);
            }
        }

        #[test]
        fn frames_joined_are_the_same_frames_when_taken_apart(
            number in 0u8..32, is_stereo: bool,
            sizes in prop::collection::vec(prop_oneof![Just(0usize), 1..300usize, 240..260usize, 1200..1276usize], 1..49),
            is_equal: bool,
        ) {
            let configuration = Configuration::of_toc(number << 3 | if is_stereo { 4 } else { 0 });
            let most = usize::try_from(PACKET_MAX_SAMPLES / configuration.frame_samples()).unwrap();
            let sizes = &sizes[..sizes.len().min(most)];
            let frames: Vec<Vec<u8>> = sizes.iter().enumerate()
                .map(|(n, size)| vec![u8::try_from(n).unwrap(); if is_equal { sizes[0] } else { *size }]).collect();
            let slices: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();

            let mut plain = Vec::new();
            join(configuration, &slices, Framing::Plain, &mut plain);
            let parsed = parse(&plain).unwrap();
            prop_assert_eq!(parsed.frames.len(), slices.len());
            let parsed_frames: Vec<&[u8]> = parsed.frames.collect();
            prop_assert_eq!(&parsed_frames, &slices);
            prop_assert_eq!(parsed.configuration, configuration);
            prop_assert_eq!(::opus::packet::parse(&plain).unwrap().frames, slices);

            let mut delimited = Vec::new();
            join(configuration, &parsed_frames, Framing::SelfDelimited, &mut delimited);
            delimited.extend_from_slice(b"next");
            let (read, back, rest) = split_self_delimited(&delimited);
            prop_assert_eq!((read, back, rest), (configuration, frames, &b"next"[..]));
        }
    }

    #[test]
    fn padding_is_not_part_of_a_frame() {
        let frames = [&b"abc"[..], &b"de"[..]];
        let mut packet = Vec::new();
        join(Configuration::CELT_FULL_BAND_20_MS, &frames, Framing::Plain, &mut packet);
        let length = packet.len();
        packet.resize(700, 0);
        ::opus::packet::pad(&mut packet, length).unwrap();
        assert!(parse(&packet).unwrap().frames.eq(frames));
    }

    #[test]
    fn a_filler_keeps_mode_and_bandwidth_and_divides_the_time() {
        for number in 0..32u8 {
            let configuration = Configuration::of_toc(number << 3);
            for units in 1..=48u32 {
                let samples = units * UNIT_SAMPLES;
                let filler = configuration.dividing(samples);
                assert!(samples.is_multiple_of(filler.frame_samples()));
                let celt = Configuration::celt_dividing(samples);
                assert!(samples.is_multiple_of(celt.frame_samples()) && celt.mode() == Mode::Celt);
            }
            assert_eq!(configuration.dividing(1920).mode(), configuration.mode());
        }
    }
}

//! A channel as sound: packets decoded, what was lost concealed, every sample in its place.
//!
//! [`Sound`] turns the placed packets of one channel, of whatever codecs, into one mono stream at 48 kHz whose sample
//! number is its position in the recording. Packets that follow each other are a *run*, decoded without a seam. Where
//! the sender's clock drifts away from the run by more than 8 samples, the run is resampled by one part in a thousand
//! until it is in its place again: 0.17 ms is far below what can be heard between two channels, and in between
//! samples are copied. What lies between runs:
//! - a loss: the next Opus packet's in-band FEC where it has any, else concealment up to 100 ms, then silence;
//! - suppressed silence: the Opus decoder's own comfort noise; behind an RTP comfort noise packet (RFC 3389), noise of
//!   its level;
//! - a pause: 20 ms of what the decoder makes up, fading, and then silence.
//!
//! A decoder's delay is taken out: an Opus packet placed at `at` sounds at `at`, as a PCM sample does. Memory: a second
//! of sound. Of the input nothing is an error: a packet that libopus refuses is concealed.

use opus::{Channels, Decoder};

use crate::codec::conceal::{ComfortNoise, Concealer};
use crate::codec::pcm::{PcmDecoder, PcmFormat};
use crate::codec::resample::Resampler;
use crate::opus::packet::{Shape, has_redundancy};
use crate::time::Samples48k;
use crate::timeline::Gap;

/// libopus' look-ahead at 48 kHz, which the sender's encoder put in front of every packet: 6.5 ms.
pub const OPUS_DELAY_SAMPLES: i64 = 312;

/// A packet this close to the end of the run, 5 ms, belongs to it; the difference is resampled away.
const CONTIGUOUS_SAMPLES: i64 = 240;
/// 0.17 ms: how far a run may be off its place before it is moved.
const MOVE_FROM_SAMPLES: i64 = 8;
/// One sample in so many, 1000 ppm: twice what a sender's clock may drift, and 1.7 cents, which nobody hears.
const MOVE_ONE_IN: u32 = 960;
/// What a decoder makes up in place of lost packets beyond 100 ms is no speech any more.
const CONCEAL_SAMPLES: i64 = 4800;
/// The fading end of a run of Opus.
const FADE_SAMPLES: i64 = 960;
/// Gaps up to a second are filled at once; longer ones piece by piece.
const AHEAD_SAMPLES: i64 = 48_000;

/// How a packet of audio is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An Opus packet of this shape.
    Opus(Shape),
    /// Samples of one of the older codecs.
    Pcm(PcmFormat),
}

/// A placed packet of audio, without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audio {
    /// Where it should be heard, from the beginning of the recording.
    pub at: Samples48k,
    /// Its length in samples at 48 kHz.
    pub samples: u32,
    /// How it is coded.
    pub format: Format,
    /// What lies in front of it.
    pub gap: Gap,
    /// How many packets are missing in that gap, if it is a loss.
    pub missing: u16,
    /// The level of the comfort noise in that gap, in −dBov, where the sender gave one.
    pub noise: Option<u8>,
    /// Whether nobody speaks in it, as far as is known.
    pub is_quiet: bool,
}

impl Audio {
    fn delay(&self) -> i64 {
        match self.format {
            Format::Opus(_) => OPUS_DELAY_SAMPLES,
            Format::Pcm(format) => format.delay_samples_48k(),
        }
    }

    /// Where the decoder's first sample of it belongs.
    fn target(&self) -> i64 {
        self.at.0 - self.delay()
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.at.0 + i64::from(self.samples)
    }
}

/// A channel could not be decoded.
#[derive(Debug, thiserror::Error)]
pub enum SoundError<E: std::error::Error + 'static> {
    /// A payload could not be read.
    #[error("reading a packet's payload")]
    Fetch(#[source] E),
    /// libopus refused to be set up, or to conceal.
    #[error("libopus, while a channel is decoded")]
    Codec(#[from] opus::Error),
}

/// What was measured while decoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Lost packets that in-band FEC brought back.
    pub recovered: u64,
    /// The greatest distance between where a packet should be and where it is, in samples.
    pub largest_shift: i64,
}

/// A channel's sound, read from front to back.
pub struct Sound<'a, F> {
    packets: &'a [Audio],
    fetch: F,
    next: usize,
    payload: Vec<u8>,
    opus: Decoder,
    pcm: Option<(PcmFormat, PcmDecoder, Concealer)>,
    noise: ComfortNoise,
    run: Option<Run>,
    /// Kept from run to run, with its rate: setting one up takes longer than a short run.
    resampler: (u32, Resampler),
    /// Where the last sample scheduled ends; the resampler may hold some of them back.
    head: i64,
    /// Samples of the run that belong to time already taken: left out.
    to_drop: usize,
    /// Samples ready to be read, from `read_to` on.
    ready: Vec<f32>,
    read_to: i64,
    heard: Heard,
}

/// Packets decoded without a seam.
struct Run {
    format: RunFormat,
    start: i64,
    /// Samples that went into the resampler, at the codec's own rate.
    input: i64,
    /// Samples that the run has been lengthened by, or shortened.
    moved: i64,
    is_moving: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunFormat {
    Opus,
    Pcm(PcmFormat),
}

impl RunFormat {
    fn of(format: Format) -> Self {
        match format {
            Format::Opus(_) => Self::Opus,
            Format::Pcm(format) => Self::Pcm(format),
        }
    }

    fn sample_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcm(format) => format.sample_hz(),
        }
    }
}

impl<'a, F, E> Sound<'a, F>
where
    F: FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    E: std::error::Error + 'static,
{
    /// Begins at position `from`. `fetch` reads the payload of a packet, an index into `packets`, into an empty buffer.
    ///
    /// # Errors
    /// [`SoundError::Codec`] where libopus has no memory.
    pub fn new(packets: &'a [Audio], from: Samples48k, fetch: F) -> Result<Self, SoundError<E>> {
        Ok(Self {
            packets,
            fetch,
            next: 0,
            payload: Vec::new(),
            opus: Decoder::new(48_000, Channels::Mono)?,
            pcm: None,
            noise: ComfortNoise::new(),
            run: None,
            resampler: (48_000, Resampler::new(48_000)),
            head: from.0,
            to_drop: 0,
            ready: Vec::new(),
            read_to: from.0,
            heard: Heard::default(),
        })
    }

    /// Reads the next samples. Behind the last packet all is silence.
    ///
    /// # Errors
    /// [`SoundError`].
    pub fn read(&mut self, out: &mut [f32]) -> Result<(), SoundError<E>> {
        while self.ready.len() < out.len() {
            let wanted = self.read_to + i64::try_from(out.len()).unwrap_or(i64::MAX);
            match self.packets.get(self.next).copied() {
                Some(packet) if packet.target() - self.head <= AHEAD_SAMPLES => self.place(&packet)?,
                following => {
                    self.end_run(FADE_SAMPLES)?;
                    let noise = following.and_then(|packet| packet.noise);
                    self.fill_to(wanted.max(self.head), noise);
                }
            }
        }
        let count = out.len();
        out.copy_from_slice(&self.ready[..count]);
        self.ready.drain(..count);
        self.read_to += i64::try_from(count).unwrap_or(0);
        Ok(())
    }

    /// What was measured so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// Decodes the next packet into its place, behind what belongs into the gap before it.
    fn place(&mut self, packet: &Audio) -> Result<(), SoundError<E>> {
        self.payload.clear();
        let mut payload = std::mem::take(&mut self.payload);
        (self.fetch)(self.next, &mut payload).map_err(SoundError::Fetch)?;
        self.next += 1;
        let format = RunFormat::of(packet.format);
        let is_same = self.run.as_ref().is_some_and(|run| run.format == format);
        let gap = packet.target() - self.head;
        if is_same && gap.abs() > CONTIGUOUS_SAMPLES {
            match packet.gap {
                Gap::Loss if gap > 0 => self.conceal(packet, &payload, gap)?,
                Gap::Silence if gap > 0 => self.suppress(packet, gap)?,
                _ => {}
            }
        }
        let gap = packet.target() - self.head;
        if !is_same || self.run.is_none() || gap.abs() > CONTIGUOUS_SAMPLES {
            self.end_run(gap.clamp(0, FADE_SAMPLES))?;
            self.fill_to(packet.target(), packet.noise);
            self.begin_run(format, packet.target());
        }
        let moved = self.steer(packet);
        self.decode(packet, &payload, moved)?;
        self.payload = payload;
        Ok(())
    }

    fn begin_run(&mut self, format: RunFormat, target: i64) {
        self.to_drop = usize::try_from(self.head - target).unwrap_or(0);
        if let RunFormat::Pcm(format) = format
            && self.pcm.as_ref().is_none_or(|(before, ..)| *before != format)
        {
            self.pcm = Some((format, PcmDecoder::new(format), Concealer::new(format.sample_hz())));
        }
        if self.resampler.0 != format.sample_hz() {
            self.resampler = (format.sample_hz(), Resampler::new(format.sample_hz()));
        }
        self.run = Some(Run { format, start: target, input: 0, moved: 0, is_moving: false });
        self.head = target;
    }

    /// Ends the run, an Opus one with up to `fade` samples of what its decoder makes up.
    fn end_run(&mut self, fade: i64) -> Result<(), SoundError<E>> {
        let Some(run) = &self.run else { return Ok(()) };
        let samples = usize::try_from(fade / 120 * 120).unwrap_or(0);
        if run.format == RunFormat::Opus && samples > 0 {
            let mut sound = vec![0.0; samples];
            self.opus.decode_float(&[], &mut sound, false)?;
            for (n, sample) in sound.iter_mut().enumerate() {
                *sample *= 1.0 - as_f32(n) / as_f32(samples);
            }
            self.push(&sound, 0);
        }
        let mut out = Vec::new();
        self.resampler.1.finish(&mut out);
        self.deliver(&out);
        self.run = None;
        Ok(())
    }

    /// Fills the time up to `until` with noise of a level, or silence. There must be no run.
    fn fill_to(&mut self, until: i64, noise: Option<u8>) {
        let Ok(count) = usize::try_from(until - self.head) else { return };
        match noise {
            Some(level) => self.noise.fill(level, count, &mut self.ready),
            None => self.ready.resize(self.ready.len() + count, 0.0),
        }
        self.head = self.head.max(until);
    }

    /// Conceals lost packets in front of a packet that follows in the same run.
    fn conceal(&mut self, packet: &Audio, payload: &[u8], gap: i64) -> Result<(), SoundError<E>> {
        let Format::Opus(shape) = packet.format else {
            return self.conceal_pcm(gap.min(CONCEAL_SAMPLES));
        };
        let frame = i64::from(shape.configuration.frame_samples());
        let missing = (gap + 60) / 120 * 120;
        let is_redundant = has_redundancy(payload) && frame <= missing;
        self.heard.recovered += u64::from(is_redundant);
        let redundant = if is_redundant { frame } else { 0 };
        let mut sound = Vec::new();
        if missing - redundant > CONCEAL_SAMPLES {
            // Too long to make up: 100 ms of it, then silence up to what the next packet knows.
            sound.resize(4800, 0.0);
            self.opus.decode_float(&[], &mut sound, false)?;
            self.push(&sound, 0);
            self.end_run(0)?;
            self.fill_to(packet.target() - redundant, packet.noise);
            self.begin_run(RunFormat::Opus, packet.target() - redundant);
            sound.resize(usize::try_from(redundant).unwrap_or(0), 0.0);
        } else {
            sound.resize(usize::try_from(missing).unwrap_or(0), 0.0);
        }
        // libopus itself conceals what lies in front of the frame that the packet has a copy of.
        if !sound.is_empty() && self.opus.decode_float(payload, &mut sound, true).is_err() {
            self.opus.decode_float(&[], &mut sound, false)?;
        }
        self.push(&sound, 0);
        Ok(())
    }

    fn conceal_pcm(&mut self, gap: i64) -> Result<(), SoundError<E>> {
        let Some((format, _, concealer)) = &mut self.pcm else { return Ok(()) };
        let count = gap * i64::from(format.sample_hz()) / 48_000;
        let mut sound = Vec::new();
        concealer.conceal(usize::try_from(count).unwrap_or(0), &mut sound);
        self.push(&sound, 0);
        Ok(())
    }

    /// Fills suppressed silence: libopus makes the noise that it was told of, of the others a packet may have told.
    fn suppress(&mut self, packet: &Audio, gap: i64) -> Result<(), SoundError<E>> {
        if !matches!(packet.format, Format::Opus(_)) {
            return Ok(());
        }
        let mut left = (gap + 60) / 120 * 120;
        while left > 0 {
            let step = left.min(960);
            let mut sound = vec![0.0; usize::try_from(step).unwrap_or(0)];
            self.opus.decode_float(&[], &mut sound, false)?;
            self.push(&sound, 0);
            left -= step;
        }
        Ok(())
    }

    /// By how many samples the run must grow or shrink over a packet to be in its place.
    fn steer(&mut self, packet: &Audio) -> i32 {
        let error = packet.target() - self.head;
        self.heard.largest_shift = self.heard.largest_shift.max(error.abs());
        let Some(run) = &mut self.run else { return 0 };
        run.is_moving = error != 0 && (run.is_moving || error.abs() >= MOVE_FROM_SAMPLES);
        if !run.is_moving {
            return 0;
        }
        let most = i64::from((packet.samples / MOVE_ONE_IN).max(1));
        i32::try_from(error.clamp(-most, most)).unwrap_or(0)
    }

    fn decode(&mut self, packet: &Audio, payload: &[u8], moved: i32) -> Result<(), SoundError<E>> {
        let mut sound = Vec::new();
        match packet.format {
            Format::Opus(shape) => {
                sound.resize(usize::try_from(shape.samples()).unwrap_or(0), 0.0);
                if self.opus.decode_float(payload, &mut sound, false).is_err() {
                    self.opus.decode_float(&[], &mut sound, false)?;
                }
            }
            Format::Pcm(_) => {
                let Some((_, decoder, concealer)) = &mut self.pcm else { return Ok(()) };
                decoder.decode(payload, &mut sound);
                concealer.heard(&sound);
            }
        }
        self.push(&sound, moved);
        Ok(())
    }

    /// Sends samples at the codec's own rate on their way.
    fn push(&mut self, sound: &[f32], moved: i32) {
        let Some(run) = &mut self.run else { return };
        let mut out = Vec::new();
        self.resampler.1.push(sound, moved, &mut out);
        run.input += i64::try_from(sound.len()).unwrap_or(0);
        run.moved += i64::from(moved);
        let hz = i64::from(run.format.sample_hz());
        self.head = run.start + (run.input * 48_000 + hz / 2) / hz + run.moved;
        self.deliver(&out);
    }

    fn deliver(&mut self, sound: &[f32]) {
        let dropped = self.to_drop.min(sound.len());
        self.to_drop -= dropped;
        self.ready.extend_from_slice(&sound[dropped..]);
    }
}

/// Where a stretch of packets ends at the latest.
#[must_use]
pub fn end_of(packets: &[Audio]) -> Samples48k {
    Samples48k(packets.iter().map(Audio::end).max().unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "a count of a few thousand samples")]
fn as_f32(count: usize) -> f32 {
    count as f32
}

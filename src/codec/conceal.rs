//! What stands where nothing arrived: a lost packet's time is filled with the last pitch period, a pause with noise.
//!
//! Concealment is in the way of G.711 Appendix I: the voice goes on for 10 ms as it was, and has faded by 60 ms. Other
//! than there, it delays nothing: the step that is left where the period begins anew is smoothed after it instead of
//! before. What is heard after a loss is left as it is.
//!
//! Nothing here is random: the same calls give the same samples.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// What is remembered, and how long concealment takes to fade away.
const MEMORY_MS: usize = 60;
const FADE_MS: usize = 60;
/// Full level until here (Appendix I).
const FULL_MS: usize = 10;
/// Pitch periods that are looked for: 66 to 400 Hz. Higher voices repeat two of their periods.
const PERIOD_MIN_US: usize = 2500;
const PERIOD_MAX_US: usize = 15_000;
/// What is compared with the sound one period before (Appendix I).
const COMPARED_MS: usize = 20;
/// Comparing takes this rate first; the neighbours of what it finds are compared at the full one.
const COARSE_HZ: usize = 8000;
/// Noise for a telephone is heard through a low-pass at this frequency, at 48 kHz.
const NOISE_CUTOFF_HZ: f64 = 3400.0;

/// Continues a voice over what was lost of it.
#[derive(Clone, Debug)]
pub struct Concealer {
    sample_hz: usize,
    /// The last 60 ms; zeros before the first sample.
    memory: Vec<f32>,
    /// What a loss repeats, while there is one.
    loss: Option<Loss>,
}

#[derive(Clone, Debug)]
struct Loss {
    /// One pitch period that leads into itself.
    period: Vec<f32>,
    /// The step from the last sample heard to the first one of the period.
    step: f32,
    /// Samples concealed so far.
    concealed: usize,
}

impl Concealer {
    /// A concealer that has heard nothing, for sound of so many samples in a second; less than 8000 is taken for 8000.
    #[must_use]
    pub fn new(sample_hz: u32) -> Self {
        let sample_hz = usize::try_from(sample_hz).unwrap_or(usize::MAX).clamp(COARSE_HZ, 1_000_000);
        Self { sample_hz, memory: vec![0.0; sample_hz * MEMORY_MS / 1000], loss: None }
    }

    /// Remembers sound that arrived, in −1..1. A loss ends here.
    pub fn heard(&mut self, samples: &[f32]) {
        let size = self.memory.len();
        let newest = samples.get(samples.len().saturating_sub(size)..).unwrap_or_default();
        self.memory.drain(..newest.len());
        self.memory.extend_from_slice(newest);
        self.loss = self.loss.take().filter(|_| samples.is_empty());
    }

    /// Appends `count` samples in place of what was lost; calls without [`Self::heard`] between them are one loss.
    /// Silence where nothing was heard, and from 60 ms on.
    pub fn conceal(&mut self, count: usize, out: &mut Vec<f32>) {
        let (full, faded) = (self.sample_hz * FULL_MS / 1000, self.sample_hz * FADE_MS / 1000);
        let memory = &self.memory;
        let sample_hz = self.sample_hz;
        let loss = self.loss.get_or_insert_with(|| Loss::new(memory, sample_hz));
        let end = loss.concealed.saturating_add(count);
        let audible = loss.concealed.min(faded)..end.min(faded);
        let silent = count - audible.len();
        for at in audible {
            let gain = ratio(faded - at.max(full), faded - full);
            out.push(gain * loss.sample(at));
        }
        out.resize(out.len() + silent, 0.0);
        loss.concealed = end;
    }
}

impl Loss {
    fn new(memory: &[f32], sample_hz: usize) -> Self {
        let length = pitch_period(memory, sample_hz);
        let start = memory.len().saturating_sub(length);
        let mut period = memory.get(start..).unwrap_or_default().to_vec();
        // Its last quarter goes over into what came before its first sample.
        let quarter = length / 4;
        let before = memory.get(start.saturating_sub(quarter)..start).unwrap_or_default();
        let last = period.iter_mut().skip(length - quarter);
        for (n, (sample, before)) in last.zip(before).enumerate() {
            *sample += (before - *sample) * ratio(n + 1, quarter);
        }
        let heard_last = memory.last().copied().unwrap_or(0.0);
        let would_be_last = start.checked_sub(1).and_then(|at| memory.get(at)).copied().unwrap_or(0.0);
        Self { period, step: heard_last - would_be_last, concealed: 0 }
    }

    /// Sample `at` of the loss at full level.
    fn sample(&self, at: usize) -> f32 {
        let quarter = self.period.len() / 4;
        let smoothing = self.step * ratio(quarter.saturating_sub(at), quarter + 1);
        let repeated = at.checked_rem(self.period.len()).and_then(|at| self.period.get(at)).copied();
        (repeated.unwrap_or(0.0) + smoothing).clamp(-1.0, 1.0)
    }
}

/// The distance, in samples, at which the end of the memory is most like what came before.
fn pitch_period(memory: &[f32], sample_hz: usize) -> usize {
    let (least, most) = (sample_hz * PERIOD_MIN_US / 1_000_000, sample_hz * PERIOD_MAX_US / 1_000_000);
    let stride = sample_hz / COARSE_HZ;
    let best = |periods: &mut dyn Iterator<Item = usize>, stride| {
        let likeness = |period| likeness(memory, period, sample_hz * COMPARED_MS / 1000, stride);
        let first = (least, f32::NEG_INFINITY);
        let better = |best: (usize, f32), period| {
            let found = likeness(period);
            if found > best.1 { (period, found) } else { best }
        };
        periods.fold(first, better).0
    };
    let coarse = best(&mut (least..=most).step_by(stride), stride);
    if stride == 1 {
        return coarse;
    }
    best(&mut (coarse.saturating_sub(stride).max(least)..=(coarse + stride).min(most)), 1)
}

/// How alike the last samples and those one period before are: their correlation, over the loudness of the latter.
fn likeness(memory: &[f32], period: usize, compared: usize, stride: usize) -> f32 {
    let last = memory.len().saturating_sub(compared);
    let before = memory.get(last.saturating_sub(period)..).unwrap_or_default();
    let last = memory.get(last..).unwrap_or_default();
    let pairs = last.iter().zip(before).step_by(stride);
    let (product, energy) = pairs.fold((0.0_f32, 0.0_f32), |(product, energy), (last, before)| {
        (product + last * before, energy + before * before)
    });
    if energy > 0.0 { product / energy.sqrt() } else { 0.0 }
}

/// The noise that stands for a pause (RFC 3389), at 48 kHz: white, through a low-pass as a telephone has one.
#[derive(Clone, Debug)]
pub struct ComfortNoise {
    /// Of xorshift64; never zero.
    random: u64,
    /// The last sample at level 1.
    last: f32,
}

impl Default for ComfortNoise {
    fn default() -> Self {
        Self::new()
    }
}

impl ComfortNoise {
    /// Noise from its beginning on, always the same.
    #[must_use]
    pub fn new() -> Self {
        Self { random: 0x9e37_79b9_7f4a_7c15, last: 0.0 }
    }

    /// Appends `count` samples at 48 kHz of noise that goes on. `level_dbov` is the byte of RFC 3389: how many dB its
    /// effective value lies below that of a square wave of full scale, 0 to 127; more is taken for 127.
    pub fn fill(&mut self, level_dbov: u8, count: usize, out: &mut Vec<f32>) {
        let level = 10_f32.powf(-f32::from(level_dbov.min(127)) / 20.0);
        let share = low_pass_share();
        // Noise that is even over −1..1 has the power 1/3, of which the low-pass leaves share / (2 − share).
        let gain = level * (3.0 * (2.0 - share) / share).sqrt();
        out.extend((0..count).map(|_| {
            self.last += share * (self.white() - self.last);
            (gain * self.last).clamp(-1.0, 1.0)
        }));
    }

    /// The next sample of white noise in −1..1 (Marsaglia, "Xorshift RNGs", 2003).
    fn white(&mut self) -> f32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let [high, low, ..] = self.random.to_be_bytes();
        f32::from(i16::from_be_bytes([high, low])) / 32_768.0
    }
}

/// How much of a new sample the low-pass takes.
#[expect(clippy::cast_possible_truncation, reason = "a coefficient needs no more than 24 bits")]
fn low_pass_share() -> f32 {
    (1.0 - (-2.0 * std::f64::consts::PI * NOISE_CUTOFF_HZ / 48_000.0).exp()) as f32
}

/// `part` of `whole`, which are both some thousands; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "samples of a few milliseconds")]
fn ratio(part: usize, whole: usize) -> f32 {
    if whole == 0 { 0.0 } else { part as f32 / whole as f32 }
}

#[expect(clippy::cast_precision_loss, reason = "sound made and measured for a test")]
#[cfg(test)]
mod tests {
    use super::*;

    /// A voice of 125 Hz with a few harmonics.
    fn voice(sample_hz: u32, samples: usize) -> Vec<f32> {
        let at = |n: usize| n as f32 * 125.0 * std::f32::consts::TAU / sample_hz as f32;
        (0..samples)
            .map(|n| 0.3 * at(n).sin() + 0.2 * (3.0 * at(n)).sin() + 0.1 * (7.0 * at(n)).cos())
            .collect()
    }

    fn rms(sound: &[f32]) -> f32 {
        (sound.iter().map(|sample| sample * sample).sum::<f32>() / sound.len() as f32).sqrt()
    }

    fn steepest(sound: &[f32]) -> f32 {
        sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_voice_goes_on_for_10_ms_as_it_was_and_is_gone_after_60() {
        for sample_hz in [8000, 11_025, 16_000, 44_100, 48_000] {
            let ms = |ms: usize| usize::try_from(sample_hz).unwrap() * ms / 1000;
            let whole = voice(sample_hz, ms(300));
            let mut concealer = Concealer::new(sample_hz);
            concealer.heard(&whole[..ms(200)]);
            let mut out = Vec::new();
            concealer.conceal(ms(100), &mut out);
            assert_eq!(out.len(), ms(100));
            let error: Vec<f32> = out.iter().zip(&whole[ms(200)..]).map(|(out, voice)| out - voice).collect();
            // A period at 11025 Hz is 88.2 samples; only whole ones are repeated.
            assert!(rms(&error[..ms(10)]) < 0.08 * rms(&whole), "{sample_hz} Hz: {}", rms(&error[..ms(10)]));
            assert!((rms(&out[ms(33)..ms(41)]) / rms(&whole) - 0.46).abs() < 0.05, "{sample_hz} Hz");
            assert!(out[ms(60)..].iter().all(|sample| *sample == 0.0));
            let seam = [&whole[..ms(200)], &out].concat();
            assert!(steepest(&seam) < 1.2 * steepest(&whole), "{sample_hz} Hz clicks");
        }
    }

    #[test]
    fn noise_does_not_click_where_it_is_continued() {
        let mut noise = Vec::new();
        ComfortNoise::new().fill(20, 9600, &mut noise);
        let mut concealer = Concealer::new(48_000);
        concealer.heard(&noise);
        let before = noise.len();
        concealer.conceal(480, &mut noise);
        assert!(steepest(&noise[before - 1..]) <= 1.1 * steepest(&noise[..before]));
    }

    #[test]
    fn one_loss_in_pieces_is_the_same_loss() {
        let mut concealer = Concealer::new(8000);
        concealer.heard(&voice(8000, 1234));
        let mut whole = Vec::new();
        concealer.clone().conceal(700, &mut whole);
        let mut pieces = Vec::new();
        for count in [160, 0, 7, 160, 373] {
            concealer.conceal(count, &mut pieces);
            concealer.heard(&[]);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn a_new_loss_repeats_what_was_heard_last() {
        let mut concealer = Concealer::new(8000);
        concealer.heard(&[0.5; 800]);
        concealer.conceal(800, &mut Vec::new());
        concealer.heard(&[-0.25; 480]);
        let mut out = Vec::new();
        concealer.conceal(80, &mut out);
        assert!(out.iter().all(|sample| (sample + 0.25).abs() < 1e-6));
    }

    #[test]
    fn nothing_heard_is_silence() {
        let mut out = Vec::new();
        Concealer::new(16_000).conceal(320, &mut out);
        let mut concealer = Concealer::new(0);
        concealer.heard(&[0.0; 160]);
        concealer.conceal(160, &mut out);
        assert_eq!(out, vec![0.0; 480]);
    }

    #[test]
    fn comfort_noise_has_the_level_that_was_sent() {
        for level in [10, 30, 50, 78] {
            let mut out = Vec::new();
            ComfortNoise::new().fill(level, 96_000, &mut out);
            let measured = -20.0 * rms(&out).log10();
            assert!((measured - f32::from(level)).abs() < 0.2, "{measured} dB instead of {level}");
        }
        let mut out = Vec::new();
        ComfortNoise::new().fill(255, 480, &mut out);
        assert!(rms(&out) < 1e-6);
    }

    #[test]
    fn comfort_noise_is_the_same_each_time_and_goes_on() {
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        ComfortNoise::new().fill(40, 960, &mut whole);
        let mut noise = ComfortNoise::new();
        noise.fill(40, 1, &mut pieces);
        noise.fill(40, 959, &mut pieces);
        assert_eq!(pieces, whole);
        assert!((-1.0..=1.0).contains(&whole[0]) && whole[0] != whole[1]);
    }
}

//! Brings sound to 48 kHz, and makes a stretch of it a few samples longer or shorter: one windowed-sinc interpolator.
//!
//! Each output sample is the input read at one exact position: sample k of a run stands for the input's time
//! k × `sample_hz` / 48000. Positions are fractions of whole numbers, so nothing drifts at any rate or length, and it
//! makes no difference into which blocks a run is cut. Over a block that is to be moved, positions advance a little
//! slower or faster, and begin and end on whole samples.
//!
//! | | taps each side | passes | stops (below −80 dB) |
//! | --- | --- | --- | --- |
//! | 48 kHz, moved | 16 | 0 to 20 kHz | |
//! | from lower rates | 32 | 0 to 0.46 of the rate | from 0.54 of it |
//! | from higher rates | 32, and more in proportion to the rate | 0 to 20 kHz | from 24 kHz |
//!
//! Except for higher rates, the filter leaves the input's own samples as they are, so that sound which is copied goes
//! over into sound that is moved without a seam.
//!
//! Memory: a few blocks of input, and in the process a table of up to 500 kB for each of at most 16 filters. What is pushed is trusted to be sound: `f32` in −1..1.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::sync::OnceLock;

/// Samples of the output in a second.
const OUT_HZ: u32 = 48_000;
const OUT: u64 = 48_000;
/// Rows of the filter's table between two taps. From 8, 12, 16, 24, 32, 44.1, 64 and 96 kHz all positions fall on a
/// row; between rows, linear interpolation errs by −110 dB.
const PHASES: u32 = 480;
/// Taps on each side to change the rate: the transition takes 0.08 of it, so that 8 kHz keeps what a telephone passes.
const TAPS_RATE: u32 = 32;
/// Taps on each side to move sound that is at 48 kHz: speech has nothing in the transition from 20 kHz on.
const TAPS_MOVE: u32 = 16;
/// Shape of the Kaiser window: side lobes of −82 dB.
const BETA: f64 = 8.0;
/// Cut-off from higher rates, as a part of 24 kHz: half a transition below.
const CUTOFF_DOWN: f64 = 0.92;
/// Input is let go in pieces of at least this, so that it is not shifted for each block. 85 ms at 48 kHz.
const LET_GO_SAMPLES: usize = 4096;

/// An interpolator for runs of sound at one rate.
#[derive(Clone, Debug)]
pub struct Resampler {
    sample_hz: u64,
    kernel: &'static Kernel,
    /// The input that is still needed, with [`Kernel::taps`] zeros before a run's beginning.
    held: Vec<f32>,
    /// How much has been let go before it.
    let_go: u64,
    /// Input samples of this run.
    received: u64,
    /// The output of this run that the input so far is worth, times `sample_hz`.
    due: u64,
    /// Output samples of this run.
    given: u64,
    /// Stretches of the run that still owe output; the last one is where the next block goes on.
    stretches: VecDeque<Stretch>,
}

/// A stretch of input over which positions advance evenly.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Where it begins and how long it is, in input samples.
    from: u64,
    length: u64,
    /// Where its output begins and ends, in output samples times `sample_hz`.
    out_from: u64,
    out_to: u64,
    is_moved: bool,
}

impl Resampler {
    /// An interpolator for sound of so many samples in a second; less than 8000 is taken for 8000, more than 96000
    /// for 96000.
    #[must_use]
    pub fn new(sample_hz: u32) -> Self {
        let sample_hz = sample_hz.clamp(8000, 96_000);
        let mut resampler = Self {
            sample_hz: sample_hz.into(),
            kernel: Kernel::of(sample_hz),
            held: Vec::new(),
            let_go: 0,
            received: 0,
            due: 0,
            given: 0,
            stretches: VecDeque::new(),
        };
        resampler.begin();
        resampler
    }

    /// Takes the next block of a run, and appends to `out` what can be said of the output by now.
    ///
    /// Over the length of the block, the output is made `moved` samples at 48 kHz longer, or shorter where that is
    /// negative, evenly. A block cannot become shorter than nothing: what `moved` asks beyond is not done.
    pub fn push(&mut self, input: &[f32], moved: i32, out: &mut Vec<f32>) {
        let length = u64::try_from(input.len()).unwrap_or(u64::MAX);
        let unmoved = length * OUT;
        let shift = u64::from(moved.unsigned_abs()) * self.sample_hz;
        let share =
            if moved < 0 { unmoved - shift.min(unmoved - unmoved % self.sample_hz) } else { unmoved + shift };
        let stretch = Stretch {
            from: self.received,
            length,
            out_from: self.due,
            out_to: self.due + share,
            is_moved: moved != 0,
        };
        match self.stretches.back_mut() {
            Some(last) if !last.is_moved && !stretch.is_moved => {
                last.length += length;
                last.out_to = stretch.out_to;
            }
            _ => self.stretches.push_back(stretch),
        }
        self.held.extend_from_slice(input);
        self.received += length;
        self.due = stretch.out_to;
        self.give(self.due.div_ceil(self.sample_hz), out);
    }

    /// Ends the run: appends the rest of its output, as if silence followed, and begins the next run.
    ///
    /// The whole run has then given round(input × 48000 / `sample_hz`) samples, and what it was moved by.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let silence = self.held.len() + self.kernel.taps + 1;
        self.held.resize(silence, 0.0);
        self.give((self.due + self.sample_hz / 2) / self.sample_hz, out);
        self.begin();
    }

    fn begin(&mut self) {
        self.held.clear();
        self.held.resize(self.kernel.taps, 0.0);
        self.stretches.clear();
        (self.let_go, self.received, self.due, self.given) = (0, 0, 0, 0);
    }

    /// Appends output up to sample `until`, as far as the input reaches.
    fn give(&mut self, until: u64, out: &mut Vec<f32>) {
        while let Some(stretch) = self.stretches.front().copied() {
            let until = until.min(stretch.out_to.div_ceil(self.sample_hz));
            if stretch.is_copied(self.sample_hz) {
                self.copy(&stretch, until, out);
            } else {
                self.interpolate(&stretch, until, out);
            }
            let is_done =
                self.given * self.sample_hz + self.sample_hz > stretch.out_to && self.given >= until;
            if !is_done || self.stretches.len() == 1 {
                break;
            }
            self.stretches.pop_front();
        }
        self.let_go();
    }

    /// Input and output samples are the same ones.
    fn copy(&mut self, stretch: &Stretch, until: u64, out: &mut Vec<f32>) {
        let position = stretch.position(self.given, self.sample_hz);
        let count = usize::try_from(until.saturating_sub(self.given)).unwrap_or(usize::MAX);
        let start = self.index(position.whole).saturating_add(self.kernel.taps);
        if let Some(samples) = self.held.get(start..start.saturating_add(count)) {
            out.extend_from_slice(samples);
            self.given = self.given.max(until);
        }
    }

    fn interpolate(&mut self, stretch: &Stretch, until: u64, out: &mut Vec<f32>) {
        while self.given < until {
            let position = stretch.position(self.given, self.sample_hz);
            // The first tap is the one after the position less all taps of one side.
            let start = self.index(position.whole).saturating_add(1);
            let Some(window) = self.held.get(start..start.saturating_add(2 * self.kernel.taps)) else {
                return;
            };
            out.push(self.kernel.read(window, position));
            self.given += 1;
        }
    }

    /// Where in `held` the input sample `taps` before this one lies.
    fn index(&self, sample: u64) -> usize {
        usize::try_from(sample.saturating_sub(self.let_go)).unwrap_or(usize::MAX)
    }

    /// Lets go of input before the position of the next output.
    fn let_go(&mut self) {
        let next = self.stretches.iter().find(|stretch| self.given * self.sample_hz < stretch.out_to);
        let needed = next.map_or(self.received, |stretch| stretch.position(self.given, self.sample_hz).whole);
        let spent = self.index(needed);
        if spent >= LET_GO_SAMPLES && spent <= self.held.len() {
            self.held.drain(..spent);
            self.let_go = needed;
        }
    }
}

impl Stretch {
    /// Whether each output sample is an input sample.
    fn is_copied(&self, sample_hz: u64) -> bool {
        sample_hz == OUT && !self.is_moved
    }

    /// Where in the input output sample `k` is read.
    fn position(&self, k: u64, sample_hz: u64) -> Position {
        let into = (k * sample_hz).saturating_sub(self.out_from);
        if !self.is_moved {
            // Length and share cancel: whatever the run is cut into, it is the same fraction.
            return Position { whole: self.from + into / OUT, rest: into % OUT, of: OUT };
        }
        let share = (self.out_to - self.out_from).max(1);
        let scaled = u128::from(into) * u128::from(self.length);
        let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let (whole, rest) = (scaled / u128::from(share), scaled % u128::from(share));
        Position { whole: self.from + narrow(whole), rest: narrow(rest), of: share }
    }
}

/// A position in the input: `whole` samples and `rest` / `of` of one. `of` is never zero.
#[derive(Clone, Copy, Debug)]
struct Position {
    whole: u64,
    rest: u64,
    of: u64,
}

/// The filter's taps at [`PHASES`] positions between two samples, and at the second of these.
#[derive(Clone, Debug)]
struct Kernel {
    /// On each side.
    taps: usize,
    /// Rows of twice as many.
    rows: Vec<f32>,
}

/// Rates above 48 kHz that have a filter of their own: what sound cards have. Any other takes that of the next multiple of
/// 4 kHz, which passes a little less.
const HIGHER_HZ: [u32; 2] = [64_000, 88_200];
const HIGHER_STEP_HZ: u32 = 4000;
/// The multiples of 4 kHz above 48 kHz, up to 96 kHz.
const HIGHER_STEPS: usize = 12;

impl Kernel {
    /// The filter for a rate. Each is made once in a process, because that takes longer than to use it for a packet.
    fn of(sample_hz: u32) -> &'static Self {
        static RATE: OnceLock<Kernel> = OnceLock::new();
        static MOVE: OnceLock<Kernel> = OnceLock::new();
        static OWN: [OnceLock<Kernel>; HIGHER_HZ.len()] = [const { OnceLock::new() }; HIGHER_HZ.len()];
        static STEPS: [OnceLock<Kernel>; HIGHER_STEPS] = [const { OnceLock::new() }; HIGHER_STEPS];
        if sample_hz == OUT_HZ {
            return MOVE.get_or_init(|| Self::new(OUT_HZ));
        }
        // Below 48 kHz one filter fits all rates: it is as wide as their samples are apart.
        let Some(above) = sample_hz.checked_sub(OUT_HZ) else { return RATE.get_or_init(|| Self::new(8000)) };
        let own = HIGHER_HZ.iter().zip(&OWN).find(|(hz, _)| **hz == sample_hz);
        if let Some((hz, own)) = own {
            return own.get_or_init(|| Self::new(*hz));
        }
        let step = above.div_ceil(HIGHER_STEP_HZ);
        let at = usize::try_from(step).unwrap_or(0).saturating_sub(1).min(HIGHER_STEPS - 1);
        let [first, ..] = &STEPS;
        STEPS.get(at).unwrap_or(first).get_or_init(|| Self::new(OUT_HZ + step * HIGHER_STEP_HZ))
    }

    #[expect(clippy::cast_possible_truncation, reason = "taps need no more than 24 bits")]
    fn new(sample_hz: u32) -> Self {
        let (taps, cutoff) = match sample_hz {
            OUT_HZ => (TAPS_MOVE, 1.0),
            _ if sample_hz < OUT_HZ => (TAPS_RATE, 1.0),
            _ => {
                let wider = (TAPS_RATE * sample_hz).div_ceil(OUT_HZ);
                (wider, CUTOFF_DOWN * f64::from(OUT_HZ) / f64::from(sample_hz))
            }
        };
        let half = f64::from(taps);
        let mut rows = Vec::new();
        for phase in 0..=PHASES {
            let fraction = f64::from(phase) / f64::from(PHASES);
            let at = (0..2 * taps).map(|tap| f64::from(tap) + 1.0 - half - fraction);
            let row: Vec<f64> = at.map(|at| sinc(at * cutoff) * kaiser(at / half)).collect();
            // A constant stays that constant at each position.
            let sum: f64 = row.iter().sum();
            rows.extend(row.iter().map(|tap| (tap / sum) as f32));
        }
        Self { taps: usize::try_from(taps).unwrap_or(0), rows }
    }

    /// Reads the sound at a position, of which `window` are the samples around.
    #[expect(clippy::cast_precision_loss, reason = "a part of the way between two rows")]
    fn read(&self, window: &[f32], position: Position) -> f32 {
        let (phase, of) = (position.rest * u64::from(PHASES), position.of);
        let row = |index: u64| {
            let start = usize::try_from(index).unwrap_or(0) * 2 * self.taps;
            self.rows.get(start..start + 2 * self.taps).unwrap_or_default()
        };
        let here = dot(window, row(phase / of));
        if phase % of == 0 {
            return here;
        }
        let part = (phase % of) as f32 / of as f32;
        here + part * (dot(window, row(phase / of + 1)) - here)
    }
}

/// Sums in eight lanes, which the compiler can then put side by side.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let mut lanes = [0.0_f32; 8];
    for (left, right) in left.iter().zip(right) {
        for (lane, (left, right)) in lanes.iter_mut().zip(left.iter().zip(right)) {
            *lane += left * right;
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    lanes.iter().sum::<f32>() + rest
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    // Rounding must not leave a trace of other samples where the position is one.
    if x.fract() == 0.0 { 0.0 } else { (PI * x).sin() / (PI * x) }
}

/// The Kaiser window from −1 to 1.
fn kaiser(x: f64) -> f64 {
    bessel(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel(BETA)
}

/// The modified Bessel function of the first kind and order zero, by its series.
fn bessel(x: f64) -> f64 {
    let quarter = x * x / 4.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..64 {
        term *= quarter / f64::from(n * n);
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "sound made and measured for a test"
)]
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATES: [u32; 10] = [8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000];

    fn sine(hz: f64, sample_hz: u32, samples: u32) -> Vec<f32> {
        let step = 2.0 * PI * hz / f64::from(sample_hz);
        (0..samples).map(|n| (0.5 * (step * f64::from(n)).sin()) as f32).collect()
    }

    fn noise(samples: usize) -> Vec<f32> {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        (0..samples).map(|_| next()).collect()
    }

    /// A run in blocks, each with what it is moved by.
    fn run(sample_hz: u32, blocks: &[(&[f32], i32)]) -> Vec<f32> {
        let mut resampler = Resampler::new(sample_hz);
        let mut out = Vec::new();
        for (block, moved) in blocks {
            resampler.push(block, *moved, &mut out);
        }
        resampler.finish(&mut out);
        out
    }

    /// The sine of a frequency (in cycles a sample) that is in some sound: its size, its phase at the sound's first
    /// sample in radians, and how many dB everything else is below it.
    fn fit(sound: &[f32], frequency: f64) -> (f64, f64, f64) {
        let angle = |n: usize| 2.0 * PI * frequency * n as f64;
        // Least squares over sine and cosine, which are not quite orthogonal over a finite time.
        let (mut ss, mut sc, mut cc, mut ys, mut yc) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (n, y) in sound.iter().enumerate() {
            let ((s, c), y) = (angle(n).sin_cos(), f64::from(*y));
            (ss, sc, cc, ys, yc) = (ss + s * s, sc + s * c, cc + c * c, ys + y * s, yc + y * c);
        }
        let d = ss * cc - sc * sc;
        let (a, b) = ((ys * cc - yc * sc) / d, (yc * ss - ys * sc) / d);
        let (mut signal, mut rest) = (0.0, 0.0);
        for (n, y) in sound.iter().enumerate() {
            let (s, c) = angle(n).sin_cos();
            let fitted = a * s + b * c;
            signal += fitted * fitted;
            rest += (f64::from(*y) - fitted).powi(2);
        }
        (a.hypot(b), b.atan2(a), 10.0 * (signal / rest).log10())
    }

    #[test]
    fn a_sine_stays_that_sine_at_every_rate() {
        for sample_hz in RATES {
            for hz in [440.0, 1000.0, 3000.0, 3400.0, 0.44 * f64::from(sample_hz.min(44_100))] {
                let input = sine(hz, sample_hz, sample_hz / 5);
                let out = run(sample_hz, &[(&input, 0)]);
                assert_eq!(out.len(), 9600);
                let (size, phase, snr_db) = fit(&out[1200..8400], hz / 48_000.0);
                let ripple_db = 20.0 * (size / 0.5).log10();
                // What a delay of one sample at 48 kHz would turn the phase by.
                let turn = 2.0 * PI * hz / 48_000.0;
                let early = phase - turn * 1200.0;
                let delay = -(early - (early / (2.0 * PI)).round() * 2.0 * PI) / turn;
                println!(
                    "{sample_hz:6} Hz, {hz:7.0} Hz: SNR {snr_db:5.1} dB, size {ripple_db:+.4} dB, delay {delay:+.5}"
                );
                assert!(snr_db >= 70.0, "{sample_hz} Hz, {hz} Hz: SNR {snr_db} dB");
                assert!(ripple_db.abs() < 0.1, "{sample_hz} Hz, {hz} Hz: {ripple_db} dB");
                assert!(delay.abs() < 0.05, "{sample_hz} Hz, {hz} Hz: late by {delay}");
            }
        }
    }

    #[test]
    fn a_moved_sine_is_a_sine_of_another_length() {
        for moved in [-48, -7, -1, 1, 5, 48] {
            for hz in [440.0, 3400.0, 12_000.0] {
                let input = sine(hz, 48_000, 9600);
                let out = run(48_000, &[(&input, moved)]);
                assert_eq!(i32::try_from(out.len()).unwrap(), 9600 + moved);
                let (_, _, snr_db) = fit(&out[1200..8400], hz / 48_000.0 * 9600.0 / f64::from(9600 + moved));
                println!("48000 Hz moved by {moved:+3}, {hz:6} Hz: SNR {snr_db:.1} dB");
                assert!(snr_db >= 70.0, "moved by {moved}, {hz} Hz: SNR {snr_db} dB");
            }
        }
    }

    #[test]
    fn images_of_telephone_sound_are_below_70_db() {
        for hz in [100.0, 1000.0, 3000.0, 3400.0] {
            let out = run(8000, &[(&sine(hz, 8000, 1600), 0)]);
            for image in [8000.0 - hz, 8000.0 + hz, 16_000.0 - hz, 24_000.0 - hz] {
                let (size, _, _) = fit(&out[1200..8400], image / 48_000.0);
                assert!(20.0 * (size / 0.5).log10() < -70.0, "{image} Hz beside {hz} Hz: {size}");
            }
        }
    }

    #[test]
    fn what_48_khz_cannot_hold_does_not_come_back_as_something_else() {
        for (sample_hz, hz) in
            [(64_000, 26_000.0), (88_200, 40_000.0), (96_000, 24_500.0), (96_000, 30_000.0)]
        {
            let out = run(sample_hz, &[(&sine(hz, sample_hz, sample_hz / 5), 0)]);
            let loudest = out[1200..8400].iter().fold(0.0_f32, |loudest, s| loudest.max(s.abs()));
            assert!(loudest < 0.5 * 10_f32.powf(-70.0 / 20.0), "{hz} Hz of {sample_hz} Hz: {loudest}");
        }
    }

    #[test]
    fn a_click_stays_where_it_was() {
        for sample_hz in RATES {
            let per_10_ms = usize::try_from(sample_hz / 100).unwrap();
            let mut input = vec![0.0; per_10_ms * 4];
            input[per_10_ms * 2] = 0.5;
            // 11025 and 22050 Hz have no sample at 20 ms, but the one before, by less than two samples of the output.
            let expected = (per_10_ms as f64 * 2.0 * 48_000.0 / f64::from(sample_hz)).round();
            let out = run(sample_hz, &[(&input, 0)]);
            let peak = (0..out.len()).max_by(|a, b| out[*a].total_cmp(&out[*b])).unwrap();
            assert_eq!(peak as f64, expected, "{sample_hz} Hz");
        }
    }

    #[test]
    fn sound_at_48_khz_is_copied_around_a_stretch_that_is_moved() {
        let input = noise(4 * 960);
        let (before, rest) = input.split_at(960);
        let (moved, after) = rest.split_at(960);
        for by in [-3, 4] {
            let out = run(48_000, &[(before, 0), (moved, by), (after, 0)]);
            assert_eq!(out[..960], *before);
            assert_eq!(out[960], moved[0]);
            assert_eq!(out[out.len() - after.len()..], *after);
        }
    }

    #[test]
    fn copying_does_not_wait() {
        let mut out = Vec::new();
        let mut resampler = Resampler::new(48_000);
        for block in noise(48_000).chunks(960) {
            resampler.push(block, 0, &mut out);
        }
        assert_eq!(out, noise(48_000));
        assert!(resampler.held.len() < LET_GO_SAMPLES + 960);
    }

    #[test]
    fn a_long_run_at_an_odd_rate_does_not_drift_and_is_not_kept() {
        let mut resampler = Resampler::new(11_025);
        let (mut out, mut total) = (Vec::new(), 0);
        for _ in 0..150 {
            resampler.push(&[0.25; 1103], 0, &mut out);
            total += out.len();
            out.clear();
        }
        assert!(resampler.held.len() < 2 * LET_GO_SAMPLES && resampler.stretches.len() == 1);
        resampler.finish(&mut out);
        assert_eq!(total + out.len(), (150 * 1103 * 48_000_usize + 5512) / 11_025);
    }

    #[test]
    fn a_block_can_be_moved_away_but_not_further() {
        let input = noise(480);
        let expected: Vec<f32> = input[..240].to_vec();
        assert_eq!(run(48_000, &[(&input[..240], 0), (&input[240..], -240)]), expected);
        assert_eq!(run(48_000, &[(&input[..240], 0), (&input[240..], -999)]), expected);
        assert_eq!(run(48_000, &[(&[], -1)]), [0.0; 0]);
        assert_eq!(run(8000, &[(&[], 3)]), [0.0; 3]);
        assert_eq!(run(8000, &[]), [0.0; 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn the_length_of_a_run_is_exact(
            sample_hz in prop_oneof![prop::sample::select(RATES.to_vec()), 8000..=96_000_u32],
            blocks in prop::collection::vec((0..700_usize, -20..20_i32), 0..12),
        ) {
            let sound = noise(700);
            // Only what a block has can be taken from it.
            let least = |length: usize| -i32::try_from(length as u64 * OUT / u64::from(sample_hz)).unwrap();
            let blocks: Vec<(&[f32], i32)> =
                blocks.iter().map(|(length, moved)| (&sound[..*length], (*moved).max(least(*length)))).collect();
            let input: usize = blocks.iter().map(|(block, _)| block.len()).sum();
            let moved: i64 = blocks.iter().map(|(_, moved)| i64::from(*moved)).sum();
            let unmoved = (input as f64 * 48_000.0 / f64::from(sample_hz)).round() as i64;
            let out = run(sample_hz, &blocks);
            prop_assert_eq!(i64::try_from(out.len()).unwrap(), unmoved + moved);
        }

        #[test]
        fn it_makes_no_difference_into_which_blocks_a_run_is_cut(
            sample_hz in prop::sample::select(RATES.to_vec()),
            cuts in prop::collection::vec(0..90_usize, 1..10),
        ) {
            let sound = noise(4000);
            let mut rest = &sound[..];
            let mut blocks: Vec<(&[f32], i32)> = Vec::new();
            for cut in cuts.iter().cycle().take(100) {
                let (block, after) = rest.split_at((*cut).min(rest.len()));
                blocks.push((block, 0));
                rest = after;
            }
            blocks.push((rest, 0));
            prop_assert!(run(sample_hz, &blocks) == run(sample_hz, &[(&sound, 0)]));
        }

        #[test]
        fn a_resampler_is_as_new_after_a_run(sample_hz in prop::sample::select(RATES.to_vec()), moved in -9..9_i32) {
            let sound = noise(2000);
            let mut resampler = Resampler::new(sample_hz);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for out in [&mut first, &mut second] {
                resampler.push(&sound, moved, out);
                resampler.finish(out);
            }
            prop_assert_eq!(first, second);
        }
    }
}

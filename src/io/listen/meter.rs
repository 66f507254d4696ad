//! How loud a channel is over the whole call, and whether anybody spoke at all: in constant memory.

use crate::time::Samples48k;

/// Loudness is judged in blocks of 20 ms.
const BLOCK: u32 = 960;
/// A block louder than this is sound: -50 dBFS, far below speech on any telephone, above the noise of its lines.
const ACTIVE_MEAN_SQUARE: f64 = 1e-5;

/// Half a step of 16 bits: what is below is silence wherever it is played.
const SILENCE: f32 = 1.0 / 65536.0;

/// Measures one channel, sample after sample.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    peak: f32,
    energy: f64,
    samples: u32,
    active_blocks: u32,
    active_energy: f64,
}

/// How loud a channel is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// The loudest sample against full scale, in decibels. `None` for digital silence: less than half a step of 16 bits.
    pub peak_dbfs: Option<f64>,
    /// The mean of the active blocks, in decibels. `None` where there is none.
    pub active_dbfs: Option<f64>,
    /// How long there is sound.
    pub active: Samples48k,
}

impl Meter {
    pub(super) fn push(&mut self, sample: f32) {
        self.peak = self.peak.max(sample.abs());
        self.energy += f64::from(sample) * f64::from(sample);
        self.samples = self.samples.saturating_add(1);
        if self.samples == BLOCK {
            self.close_block();
        }
    }

    fn close_block(&mut self) {
        if self.energy > ACTIVE_MEAN_SQUARE * f64::from(BLOCK) {
            self.active_blocks = self.active_blocks.saturating_add(1);
            self.active_energy += self.energy;
        }
        (self.energy, self.samples) = (0.0, 0);
    }

    pub(super) fn finish(mut self) -> Level {
        if self.samples > 0 {
            self.close_block();
        }
        let mean = self.active_energy / (f64::from(self.active_blocks) * f64::from(BLOCK));
        Level {
            peak_dbfs: (self.peak >= SILENCE).then(|| 20.0 * f64::from(self.peak).log10()),
            active_dbfs: (self.active_blocks > 0).then(|| 10.0 * mean.log10()),
            active: Samples48k(i64::from(self.active_blocks).saturating_mul(i64::from(BLOCK))),
        }
    }
}

/// Tells whether two channels are the same sound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Likeness {
    energy: f64,
    difference: f64,
}

impl Likeness {
    pub(super) fn push(&mut self, left: f32, right: f32) {
        let (left, right) = (f64::from(left), f64::from(right));
        self.energy += left * left + right * right;
        self.difference += (left - right) * (left - right);
    }

    /// Whether the difference is 30 dB below the sound: what coding the same sound twice leaves is about that.
    pub(super) fn is_identical(self) -> bool {
        self.energy > 0.0 && self.difference < self.energy * 1e-3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_tone_and_half_silence_are_half_active_at_the_tone_s_level() {
        let mut meter = Meter::default();
        for at in 0..96_000u32 {
            meter.push(if at < 48_000 { (at as f32 / 7.0).sin() * 0.1 } else { 0.0 });
        }
        let level = meter.finish();
        assert_eq!(level.active, Samples48k(48_000));
        assert!((level.active_dbfs.unwrap() + 23.0).abs() < 0.1, "{level:?}");
        assert!((level.peak_dbfs.unwrap() + 20.0).abs() < 0.1, "{level:?}");
        assert_eq!(Meter::default().finish(), Level::default());
    }

    #[test]
    fn only_the_same_sound_is_identical() {
        let (mut same, mut other, mut silent) =
            (Likeness::default(), Likeness::default(), Likeness::default());
        for at in 0..9600u16 {
            let sample = (f32::from(at) / 9.0).sin();
            same.push(sample, sample * 1.01);
            other.push(sample, sample * 0.8);
            silent.push(0.0, 0.0);
        }
        assert!(same.is_identical() && !other.is_identical() && !silent.is_identical());
    }
}

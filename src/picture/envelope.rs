//! How loud a channel is over time, in bounded memory: of each short stretch the lowest and the highest sample, and
//! the energy.
//!
//! A stretch is 2.5 ms long at first. Whenever there are too many of them, each two become one of twice the length,
//! so that a recording of any length takes 3 MB and is still finer than any screen.

/// Stretches kept: even after joining, 80 for each column of the picture.
const STRETCHES_MAX: usize = 1 << 18;
/// The first length of a stretch, in samples at 48 kHz: the shortest Opus frame.
const FIRST_STEP: u64 = 120;

/// The loudness of one channel, sample after sample.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The length of a stretch.
    step: u64,
    /// How many samples the last stretch still takes.
    room: u64,
    stretches: Vec<Stretch>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    low: f32,
    high: f32,
    energy: f32,
}

/// What a column of the picture shows. Full scale is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Column {
    /// The lowest sample, at most 0.
    pub low: f32,
    /// The highest sample, at least 0.
    pub high: f32,
    /// The root of the mean square.
    pub rms: f32,
}

impl Default for Envelope {
    fn default() -> Self {
        Self { step: FIRST_STEP, room: 0, stretches: Vec::new() }
    }
}

impl Envelope {
    /// Adds the next sample.
    pub fn push(&mut self, sample: f32) {
        if self.room == 0 {
            self.open();
        }
        self.room -= 1;
        if let Some(last) = self.stretches.last_mut() {
            last.low = last.low.min(sample);
            last.high = last.high.max(sample);
            last.energy += sample * sample;
        }
    }

    /// Adds so many samples of silence.
    pub fn skip(&mut self, samples: u64) {
        let mut left = samples;
        while left > 0 {
            if self.room == 0 {
                self.open();
            }
            let taken = left.min(self.room);
            self.room -= taken;
            left -= taken;
        }
    }

    /// Reduces the first `samples` to `count` columns of equal length.
    #[must_use]
    pub fn columns(&self, samples: u64, count: u32) -> Vec<Column> {
        let count = u64::from(count.max(1));
        let edge = |column: u64| u128::from(column) * u128::from(samples) / u128::from(count);
        let index = |at: u128| usize::try_from(at).unwrap_or(usize::MAX).min(self.stretches.len());
        let step = u128::from(self.step);
        (0..count)
            .map(|column| {
                let from = edge(column) / step;
                let to = edge(column + 1).div_ceil(step).max(from + 1);
                self.column(&self.stretches[index(from)..index(to)])
            })
            .collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "a picture is not that precise")]
    fn column(&self, stretches: &[Stretch]) -> Column {
        let mut column = Column::default();
        let mut energy = 0.0;
        for stretch in stretches {
            column.low = column.low.min(stretch.low);
            column.high = column.high.max(stretch.high);
            energy += stretch.energy;
        }
        let samples = self.step as f32 * stretches.len().max(1) as f32;
        column.rms = (energy / samples).sqrt();
        column
    }

    fn open(&mut self) {
        if self.stretches.len() == STRETCHES_MAX {
            self.stretches = self.stretches.chunks(2).map(join).collect();
            self.step *= 2;
        }
        self.stretches.push(Stretch::default());
        self.room = self.step;
    }
}

fn join(stretches: &[Stretch]) -> Stretch {
    stretches.iter().fold(Stretch::default(), |joined, stretch| Stretch {
        low: joined.low.min(stretch.low),
        high: joined.high.max(stretch.high),
        energy: joined.energy + stretch.energy,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_click_is_in_its_column_and_nowhere_else() {
        let mut envelope = Envelope::default();
        for at in 0..48_000 {
            envelope.push(if at == 24_100 { -0.5 } else { 0.0 });
        }
        let columns = envelope.columns(48_000, 100);
        let loud: Vec<usize> = (0..100).filter(|column| columns[*column].low < 0.0).collect();
        assert_eq!(loud, [50]);
        assert_eq!(columns[50].low, -0.5);
        assert!((columns[50].rms - 0.5 / 480f32.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn days_of_silence_take_no_more_memory_and_the_sound_behind_them_stays_in_its_place() {
        let mut envelope = Envelope::default();
        let day = 86_400 * 48_000;
        envelope.skip(day);
        for _ in 0..day / 1000 {
            envelope.push(0.25);
        }
        assert!(envelope.stretches.len() <= STRETCHES_MAX);
        let columns = envelope.columns(day + day / 1000, 1001);
        assert!(columns[..1000].iter().all(|column| column.high == 0.0));
        assert_eq!(columns[1000].high, 0.25);
        assert!((columns[1000].rms - 0.25).abs() < 0.02, "{:?}", columns[1000]);
    }

    #[test]
    fn a_sound_shorter_than_the_picture_has_columns_that_share_stretches() {
        let mut envelope = Envelope::default();
        envelope.skip(120);
        (0..120).for_each(|_| envelope.push(0.5));
        let highs: Vec<f32> = envelope.columns(240, 6).iter().map(|column| column.high).collect();
        assert_eq!(highs, [0.0, 0.0, 0.0, 0.5, 0.5, 0.5]);
        assert_eq!(Envelope::default().columns(1200, 3), [Column::default(); 3]);
        assert_eq!(Envelope::default().columns(0, 2), [Column::default(); 2]);
    }
}

//! The decoder of ITU-T G.722 at 64 kbit/s: each byte gives two samples at 16 kHz.
//!
//! | bits of a byte | what they are |
//! | --- | --- |
//! | 7, 6 | code of the higher band, 4 to 8 kHz |
//! | 5 to 0 | code of the lower band, 0 to 4 kHz; the four upper ones drive the adaptation |
//!
//! Each band is an ADPCM decoder at 8 kHz: an inverse quantiser whose step adapts, and a predictor of two poles and
//! six zeros that adapts by signs alone. A quadrature mirror filter of 24 taps makes one signal of both. The names of
//! the blocks are those of section 6.2 of the recommendation. The modes of 56 and 48 kbit/s, whose bytes carry data,
//! do not occur in RTP (RFC 3551 section 4.5.2).
//!
//! Integers, as the recommendation has them: the output is the same bit for bit in each decoder. No byte can make it
//! overflow: what is kept is limited to 16 bits, a product of two such values fits into 32, and so do 12 of them
//! with the filter's taps.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::as_conversions))]

/// Levels of the lower band's 60-level quantiser, in units of 1/4096 of the step: entry n is the nth from zero.
const LOW_LEVELS: [i32; 30] = [
    17, 54, 91, 130, 170, 211, 254, 300, 347, 396, 447, 501, 558, 618, 682, 750, 822, 899, 982, 1072, 1170,
    1279, 1399, 1535, 1689, 1873, 2088, 2376, 2738, 3101,
];
/// The same for the 15-level quantiser that drives the adaptation, and what each level adds to the log of the step.
const LOW_ADAPTATION: [(i32, i32); 8] =
    [(0, -60), (150, -30), (323, 58), (530, 172), (786, 334), (1121, 538), (1612, 1198), (2557, 3042)];
/// The same for the higher band, whose quantiser has four levels: the inner, the outer.
const HIGH_ADAPTATION: [(i32, i32); 2] = [(202, -214), (926, 798)];
/// 2048 · 2^(n/32): the powers of two between two whole ones.
const POWERS: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
/// Taps 0, 2, 4 … 22 of the mirror filter; it is symmetric, so backwards these are taps 23, 21 … 1.
const MIRROR: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];

/// The state of one G.722 decoder.
#[derive(Clone, Debug)]
pub(super) struct G722Decoder {
    low: Band,
    high: Band,
    /// The bands' differences and sums, 12 of each, newest first: what the mirror filter runs over.
    differences: [i32; 12],
    sums: [i32; 12],
}

impl G722Decoder {
    /// The state that the recommendation starts from.
    pub(super) fn new() -> Self {
        let differences = [0; 12];
        Self { low: Band::new(8, 18_432), high: Band::new(10, 22_528), differences, sums: differences }
    }

    /// Decodes one byte to the two samples that it stands for.
    pub(super) fn decode(&mut self, byte: u8) -> [i16; 2] {
        let (fine, coarse, high) = (byte & 0x3f, (byte >> 2) & 0x0f, byte >> 6);

        // The ear gets all six bits, the adaptation only four (INVQBL, RECONS, LIMIT; INVQAL).
        let low_out = limit15(self.low.scaled(low_level(fine)) + self.low.prediction);
        let (level, step) = low_adaptation(coarse);
        self.low.adapt(self.low.scaled(level), step);

        let (level, step) = high_adaptation(high);
        let difference = self.high.scaled(level);
        let high_out = limit15(difference + self.high.prediction);
        self.high.adapt(difference, step);

        shift_in(&mut self.differences, low_out - high_out);
        shift_in(&mut self.sums, low_out + high_out);
        let first = dot(self.differences.iter(), MIRROR.iter());
        let second = dot(self.sums.iter(), MIRROR.iter().rev());
        [first, second].map(|sum| to_i16(sum >> 11))
    }
}

/// The decoder of one band.
#[derive(Clone, Debug)]
struct Band {
    /// SL, SH: what the predictor expects next.
    prediction: i32,
    /// SZL, SZH: the part of the prediction that the zeros make.
    from_zeros: i32,
    /// AL, AH: coefficients of the two poles.
    poles: [i32; 2],
    /// BL, BH: coefficients of the six zeros.
    zeros: [i32; 6],
    /// RLT, RH, doubled: the last reconstructed sample.
    reconstructed: i32,
    /// DLT, DH, doubled: the last six differences, newest first.
    differences: [i32; 6],
    /// Whether the last two samples were negative before the poles had their part.
    were_negative: [bool; 2],
    /// NBL, NBH: log of the quantiser's step, in 1/2048 of an octave.
    log_step: i32,
    /// A quarter of DETL, DETH: the quantiser's step.
    step: i32,
    /// The octave at which the table of powers is the step itself.
    octave: i32,
    log_step_max: i32,
}

impl Band {
    fn new(octave: i32, log_step_max: i32) -> Self {
        Self {
            prediction: 0,
            from_zeros: 0,
            poles: [0; 2],
            zeros: [0; 6],
            reconstructed: 0,
            differences: [0; 6],
            were_negative: [false; 2],
            log_step: 0,
            step: 2048 >> octave,
            octave,
            log_step_max,
        }
    }

    /// A quantiser's level in samples at the present step.
    fn scaled(&self, level: i32) -> i32 {
        (self.step * level) >> 10
    }

    /// Takes the difference that was received into the predictor, and the code's word into the step.
    fn adapt(&mut self, difference: i32, log_step_change: i32) {
        self.adapt_poles(difference);
        self.adapt_zeros(difference);
        self.predict(difference);
        self.adapt_step(log_step_change);
    }

    /// PARREC, UPPOL2, UPPOL1.
    fn adapt_poles(&mut self, difference: i32) {
        let is_negative = self.from_zeros + difference < 0;
        let [last, before] = self.were_negative;
        let [first, second] = self.poles;

        let like_last = if is_negative == last { 1 } else { -1 };
        let like_before = if is_negative == before { 1 } else { -1 };
        // Before the shift, four times the first pole has to fit into 16 bits.
        let pull = (-like_last * first.clamp(-8191, 8191)) >> 5;
        let second = (pull + like_before * 128 + ((second * 127) >> 7)).clamp(-12_288, 12_288);
        // Both poles together stay within the triangle in which the filter is stable.
        let reach = 15_360 - second;
        let first = (like_last * 192 + ((first * 255) >> 8)).clamp(-reach, reach);

        self.poles = [first, second];
        self.were_negative = [is_negative, last];
    }

    /// UPZERO.
    fn adapt_zeros(&mut self, difference: i32) {
        for (zero, past) in self.zeros.iter_mut().zip(self.differences) {
            let pull = match difference {
                0 => 0,
                _ if (past < 0) == (difference < 0) => 128,
                _ => -128,
            };
            *zero = ((*zero * 255) >> 8) + pull;
        }
    }

    /// DELAYA, FILTEZ, FILTEP, PREDIC.
    fn predict(&mut self, difference: i32) {
        shift_in(&mut self.differences, limit16(difference * 2));
        let products = self.zeros.iter().zip(self.differences).map(|(zero, past)| (*zero * past) >> 15);
        self.from_zeros = products.sum();

        let reconstructed = limit16((self.prediction + difference) * 2);
        let [first, second] = self.poles;
        let from_poles = ((first * reconstructed) >> 15) + ((second * self.reconstructed) >> 15);
        self.prediction = limit16(self.from_zeros + from_poles);
        self.reconstructed = reconstructed;
    }

    /// LOGSCL, SCALEL; LOGSCH, SCALEH.
    fn adapt_step(&mut self, change: i32) {
        self.log_step = (((self.log_step * 127) >> 7) + change).clamp(0, self.log_step_max);
        let index = usize::try_from((self.log_step >> 6) & 31).unwrap_or(0);
        let power = POWERS.get(index).copied().unwrap_or(0);
        // Octaves below the table's own; above it by one at most, for what is left of the log's range.
        let below = self.octave - (self.log_step >> 11);
        self.step = if below < 0 { power << -below } else { power >> below };
    }
}

/// The level of a six-bit code: upwards from the smallest where it is positive, and four codes that encoders never
/// send.
fn low_level(code: u8) -> i32 {
    let level = |from_zero: u8| LOW_LEVELS.get(usize::from(from_zero)).copied().unwrap_or(0);
    match code {
        0..=3 => -level(0),
        4..=31 => -level(33 - code),
        32..=61 => level(61 - code),
        _ => -level(63_u8.saturating_sub(code)),
    }
}

/// The level of a four-bit code, and what it adds to the log of the step.
fn low_adaptation(code: u8) -> (i32, i32) {
    let entry = |from_zero: u8| LOW_ADAPTATION.get(usize::from(from_zero)).copied().unwrap_or((0, 0));
    match code {
        0 => entry(0),
        1..=7 => {
            let (level, change) = entry(8 - code);
            (-level, change)
        }
        _ => entry(15_u8.saturating_sub(code)),
    }
}

/// The same for the two bits of the higher band.
fn high_adaptation(code: u8) -> (i32, i32) {
    let [inner, outer] = HIGH_ADAPTATION;
    match code {
        0 => (-outer.0, outer.1),
        1 => (-inner.0, inner.1),
        2 => outer,
        _ => inner,
    }
}

fn shift_in<const N: usize>(line: &mut [i32; N], newest: i32) {
    line.rotate_right(1);
    if let Some(first) = line.first_mut() {
        *first = newest;
    }
}

fn dot<'a>(samples: impl Iterator<Item = &'a i32>, taps: impl Iterator<Item = &'a i32>) -> i32 {
    samples.zip(taps).map(|(sample, tap)| sample * tap).sum()
}

fn limit15(value: i32) -> i32 {
    value.clamp(-16_384, 16_383)
}

fn limit16(value: i32) -> i32 {
    value.clamp(i16::MIN.into(), i16::MAX.into())
}

fn to_i16(value: i32) -> i16 {
    i16::try_from(limit16(value)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loudest_codes_overflow_nothing() {
        for bytes in [[0x20; 2], [0xa0; 2], [0x04; 2], [0x20, 0x04], [0xa0, 0x24], [0x00, 0xff]] {
            let mut decoder = G722Decoder::new();
            let all: Vec<i16> =
                bytes.iter().cycle().take(16_000).flat_map(|byte| decoder.decode(*byte)).collect();
            assert!(all.iter().any(|sample| sample.unsigned_abs() > 8000), "{bytes:?}");
        }
    }
}

//! A small generator of random numbers: SplitMix64, and the distributions that speech and networks need.
//!
//! The same seed gives the same call on every machine, so a seed in a failure is all that it takes to see it again.

use std::ops::Range;

/// A sequence of random numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Any 32 bits.
    pub(crate) fn bits(&mut self) -> u32 {
        u32::try_from(self.next() >> 32).unwrap()
    }

    /// A number out of [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(self.bits()) / 2f64.powi(32)
    }

    pub(crate) fn within(&mut self, range: Range<f64>) -> f64 {
        range.start + (range.end - range.start) * self.unit()
    }

    /// A whole number out of `range`.
    pub(crate) fn whole(&mut self, range: Range<u32>) -> u32 {
        let width = u64::from(range.end - range.start);
        range.start + u32::try_from((u64::from(self.bits()) * width) >> 32).unwrap()
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let count = u32::try_from(choices.len()).unwrap();
        choices[usize::try_from(self.whole(0..count)).unwrap()]
    }

    /// Normally distributed around 0 with deviation 1 (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma distributed with a shape of at least 1 (Marsaglia and Tsang 2000).
    pub(crate) fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }
}

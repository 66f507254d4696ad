//! How often property tests are run: the same histories each time; with `PROPTEST_CASES` as many others.

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

/// So many cases, drawn from a number.
pub(crate) fn config(seed: u64, cases: u32) -> ProptestConfig {
    let (default, is_asked) = (ProptestConfig::default(), std::env::var_os("PROPTEST_CASES").is_some());
    let rng_seed = if is_asked { default.rng_seed } else { RngSeed::Fixed(seed) };
    let cases = if is_asked { default.cases } else { cases };
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..default }
}

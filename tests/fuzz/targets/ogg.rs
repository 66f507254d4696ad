//! Ogg Opus files, as `inspect` listens to them: damaged, cut off, or of another's making.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetape::commands::inspect::explain;

fuzz_target!(|bytes: &[u8]| {
    let (words, _) = explain(bytes, b"");
    assert!(words.chars().all(|c| c == '\n' || !c.is_control()), "{words:?}");
});

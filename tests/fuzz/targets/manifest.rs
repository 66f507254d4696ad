//! Manifests, as `inspect` reads them: from a later version, from a backup, from somebody's editor.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sidetape::commands::inspect::explain;
use sidetape::mux::ogg::{Layout, PRE_SKIP, Pages, head, tags};

/// A little silence.
static RECORDING: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut pages = Pages::new(1, &head(Layout::Stereo, PRE_SKIP), &tags("fuzz", &[]));
    for _ in 0..3 {
        pages.packet().extend_from_slice(&[0xfc, 0xff, 0xfe]);
        pages.push(960);
    }
    pages.finish(2500);
    pages.bytes().to_vec()
});

fuzz_target!(|bytes: &[u8]| {
    let (words, picture) = explain(&RECORDING, bytes);
    let is_plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    assert!(is_plain(&words), "{words:?}");
    let picture = picture.expect("there is something to draw");
    assert!(is_plain(&picture) && picture.len() < 1 << 20);
    assert!(!picture.contains("<script"));
});

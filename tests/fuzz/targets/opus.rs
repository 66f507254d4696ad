//! Opus packets: taken apart as libopus does, and put together again without a change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetape::opus::packet::{Framing, has_redundancy, join, padding_bytes, parse, shape};

fuzz_target!(|bytes: &[u8]| {
    let theirs = opus::packet::get_nb_samples(bytes, 48_000);
    let _ = has_redundancy(bytes);
    assert!(padding_bytes(bytes) <= bytes.len());
    let Ok(packet) = parse(bytes) else {
        assert!(opus::packet::parse(bytes).is_err(), "libopus takes it");
        return;
    };
    let _ = packet.is_speech();
    assert_eq!(theirs.ok(), usize::try_from(packet.shape().samples()).ok());
    assert_eq!(shape(bytes).expect("as parsed"), packet.shape());
    let frames: Vec<&[u8]> = packet.frames.clone().collect();
    for framing in [Framing::Plain, Framing::SelfDelimited] {
        let mut joined = Vec::new();
        join(packet.configuration, &frames, framing, &mut joined);
        if framing == Framing::Plain {
            assert_eq!(parse(&joined).expect("what was joined").frames, packet.frames);
        }
    }
});

//! RTP, RTCP and redundant packets, and what a pause keeps out of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetape::connection::redaction::{Redacted, Redaction};
use sidetape::connection::vigil::sound;
use sidetape::packet::{check_rtcp, header_only, parse_rtp, sender_reports};
use sidetape::red::blocks;
use sidetape::rtpmap::Rtpmap;
use sidetape::time::Wall;

fuzz_target!(|bytes: &[u8]| {
    if check_rtcp(bytes).is_ok() {
        assert!(sender_reports(bytes).count() <= bytes.len());
    }
    let Ok(packet) = parse_rtp(bytes) else { return };
    if let Some(blocks) = blocks(packet.payload) {
        let audio: usize = blocks.iter().map(|block| block.payload.len()).sum();
        assert!(audio < packet.payload.len());
    }
    let header = header_only(bytes);
    let kept = parse_rtp(&header).expect("a header alone is a packet");
    assert_eq!((kept.ssrc, kept.sequence, kept.timestamp), (packet.ssrc, packet.sequence, packet.timestamp));
    let red = Rtpmap::parse("red/48000/2").expect("a valid rtpmap");
    for payload_type in [packet.payload_type, 0, 8, 10, 111] {
        let heard = sound(&packet, |known| if known == 63 { red } else { Rtpmap::default_for(payload_type) });
        assert!(heard.is_none_or(|heard| heard.as_micros() <= bytes.len() as u128 * 125_000));
    }
    for rtpmap in [red, Rtpmap::default_for(111)] {
        let mut redaction = Redaction::default();
        let mut paused = header;
        paused[2..4].copy_from_slice(&packet.sequence.wrapping_sub(1).to_be_bytes());
        redaction.withhold(&parse_rtp(&paused).expect("a packet"), |_| Some(rtpmap));
        redaction.end(Wall(0));
        if let Redacted::Body(body) = redaction.redact(Wall(1), bytes, |_| Some(rtpmap)) {
            assert_eq!(body.len(), bytes.len());
            assert_eq!(body[..12], bytes[..12]);
        }
    }
});

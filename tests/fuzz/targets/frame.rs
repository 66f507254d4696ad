//! The tap protocol: any datagram is a frame or is refused; what is a frame can be written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sidetape::frame::{parse, parse_body, pong};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(frame) = parse(bytes) {
        assert!(frame.body.len() < bytes.len());
        // What is read back out of the spool is read as it was off the wire.
        assert!(parse_body(frame.message.kind(), frame.body).is_ok());
        drop(pong(bytes));
    }
});

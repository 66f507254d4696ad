//! Programs that send plain RTP: started, fed, and given ports that nobody has.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::is_strict;
use super::place::Place;

/// A place whose daemon has this many groups of ports.
pub(crate) fn place_with_ports(groups: u16) -> (Place, u16) {
    let low = free_ports(groups * 4);
    let range = format!("{low}-{}", low + groups * 4 - 1);
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0").with("AUDIO_RTP_PORTS", &range);
    (place, low)
}

/// The first of so many ports in a row that nobody has.
pub(crate) fn free_ports(count: u16) -> u16 {
    let is_free = |port| UdpSocket::bind(("127.0.0.1", port)).is_ok();
    // Below the ports that the kernel hands out by itself. Tests run at the same time.
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let mut low = 12_000 + (std::process::id() % 1_000) as u16 * 16 + TAKEN.fetch_add(100, Ordering::Relaxed);
    while !(low..low + count).all(is_free) {
        low += count * 4;
    }
    low
}

/// Starts a program, or says that it is not there.
pub(crate) fn start(command: &mut Command) -> Option<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = command.spawn();
    if started.is_err() {
        assert!(!is_strict(), "cannot start {:?}", command.get_program());
        println!("cannot start {:?}", command.get_program());
    }
    started.ok()
}

/// Waits until a program has ended well.
pub(crate) fn succeed(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The Opus packets of an Ogg file.
pub(crate) fn opus_packets(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = ogg::PacketReader::new(std::fs::File::open(path).unwrap());
    let packets = std::iter::from_fn(|| reader.read_packet().unwrap());
    packets.skip(2).map(|packet| packet.data).collect()
}

//! A start with much in the spool: frames are received at once, and those of calls that are not recovered yet wait for that.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, kind};
use rig::media::{SPEECH, Sender, marked_packet, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::io::spool_dir::SpoolDir;
use sidetape::spool::{Header, Record, RecordKind};
use sidetape::time::{Mono, Wall};

/// What takes longer to read than a call takes to send, in either build.
const BACKLOG_BYTES: usize = if cfg!(debug_assertions) { 8 } else { 128 } * 1024 * 1024;

/// Writes a call that began before all others, and takes a while to read.
fn write_backlog(place: &Place) {
    let spool = SpoolDir::open(&place.spool()).unwrap();
    let connection = ConnectionId::new("old").unwrap();
    let opened = Wall(1_600_000_000_000_000);
    let file = spool.new_file(&connection, opened, RecordingId::derived(b"old"));
    let mut bytes = Vec::new();
    Header::derived(connection, opened, Mono(0), 1).append_to(&mut bytes);
    let rtp = &Sender::new(1).packets(&[marked_packet("one of very many")])[0].rtp;
    let (kind, scope) = (RecordKind::Tap(kind::RTP), Scope::Channel(Channel::Caller));
    while bytes.len() < BACKLOG_BYTES {
        Record { kind, scope, at: Mono(1), gateway: None, body: rtp }.append_to(&mut bytes);
    }
    std::fs::write(file, bytes).unwrap();
}

/// A daemon that has a call with one side paused, and is killed. Returns the caller's packets, half of which it has.
fn killed_in_mid_call(place: &Place) -> Vec<Vec<u8>> {
    let packets = voice(SPEECH, 150.0, 200);
    let daemon = Daemon::start(place);
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    gateway.play("call", CALLER, &Sender::new(1).packets(&packets)[..100]);
    gateway.play("call", AI, &Sender::new(2).packets(&[marked_packet("to be heard")]));
    gateway.say(kind::PAUSE, AI, "call");
    gateway.sync();
    let last = packets[99][1..].to_vec();
    rig::wait_for("the spool to have half of the call", || place.spool_holds(&last).then_some(()));
    // The pause came behind that, and is in the kernel's hands no later than 100 ms after it was read.
    std::thread::sleep(std::time::Duration::from_millis(200));
    daemon.kill();
    packets
}

/// Sends the other half, a packet that the pause keeps out, and the end.
fn go_on(gateway: &mut Gateway, packets: &[Vec<u8>]) {
    gateway.play("call", CALLER, &Sender::new(1).packets(packets)[100..]);
    let mut paused = Sender::new(2);
    paused.skip_packet(960);
    gateway.play("call", AI, &[paused.packet(&marked_packet("not to be kept"), 960)]);
    gateway.say(kind::END, CALLER, "call");
    gateway.end("call");
}

#[test]
fn a_call_that_goes_on_while_the_spool_is_read_has_one_recording_and_its_pause() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let packets = killed_in_mid_call(&place);
    write_backlog(&place);
    let daemon = Daemon::start(&place);
    for socket in [Socket::Udp, Socket::UnixStream] {
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        if socket == Socket::Udp {
            // Another call is not held up.
            gateway.play("new", CALLER, &Sender::new(3).packets(&packets[..10]));
            gateway.end("new");
        } else {
            go_on(&mut gateway, &packets);
        }
    }
    assert!(!daemon.log().contains("spool looked through"), "all was received before");
    let (manifest, recording) = place.recording("call");
    assert_eq!(manifest["outcome"], "recovered", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert_eq!(manifest["channels"]["caller"]["reordered"], 0, "{manifest}");
    assert!(recording.sounds(1) == sounds_in(&[marked_packet("to be heard")]));
    let (manifest, recording) = place.recording("new");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&packets[..10]));
    assert!(!place.holds(b"not to be kept"));
    daemon.kill();
    assert_eq!(place.manifests().len(), 2, "the backlog still waits for its gateways");
}

#[test]
fn asked_to_stop_while_the_spool_is_read_it_keeps_what_has_come_for_a_call() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let packets = killed_in_mid_call(&place);
    write_backlog(&place);
    let daemon = Daemon::start(&place);
    go_on(&mut Gateway::connect(&place, &daemon, Socket::UnixStream), &packets);
    daemon.stop();
    let (manifest, recording) = place.recording("call");
    assert_eq!(manifest["outcome"], "recovered", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert_eq!(place.manifests_of("call").len(), 1);
}

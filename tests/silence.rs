//! The watch over live calls: a channel that is not heard while the other one talks.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::net::TcpStream;

use serde_json::{Value, json};
use sidetape::io::capture::{read_capture, rtp_streams};

use rig::daemon::{Daemon, field};
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, kind};
use rig::http::{ask, http_address};
use rig::media::{MUSIC, Sender, Sent, voice};
use rig::metrics::Page;
use rig::place::Place;

/// What the log says of silent channels: connection, channel and reason.
fn noticed(log: &str) -> Vec<(String, String, String)> {
    let lines = log.lines().filter(|line| line.contains("channel is not heard while the other one talks"));
    let told = |line: &str, name: &str| field(line, name).unwrap().to_owned();
    lines.map(|line| (told(line, "connection"), told(line, "channel"), told(line, "reason"))).collect()
}

fn of(id: &str, channel: &str, reason: &str) -> (String, String, String) {
    (id.to_owned(), channel.to_owned(), reason.to_owned())
}

/// What a person says in the demo's call, one word after the other: 20 s of speech. A voice that a program makes up does not
/// pass for one with libopus.
fn words() -> Vec<Vec<u8>> {
    let capture = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo-call.pcap")).unwrap();
    let streams = rtp_streams(read_capture(&capture).unwrap().datagrams);
    let packets = streams[0].packets.iter().map(|packet| Sent { at_us: 0, rtp: packet.payload.clone() });
    packets.map(|packet| packet.read().payload.to_vec()).collect()
}

#[test]
fn a_silent_or_absent_channel_is_told_of_once_until_it_is_heard_again() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0").with("AUDIO_SILENCE_ALERT_SECS", "10");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let missing = |id: &str| -> Value {
        let target = format!("/v1/connections/{id}");
        let live = ask(TcpStream::connect(&address).unwrap(), "GET", &target).json();
        json!([live["channels"]["caller"]["missing"], live["channels"]["ai"]["missing"]])
    };
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    // Digital silence is what a muted microphone sends.
    let (words, music) = (words(), voice(MUSIC, 220.0, 750));
    let muted = vec![vec![0xf8, 0xff, 0xfe]; 1200];
    for (id, talk) in [("words", &words), ("music", &music)] {
        let (mut caller, mut ai) = (Sender::new(1), Sender::new(2));
        gateway.play_both(id, &caller.packets(&muted), &ai.packets(talk));
        gateway.sync();
        assert_eq!(missing(id), json!(["silent", null]), "{id}");
        gateway.play_both(id, &caller.packets(&muted), &ai.packets(talk));
        gateway.play_both(id, &caller.packets(&talk[..150]), &ai.packets(&muted[..150]));
        gateway.sync();
        assert_eq!(missing(id), json!([null, null]), "{id}: it is heard again");
    }
    // Of the AI nothing comes at all; what has ended or is paused is not waited for.
    gateway.play("absent", CALLER, &Sender::new(1).packets(&words));
    gateway.meta("ended", &json!({}));
    gateway.say(kind::END, AI, "ended");
    gateway.meta("paused", &json!({}));
    gateway.say(kind::PAUSE, AI, "paused");
    for id in ["ended", "paused"] {
        gateway.play(id, CALLER, &Sender::new(1).packets(&words));
    }
    // Nobody talks; and both do, for less than ten seconds at a time.
    gateway.play_both("quiet", &Sender::new(1).packets(&muted), &Sender::new(2).packets(&muted));
    let (mut caller, mut ai) = (Sender::new(1), Sender::new(2));
    for _ in 0..3 {
        gateway.play_both("turns", &caller.packets(&words[..300]), &ai.packets(&muted[..300]));
        gateway.play_both("turns", &caller.packets(&muted[..300]), &ai.packets(&words[..300]));
    }
    gateway.sync();
    assert_eq!(missing("absent"), json!([null, "absent"]));
    let page = Page::of(&address);
    for (channel, kind, count) in
        [("caller", "silent", 2.0), ("caller", "absent", 0.0), ("ai", "silent", 0.0), ("ai", "absent", 1.0)]
    {
        let sample = format!("sidetape_missing_channels_total{{channel=\"{channel}\",kind=\"{kind}\"}}");
        assert_eq!(page.value(&sample), count, "{sample}");
    }
    gateway.say(kind::END, WHOLE, "words");
    let expected =
        [of("words", "caller", "silent"), of("music", "caller", "silent"), of("absent", "ai", "absent")];
    assert_eq!(noticed(&daemon.stop()), expected);
}

#[test]
fn without_the_watch_nothing_is_told() {
    let place = Place::new().with("AUDIO_SILENCE_ALERT_SECS", "0");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("c", CALLER, &Sender::new(1).packets(&voice(MUSIC, 150.0, 4000)));
    gateway.end("c");
    assert!(noticed(&daemon.stop()).is_empty());
}

//! The load generator against a real daemon: what it says it sent is what is recorded.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use rig::daemon::Daemon;
use rig::place::Place;

/// Runs `load` with these arguments, and returns its exit status and what it printed.
fn load(place: &Place, endpoint: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = place.command("load");
    let output = command.args(["--to", endpoint]).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn every_call_over_every_socket_is_recorded_as_it_was_sent() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let endpoints = [
        format!("udp:{}", daemon.udp()),
        format!("unix-dgram:{}", place.dgram().display()),
        format!("unix-stream:{}", place.stream().display()),
    ];
    let storage = place.storage();
    for (endpoint, codec) in endpoints.iter().zip(["opus", "pcmu", "l16"]) {
        let (status, said) = load(
            &place,
            endpoint,
            &[
                "--calls",
                "5",
                "--seconds",
                "2",
                "--codec",
                codec,
                "--loss",
                "5",
                "--jitter",
                "30",
                "--flat-out",
                "--check",
                storage.to_str().unwrap(),
            ],
        );
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("| recorded | 5 of 5: 5 degraded |"), "{said}");
    }
    let (status, said) = load(
        &place,
        &endpoints[0],
        &["--calls", "5", "--seconds", "1", "--check", storage.to_str().unwrap()],
    );
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("| recorded | 5 of 5: 5 ok |") && said.contains("| sent late |"), "{said}");
    assert!(said.contains("| frames | 500 in "), "{said}");
}

#[test]
fn its_calls_are_kept_where_that_takes_consent() {
    let place = Place::new().with("AUDIO_RECORD", "consent");
    let daemon = Daemon::start(&place);
    let (storage, endpoint) = (place.storage(), format!("udp:{}", daemon.udp()));
    let arguments = ["--calls", "1", "--seconds", "1", "--flat-out", "--check", storage.to_str().unwrap()];
    let (status, said) = load(&place, &endpoint, &arguments);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("| recorded | 1 of 1: 1 ok |"), "{said}");
}

#[test]
fn a_daemon_that_is_not_there_and_a_wrong_argument_are_told() {
    let place = Place::new();
    let (status, said) = load(&place, "udp:127.0.0.1:9", &["--calls", "1"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("is sidetape running there?"), "{said}");
    let (status, said) = load(&place, "udp:127.0.0.1:9", &["--loss", "100"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("--loss"), "{said}");
    let (status, _) = load(&place, "udp:127.0.0.1:9", &["--calls", "0"]);
    assert_eq!(status, Some(2));
}

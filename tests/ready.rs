//! `sidetape ready`, as a container's health check runs it.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use rig::daemon::Daemon;
use rig::gateway::{Gateway, Socket};
use rig::http::http_address;
use rig::place::Place;
use rig::wait_for;
use serde_json::json;

fn ready(address: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidetape"));
    command.arg("ready").env("AUDIO_HTTP_LISTEN", address).stdin(Stdio::null());
    command.output().unwrap()
}

fn refused(address: &str, code: i32, why: &str) {
    let output = ready(address);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{address}: {said}");
    assert!(said.contains(why) && output.stdout.is_empty(), "{address}: {said}");
}

#[test]
fn a_daemon_that_takes_calls_is_ready_and_one_that_does_not_says_why() {
    // The next daemon begins without the call of the last one.
    let mut place = Place::new().with("AUDIO_MAX_CONNECTIONS", "1").with("AUDIO_ON_STOP", "finish");
    for address in ["127.0.0.1:0".to_owned(), format!("unix:{}", place.root().join("run/http").display())] {
        place.set("AUDIO_HTTP_LISTEN", &address);
        // Health needs no token, so the check of a container needs none either.
        place.set("AUDIO_HTTP_TOKEN", "0123456789abcdef");
        let daemon = Daemon::start(&place);
        let address = if address.starts_with("unix:") { address } else { http_address(&daemon) };
        let output = ready(&address);
        assert!(output.status.success() && output.stdout == b"ready\n", "{output:?}");
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.meta("the one", &json!({}));
        gateway.sync();
        refused(&address, 1, "not ready (503): too_many_connections");
        daemon.ask_to_drain();
        wait_for("the drain to begin", || daemon.log().contains("draining").then_some(()));
        refused(&address, 1, "not ready (503): draining");
        daemon.stop();
        refused(&address, 1, "connecting to");
    }
}

#[test]
fn what_is_no_daemon_is_not_taken_for_one() {
    refused("", 2, "AUDIO_HTTP_LISTEN");
    refused("here", 2, "AUDIO_HTTP_LISTEN");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answering = std::thread::spawn(move || {
        let (mut link, _) = listener.accept().unwrap();
        assert!(link.read(&mut [0; 1024]).unwrap() > 0);
        link.write_all(b"220 mail.example.org ESMTP\r\n").unwrap();
    });
    refused(&address, 1, "does not speak HTTP");
    answering.join().unwrap();
    // One that takes the connection and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    refused(&silent.local_addr().unwrap().to_string(), 1, "did not answer in 5s");
}

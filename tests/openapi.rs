//! The description of the HTTP port, against a running daemon and against README.md.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, kind};
use rig::http::{ask_with, http_address};
use rig::media::{SPEECH, Sender, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::stores::program;

const TOKEN: &str = "Xh6Lp0-Dc3Gs9~Uf1Ew8.test";
/// Requests of each kind that are made up, beside those that follow from the description.
const EXAMPLES: &str = "40";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// schemathesis makes requests that the description allows, and such as it does not, and compares the answers with it.
#[test]
fn a_daemon_answers_as_its_description_says() {
    let Some(schemathesis) = program("SIDETAPE_SCHEMATHESIS", "schemathesis") else { return };
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0").with("AUDIO_HTTP_TOKEN", TOKEN);
    // Each call that it opens has four of them, on an address that no other test uses.
    // The calls that are open at the end are published by this daemon.
    let place = place.with("AUDIO_RTP_PORTS", "127.0.0.77:12000-29999").with("AUDIO_ON_STOP", "finish");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 100);
    let sent = Sender::new(1).packets(&payloads);
    // The one of the examples, held so often that it outlives what it is told; and one that nobody asks for.
    gateway.meta("call-1", &json!({"conversation_id": "c", "labels": {"a": "b"}, "more": [1, null]}));
    for id in ["call-1", "other"] {
        gateway.play(id, CALLER, &sent);
        gateway.play(id, AI, &Sender::new(2).packets(&payloads));
    }
    for _ in 0..5000 {
        gateway.say(kind::HOLD, WHOLE, "call-1");
    }
    gateway.sync();

    let ran = Command::new(schemathesis)
        .arg("--config-file")
        .arg(root().join("tests/schemathesis.toml"))
        .arg("run")
        .arg(root().join("deploy/openapi.yaml"))
        .args(["--url", &format!("http://{address}"), "--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", "1"])
        // Asked to drain, it would refuse from then on what is to be tried. tests/service.rs does that.
        .args(["--exclude-path", "/v1/drain"])
        .current_dir(place.root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("Tested: 13"), "all operations but that one: {said}");

    let shown = format!("Authorization: Bearer {TOKEN}\r\n");
    let link = std::net::TcpStream::connect(&address).unwrap();
    let live = ask_with(link, "GET", "/v1/connections?limit=10000", &shown).json();
    let ids =
        live["connections"].as_array().unwrap().iter().map(|live| live["connection_id"].as_str().unwrap());
    assert_eq!(ids.filter(|id| ["call-1", "other"].contains(id)).count(), 2, "it is still there");
    gateway.end("other");
    let (manifest, recording) = place.recording("other");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&payloads), "the other call did not notice");
    let log = daemon.stop();
    assert!(!log.contains("panicked") && !log.contains("a bug"), "{log}");
    assert_eq!(place.manifest("call-1")["conversation_id"], "c");
}

#[test]
fn the_readme_and_the_description_have_the_same_addresses() {
    let read = |name: &str| std::fs::read_to_string(root().join(Path::new(name))).unwrap();
    let (readme, description) = (read("README.md"), read("deploy/openapi.yaml"));
    let mut described = BTreeSet::new();
    let mut path = "";
    for line in description.lines() {
        if line.starts_with("  /") {
            path = line.trim().trim_end_matches(':');
        }
        if ["    get:", "    post:"].contains(&line) {
            described.insert(format!("{} {path}", line.trim().trim_end_matches(':').to_uppercase()));
        }
    }
    let mut told = BTreeSet::new();
    let rows = readme.lines().filter(|line| line.starts_with("| `GET /") || line.starts_with("| `POST /"));
    for row in rows {
        let cell = row.trim_start_matches("| ").split(" |").next().unwrap();
        // `POST /a/b`, `…/c` stands for two.
        let mut first = String::new();
        for word in cell.split('`').filter(|word| word.contains('/')) {
            let address = match word.strip_prefix('…') {
                Some(last) => first.rsplit_once('/').unwrap().0.to_owned() + last,
                None => word.to_owned(),
            };
            first = address.clone();
            told.insert(address);
        }
    }
    assert_eq!(told, described);
    assert_eq!(told.len(), 14);
}

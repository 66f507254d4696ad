//! The senders of `deploy/senders`, each as a program of its own beside a real daemon: on good days and on bad ones.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

use rig::daemon::Daemon;
use rig::media::{Coding, MUSIC, SPEECH, START_US, Sender, Sent, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::wait_for;

const KEY: &str = "a key that gateways and daemon share";
/// How long a killed daemon is down. Over UDP a restart shows by a PING that finds nobody, and there is one each 100 ms.
const DOWN: Duration = Duration::from_millis(500);
/// The senders, by their languages.
const LANGUAGES: [&str; 4] = ["rust", "go", "python", "node"];

/// A folder below `deploy/senders`.
fn folder(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/senders").join(language)
}

/// Runs a program that says nothing and succeeds where all is well. False if it is not installed.
fn run(command: &mut Command) -> bool {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            let message = format!("cannot run {:?}: {error}", command.get_program());
            assert!(!rig::is_strict(), "{message}");
            println!("skipped: {message}");
            return false;
        }
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?} ({}): {said}", output.status);
    true
}

/// The go tool in the folder of the senders in Go. It may not load anything: there is nothing to load.
fn go(arguments: &[&str]) -> Command {
    let mut go = Command::new("go");
    go.args(arguments).current_dir(folder("go"));
    go.env("GOPROXY", "off").env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    go.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"));
    go
}

/// A program in Go, built once for all tests; nothing where go is not installed.
fn built_by_go(name: &str) -> Option<PathBuf> {
    static BUILT: OnceLock<bool> = OnceLock::new();
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-senders/");
    let is_built = *BUILT.get_or_init(|| {
        std::fs::create_dir_all(&to).unwrap();
        run(go(&["build", "-o"]).arg(&to).arg("./cmd/..."))
    });
    is_built.then(|| to.join(name))
}

/// How the example of a language is started; nothing where the language is not installed.
fn gateway(language: &str) -> Option<Command> {
    let interpreted = |interpreter: &str, script: &str| {
        run(Command::new(interpreter).arg("--version")).then(|| {
            let mut command = Command::new(interpreter);
            command.arg(folder(language).join(script)).env("PYTHONDONTWRITEBYTECODE", "1");
            command
        })
    };
    match language {
        "rust" => {
            let example = Path::new(env!("CARGO_BIN_EXE_sidetape")).with_file_name("examples/gateway");
            assert!(
                example.exists(),
                "`cargo test` builds it, `cargo test --test` does not: cargo build --examples"
            );
            Some(Command::new(example))
        }
        "go" => built_by_go("gateway").map(Command::new),
        "python" => interpreted("python3", "gateway.py"),
        "node" => interpreted("node", "gateway.js"),
        _ => panic!("no sender in {language}"),
    }
}

/// What both sides of a call say.
struct Call {
    payloads: [Vec<Vec<u8>>; 2],
    sent: [Vec<Sent>; 2],
}

impl Call {
    fn of(coding: Coding, packets: usize) -> Self {
        let payloads = [voice(coding, 110.0, packets), voice(coding, 190.0, packets)];
        let sent = [Sender::new(1).packets(&payloads[0]), Sender::new(2).packets(&payloads[1])];
        Self { payloads, sent }
    }

    fn packets(&self) -> u64 {
        self.payloads[0].len().try_into().unwrap()
    }

    /// The call as the examples read it.
    fn write(&self, place: &Place) -> PathBuf {
        let mut text = String::new();
        for (caller, ai) in self.sent[0].iter().zip(&self.sent[1]) {
            for (channel, sent) in [("caller", caller), ("ai", ai)] {
                write!(text, "{channel} {} ", (sent.at_us - START_US) / 1000).unwrap();
                sent.rtp.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
                text.push('\n');
            }
        }
        let path = place.root().join("packets.txt");
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A sender at work.
struct Peer {
    id: String,
    child: Child,
    said: mpsc::Receiver<String>,
}

impl Peer {
    fn start(mut command: Command, endpoint: &str, id: &str, file: &Path, flags: &[&str]) -> Self {
        command.args([endpoint, id]).arg(file).args(flags).env("AUDIO_TAP_KEY", KEY);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sink, said) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sink.send(line)));
        Self { id: id.to_owned(), child, said }
    }

    /// What it says next.
    fn line(&mut self) -> String {
        let said = self.said.recv_timeout(rig::PATIENCE);
        said.unwrap_or_else(|error| panic!("{} says nothing: {error}", self.id))
    }

    /// Waits until the media thread has handed over all of the call.
    fn hand_over(&mut self) {
        assert_eq!(self.line(), "handed over", "{}", self.id);
    }

    /// Lets it leave, waits until it has, and returns what it counted.
    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let counted = self.line();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{} ended with {status}: {counted}", self.id);
        serde_json::from_str(&counted).unwrap_or_else(|error| panic!("{}: {error}: {counted}", self.id))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It has ended already where all went well.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A place whose UDP port is known before a daemon has it, and stays over restarts.
fn place_with_a_port() -> (Place, String) {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    (Place::new().with("AUDIO_TAP_KEY", KEY).with("AUDIO_UDP_LISTEN", &free), format!("udp:{free}"))
}

/// Starts the sender of each language over the stream socket, and over signed UDP.
fn start_all(place: &Place, udp: &str, call: &Call, flags: &[&str]) -> Vec<Peer> {
    let file = call.write(place);
    let stream = format!("unix-stream:{}", place.stream().display());
    let mut commands = Vec::new();
    for language in LANGUAGES {
        for endpoint in [&stream, udp] {
            let id = format!("{language} over {}", endpoint.split(':').next().unwrap());
            commands.extend(gateway(language).map(|command| (command, endpoint, id)));
        }
    }
    let start =
        |(command, endpoint, id): (Command, &str, String)| Peer::start(command, endpoint, &id, &file, flags);
    commands.into_iter().map(start).collect()
}

/// Waits until the spool has a packet of each of the calls.
fn wait_for_spool(place: &Place, peers: &[Peer], packet: &Sent) {
    let holding = |file: &PathBuf| std::fs::read(file).is_ok_and(|it| rig::place::contains(&it, &packet.rtp));
    wait_for("the spool to hold a packet of each call", || {
        let names = place.spool_files().into_iter().map(|name| place.spool().join(name));
        (names.filter(holding).count() == peers.len()).then_some(())
    });
}

/// Checks that each call has one recording with all that was said in it, and returns its manifest.
fn check(place: &Place, id: &str, call: &Call) -> Value {
    let (manifest, recording) = place.recording(id);
    for (channel, side) in ["caller", "ai"].into_iter().enumerate() {
        let counts = &manifest["channels"][side];
        let number = |name: &str| counts[name].as_u64().unwrap();
        assert!(
            recording.sounds(channel) == sounds_in(&call.payloads[channel]),
            "{id}, {side}: {manifest:#}"
        );
        assert_eq!(number("packets") - number("duplicate"), call.packets(), "{id}, {side}: {counts}");
        assert_eq!((number("lost"), number("socket_lost")), (0, 0), "{id}, {side}: {counts}");
    }
    assert_eq!(manifest["conversation_id"], format!("{id} talks"));
    assert_eq!(place.manifests_of(id).len(), 1, "{id}");
    manifest
}

#[test]
fn every_sender_records_a_call_over_each_socket() {
    let (place, udp) = place_with_a_port();
    let daemon = Daemon::start(&place);
    let call = Call::of(SPEECH, 150);
    for mut peer in start_all(&place, &udp, &call, &[]) {
        let id = peer.id.clone();
        peer.hand_over();
        let counted = peer.end();
        let manifest = check(&place, &id, &call);
        assert_eq!(manifest["outcome"], "ok", "{manifest:#}");
        for side in ["caller", "ai"] {
            assert_eq!(manifest["channels"][side]["duplicate"], 0, "{id}: nothing was sent twice");
        }
        // META, two ENDs, and the audio of both channels.
        let frames = 2 * call.packets() + 3;
        let expected =
            [("accepted", frames), ("confirmed", frames), ("dropped", 0), ("repeated", 0), ("connects", 1)];
        for (name, value) in expected {
            assert_eq!(counted[name], value, "{id}: {name} of {counted}");
        }
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_daemon_that_is_killed_in_mid_call_costs_no_packet() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 400);
    let daemon = Daemon::start(&place);
    let peers = start_all(&place, &udp, &call, &[]);
    wait_for_spool(&place, &peers, &call.sent[0][60]);
    daemon.kill();
    std::thread::sleep(DOWN);
    let daemon = Daemon::start(&place);
    for mut peer in peers {
        let id = peer.id.clone();
        peer.hand_over();
        let counted = peer.end();
        let manifest = check(&place, &id, &call);
        assert_eq!(manifest["outcome"], "recovered", "{manifest:#}");
        assert_eq!(manifest["reasons"], serde_json::json!(["daemon_restarted"]), "{id}");
        assert_eq!((&counted["connects"], &counted["dropped"]), (&2.into(), &0.into()), "{id}: {counted}");
        println!("{id}: {counted}");
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_daemon_that_is_stopped_in_mid_call_and_started_again_makes_one_recording_of_each_call() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 400);
    let daemon = Daemon::start(&place);
    let peers = start_all(&place, &udp, &call, &[]);
    wait_for_spool(&place, &peers, &call.sent[0][60]);
    // At once, which over UDP a sender may not even notice: what came in between was never read.
    let log = daemon.stop();
    assert!(log.contains(&format!("next start connections={}", peers.len())), "{log}");
    assert!(place.manifests().is_empty());
    let daemon = Daemon::start(&place);
    for mut peer in peers {
        let id = peer.id.clone();
        peer.hand_over();
        let counted = peer.end();
        let manifest = check(&place, &id, &call);
        assert_eq!(manifest["outcome"], "recovered", "{manifest:#}");
        assert_eq!(manifest["reasons"], serde_json::json!(["daemon_restarted"]), "{id}");
        assert_eq!(counted["dropped"], 0, "{id}: {counted}");
        assert!(counted["connects"] == 2 || id.ends_with("udp"), "{id}: {counted}");
        println!("{id}: {counted}");
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_daemon_that_drains_records_each_call_to_its_end_and_the_next_daemon_the_next_ones() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 200);
    let daemon = Daemon::start(&place);
    let mut peers = start_all(&place, &udp, &call, &["--stay"]);
    wait_for_spool(&place, &peers, &call.sent[0][60]);
    daemon.ask_to_drain();
    peers.iter_mut().for_each(Peer::hand_over);
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(rig::daemon::dropped(&ended.said), [].into());
    for peer in &peers {
        assert_eq!(check(&place, &peer.id, &call)["outcome"], "ok", "{}", peer.id);
    }
    let daemon = Daemon::start(&place);
    let file = call.write(&place);
    for language in LANGUAGES {
        let (id, stream) = (format!("{language} again"), format!("unix-stream:{}", place.stream().display()));
        let Some(command) = gateway(language) else { continue };
        let mut next = Peer::start(command, &stream, &id, &file, &["--faster", "10"]);
        next.hand_over();
        next.end();
        assert_eq!(check(&place, &id, &call)["outcome"], "ok");
    }
    // Those that are still there have found the next daemon, and opened nothing there.
    for peer in peers {
        let id = peer.id.clone();
        let counted = peer.end();
        assert_eq!((&counted["dropped"], &counted["accepted"]), (&0.into(), &counted["confirmed"]), "{id}");
        assert_eq!(place.manifests_of(&id).len(), 1, "{id}: {counted}");
        println!("{id}: {counted}");
    }
    let log = daemon.stop();
    assert_eq!(
        log.matches("connection opened").count(),
        LANGUAGES.iter().filter(|l| gateway(l).is_some()).count()
    );
}

#[test]
fn a_daemon_that_finishes_calls_when_it_is_stopped_in_their_middle_loses_no_packet_of_them() {
    let (mut place, udp) = place_with_a_port();
    place.set("AUDIO_ON_STOP", "finish");
    let call = Call::of(SPEECH, 400);
    let daemon = Daemon::start(&place);
    let peers = start_all(&place, &udp, &call, &[]);
    wait_for_spool(&place, &peers, &call.sent[0][60]);
    daemon.stop();
    let _daemon = Daemon::start(&place);
    for mut peer in peers {
        let id = peer.id.clone();
        peer.hand_over();
        let counted = peer.end();
        assert_eq!(counted["dropped"], 0, "{id}: {counted}");
        place.nth_manifest(&id, 2);
        // Which of the two is the first, its name does not say: a number is put behind that of the second.
        let mut manifests = place.manifests_of(&id);
        manifests.sort_by_key(|manifest| manifest["started_at"].to_string());
        let [before, after] = [&manifests[0], &manifests[1]].map(|manifest| place.recording_of(manifest));
        for channel in 0..2 {
            let said = sounds_in(&call.payloads[channel]);
            let (before, after) = (before.sounds(channel), after.sounds(channel));
            let overlap = (before.len() + after.len()).checked_sub(said.len()).expect("nothing is missing");
            assert!(overlap <= 75, "{id}: {overlap} packets are in both");
            assert!(said.starts_with(&before) && said.ends_with(&after), "{id}");
        }
    }
}

#[test]
fn a_daemon_that_stands_still_holds_up_no_sender_and_loses_nothing() {
    let (place, udp) = place_with_a_port();
    let daemon = Daemon::start(&place);
    // A minute in three seconds, and more than the kernel holds of it: who waits for the daemon, waits for ever.
    let call = Call::of(MUSIC, 3000);
    let mut peers = start_all(&place, &udp, &call, &["--faster", "20"]);
    wait_for_spool(&place, &peers, &call.sent[0][60]);
    daemon.halt();
    let halted = Instant::now();
    peers.iter_mut().for_each(Peer::hand_over);
    std::thread::sleep(Duration::from_secs(3).saturating_sub(halted.elapsed()));
    let stood_still = halted.elapsed();
    daemon.go_on();
    for peer in peers {
        let id = peer.id.clone();
        let counted = peer.end();
        let manifest = check(&place, &id, &call);
        assert_eq!(manifest["outcome"], "ok", "{manifest:#}");
        let longest = Duration::from_micros(counted["longest_us"].as_u64().unwrap());
        assert!(longest < stood_still / 2, "{id}: the media thread was held up for {longest:?}");
        println!("{id}: {counted}");
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_sender_that_is_there_before_the_daemon_loses_nothing() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 100);
    let mut peers = start_all(&place, &udp, &call, &["--faster", "10"]);
    peers.iter_mut().for_each(Peer::hand_over);
    let daemon = Daemon::start(&place);
    for peer in peers {
        let id = peer.id.clone();
        let counted = peer.end();
        assert_eq!(check(&place, &id, &call)["outcome"], "ok");
        assert_eq!(counted["repeated"], 0, "{id}: {counted}");
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_full_queue_drops_audio_and_both_sides_count_it() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 1000);
    let mut peers = start_all(&place, &udp, &call, &["--faster", "20", "--queue-bytes", "50000"]);
    peers.iter_mut().for_each(Peer::hand_over);
    let daemon = Daemon::start(&place);
    for peer in peers {
        let id = peer.id.clone();
        let counted = peer.end();
        let dropped = counted["dropped"].as_u64().unwrap();
        assert!(dropped > 0 && counted["accepted"] == counted["confirmed"], "{id}: {counted}");
        let manifest = place.manifest(&id);
        let sum = |name: &str| -> u64 {
            ["caller", "ai"].iter().map(|side| manifest["channels"][side][name].as_u64().unwrap()).sum()
        };
        assert_eq!(sum("socket_lost"), dropped, "{id}: {counted} {manifest:#}");
        assert_eq!(sum("packets"), 2 * call.packets() - dropped, "{id}");
        assert_eq!(manifest["outcome"], "degraded", "{id}");
        assert_eq!(manifest["conversation_id"], format!("{id} talks"));
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn a_call_that_is_over_is_not_opened_again_by_what_is_sent_once_more() {
    let (place, udp) = place_with_a_port();
    let call = Call::of(SPEECH, 50);
    let daemon = Daemon::start(&place);
    let mut peers = start_all(&place, &udp, &call, &["--faster", "4", "--stay"]);
    peers.iter_mut().for_each(Peer::hand_over);
    for peer in &peers {
        assert_eq!(check(&place, &peer.id, &call)["outcome"], "ok");
    }
    daemon.kill();
    std::thread::sleep(DOWN);
    let daemon = Daemon::start(&place);
    let mut ends = 0;
    for peer in peers {
        let id = peer.id.clone();
        let counted = peer.end();
        let repeated = counted["repeated"].as_u64().unwrap();
        ends += repeated;
        // Over UDP the ENDs may have been safe before the daemon was killed.
        let is_right = repeated == 2 || (repeated == 0 && id.ends_with("udp"));
        assert!(is_right, "{id}: both ENDs, and none of the audio before them: {counted}");
        assert_eq!(place.manifests_of(&id).len(), 1, "{id}");
    }
    assert_eq!(rig::daemon::dropped(&daemon.stop()), [("late".to_owned(), ends)].into());
}

#[test]
fn a_gateway_that_was_written_for_the_replaced_package_goes_on_as_it_is() {
    let Some(program) = built_by_go("dropin") else { return };
    let mut place = Place::new().with("AUDIO_HTTP_TOKEN", "a-token-of-enough-bytes");
    let http = place.root().join("run/http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", http.display()));
    let daemon = Daemon::start(&place);
    let call = Call::of(SPEECH, 200);
    let (id, range) = ("old call/1", place.root().join("range.opus"));
    let mut gateway = Command::new(program);
    gateway.arg(id).arg(call.write(&place)).arg(&range);
    gateway
        .env("AUDIO_UNIX_STREAM", place.stream())
        .env("AUDIO_HTTP_LISTEN", format!("unix:{}", http.display()));
    let output = gateway.env("AUDIO_HTTP_TOKEN", "a-token-of-enough-bytes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("audio of connection nobody: 404"), "{said}");
    let counted: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&counted["dropped"], &counted["refused"]), (&0.into(), &0.into()), "{counted}");
    let manifest = check(&place, id, &call);
    assert_eq!(manifest["outcome"], "ok", "{manifest:#}");
    // A second of it, and another that the old package added behind; before it there is nothing.
    rig::judges::judge(&range);
    let milliseconds = rig::spool::decode(&range)[0].len() / 48;
    assert!((1900..=2100).contains(&milliseconds), "{milliseconds} ms");
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn the_senders_are_written_as_their_languages_want_it() {
    let mut gofmt = Command::new("gofmt");
    if let Some(unformatted) =
        gofmt.arg("-l").arg(folder("go")).output().ok().filter(|_| run(&mut go(&["version"])))
    {
        assert_eq!(String::from_utf8_lossy(&unformatted.stdout), "", "gofmt would change these");
        run(&mut go(&["vet", "./..."]));
        run(&mut go(&["test", "./..."]));
    }
    for script in ["gateway.js", "sidetape-sender.js"] {
        run(Command::new("node").arg("--check").arg(folder("node").join(script)));
    }
    let cache = tempfile::tempdir().unwrap();
    for module in ["py_compile gateway.py sidetape_sender.py", "unittest"] {
        let mut python = Command::new("python3");
        python.current_dir(folder("python")).args(["-W", "error", "-m"]).args(module.split(' '));
        run(python.env("PYTHONPYCACHEPREFIX", cache.path()));
    }
}

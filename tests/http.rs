//! HTTP starves nobody: whatever strangers do at that port, calls are recorded and published, and others are answered.
//!
//! `SIDETAPE_HTTP_SECS=60 cargo test --test http` is the whole of it: 10,000 connections are held, and for a
//! minute a thousand requests a second are given up.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use sidetape::config::RecordingFormat::{Compat, Lossless};
use sidetape::io::demand::Asker;
use sidetape::io::stretch::{Wanted, stretch_while};
use sidetape::time::Wall;
use socket2::{Domain, Socket as RawSocket, Type};

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::http::{ask, ask_with, http_address, post};
use rig::media::{SPEECH, Sender, Sent, voice};
use rig::place::Place;
use rig::recording::sounds_in;
use rig::spool::{options, write_spool};
use rig::{PATIENCE, wait_for};

const TOKEN: &str = "Xh6Lp0-Dc3Gs9~Uf1Ew8.test";
/// Requests that are given up in a second.
const GIVEN_UP_A_SECOND: usize = 1000;
/// After so long they are given up: what is asked for is being made then, or waits for that.
const WAITS: Duration = Duration::from_millis(350);
/// What a busy machine may add to anything.
const ALLOWANCE: Duration = Duration::from_secs(5);

/// How long it lasts, where that is asked for.
fn seconds() -> Option<u64> {
    std::env::var("SIDETAPE_HTTP_SECS").ok().map(|text| text.parse().unwrap())
}

fn place() -> Place {
    Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0")
}

/// The daemon, which may have so many descriptors.
fn with_descriptors(place: &Place, count: usize) -> Command {
    let program = place.command("serve");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit -n {count}; exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args()).env_clear().current_dir(place.root());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// Connects from one of many addresses: from one alone there are not ports enough for what comes and goes so quickly.
fn connect(to: &str, number: usize) -> std::io::Result<TcpStream> {
    let last = u8::try_from(1 + number % 200).expect("it is less than 256");
    let from: SocketAddr = SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0).into();
    let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.parse::<SocketAddr>().unwrap().into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Packets of G.711, which a stretch has to encode: that takes a while.
fn telephone(ssrc: u32, count: usize) -> Vec<Sent> {
    let mut sender = Sender { payload_type: 0, ..Sender::new(ssrc) };
    let mut packets = Vec::new();
    for n in 0..count {
        let payload: Vec<u8> = (0..160).map(|at| u8::try_from((at * 7 + n) % 251).unwrap()).collect();
        packets.push(sender.packet(&payload, 160));
        sender.at_us += 20_000 - 160 * 1000 / 48;
    }
    packets
}

/// Opens a call of both channels, whose audio takes a while to be made.
fn open_long_call(gateway: &mut Gateway, id: &str, count: usize) {
    let packets = [telephone(1, count), telephone(2, count)];
    gateway.play_both(id, &packets[0], &packets[1]);
    gateway.sync();
}

#[test]
fn connections_that_are_held_keep_nobody_out_and_no_call_from_the_disk() {
    const DESCRIPTORS: usize = 512;
    let held_max = if seconds().is_some() { 10_000 } else { 1500 };
    let place = place().with("AUDIO_HTTP_TOKEN", TOKEN);
    let daemon = Daemon::start_by(with_descriptors(&place, DESCRIPTORS));
    let address = http_address(&daemon);
    let quiet = daemon.descriptors();
    let payloads = voice(SPEECH, 150.0, 100);
    let sent = Sender::new(1).packets(&payloads);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let shown = format!("Authorization: Bearer {TOKEN}\r\n");
    let begins = ["", "GET /heal", "GET /healthz HTTP/1.1\r\nHost: x\r\n"];
    let mut held = Vec::new();
    for number in 0..held_max {
        let mut stream = connect(&address, number).unwrap();
        // Whoever had to go already is told so by an error, which is as good.
        drop(stream.write_all(begins[number % begins.len()].as_bytes()));
        held.push(stream);
        if number % (held_max / 10) == 0 {
            let id = format!("call-{number}");
            gateway.play(&id, CALLER, &sent);
            assert_eq!(ask(connect(&address, number).unwrap(), "GET", "/readyz").status, 200);
            let list = ask_with(connect(&address, number).unwrap(), "GET", "/v1/connections", &shown).json();
            let ids = list["connections"].as_array().unwrap();
            assert!(ids.iter().any(|live| live["connection_id"] == id.as_str()), "{list}");
            gateway.end(&id);
            let (manifest, recording) = place.recording(&id);
            assert_eq!(manifest["outcome"], "ok", "{manifest}");
            assert!(recording.sounds(0) == sounds_in(&payloads));
        }
    }
    let most = daemon.descriptors();
    assert!(most < quiet + DESCRIPTORS / 8, "{quiet} descriptors, and then {most}");
    println!("{held_max} connections held: {quiet} descriptors before, {most} then");
    let log = daemon.stop();
    assert!(log.contains("connections over HTTP are closed to make room for others"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn calls_with_ports_and_byte_streams_leave_descriptors_for_other_calls() {
    let place = place().with("AUDIO_RTP_PORTS", "127.0.0.78:12000-19999");
    let daemon = Daemon::start_by(with_descriptors(&place, 160));
    let address = http_address(&daemon);
    let opened = |n: usize| {
        let body = json!({ "connection_id": format!("plain-{n}") }).to_string();
        post(TcpStream::connect(&address).unwrap(), "/v1/connections", &body)
    };
    for n in 0..10 {
        assert_eq!(opened(n).status, 201, "{n}");
    }
    let refused = opened(10).problem();
    assert_eq!((&refused["status"], &refused["reason"]), (&json!(503), &json!("no_ports")), "{refused}");
    let streams: Vec<UnixStream> = (0..300).map(|_| UnixStream::connect(place.stream()).unwrap()).collect();
    // The last ones are closed at once.
    let mut last = &streams[299];
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read(&mut [0; 1]).unwrap(), 0);
    let payloads = voice(SPEECH, 150.0, 50);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    for n in 0..30 {
        gateway.play(&format!("call-{n}"), CALLER, &Sender::new(1).packets(&payloads));
    }
    for n in 0..30 {
        let id = format!("call-{n}");
        gateway.end(&id);
        assert_eq!(place.recording(&id).0["outcome"], "ok");
    }
    assert!(!daemon.stop().contains("ERROR"));
}

#[test]
fn who_takes_too_long_is_let_go_and_who_may_come_back_is_not() {
    let place = place();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let begin = |text: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let mut kept = begin("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut answer = [0; 1024];
    assert!(kept.read(&mut answer).unwrap() > 0);
    let begun = Instant::now();
    let slow = ["", "GET /hea", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n"].map(begin);
    let mut half_body =
        begin("POST /v1/connections/c/mark HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{");
    for mut stream in slow {
        assert_eq!(stream.read(&mut answer).unwrap(), 0, "it is closed");
    }
    assert!(begun.elapsed() > Duration::from_secs(5), "they had some time");
    let mut told = String::new();
    half_body.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    kept.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let length = kept.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200 "), "one that has asked before may wait longer");
    daemon.stop();
}

#[test]
fn a_stretch_that_nobody_waits_for_is_given_up_soon() {
    let folder = tempfile::TempDir::new().unwrap();
    let spool = folder.path().join("call.spool");
    let types = json!({ "0": "PCMU/8000" });
    write_spool(&spool, [&types, &types], [&telephone(1, 800), &telephone(2, 800)]);
    let all = Wanted { channel: None, from: Wall(i64::MIN), to: Wall(i64::MAX) };
    for format in [Lossless, Compat] {
        let begun = Instant::now();
        let asker = Asker::default();
        let demand = asker.demand();
        stretch_while(&demand, &spool, all, None, &options(format)).unwrap();
        let whole = begun.elapsed();
        let given_up = std::thread::scope(|scope| {
            let making = scope.spawn(|| stretch_while(&demand, &spool, all, None, &options(format)));
            // Well into the encoding, which is most of it.
            std::thread::sleep(whole / 4);
            assert!(!making.is_finished(), "it takes {whole:?}");
            drop(asker);
            let since = Instant::now();
            assert!(making.join().unwrap().is_err());
            since.elapsed()
        });
        assert!(given_up < whole / 4, "{format:?}: {given_up:?} of {whole:?}");
    }
}

#[test]
fn some_requests_wait_and_more_are_told_to_come_back() {
    let place = place();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_long_call(&mut gateway, "long", 4000);
    let asked: Vec<TcpStream> = (0..30)
        .map(|number| {
            let mut stream = connect(&address, number).unwrap();
            let head =
                "GET /v1/connections/long/audio HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            stream
        })
        .collect();
    let refused = wait_for("those that find no place", || {
        let mut head = [0; 512];
        let length = |stream: &TcpStream, head: &mut [u8]| stream.peek(head).unwrap_or(0);
        let answers = asked.iter().map(|stream| {
            let length = length(stream, &mut head);
            String::from_utf8_lossy(&head[..length]).into_owned()
        });
        let refused: Vec<String> = answers.filter(|text| text.starts_with("HTTP/1.1 503 ")).collect();
        (refused.len() >= 20).then_some(refused)
    });
    assert_eq!(refused.len(), 20, "two are read, and eight wait");
    assert!(refused.iter().all(|head| head.contains("retry-after: 1\r\n")), "{refused:?}");
    for target in ["/healthz", "/metrics", "/v1/connections"] {
        assert_eq!(ask(connect(&address, 0).unwrap(), "GET", target).status, 200);
    }
    drop(asked);
    // Those that waited have left the queue, and those that were read have been given up.
    let again =
        || ask(connect(&address, 0).unwrap(), "GET", "/v1/connections/long/audio?to=1767323046000000");
    wait_for("an answer", || Some(again()).filter(|answer| answer.status == 200));
    daemon.stop();
}

/// Sends a call of a second, ends it, and says how long it takes until it is published.
fn published_after(place: &Place, gateway: &mut Gateway, id: &str, payloads: &[Vec<u8>]) -> Duration {
    gateway.play(id, CALLER, &Sender::new(1).packets(payloads));
    gateway.play(id, AI, &Sender::new(2).packets(payloads));
    gateway.end(id);
    let ended = Instant::now();
    let manifest = place.manifest(id);
    let elapsed = ended.elapsed();
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(place.recording_of(&manifest).sounds(0) == sounds_in(payloads));
    elapsed
}

#[test]
fn requests_that_are_given_up_delay_no_call_and_lose_no_frame() {
    let lasts = Duration::from_secs(seconds().unwrap_or(6));
    let place = place().with("AUDIO_LINGER_MS", "200");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    open_long_call(&mut gateway, "long", 5000);
    let payloads = voice(SPEECH, 150.0, 50);
    let quiet = (0..5)
        .map(|n| published_after(&place, &mut gateway, &format!("quiet-{n}"), &payloads))
        .max()
        .unwrap();

    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut slowest, mut live_packets) = (Duration::ZERO, Vec::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        // Also where something fails, so that the test ends.
        let over = Over(&is_over);
        for _ in 0..8 {
            scope.spawn(|| give_up_requests(&address, begun, &asked, &is_over));
        }
        // A call that is spoken meanwhile, over the socket that loses what is not read in time.
        let live = scope.spawn(|| {
            let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
            let payloads = voice(SPEECH, 250.0, usize::try_from(lasts.as_millis() / 20).unwrap());
            for (n, sent) in Sender::new(3).packets(&payloads).iter().enumerate() {
                gateway.play("live", CALLER, std::slice::from_ref(sent));
                let due = Duration::from_millis(20 * u64::try_from(n).unwrap());
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            gateway.end("live");
            payloads
        });
        let (mut count, mut answered) = (0, 0);
        while begun.elapsed() < lasts {
            let elapsed = published_after(&place, &mut gateway, &format!("busy-{count}"), &payloads);
            slowest = slowest.max(elapsed);
            count += 1;
            answered += usize::from(is_ready(&address).unwrap_or(false));
        }
        live_packets = live.join().unwrap();
        drop(over);
        // A probe that was not scheduled in time asks again, as this does.
        assert!(answered * 2 > count, "{answered} of {count} probes were answered");
        println!(
            "{} requests given up in {:.0} s; {answered} of {count} probes answered, as many calls published within {quiet:?} before and {slowest:?} meanwhile; {} KiB at most",
            asked.load(Ordering::Relaxed),
            begun.elapsed().as_secs_f64(),
            daemon.most_memory_kib(),
        );
    });
    let asked = asked.into_inner();
    assert!(asked as u64 > 100 * lasts.as_secs(), "only {asked} requests were made");
    assert!(slowest <= quiet * 2 + ALLOWANCE, "{slowest:?}, and {quiet:?} when it was quiet");
    let (manifest, recording) = place.recording("live");
    assert_eq!(manifest["channels"]["caller"]["packets"], live_packets.len(), "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&live_packets));
    // What was asked for is not being made any more.
    let link = || connect(&address, 0).unwrap();
    let short = "/v1/connections/long/audio?to=1767323046000000";
    wait_for("the port to be idle", || (ask(link(), "GET", short).status == 200).then_some(()));
    let log = daemon.stop();
    assert!(!log.contains("ERROR") && !log.contains("frames dropped"), "{log}");
}

/// Asks as a probe does.
fn is_ready(address: &str) -> std::io::Result<bool> {
    let mut stream = connect(address, 7)?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}

/// Ends the flood when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks for audio, and goes, so many times a second for all who do this.
fn give_up_requests(address: &str, begun: Instant, asked: &AtomicUsize, is_over: &AtomicBool) {
    let targets = ["/v1/connections/long/audio", "/v1/connections/long", "/metrics", "/v1/connections"];
    let mut waiting = VecDeque::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = asked.fetch_add(1, Ordering::Relaxed);
        // Most are for what costs most.
        let target = targets[(number % 8).saturating_sub(4)];
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if let Ok(mut stream) = connect(address, number) {
            // Where it has been closed to make room for others, that is as good.
            drop(stream.write_all(request.as_bytes()));
            waiting.push_back((Instant::now(), stream));
        }
        while waiting.front().is_some_and(|(since, _)| since.elapsed() > WAITS) {
            waiting.pop_front();
        }
        let due = Duration::from_secs(1) * u32::try_from(number).unwrap()
            / u32::try_from(GIVEN_UP_A_SECOND).unwrap();
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
}

//! Live connections over HTTP: what is told of them, and what they are told.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use rig::daemon::Daemon;
use rig::disk::{Disk, IoErrors};
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::http::{Answer, ask, ask_with, http_address, post, say};
use rig::media::{MUSIC, SPEECH, START_US, Sender, voice};
use rig::metrics::Page;
use rig::place::{Place, without_absent};
use rig::wait_for;

/// A daemon and the address of its HTTP port.
struct Served {
    daemon: Daemon,
    address: String,
}

impl Served {
    fn start(place: &Place) -> Self {
        let daemon = Daemon::start(place);
        let address = http_address(&daemon);
        Self { daemon, address }
    }

    fn link(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    fn get(&self, target: &str) -> Answer {
        ask(self.link(), "GET", target)
    }

    /// Tells a call something; it is done when this returns.
    fn tell(&self, target: &str, body: &str) -> Value {
        let answer = post(self.link(), &format!("/v1/connections/{target}"), body);
        assert_eq!(answer.status, 200, "{target} {body}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Tells a call something that is refused, and returns the reason.
    fn refuses(&self, status: u16, target: &str, body: &str) -> String {
        let problem = post(self.link(), &format!("/v1/connections/{target}"), body).problem();
        assert_eq!(problem["status"], status, "{target} {body}: {problem}");
        problem["reason"].as_str().unwrap_or("no reason").to_owned()
    }
}

fn place() -> Place {
    Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0")
}

#[test]
fn each_word_does_what_its_frame_does() {
    let place = place();
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    let (caller, ai) = (Sender::new(1).packets(&voice(MUSIC, 150.0, 150)), voice(MUSIC, 220.0, 150));
    let ai = Sender::new(2).packets(&ai);
    let at = |ms: u64| START_US + ms * 1000;
    let id = "a%2Fb%20%C3%BC";
    gateway.play_both("a/b ü", &caller[..50], &ai[..50]);
    gateway.sync();

    let told =
        served.tell(&format!("{id}/pause?channel=caller&at={}", at(1000)), r#"{"reason":"card number"}"#);
    assert_eq!(told["connection_id"], "a/b ü");
    assert_eq!(
        told["channels"],
        json!({"caller": {"referenced": true, "pause": "silence", "missing": null}, "ai": {"referenced": true, "pause": null, "missing": null}})
    );
    gateway.play_both("a/b ü", &caller[50..100], &ai[50..100]);
    gateway.sync();
    let told = served.tell(&format!("{id}/resume?at={}", at(2000)), r#"{"channel":"caller"}"#);
    assert_eq!(told["channels"]["caller"]["pause"], Value::Null);
    let mark = r#"{"name":"payment","channel":"ai","amount":{"eur":5}}"#;
    served.tell(&format!("{id}/mark?at={}", at(2500)), mark);
    served.tell(&format!("{id}/mark"), r#"{"name":"now"}"#);
    gateway.play_both("a/b ü", &caller[100..], &ai[100..]);
    gateway.sync();
    assert_eq!(served.tell(&format!("{id}/hold"), "")["holds"], 1);
    assert_eq!(served.tell(&format!("{id}/hold"), "{}")["holds"], 2);
    let told = served.tell(&format!("{id}/end?channel=ai"), r#"{"sent":152.0}"#);
    assert_eq!(told["channels"]["ai"]["referenced"], false);
    assert_eq!(served.tell(&format!("{id}/end"), "")["state"], "open", "it is held");
    assert_eq!(served.tell(&format!("{id}/release"), "")["holds"], 1);
    assert_eq!(served.tell(&format!("{id}/release"), " \n")["state"], "lingering");

    let (manifest, recording) = place.recording("a/b ü");
    assert_eq!(manifest["channels"]["ai"]["socket_lost"], 2, "{manifest}");
    assert_eq!(manifest["outcome"], "degraded");
    let near = |value: &Value, ms: u64| value.as_u64().unwrap().abs_diff(ms) <= 20;
    let paused = &manifest["paused"][0];
    assert!(near(&paused["from_ms"], 1000) && near(&paused["to_ms"], 2000), "{paused}");
    assert_eq!((&paused["channel"], manifest["paused"].as_array().unwrap().len()), (&json!("caller"), 1));
    assert_eq!(recording.sounds(1).len(), 150, "the other channel goes on");
    let mark = &manifest["marks"][0];
    assert_eq!(
        (&mark["name"], &mark["amount"], &mark["channel"]),
        (&json!("payment"), &json!({"eur": 5}), &json!("ai"))
    );
    assert!(near(&mark["offset_ms"], 2500), "{mark}");
    assert_eq!(
        (&manifest["marks"][1]["name"], &manifest["marks"][1]["channel"]),
        (&json!("now"), &Value::Null)
    );
    wait_for("the spool to be empty", || (!place.spool_holds(b"STSP")).then_some(()));
    served.daemon.stop();
}

#[test]
fn what_was_answered_survives_a_kill_at_the_next_moment() {
    let place = place().with("AUDIO_RESUME_SECS", "60");
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    let sent = Sender::new(1).packets(&voice(MUSIC, 150.0, 60));
    for n in 0..8 {
        gateway.play(&format!("c{n}"), CALLER, &sent[..20]);
    }
    gateway.sync();
    let at = sent[19].at_us;
    for n in 0..7 {
        served.tell(&format!("c{n}/hold"), "");
        served.tell(&format!("c{n}/pause?channel=ai"), r#"{"mode":"cut"}"#);
    }
    served.tell("c7/hold", "");
    served.tell(&format!("c7/pause?at={at}"), "");
    served.daemon.kill();

    let served = Served::start(&place);
    let list = served.get("/v1/connections").json();
    assert_eq!(list["total"], 8, "{list}");
    for (n, live) in list["connections"].as_array().unwrap().iter().enumerate() {
        assert_eq!((&live["connection_id"], &live["holds"]), (&json!(format!("c{n}")), &json!(1)));
        assert_eq!(live["state"], "resuming");
        let pause = if n == 7 { "silence" } else { "cut" };
        assert_eq!(live["channels"]["ai"]["pause"], pause, "{live}");
    }
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    gateway.play("c7", CALLER, &sent[20..40]);
    gateway.sync();
    served.tell(&format!("c7/resume?at={}", sent[39].at_us), "");
    gateway.play("c7", CALLER, &sent[40..]);
    gateway.end("c7");
    served.tell("c7/release", "");
    let (manifest, recording) = place.recording("c7");
    assert_eq!(manifest["outcome"], "recovered", "{manifest}");
    assert_eq!(recording.sounds(0).len(), 40, "what was paused is not there");
    served.daemon.stop();
}

#[test]
fn what_cannot_be_is_refused_with_the_reason_that_a_frame_gets() {
    let place = place();
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    gateway.meta("c", &json!({}));
    gateway.meta("over", &json!({}));
    gateway.end("over");
    place.manifest("over");

    for word in ["end", "hold", "release", "pause", "resume"] {
        assert_eq!(served.refuses(404, &format!("nobody/{word}"), ""), "unknown_connection");
        assert_eq!(served.refuses(409, &format!("over/{word}"), ""), "late");
        for body in
            ["[]", "7", "{", r#"{"name":"x","channel":"left"}"#, r#"{"channel":7}"#, "nonsense", "\u{0}"]
        {
            served.refuses(400, &format!("c/{word}"), body);
        }
        for query in [
            "channel=both",
            "chanel=ai",
            "at=0",
            "at=1767323045",
            "at=1767323045678",
            "at=now",
            "at=-1",
            "at=999999999999999999",
            "channel=ai&channel=ai",
        ] {
            served.refuses(400, &format!("c/{word}?{query}"), "");
        }
        assert_eq!(
            ask(served.link(), "GET", &format!("/v1/connections/c/{word}")).header("allow"),
            Some("POST")
        );
        let problem = ask(served.link(), "DELETE", &format!("/v1/connections/c/{word}")).problem();
        assert_eq!(problem["status"], 405);
        served.refuses(400, &format!("%ff/{word}"), "");
        served.refuses(400, &format!("a%0ab/{word}"), "");
        served.refuses(400, &format!("{}/{word}", "x".repeat(129)), "");
        served.refuses(400, &format!("/{word}"), "");
    }
    assert_eq!(served.refuses(409, "c/release", ""), "release_without_hold");
    for (target, body, reason) in [
        ("hold", r#"{"x":1}"#, "bad_body"),
        ("resume", r#"{"mode":"cut"}"#, "bad_body"),
        ("end", r#"{"sent":-1}"#, "bad_body"),
        ("end", r#"{"sent":1.5}"#, "bad_body"),
        ("end", r#"{"sent":"1"}"#, "bad_body"),
        ("end", r#"{"sent":1e300}"#, "bad_body"),
        ("end", r#"{"sent":1,"x":2}"#, "bad_body"),
        ("pause", r#"{"mode":"loud"}"#, "bad_json"),
        ("mark", "", "bad_json"),
        ("mark", "{}", "bad_json"),
        ("mark", r#"{"name":7}"#, "bad_json"),
        ("hold?channel=ai", "", "bad_channel"),
        ("release", r#"{"channel":"caller"}"#, "bad_channel"),
    ] {
        assert_eq!(served.refuses(400, &format!("c/{target}"), body), reason, "{target} {body}");
    }
    let live = &served.get("/v1/connections").json()["connections"][0];
    let untouched = json!({"referenced": true, "pause": null, "missing": null});
    assert_eq!(live["channels"], json!({"caller": untouched, "ai": untouched}));
    assert_eq!((&live["holds"], &live["state"]), (&json!(0), &json!("open")));

    // As long as a frame may be, and longer. A number may be longer when it is written again.
    let mark = |length: usize| format!(r#"{{"name":"{}"}}"#, "m".repeat(length - 11));
    served.tell("c/mark", &mark(65_391));
    served.refuses(413, "c/mark", &mark(65_392));
    served.refuses(413, "c/mark", &mark(300_000));
    let numbers = vec!["1e9"; 9000].join(",");
    served.refuses(413, "c/mark", &format!(r#"{{"name":"x","channel":"ai","numbers":[{numbers}]}}"#));
    served.tell("c/mark", &format!(r#"{{"name":"x","numbers":[{numbers}]}}"#));
    let told = served.tell("c/pause?channel=ai", r#"{"channel":"caller"}"#);
    assert_eq!(told["channels"]["caller"]["pause"], Value::Null, "the query beats the body: {told}");
    assert_eq!(told["channels"]["ai"]["pause"], "silence");

    assert_eq!(ask(served.link(), "DELETE", "/v1/connections").problem()["status"], 405);
    assert_eq!(ask(served.link(), "PUT", "/metrics").header("allow"), Some("GET,HEAD"));
    for address in ["/v1/connections/c/explode", "/v1/connections/c/end/", "/v1/connections/c/end/now", "/v1"]
    {
        assert_eq!(ask(served.link(), "POST", address).problem()["status"], 404, "{address}");
    }
    let page = Page::of(&served.address);
    for (reason, count) in
        [("unknown_connection", 5.0), ("late", 5.0), ("release_without_hold", 1.0), ("bad_channel", 2.0)]
    {
        let sample = format!("sidetape_refused_frames_total{{reason=\"{reason}\"}}");
        assert_eq!(page.value(&sample), count, "{reason}: refused and counted like a frame");
    }
    let log = served.daemon.stop();
    assert!(log.contains(r#"reason="late""#), "{log}");
}

#[test]
fn a_live_call_is_told_with_the_names_and_figures_of_its_manifest() {
    let place = place();
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 200);
    let mut sender = Sender::new(7);
    let mut sent = sender.packets(&payloads[..100]);
    (0..4).for_each(|_| sender.skip_packet(960));
    sent.extend(sender.packets(&payloads[100..]));
    sent.swap(20, 21);
    gateway
        .meta("c", &json!({"conversation_id": "talk", "tenant": "t", "labels": {"a": "b"}, "team": "red"}));
    gateway.play("c", CALLER, &sent);
    gateway.send(&frame(kind::MARK, AI, START_US + 500_000, b"c", br#"{"name":"m"}"#));
    gateway.send(&frame(kind::END, AI, 0, b"c", &3u64.to_be_bytes()));
    gateway.sync();
    let live = without_absent(served.get("/v1/connections/c").json());
    gateway.end("c");
    let manifest = place.manifest("c");
    for name in [
        "connection_id",
        "conversation_id",
        "tenant",
        "labels",
        "meta",
        "marks",
        "paused",
        "started_at",
        "outcome",
        "reasons",
    ] {
        assert_eq!(live[name], manifest[name], "{name} in {live}");
    }
    assert_eq!(live["outcome"], "degraded");
    assert_eq!(live["meta"], json!({"team": "red"}));
    for channel in ["caller", "ai"] {
        for (name, value) in live["channels"][channel].as_object().unwrap() {
            match name.as_str() {
                "referenced" => assert_eq!(*value, channel == "caller"),
                "pause" | "missing" => assert!(value.is_null()),
                // Silence goes on until now.
                "silence_ms" | "holes" => {}
                _ => assert_eq!(*value, manifest["channels"][channel][name], "{channel} {name}"),
            }
        }
    }
    let caller = &live["channels"]["caller"];
    let counted = ["packets", "lost", "reordered", "ssrcs"].map(|name| caller[name].clone());
    assert_eq!(counted, [json!(200), json!(4), json!(1), json!([7])]);
    assert_eq!(live["channels"]["ai"]["socket_lost"], 3);
    for only_of_a_file in ["file", "ended_at"] {
        assert!(live.get(only_of_a_file).is_none(), "{live}");
    }
    assert!(live["duration_ms"].as_u64().unwrap() >= 4080, "{live}");
    assert_eq!(served.get("/v1/connections/c").problem()["status"], 404, "it has ended");
    assert_eq!(served.get("/v1/connections/nobody").problem()["status"], 404);
    assert_eq!(served.get("/v1/connections/%00").problem()["status"], 400);

    gateway.meta("silent", &json!({}));
    gateway.sync();
    let live = served.get("/v1/connections/silent").json();
    assert_eq!((&live["outcome"], &live["duration_ms"]), (&json!("absent"), &json!(0)), "{live}");
    served.daemon.stop();
}

#[test]
fn all_live_calls_are_listed_page_by_page_and_no_other() {
    let place = place();
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    assert_eq!(served.get("/v1/connections").json(), json!({"connections": [], "total": 0, "next": null}));
    let ids: Vec<String> = (0..25).map(|n| format!("call {n:02} é&?/")).collect();
    for id in ids.iter().rev() {
        gateway.meta(id, &json!({}));
    }
    gateway.meta("over", &json!({}));
    gateway.end("over");
    place.manifest("over");
    let (mut seen, mut after) = (Vec::new(), String::new());
    for page in [10, 10, 5] {
        let list = served.get(&format!("/v1/connections?limit=10{after}")).json();
        assert_eq!(list["total"], 25);
        let found = list["connections"].as_array().unwrap();
        assert_eq!(found.len(), page);
        seen.extend(found.iter().map(|live| live["connection_id"].as_str().unwrap().to_owned()));
        assert_eq!(list["next"].is_null(), page == 5, "{}", list["next"]);
        after = format!("&after={}", rig::wire::to_percent(seen.last().unwrap(), false));
    }
    assert_eq!(seen, ids);
    assert_eq!(served.get("/v1/connections?limit=25").json()["next"], Value::Null);
    for query in ["limit=0", "limit=10001", "limit=x", "limt=1"] {
        assert_eq!(served.get(&format!("/v1/connections?{query}")).problem()["status"], 400, "{query}");
    }
    served.daemon.stop();
}

#[test]
fn a_web_page_may_tell_nothing_unless_there_is_a_token_that_it_shows() {
    let mut place = place();
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    gateway.meta("c", &json!({}));
    gateway.sync();
    let origin = "Origin: https://example.org\r\n";
    for (method, target) in
        [("POST", "/v1/connections/c/end"), ("GET", "/v1/connections"), ("GET", "/metrics")]
    {
        assert_eq!(ask_with(served.link(), method, target, origin).problem()["status"], 403, "{target}");
    }
    for health in ["/healthz", "/readyz"] {
        assert_eq!(ask_with(served.link(), "GET", health, origin).problem()["status"], 403);
        assert_eq!(served.get(health).status, 200, "whoever is no page is told");
    }
    assert_eq!(served.get("/v1/connections").json()["connections"][0]["channels"]["ai"]["referenced"], true);
    served.daemon.stop();
    place.set("AUDIO_HTTP_TOKEN", "Xh6Lp0-Dc3Gs9~Uf1Ew8.test");
    let served = Served::start(&place);
    assert_eq!(ask_with(served.link(), "GET", "/v1/connections", origin).problem()["status"], 401);
    let shown = format!("{origin}Authorization: Bearer Xh6Lp0-Dc3Gs9~Uf1Ew8.test\r\n");
    assert_eq!(ask_with(served.link(), "GET", "/v1/connections", &shown).status, 200);
    served.daemon.stop();
}

#[test]
fn a_page_of_another_site_learns_nothing_whatever_it_shows() {
    let mut place = place();
    for token in ["", "Xh6Lp0-Dc3Gs9~Uf1Ew8.test"] {
        place.set("AUDIO_HTTP_TOKEN", token);
        let served = Served::start(&place);
        let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
        gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 50)));
        gateway.sync();
        let from = |site: &str, method: &str, target: &str| {
            let lines = format!("Authorization: Bearer {token}\r\nSec-Fetch-Mode: no-cors\r\n{site}");
            ask_with(served.link(), method, target, &lines)
        };
        let sites =
            ["cross-site", "same-site", "", "anything"].map(|site| format!("Sec-Fetch-Site: {site}\r\n"));
        let twice = "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n".to_owned();
        for site in sites.iter().chain([&twice]) {
            let mut told = Vec::new();
            for (method, target) in [
                ("GET", "/v1/connections/c/audio"),
                ("GET", "/v1/connections/nobody/audio"),
                ("GET", "/v1/connections/c"),
                ("GET", "/v1/connections"),
                ("POST", "/v1/connections/c/end"),
                ("POST", "/v1/drain"),
                ("GET", "/metrics"),
                ("GET", "/healthz"),
                ("GET", "/readyz"),
                ("GET", "/nothing"),
            ] {
                let answer = from(site, method, target);
                assert_eq!(answer.problem()["status"], 403, "{site} {target}");
                told.push(answer.body);
            }
            told.dedup();
            assert_eq!(told.len(), 1, "a call that there is and one that there is not are told alike");
        }
        for own in ["", "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
            for target in ["/v1/connections/c/audio", "/metrics", "/healthz"] {
                assert_eq!(from(own, "GET", target).status, 200, "{own} {target}");
            }
        }
        served.daemon.stop();
    }
}

#[test]
fn on_loopback_nobody_is_answered_under_a_name_of_his_own_unless_there_is_a_token() {
    let mut place = place();
    let served = Served::start(&place);
    let under = |served: &Served, host: &str, target: &str| {
        say(served.link(), "GET", target, &format!("Host: {host}\r\n"), "")
    };
    for name in
        ["example.org", "example.org:80", "sidetape:8080", "localhost.example.org", "127.0.0.1.nip.io", ""]
    {
        for target in ["/v1/connections", "/v1/connections/c/audio", "/metrics"] {
            assert_eq!(under(&served, name, target).problem()["status"], 403, "{name} {target}");
        }
        assert_eq!(["/healthz", "/readyz"].map(|target| under(&served, name, target).status), [200; 2]);
    }
    let twice = "Host: localhost\r\nHost: example.org\r\n";
    assert_eq!(say(served.link(), "GET", "/metrics", twice, "").status, 403);
    assert_eq!(under(&served, "localhost", "http://example.org/metrics").status, 403);
    for address in
        ["localhost", "LocalHost:8080", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "192.0.2.1:80"]
    {
        assert_eq!(under(&served, address, "/v1/connections").status, 200, "{address}");
    }
    assert_eq!(say(served.link(), "GET", "/metrics", "", "").status, 200, "no browser leaves it out");
    served.daemon.stop();

    place.set("AUDIO_HTTP_TOKEN", "Xh6Lp0-Dc3Gs9~Uf1Ew8.test");
    let served = Served::start(&place);
    let shown = "Host: example.org\r\nAuthorization: Bearer Xh6Lp0-Dc3Gs9~Uf1Ew8.test\r\n";
    assert_eq!(say(served.link(), "GET", "/v1/connections", shown, "").status, 200);
    served.daemon.stop();

    // Prometheus asks by the name of a service.
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "0.0.0.0:0").with("AUDIO_ALLOW_REMOTE", "true");
    let served = Served::start(&place);
    assert_eq!(under(&served, "sidetape:8080", "/metrics").status, 200);
    served.daemon.stop();
    let mut place = Place::new();
    let path = place.root().join("run/http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", path.display()));
    let daemon = Daemon::start(&place);
    let link = UnixStream::connect(&path).unwrap();
    assert_eq!(say(link, "GET", "/metrics", "Host: sidetape\r\n", "").status, 200);
    daemon.stop();
}

#[test]
fn an_answer_says_if_the_disk_has_not_taken_it_yet() {
    let mut place = place();
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    gateway.meta("c", &json!({}));
    gateway.sync();
    served.tell("c/hold", "");
    errors.set("write");
    let answer = post(served.link(), "/v1/connections/c/hold", "");
    assert_eq!((answer.status, &answer.json()["holds"]), (202, &json!(2)), "it holds, and is not written");
    errors.set("");
    wait_for("the disk to work", || {
        let answer = post(served.link(), "/v1/connections/c/hold", "");
        (answer.status == 200).then_some(())
    });
    served.daemon.stop();
}

#[test]
fn a_stretch_that_the_disk_does_not_take_can_be_asked_for_again_and_the_log_names_the_call() {
    let place = place();
    let Some(disk) = Disk::mount(&place.spool(), 8192) else { return };
    let served = Served::start(&place);
    let mut gateway = Gateway::connect(&place, &served.daemon, Socket::UnixStream);
    gateway.play("a/b", CALLER, &Sender::new(1).packets(&voice(MUSIC, 150.0, 50)));
    gateway.sync();
    let target = "/v1/connections/a%2Fb/audio";
    assert_eq!(served.get(target).status, 200);
    disk.fill();
    assert_eq!(served.get(target).problem()["status"], 503);
    disk.empty();
    assert_eq!(served.get(target).status, 200);
    let log = served.daemon.stop();
    let told = log.lines().find(|line| line.contains("a stretch of a live call could not be made"));
    assert!(told.is_some_and(|line| line.contains(r#"connection="a/b""#)), "{log}");
}

#[test]
fn a_call_is_told_over_the_unix_socket_too_without_the_key_of_frames() {
    let mut place = Place::new().with("AUDIO_TAP_KEY", "another secret of enough bytes");
    let socket = place.root().join("run/http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", socket.display()));
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.send(&frame(kind::META, WHOLE, 0, b"c", b"{}"));
    gateway.sync();
    let link = || UnixStream::connect(&socket).unwrap();
    assert_eq!(post(link(), "/v1/connections/c/end", "").json()["state"], "lingering");
    assert_eq!(place.manifest("c")["outcome"], "absent");
    assert_eq!(ask(link(), "GET", "/v1/connections").json()["total"], 0);
    daemon.stop();
}

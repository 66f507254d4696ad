//! Who may send, ask and read: keys, users, tokens, modes of files; and names that nobody can break out of.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::Read as _;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use rig::daemon::{Daemon, dropped, field};
use rig::gateway::{AI, CALLER, Gateway, SOCKETS, Socket, WHOLE, frame, kind, next_counter, signed};
use rig::http::{ask, ask_with, http_address};
use rig::media::{SPEECH, Sender, voice};
use rig::place::{Place, contains};
use rig::recording::sounds_in;
use rig::wait_for;

const KEY: &str = "kJ8#qW2!zR5% vN9^yT4&bM7 \u{1f511}";
const TOKEN: &str = "Xh6Lp0-Dc3Gs9~Uf1Ew8.test";

fn meta(id: &str) -> Vec<u8> {
    frame(kind::META, WHOLE, 0, id.as_bytes(), b"{}")
}

/// The program with a subcommand, run by a shell that prepares what the command line of a test cannot.
fn by_shell(place: &Place, subcommand: &str, script: &str) -> Command {
    let program = place.command(subcommand);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("{script} exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args()).env_clear().current_dir(place.root());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

#[test]
fn with_a_key_udp_takes_what_is_signed_and_takes_it_once() {
    let place = Place::new().with("AUDIO_TAP_KEY", KEY);
    let daemon = Daemon::start(&place);
    let packets = voice(SPEECH, 150.0, 60);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.sign(KEY, 7);
    for sent in Sender::new(1).packets(&packets) {
        let plain = frame(kind::RTP, CALLER, sent.at_us, b"signed", &sent.rtp);
        let bytes = gateway.write(&plain);
        gateway.write_bytes(&bytes);
        gateway.write_bytes(&plain);
        gateway.write_bytes(&signed(&plain, b"another key of enough bytes", 7, next_counter()));
        gateway.sync();
    }
    // What was copied is worth nothing to another sender, and clocks far off are not believed at first.
    let (hour_us, now) = (3_600_000_000, next_counter());
    for (counter, count) in [(now - hour_us, 1), (now + hour_us, 2), (0, 3)] {
        for n in 0..count {
            gateway.write_bytes(&signed(&meta("off"), KEY.as_bytes(), 8, counter + n));
        }
    }
    gateway.write_bytes(&frame(kind::PING, WHOLE, 0, b"unsigned", b""));
    gateway.write_bytes(b"not even a frame");
    gateway.end("signed");
    let (manifest, recording) = place.recording("signed");
    assert_eq!(
        (&manifest["outcome"], &manifest["channels"]["caller"]["duplicate"]),
        (&"ok".into(), &0.into())
    );
    assert!(recording.sounds(0) == sounds_in(&packets));
    let counts = dropped(&daemon.stop());
    let expected = [("key_clock", 6), ("replayed", 60), ("unauthenticated", 122)];
    assert_eq!(counts, expected.map(|(reason, count)| (reason.to_owned(), count)).into());
    assert_eq!(place.manifests().len(), 1);
}

#[test]
fn a_gateway_that_signs_goes_on_after_the_daemon_was_killed() {
    let place = Place::new().with("AUDIO_TAP_KEY", KEY).with("AUDIO_RESUME_SECS", "60");
    let packets = voice(SPEECH, 150.0, 40);
    let sent = Sender::new(1).packets(&packets);
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.sign(KEY, 7);
    gateway.play("killed", CALLER, &sent[..20]);
    gateway.sync();
    wait_for("the spool to hold it", || place.spool_holds(&sent[19].rtp).then_some(()));
    daemon.kill();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    gateway.sign(KEY, 7);
    gateway.play("killed", CALLER, &sent[20..]);
    gateway.end("killed");
    let (_, recording) = place.recording("killed");
    assert!(recording.sounds(0) == sounds_in(&packets));
    assert_eq!(place.manifests().len(), 1);
}

#[test]
fn unix_sockets_need_no_signature_and_believe_no_wrong_one() {
    let place = Place::new().with("AUDIO_TAP_KEY", KEY);
    let daemon = Daemon::start(&place);
    for (number, socket) in [(1, Socket::UnixDgram), (2, Socket::UnixStream)] {
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        gateway.send(&meta(&format!("unsigned {number}")));
        gateway.write(&signed(&meta("forged"), b"another key of enough bytes", 1, next_counter()));
        gateway.sign(KEY, number);
        let bytes = gateway.write(&meta(&format!("signed {number}")));
        gateway.write_bytes(&bytes);
        gateway.end(&format!("signed {number}"));
        gateway.end(&format!("unsigned {number}"));
        place.manifest(&format!("signed {number}"));
        place.manifest(&format!("unsigned {number}"));
    }
    let counts = dropped(&daemon.stop());
    assert_eq!(counts, [("replayed".to_owned(), 2), ("unauthenticated".to_owned(), 2)].into());
}

#[test]
fn without_a_key_a_trailer_is_taken_off_and_not_read() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let packets = voice(SPEECH, 150.0, 40);
    for socket in SOCKETS {
        let id = format!("{socket:?}");
        let mut gateway = Gateway::connect(&place, &daemon, socket);
        gateway.sign("whatever", 1);
        gateway.play(&id, CALLER, &Sender::new(1).packets(&packets));
        gateway.end(&id);
        let (manifest, recording) = place.recording(&id);
        assert_eq!(manifest["outcome"], "ok");
        assert!(recording.sounds(0) == sounds_in(&packets), "the trailer is no audio");
    }
    assert!(daemon.stop().contains("dropped=\"none\""));
}

/// The code blocks of README.md in a language.
fn readme_blocks(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let opening = format!("```{language}\n");
    let blocks = readme.split(&opening).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_senders_of_the_readme_are_understood() {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(!rig::is_strict(), "python3 is not there");
        eprintln!("skipped: python3 is not there");
        return;
    }
    let blocks = readme_blocks("python");
    let (send, signing) = (&blocks[0], &blocks[1]);
    for (key, script) in [
        (None, send.clone()),
        (Some(KEY), send.replace("call, sent = ", &format!("{signing}\ncall, sent = "))),
    ] {
        let mut place = Place::new();
        if let Some(key) = key {
            place.set("AUDIO_TAP_KEY", key);
        }
        let daemon = Daemon::start(&place);
        let script = script.replace("5055", &daemon.udp().port().to_string());
        let mut python = Command::new("python3");
        let ran = python.args(["-c", &script]).env("AUDIO_TAP_KEY", KEY).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let (manifest, _) = place.recording("call-1");
        assert_eq!((&manifest["outcome"], &manifest["conversation_id"]), (&"ok".into(), &"c-42".into()));
        assert_eq!(manifest["channels"]["caller"]["packets"], 50);
        assert!(daemon.stop().contains("dropped=\"none\""));
    }
}

#[test]
fn replay_signs_where_there_is_a_key() {
    let mut place = Place::new().with("AUDIO_TAP_KEY", KEY);
    let daemon = Daemon::start(&place);
    place.set("AUDIO_UDP_LISTEN", &daemon.udp().to_string());
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/demo-call.pcap");
    let ran = place.command("replay").arg(capture).args(["--id", "replayed"]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(place.manifest("replayed")["channels"]["ai"]["packets"], 1534);
    assert!(daemon.stop().contains("dropped=\"none\""));
}

#[test]
fn only_the_users_that_are_allowed_get_through_a_stream_socket() {
    let mut place = Place::new().with("AUDIO_UNIX_DGRAM", "");
    let http = place.root().join("run/http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", http.display()));
    let own = rustix::process::getuid().as_raw();
    place.set("AUDIO_UNIX_ALLOW_UIDS", &format!("{},{own}", own + 1));
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.send(&meta("allowed"));
    gateway.end("allowed");
    place.manifest("allowed");
    assert_eq!(ask(UnixStream::connect(&http).unwrap(), "GET", "/healthz").status, 200);
    assert!(!daemon.stop().contains("not allowed"));

    place.set("AUDIO_UNIX_ALLOW_UIDS", &(own + 1).to_string());
    let daemon = Daemon::start(&place);
    for path in [place.stream(), http] {
        for _ in 0..20 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(rig::PATIENCE)).unwrap();
            let read = stream.read(&mut [0; 10]);
            assert!(matches!(read, Ok(0)) || read.is_err_and(|error| error.raw_os_error() == Some(104)));
        }
    }
    let log = daemon.stop();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("not allowed")).collect();
    assert!((2..10).contains(&lines.len()), "once a second for each socket: {log}");
    let pid = std::process::id().to_string();
    assert_eq!(
        (field(lines[0], "uid"), field(lines[0], "pid")),
        (Some(own.to_string().as_str()), Some(pid.as_str()))
    );

    place.set("AUDIO_UNIX_DGRAM", place.dgram().to_str().unwrap());
    let ended = Daemon::start_in_vain(&place);
    assert_eq!(ended.code, Some(2));
    assert!(ended.said.contains("AUDIO_UNIX_ALLOW_UIDS"), "{}", ended.said);
}

#[test]
fn http_answers_only_who_shows_the_token_but_tells_everybody_that_it_is_well() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0").with("AUDIO_HTTP_TOKEN", TOKEN);
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let link = || TcpStream::connect(&address).unwrap();
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("live", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 50)));
    gateway.sync();
    let route = "/v1/connections/live/audio";
    for good in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN} ")] {
        let answer = ask_with(link(), "GET", route, &format!("Authorization: {good}\r\n"));
        assert_eq!(answer.status, 200, "{good:?}: {}", answer.head);
    }
    let other = TOKEN.replace("test", "tesu");
    for bad in [
        String::new(),
        "Authorization:\r\n".to_owned(),
        format!("Authorization: {TOKEN}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Bearer {other}\r\n"),
        format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Cookie: {TOKEN}\r\n"),
    ] {
        for (method, target) in [
            ("GET", route),
            ("POST", route),
            ("GET", "/v1/connections/nobody/audio"),
            ("GET", "/metrics"),
            ("GET", "/"),
            ("GET", "/healthz/"),
            ("GET", "//healthz"),
            ("GET", "/healthz/../v1/connections/live/audio"),
            ("GET", &format!("{route}?token={TOKEN}")),
        ] {
            let answer = ask_with(link(), method, target, &bad);
            assert_eq!(answer.problem()["status"], 401, "{method} {target} {bad:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!contains(&answer.body, TOKEN.as_bytes()));
        }
        for health in ["/healthz", "/readyz"] {
            assert_eq!(ask_with(link(), "GET", health, &bad).status, 200);
        }
    }
    let log = daemon.stop();
    let lines = log.lines().filter(|line| line.contains("requests without the token are refused")).count();
    assert!((1..20).contains(&lines), "once a second: {log}");
}

#[test]
fn a_port_that_is_open_to_others_without_a_secret_is_warned_of() {
    let mut place = Place::new().with("AUDIO_ALLOW_REMOTE", "true");
    for (udp, http, secrets, warnings) in [
        ("0.0.0.0:0", "[::1]:0", false, vec!["AUDIO_TAP_KEY"]),
        ("127.0.0.1:0", "0.0.0.0:0", false, vec!["AUDIO_HTTP_TOKEN"]),
        ("0.0.0.0:0", "0.0.0.0:0", false, vec!["AUDIO_TAP_KEY", "AUDIO_HTTP_TOKEN"]),
        ("0.0.0.0:0", "0.0.0.0:0", true, vec![]),
    ] {
        place.set("AUDIO_UDP_LISTEN", udp);
        place.set("AUDIO_HTTP_LISTEN", http);
        place.set("AUDIO_TAP_KEY", if secrets { KEY } else { "" });
        place.set("AUDIO_HTTP_TOKEN", if secrets { TOKEN } else { "" });
        let log = Daemon::start(&place).stop();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("anybody who reaches")).collect();
        assert_eq!(lines.len(), warnings.len(), "{log}");
        for (line, variable) in lines.iter().zip(warnings) {
            assert!(line.contains("WARN") && line.contains(variable), "{line}");
        }
    }
}

/// No part of a secret that would help to guess it is in what was said.
fn assert_secrets_are_kept(said: &[u8], what: &str) {
    for secret in [KEY, TOKEN] {
        for part in secret.as_bytes().windows(8) {
            assert!(!contains(said, part), "{what}: {}", String::from_utf8_lossy(said));
        }
    }
}

#[test]
fn no_secret_is_ever_told() {
    let place = Place::new()
        .with("AUDIO_TAP_KEY", KEY)
        .with("AUDIO_HTTP_TOKEN", TOKEN)
        .with("AUDIO_HTTP_LISTEN", "0.0.0.0:0")
        .with("AUDIO_ALLOW_REMOTE", "true")
        .with("AUDIO_LOG", "trace");
    let daemon = Daemon::start_by(by_shell(&place, "serve", "exec 1>&2;"));
    let address = http_address(&daemon).replace("0.0.0.0", "127.0.0.1");
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_address = ("127.0.0.1", daemon.udp().port());
    for number in 0..20 {
        for (key, id) in [(KEY, "signed"), (TOKEN, "forged")] {
            let bytes = signed(&meta(id), key.as_bytes(), 1, next_counter());
            for bytes in [&bytes[..], &bytes, &bytes[..number], &meta("unsigned")] {
                udp.send_to(bytes, udp_address).unwrap();
                gateway.write_bytes(bytes);
            }
        }
        gateway.sync();
    }
    for line in [format!("Authorization: Bearer {TOKEN}\r\n"), format!("Authorization: Bearer {KEY}\r\n")] {
        for target in ["/healthz", "/v1/connections/signed/audio", "/v1/connections/nobody/audio", "/"] {
            let answer = ask_with(TcpStream::connect(&address).unwrap(), "GET", target, &line);
            assert_secrets_are_kept(answer.head.as_bytes(), target);
            assert_secrets_are_kept(&answer.body, target);
        }
    }
    gateway.end("signed");
    place.manifest("signed");
    for file in place.files() {
        // The spool file goes once the manifest is there.
        let Ok(content) = std::fs::read(place.root().join(&file)) else { continue };
        assert_secrets_are_kept(&content, "a file");
    }
    let log = daemon.stop();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert!(log.contains("unauthenticated") && log.contains("replayed"), "{log}");
    assert_secrets_are_kept(log.as_bytes(), "the log");
}

#[test]
fn no_secret_is_told_by_help_or_by_a_fault() {
    let place = Place::new().with("AUDIO_TAP_KEY", KEY).with("AUDIO_HTTP_TOKEN", TOKEN);
    let said = |output: Output| [output.stdout, output.stderr].concat();
    for subcommand in ["serve", "check", "recover", "replay", "demo"] {
        for flag in
            ["--help", "-h", "--no-such-flag", "--log-format=xml", "--log=no,such=filter=x", "--id=\t"]
        {
            let said = said(place.command(subcommand).arg(flag).output().unwrap());
            assert_secrets_are_kept(&said, &format!("{subcommand} {flag}"));
            if (subcommand, flag) == ("serve", "--help") {
                assert!(
                    contains(&said, b"[env: AUDIO_TAP_KEY]") && contains(&said, b"[env: AUDIO_HTTP_TOKEN]")
                );
            }
        }
    }
    // Secrets that are wrong are secrets all the same, by flag, by variable, and as bytes that are no text.
    let wrong = "shortsecret";
    for variable in ["AUDIO_TAP_KEY", "AUDIO_HTTP_TOKEN"] {
        let flag = format!("--{}", variable.trim_start_matches("AUDIO_").to_lowercase().replace('_', "-"));
        for command in [
            place.command("serve").env(variable, wrong),
            place.command("check").args([&flag, wrong]),
            place.command("recover").arg(format!("{flag}={wrong}")),
            place.command("serve").env(variable, OsStr::from_bytes(b"\xffshortsecret\xff is no text")),
            place.command("serve").env(variable, "shortsecret\nof two lines"),
        ] {
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command:?}");
            assert!(!contains(&said(output), wrong.as_bytes()), "{command:?}");
        }
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn files_are_for_their_owner_and_group_whatever_the_umask_is() {
    for umask in ["022", "000", "027"] {
        let mut place = Place::new().with("AUDIO_KEEP_CHANNELS", "true");
        let (storage, spool) = (place.storage().join("new/deep"), place.root().join("new-spool"));
        let http = place.root().join("run/http");
        place.set("AUDIO_STORAGE_PATH", storage.to_str().unwrap());
        place.set("AUDIO_SPOOL_DIR", spool.to_str().unwrap());
        place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", http.display()));
        place.set("AUDIO_OBJECT_KEY", "{tenant}/{yyyy}/{id}.opus");
        // The directories may be there from a check.
        assert!(by_shell(&place, "check", &format!("umask {umask};")).output().unwrap().status.success());
        let daemon = Daemon::start_by(by_shell(&place, "serve", &format!("umask {umask};")));
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("open", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 40)));
        gateway.sync();
        let list = |folder: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
        };
        wait_for("the spool file", || (list(&spool).len() == 2).then_some(()));
        assert_eq!(mode(&spool), 0o700);
        for file in list(&spool) {
            assert_eq!(mode(&file), 0o600, "umask {umask}: {}", file.display());
        }
        for socket in [place.dgram(), place.stream(), http] {
            assert_eq!(mode(&socket), 0o660, "umask {umask}: {}", socket.display());
        }
        gateway.end("open");
        place.manifest("open");
        daemon.stop();
        let (mut folders, mut files) = (vec![storage], Vec::new());
        let mut number = 0;
        while let Some(folder) = folders.get(number).cloned() {
            let (inner, found): (Vec<_>, Vec<_>) = list(&folder).into_iter().partition(|path| path.is_dir());
            folders.extend(inner);
            files.extend(found);
            number += 1;
        }
        assert_eq!((folders.len(), files.len()), (3, 4), "{folders:?} {files:?}");
        folders.push(place.storage().join("new"));
        assert!(folders.iter().all(|path| mode(path) == 0o750), "umask {umask}");
        assert!(files.iter().all(|path| mode(path) == 0o640), "umask {umask}");
    }
}

/// Looks at all files of a place: they are in the storage or the spool, under names that are harmless. Returns how
/// many recordings and manifests there are.
fn harmless_names(place: &Place, components: usize) -> usize {
    let mut count = 0;
    for file in place.files() {
        let text = file.to_str().unwrap();
        assert!(text.len() < 4000 && !text.contains(char::is_control), "{text:?}");
        if let Ok(key) = file.strip_prefix("some/where/deep/recordings") {
            count += 1;
            let key: Vec<&str> = key.to_str().unwrap().split('/').collect();
            assert_eq!(key.len(), components, "{key:?}");
            for part in key {
                assert!(!part.starts_with('.') && !part.is_empty() && part.len() <= 255, "{part:?}");
                assert!(!part.contains(['\\', ':', '\u{202e}', '\u{2028}']), "{part:?}");
            }
        } else {
            let name =
                file.strip_prefix("some/where/deep/spool").unwrap_or_else(|_| panic!("{text:?} is outside"));
            assert!(name.components().count() == 1 && text.is_ascii(), "{text:?}");
        }
    }
    count
}

const TEMPLATES: [(&str, usize); 3] = [
    ("{tenant}/{yyyy}/{connection_id}-{conversation_id}-{id}.opus", 3),
    ("{id}.opus", 1),
    ("{tenant}{tenant}/{conversation_id}{conversation_id}/x{id}{connection_id}.opus", 3),
];

/// Records one packet under the names given, and ends the call.
fn record(gateway: &mut Gateway, id: &str, conversation_id: &str, tenant: &str) {
    // In two frames: each is smaller than a datagram.
    for meta in [
        json!({ "conversation_id": conversation_id }),
        json!({ "tenant": tenant, "labels": { tenant: tenant } }),
    ] {
        gateway.send(&frame(kind::META, WHOLE, 0, id.as_bytes(), meta.to_string().as_bytes()));
    }
    gateway.play(id, AI, &Sender::new(1).packets(&voice(SPEECH, 150.0, 1)));
    gateway.end(id);
}

#[test]
fn names_made_to_break_out_are_published_where_they_belong() {
    let wide = "\u{1f4a3}".repeat(32);
    let long = "\u{1f4a3}".repeat(15_000);
    let letters = "l".repeat(60_000);
    let tmp = std::env::temp_dir().join(format!("sidetape-broke-out-{}", std::process::id()));
    let hostile = [
        "../../x",
        "a/b",
        ".",
        "..",
        "...",
        "/",
        "//",
        "./.",
        "../",
        "/etc/passwd",
        "..\\..\\x",
        "C:\\x",
        "~root",
        "-rf",
        "\u{202e}supo.x",
        "a\u{2028}b",
        "\u{feff}",
        "\u{200b}",
        "\u{301}\u{301}",
        "e\u{301}",
        "\u{e9}",
        "\u{fffd}",
        " ",
        ". ",
        "%2e%2e%2f",
        "{tenant}",
        "${HOME}",
        "$(id)",
        "*",
        "\u{10ffff}",
        "x.opus",
        ".part",
        "none",
        &wide,
        tmp.to_str().unwrap(),
    ];
    for (template, components) in TEMPLATES {
        let place = Place::new().with("AUDIO_OBJECT_KEY", template).with("AUDIO_KEEP_CHANNELS", "true");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        for name in hostile {
            record(&mut gateway, name, name, name);
        }
        for (id, conversation_id, tenant) in
            [("long", long.as_str(), "t"), ("letters", "c", letters.as_str())]
        {
            // The labels would not fit beside such a tenant.
            for (key, name) in [("conversation_id", conversation_id), ("tenant", tenant)] {
                gateway.send(&frame(
                    kind::META,
                    WHOLE,
                    0,
                    id.as_bytes(),
                    json!({ key: name }).to_string().as_bytes(),
                ));
            }
            gateway.play(id, AI, &Sender::new(1).packets(&voice(SPEECH, 150.0, 1)));
            gateway.end(id);
        }
        for id in hostile.into_iter().chain(["long", "letters"]) {
            let (manifest, _) = place.recording(id);
            assert_eq!(manifest["outcome"], "ok", "{manifest}");
        }
        let log = daemon.stop();
        assert!(!log.contains("publishing failed") && !log.contains("ERROR"), "{log}");
        assert!(!log.contains(['\u{202e}', '\u{2028}', '\u{200b}']), "a log line looks like what it is");
        assert_eq!(harmless_names(&place, components), 4 * (hostile.len() + 2));
        assert!(!tmp.exists());
    }
}

#[test]
fn no_name_at_all_breaks_out() {
    let odd =
        prop::sample::select(vec!['.', '/', '\\', ':', '\0', '\n', '\u{9b}', '~', '\u{202e}', '\u{1f4a3}']);
    let text = |max: usize| vec(prop_oneof![odd.clone(), any::<char>()], 1..max).prop_map(String::from_iter);
    // An id has no control characters and 128 bytes at most; a name that has some is kept as metadata only.
    let plain = |max: usize| text(max).prop_map(|text| text.replace(char::is_control, "."));
    let name = prop_oneof![3 => plain(300), 1 => text(300)];
    let names = (plain(32), name.clone(), name);
    for (template, components) in TEMPLATES {
        let place = Place::new().with("AUDIO_OBJECT_KEY", template);
        let daemon = Daemon::start(&place);
        let gateway = RefCell::new(Gateway::connect(&place, &daemon, Socket::UnixStream));
        let config =
            Config { cases: 30, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
        TestRunner::new(config)
            .run(&names, |(id, conversation_id, tenant)| {
                let before = place.manifests_of(&id).len();
                record(&mut gateway.borrow_mut(), &id, &conversation_id, &tenant);
                if before == 0 {
                    place.manifest(&id);
                }
                Ok(())
            })
            .unwrap();
        let log = daemon.stop();
        assert!(!log.contains("publishing failed") && !log.contains("ERROR"), "{log}");
        assert!(harmless_names(&place, components) > 0);
    }
}

//! Calls through rtpengine, whose subscription brings both directions to the ports of `POST /v1/connections`.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Map, Value, json};

use rig::daemon::Daemon;
use rig::http::http_address;
use rig::peers::{free_ports, opus_packets, place_with_ports, start, succeed};
use rig::recording::sounds_in;
use rig::wait_for;
use rig::wire::send;

const OPUS: &str = "96 opus/48000/2";
const PCMU: &str = "0 PCMU/8000";
/// How an endpoint's SRTP is locked, and the key, as SDP has it (RFC 4568).
const LOCK: [&str; 2] = ["AES_CM_128_HMAC_SHA1_80", "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"];

/// A running rtpengine with one call. It ends with the test.
struct Rtpengine {
    child: Child,
    ng: UdpSocket,
    asked: Cell<u32>,
}

impl Rtpengine {
    /// Starts it, if it is there: without its kernel module, and without the settings that it has on this machine.
    fn start() -> Option<Self> {
        let low = free_ports(65);
        let ng = UdpSocket::bind("127.0.0.1:0").unwrap();
        ng.connect(("127.0.0.1", low)).unwrap();
        ng.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut command = Command::new("rtpengine");
        command.args(["--config-file=none", "--foreground", "--log-stderr", "--log-level=4", "--table=-1"]);
        command.args(["--interface=127.0.0.1".to_owned(), format!("--listen-ng=127.0.0.1:{low}")]);
        command.args([format!("--port-min={}", low + 1), format!("--port-max={}", low + 64)]);
        let proxy = Self { child: start(&mut command)?, ng, asked: Cell::new(0) };
        wait_for("rtpengine to listen", || {
            let answer = proxy.ask("ping", json!({}))?;
            (answer["result"] == "pong").then_some(())
        });
        Some(proxy)
    }

    /// Sends a command of its ng protocol, and returns the answer, if there is one.
    fn ask(&self, command: &str, mut words: Value) -> Option<Value> {
        words["command"] = command.into();
        words["call-id"] = "call-1".into();
        // To a cookie that it knows it says again what it said before.
        let cookie = self.asked.replace(self.asked.get() + 1);
        self.ng.send(format!("{cookie} {words}").as_bytes()).ok()?;
        let mut bytes = [0; 65_536];
        let length = self.ng.recv(&mut bytes).ok()?;
        let answer = bytes[..length].strip_prefix(format!("{cookie} ").as_bytes()).unwrap();
        Some(serde_json::from_slice(answer).unwrap())
    }

    /// Sends a command that succeeds.
    fn tell(&self, command: &str, words: Value) -> Value {
        let answer = self.ask(command, words).unwrap();
        assert_eq!(answer["result"], "ok", "{command}: {answer}");
        answer
    }

    /// Subscribes a daemon to two participants: that of the first tag is the caller, that of the second the AI.
    fn subscribe(&self, daemon: &Daemon, tags: [&str; 2]) {
        // What is encrypted on the way to rtpengine is not on its way to here.
        let asked =
            self.tell("subscribe request", json!({ "from-tags": tags, "transport-protocol": "RTP/AVP" }));
        let [caller, ai] = payload_types(text(&asked["sdp"]));
        let body = json!({
            "connection_id": "call-1",
            "caller": { "payload_types": caller },
            "ai": { "payload_types": ai },
        });
        let address: SocketAddr = http_address(daemon).parse().unwrap();
        let accept = [("Accept", "application/sdp")];
        let opened = send(address, "POST", "/v1/connections", &accept, body.to_string().as_bytes()).unwrap();
        let sdp = String::from_utf8(opened.body).unwrap();
        assert_eq!(opened.status, 201, "{sdp}");
        self.tell("subscribe answer", json!({ "to-tag": asked["to-tag"], "sdp": sdp }));
    }

    /// Checks that the payload types in the answer have to be those of the call, and who is first where no tags say that.
    fn check_what_the_readme_says(&self) {
        let asked = self.tell("subscribe request", json!({ "flags": ["all"] }));
        assert_eq!(asked["from-tags"], json!(["a", "b"]));
        let other = text(&asked["sdp"]).replace("RTP/AVP 96", "RTP/AVP 111").replace(":96 ", ":111 ");
        let answer = self.ask("subscribe answer", json!({ "to-tag": asked["to-tag"], "sdp": other }));
        assert_eq!(answer.unwrap()["result"], "error");
        self.tell("unsubscribe", json!({ "to-tag": asked["to-tag"] }));
    }
}

impl Drop for Rtpengine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// What an endpoint says of itself: where it listens, its codec, and whether it wants SRTP.
fn description(port: u16, codec: &str, is_locked: bool) -> String {
    let number = codec.split(' ').next().unwrap();
    let (profile, key) = match is_locked {
        true => ("RTP/SAVP", format!("a=crypto:1 {} inline:{}\r\n", LOCK[0], LOCK[1])),
        false => ("RTP/AVP", String::new()),
    };
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} {profile} {number}\r\na=rtpmap:{codec}\r\n{key}"
    )
}

/// Where a description wants its audio.
fn port_in(sdp: &Value) -> u16 {
    let line = text(sdp).lines().find_map(|line| line.strip_prefix("m=audio ")).unwrap();
    line.split(' ').next().unwrap().parse().unwrap()
}

/// What the payload types of both sections of a description mean.
fn payload_types(sdp: &str) -> [Map<String, Value>; 2] {
    let mut sections = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(Map::new());
        } else if let Some(map) = line.strip_prefix("a=rtpmap:") {
            let (number, codec) = map.split_once(' ').unwrap();
            sections.last_mut().unwrap().insert(number.to_owned(), codec.into());
        }
    }
    sections.try_into().unwrap_or_else(|_| panic!("one section for each participant: {sdp}"))
}

/// Two seconds of a tone as Opus, if FFmpeg is there.
fn tone(folder: &Path, hz: u32) -> Option<PathBuf> {
    let file = folder.join(format!("{hz}.opus"));
    let sound = format!("sine=frequency={hz}:duration=2:sample_rate=48000");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-f", "lavfi", "-i", &sound, "-c:a", "libopus"]).arg(&file);
    succeed(start(&mut command)?);
    Some(file)
}

/// Lets FFmpeg send a file as RTP: options after its name, and to where.
fn play(file: &Path, options: &[&str], to: &str) -> Child {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-re", "-i"]).arg(file).args(options).args(["-f", "rtp", to]);
    start(&mut command).unwrap()
}

#[test]
fn both_directions_of_a_call_are_recorded_and_the_endpoints_byes_end_it() {
    let (place, _) = place_with_ports(1);
    let Some(proxy) = Rtpengine::start() else { return };
    let (Some(caller), Some(ai)) = (tone(place.root(), 300), tone(place.root(), 600)) else { return };
    let daemon = Daemon::start(&place);
    let ports = free_ports(4);
    let own = description(ports, OPUS, false);
    let to_ai = port_in(&proxy.tell("offer", json!({ "from-tag": "a", "sdp": own }))["sdp"]);
    let own = description(ports + 2, OPUS, false);
    let answer = proxy.tell("answer", json!({ "from-tag": "a", "to-tag": "b", "sdp": own }));
    let to_caller = port_in(&answer["sdp"]);
    proxy.check_what_the_readme_says();
    proxy.subscribe(&daemon, ["a", "b"]);

    let options = ["-c", "copy", "-payload_type", "96", "-rtpflags", "send_bye"];
    let sent = [(&caller, to_caller, ports), (&ai, to_ai, ports + 2)]
        .map(|(file, to, from)| play(file, &options, &format!("rtp://127.0.0.1:{to}?localrtpport={from}")));
    sent.into_iter().for_each(succeed);
    let (manifest, recording) = place.recording("call-1");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    for (channel, file) in [caller, ai].iter().enumerate() {
        assert!(
            recording.sounds(channel) == sounds_in(&opus_packets(file)),
            "channel {channel}, to the byte"
        );
    }
    proxy.tell("delete", json!({ "from-tag": "a" }));
    daemon.stop();
}

#[test]
fn a_call_that_the_ai_makes_is_recorded_though_it_is_transcoded_and_encrypted_for_the_caller() {
    let (place, _) = place_with_ports(1);
    let Some(proxy) = Rtpengine::start() else { return };
    let (Some(caller), Some(ai)) = (tone(place.root(), 300), tone(place.root(), 600)) else { return };
    let daemon = Daemon::start(&place);
    let ports = free_ports(4);
    let codec = json!({ "mask": ["PCMU"], "transcode": ["opus"] });
    let own = description(ports, PCMU, false);
    let offer = proxy.tell(
        "offer",
        json!({ "from-tag": "a", "sdp": own, "codec": codec, "transport-protocol": "RTP/SAVP" }),
    );
    let own = description(ports + 2, OPUS, true);
    let answer = proxy.tell("answer", json!({ "from-tag": "a", "to-tag": "b", "sdp": own }));
    // The order of the tags decides, not who called.
    proxy.subscribe(&daemon, ["b", "a"]);

    let (to_ai, to_caller) = (port_in(&answer["sdp"]), port_in(&offer["sdp"]));
    let locked =
        ["-c", "copy", "-payload_type", "96", "-srtp_out_suite", LOCK[0], "-srtp_out_params", LOCK[1]];
    let sent = [
        play(&caller, &locked, &format!("srtp://127.0.0.1:{to_caller}?localrtpport={}", ports + 2)),
        play(
            &ai,
            &["-c:a", "pcm_mulaw", "-ar", "8000"],
            &format!("rtp://127.0.0.1:{to_ai}?localrtpport={ports}"),
        ),
    ];
    sent.into_iter().for_each(succeed);
    // Nobody said BYE. Deleting the call tells the subscriber nothing, so whoever does that ends the recording, too.
    proxy.tell("delete", json!({ "from-tag": "a" }));
    let address: SocketAddr = http_address(&daemon).parse().unwrap();
    assert_eq!(send(address, "POST", "/v1/connections/call-1/end", &[], b"").unwrap().status, 200);
    let (manifest, recording) = place.recording("call-1");
    let channels = &manifest["channels"];
    assert_eq!(
        (&channels["caller"]["codec"], &channels["ai"]["codec"]),
        (&"opus".into(), &"PCMU".into()),
        "{manifest}"
    );
    assert_eq!((&channels["caller"]["lost"], &channels["ai"]["lost"]), (&0.into(), &0.into()), "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&opus_packets(&caller)), "to the byte");
    let second = &recording.decode()[1][24_000..72_000];
    let rises = second.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
    assert!((590..=610).contains(&rises), "a tone of {rises} Hz");
    daemon.stop();
}

//! Plain RTP: calls of senders that know nothing of sidetape — FFmpeg, GStreamer, SIPp — on ports of their own.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use rig::daemon::{Daemon, dropped};
use rig::http::{Answer, http_address};
use rig::media::{SPEECH, Sender, voice};
use rig::peers::{free_ports, opus_packets, place_with_ports, start, succeed};
use rig::place::Place;
use rig::recording::{Sound, sounds_in};
use rig::wire::send;
use rig::{is_strict, wait_for};

fn post(daemon: &Daemon, target: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let address: SocketAddr = http_address(daemon).parse().unwrap();
    send(address, "POST", target, headers, body.to_string().as_bytes()).unwrap()
}

/// Opens a call, and returns its ports for RTP.
fn open(daemon: &Daemon, body: &Value) -> [u16; 2] {
    let answer = post(daemon, "/v1/connections", &[], body);
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 201, "{told}");
    assert_eq!(told["address"], "127.0.0.1");
    ["caller", "ai"].map(|channel| {
        let port = told[channel]["rtp"].as_u64().unwrap();
        assert_eq!(told[channel]["rtcp"], port + 1);
        u16::try_from(port).unwrap()
    })
}

/// Waits until a program has ended, which GStreamer now and then does not, with its last packet long sent: then it is made to.
fn end_in_time(mut child: Child) {
    for _ in 0..1500 {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn what_ffmpeg_sends_is_recorded_and_its_bye_ends_the_call() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(
        &daemon,
        &json!({
            "connection_id": "ffmpeg", "conversation_id": "c-1",
            "caller": { "payload_types": { "97": "opus/48000/2" } },
            "ai": { "payload_types": { "0": "PCMU/8000" } },
        }),
    );
    let file = place.root().join("caller.opus");
    let tone = "sine=frequency=300:duration=2:sample_rate=48000";
    let Some(made) = start(
        Command::new("ffmpeg").args(["-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "libopus"]).arg(&file),
    ) else {
        return;
    };
    succeed(made);
    let to = |port: u16| format!("rtp://127.0.0.1:{port}");
    // Without the flag FFmpeg takes no leave.
    let sent = ["-rtpflags", "send_bye", "-f", "rtp"];
    let mut caller = Command::new("ffmpeg");
    caller.args(["-v", "error", "-re", "-i"]).arg(&file).args(["-c", "copy", "-payload_type", "97"]);
    let caller = start(caller.args(sent).arg(to(ports[0])));
    let mut ai = Command::new("ffmpeg");
    let tone = "sine=frequency=600:duration=2:sample_rate=8000";
    ai.args(["-v", "error", "-re", "-f", "lavfi", "-i", tone, "-c:a", "pcm_mulaw"]);
    let ai = start(ai.args(sent).arg(to(ports[1])));
    succeed(caller.unwrap());
    succeed(ai.unwrap());
    let (manifest, recording) = place.recording("ffmpeg");
    assert_eq!(manifest["conversation_id"], "c-1");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert!(recording.sounds(0) == sounds_in(&opus_packets(&file)), "to the byte");
    assert_eq!(manifest["channels"]["ai"]["codec"], "PCMU", "{manifest}");
    assert_eq!(manifest["channels"]["ai"]["lost"], 0);
    daemon.stop();
}

#[test]
fn what_gstreamer_sends_is_recorded_and_its_reports_are_used() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(
        &daemon,
        &json!({ "connection_id": "gstreamer", "ai": { "payload_types": { "8": "PCMA/8000" } } }),
    );
    let pipeline = format!(
        "rtpbin name=a audiotestsrc is-live=true num-buffers=150 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 \
         ! opusenc ! rtpopuspay pt=111 ! a.send_rtp_sink_0 a.send_rtp_src_0 ! udpsink host=127.0.0.1 port={} \
         a.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false \
         rtpbin name=b audiotestsrc is-live=true num-buffers=150 samplesperbuffer=160 ! audio/x-raw,rate=8000,channels=1 \
         ! alawenc ! rtppcmapay ! b.send_rtp_sink_0 b.send_rtp_src_0 ! udpsink host=127.0.0.1 port={} \
         b.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false",
        ports[0],
        ports[0] + 1,
        ports[1],
        ports[1] + 1,
    );
    let Some(sender) = start(Command::new("gst-launch-1.0").arg("-q").args(pipeline.split_whitespace()))
    else {
        return;
    };
    end_in_time(sender);
    // Where it took no leave, whoever handles the call's signalling ends the recording.
    let left = post(&daemon, "/v1/connections/gstreamer/end", &[], &json!({}));
    assert!([200, 404, 409].contains(&left.status), "{}", left.status);
    let (manifest, _) = place.recording("gstreamer");
    let channels = &manifest["channels"];
    assert_eq!((&channels["caller"]["lost"], &channels["ai"]["lost"]), (&0.into(), &0.into()), "{manifest}");
    assert!(channels["caller"]["packets"].as_u64().unwrap() >= 145, "{manifest}");
    assert_eq!((&channels["caller"]["codec"], &channels["ai"]["codec"]), (&"opus".into(), &"PCMA".into()));
    daemon.stop();
}

/// A SIP server that answers each call with a session description out of a file.
const CALLEE: &str = r#"<?xml version="1.0"?>
<scenario name="callee">
  <recv request="INVITE"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Contact: <sip:[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=callee 1 1 IN IP4 127.0.0.1
    s=-
    c=IN IP4 127.0.0.1
    t=0 0
    m=audio PORT RTP/AVP 0
    a=rtpmap:0 PCMU/8000
  ]]></send>
  <recv request="ACK"/>
  <recv request="BYE"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
</scenario>
"#;

/// A caller who plays a file to whom the answer names.
const CALLER: &str = r#"<?xml version="1.0"?>
<scenario name="caller">
  <send><![CDATA[
    INVITE sip:callee@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:caller@[local_ip]:[local_port]>;tag=[call_number]
    To: <sip:callee@[remote_ip]:[remote_port]>
    Call-ID: [call_id]
    CSeq: 1 INVITE
    Contact: <sip:caller@[local_ip]:[local_port]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=caller 1 1 IN IP4 [local_ip]
    s=-
    c=IN IP4 [media_ip]
    t=0 0
    m=audio [rtpstream_audio_port] RTP/AVP 0
    a=rtpmap:0 PCMU/8000
  ]]></send>
  <recv response="200"/>
  <send><![CDATA[
    ACK sip:callee@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:caller@[local_ip]:[local_port]>;tag=[call_number]
    [last_To:]
    Call-ID: [call_id]
    CSeq: 1 ACK
    Content-Length: 0

  ]]></send>
  <nop><action><exec rtp_stream="FILE,1,0,PCMU/8000"/></action></nop>
  <pause milliseconds="2500"/>
  <send><![CDATA[
    BYE sip:callee@[remote_ip]:[remote_port] SIP/2.0
    Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
    From: <sip:caller@[local_ip]:[local_port]>;tag=[call_number]
    [last_To:]
    Call-ID: [call_id]
    CSeq: 2 BYE
    Content-Length: 0

  ]]></send>
  <recv response="200"/>
</scenario>
"#;

#[test]
fn what_sipp_sends_after_an_answer_with_our_ports_is_recorded() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "sipp" }));
    let folder = place.root();
    // Two seconds of a tone that any decoder of mu-law tells from silence.
    let tone: Vec<u8> = (0..16_000).map(|n| if n % 16 < 8 { 0x20 } else { 0xa0 }).collect();
    std::fs::write(folder.join("tone.ulaw"), &tone).unwrap();
    std::fs::write(folder.join("callee.xml"), CALLEE.replace("PORT", &ports[0].to_string())).unwrap();
    let file = folder.join("tone.ulaw");
    std::fs::write(folder.join("caller.xml"), CALLER.replace("FILE", file.to_str().unwrap())).unwrap();
    let sip = free_ports(8);
    let sipp = |scenario: &str, port: u16, more: &[&str]| {
        let mut command = Command::new("sipp");
        command.args(["-sf", scenario, "-i", "127.0.0.1", "-p", &port.to_string(), "-m", "1", "-nostdin"]);
        start(command.args(["-timeout", "30s"]).args(more).current_dir(folder))
    };
    let Some(callee) = sipp("callee.xml", sip, &[]) else { return };
    let media = (sip + 4).to_string();
    let caller = sipp("caller.xml", sip + 1, &["-mp", &media, &format!("127.0.0.1:{sip}")]).unwrap();
    succeed(caller);
    succeed(callee);
    // SIPp sends no RTCP: whoever handles the call's signalling ends the recording.
    assert_eq!(post(&daemon, "/v1/connections/sipp/end", &[], &json!({})).status, 200);
    let (manifest, _) = place.recording("sipp");
    assert_eq!(manifest["channels"]["caller"]["codec"], "PCMU", "{manifest}");
    assert!(manifest["channels"]["caller"]["packets"].as_u64().unwrap() >= 95, "{manifest}");
    assert_eq!(manifest["channels"]["caller"]["lost"], 0);
    daemon.stop();
}

/// Sends packets in real time, from a socket of the test's own.
fn play(socket: &UdpSocket, port: u16, sender: &mut Sender, payloads: &[Vec<u8>]) {
    for sent in sender.packets(payloads) {
        // While a daemon is being started the kernel says that nobody is there.
        socket.send_to(&sent.rtp, ("127.0.0.1", port)).ok();
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn heard(all: &[Sound], of: &[Vec<u8>]) -> bool {
    let part = sounds_in(of);
    all.windows(part.len()).any(|window| window == part)
}

#[test]
fn after_a_kill_the_same_ports_are_open_and_the_call_goes_on() {
    let (place, _) = place_with_ports(3);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "killed", "labels": { "desk": "7" } }));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut sender, payloads) = (Sender::new(1), voice(SPEECH, 150.0, 100));
    play(&socket, ports[0], &mut sender, &payloads[..40]);
    std::thread::sleep(Duration::from_millis(150));
    daemon.kill();
    let daemon = Daemon::start(&place);
    // The answer waits until the call is recovered, which a moment after the start it may not be: so its ports are open.
    let answer = post(&daemon, "/v1/connections", &[], &json!({ "connection_id": "killed" }));
    assert_eq!(answer.status, 409, "it is live");
    play(&socket, ports[0], &mut sender, &payloads[40..]);
    assert_eq!(post(&daemon, "/v1/connections/killed/end", &[], &json!({})).status, 200);
    let (manifest, recording) = place.recording("killed");
    assert_eq!(manifest["labels"]["desk"], "7");
    assert!(heard(&recording.sounds(0), &payloads[..40]) && heard(&recording.sounds(0), &payloads[40..]));
    assert_eq!(place.manifests().len(), 1);
    daemon.stop();
}

#[test]
fn a_port_is_for_the_first_who_sends_and_for_nothing_but_rtp() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let [socket, intruder] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let payloads = voice(SPEECH, 150.0, 30);
    for sent in Sender::new(1).packets(&payloads) {
        socket.send_to(&sent.rtp, ("127.0.0.1", ports[1])).unwrap();
        let mut forged = Sender::new(2);
        intruder.send_to(&forged.packets(&payloads[..1])[0].rtp, ("127.0.0.1", ports[1])).unwrap();
        intruder.send_to(b"GET / HTTP/1.1", ("127.0.0.1", ports[1])).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    // BYE of a source that nobody heard of ends nothing; that of the right one does, on the port for RTP, too.
    let bye = |ssrc: u32| [&[0x81, 203, 0, 1][..], &ssrc.to_be_bytes()].concat();
    socket.send_to(&bye(9), ("127.0.0.1", ports[1] + 1)).unwrap();
    socket.send_to(&bye(1), ("127.0.0.1", ports[1])).unwrap();
    assert_eq!(post(&daemon, "/v1/connections/c/end", &[], &json!({ "channel": "caller" })).status, 200);
    let (_, recording) = place.recording("c");
    assert!(recording.sounds(1) == sounds_in(&payloads));
    let counts = dropped(&daemon.stop());
    assert_eq!((counts["other_source"], counts["bad_rtp"]), (30, 30), "{counts:?}");
}

/// Sends packets 20 ms apart, and says when it is time for the others.
fn pace(socket: &UdpSocket, port: u16, packets: &[Vec<u8>]) {
    for packet in packets {
        socket.send_to(packet, ("127.0.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn rtp_of(sender: &mut Sender, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    sender.packets(payloads).into_iter().map(|sent| sent.rtp).collect()
}

#[test]
fn a_bye_ends_its_source_and_the_channel_only_if_nothing_follows() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bye = |ssrc: u32, port: u16| {
        let bye = [&[0x81, 203, 0, 1][..], &ssrc.to_be_bytes()].concat();
        socket.send_to(&bye, ("127.0.0.1", port + 1)).unwrap();
    };
    let payloads = voice(SPEECH, 150.0, 90);
    let mut first = Sender::new(1);
    pace(&socket, ports[0], &rtp_of(&mut first, &payloads[..10]));
    // The other channel has ended, so that the call hangs on this one.
    pace(&socket, ports[1], &rtp_of(&mut Sender::new(3), &payloads[..1]));
    bye(3, ports[1]);
    bye(1, ports[0]);
    let same = rtp_of(&mut first, &payloads[10..50]);
    pace(&socket, ports[0], &same);
    bye(1, ports[0]);
    pace(&socket, ports[0], &rtp_of(&mut Sender::new(2), &payloads[50..]));
    bye(1, ports[0]);
    assert!(place.manifests().is_empty());
    bye(2, ports[0]);
    let (manifest, recording) = place.recording("c");
    assert_eq!(manifest["outcome"], "ok", "{manifest}");
    assert_eq!(manifest["channels"]["caller"]["ssrcs"], json!([1, 2]));
    assert!(recording.sounds(0) == sounds_in(&payloads));
    assert!(!daemon.stop().contains("frames dropped"));
}

#[test]
fn a_stream_that_goes_on_from_another_address_is_whole_and_what_is_refused_is_told() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let [one, two, three] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let payloads = voice(SPEECH, 150.0, 60);
    let mut caller = Sender::new(1);
    pace(&one, ports[0], &rtp_of(&mut caller, &payloads[..20]));
    pace(&two, ports[0], &rtp_of(&mut caller, &payloads[20..40]));
    pace(&three, ports[0], &rtp_of(&mut Sender::new(7), &payloads[..5]));
    pace(&two, ports[0], &rtp_of(&mut caller, &payloads[40..]));
    pace(&one, ports[1], &rtp_of(&mut Sender::new(3), &payloads));
    assert_eq!(post(&daemon, "/v1/connections/c/end", &[], &json!({})).status, 200);
    let (manifest, recording) = place.recording("c");
    assert!(recording.sounds(0) == sounds_in(&payloads));
    assert_eq!(manifest["reasons"], json!(["caller_frames_refused"]), "{manifest}");
    assert_eq!(manifest["channels"]["caller"]["refused"], json!({ "other_source": 5 }));
    assert_eq!(manifest["channels"]["ai"].get("refused"), None);
    daemon.stop();
}

#[test]
fn reports_of_another_host_are_left_out_and_make_no_recording_doubtful() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = UdpSocket::bind("127.0.0.2:0").unwrap();
    let payloads = voice(SPEECH, 150.0, 20);
    for port in ports {
        pace(&socket, port, &rtp_of(&mut Sender::new(u32::from(port)), &payloads));
        other.send_to(&[0x80, 201, 0, 1, 0, 0, 0, 1], ("127.0.0.1", port + 1)).unwrap();
        // What comes behind it is taken behind it.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(post(&daemon, "/v1/connections/c/end", &[], &json!({})).status, 200);
    let (manifest, _) = place.recording("c");
    assert_eq!(manifest["outcome_told"], "ok", "{manifest}");
    for side in ["caller", "ai"] {
        assert_eq!(manifest["channels"][side]["refused"], json!({ "other_rtcp": 1 }));
    }
    daemon.stop();
}

#[test]
fn a_call_that_moves_to_another_gateway_loses_nothing() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let [one, two, three] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let payloads = voice(SPEECH, 150.0, 150);
    pace(&one, ports[0], &rtp_of(&mut Sender::new(1), &payloads[..20]));
    // Other numbers from another address, and no BYE.
    pace(&two, ports[0], &rtp_of(&mut Sender::new(2), &payloads[20..]));
    // Nobody is silent any more, so that this one is a stranger, up to the end.
    pace(&three, ports[0], &rtp_of(&mut Sender::new(7), &payloads[..5]));
    assert_eq!(post(&daemon, "/v1/connections/c/end", &[], &json!({})).status, 200);
    let (manifest, recording) = place.recording("c");
    let sounds = recording.sounds(0);
    assert!(heard(&sounds, &payloads[..20]) && heard(&sounds, &payloads[20..]), "{manifest}");
    assert_eq!(manifest["channels"]["caller"]["ssrcs"], json!([1, 2]));
    assert_eq!(manifest["channels"]["caller"]["packets"], 150);
    assert_eq!(manifest["channels"]["caller"]["refused"], json!({ "other_source": 5 }));
    daemon.stop();
}

#[test]
fn nothing_of_a_pause_is_held_for_later() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let ports = open(&daemon, &json!({ "connection_id": "c" }));
    let [one, two] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let payloads = voice(SPEECH, 150.0, 160);
    pace(&one, ports[0], &rtp_of(&mut Sender::new(1), &payloads[..20]));
    let mut moved = Sender::new(2);
    pace(&two, ports[0], &rtp_of(&mut moved, &payloads[20..40]));
    let of_channel = json!({ "channel": "caller" });
    assert_eq!(post(&daemon, "/v1/connections/c/pause", &[], &of_channel).status, 200);
    pace(&two, ports[0], &rtp_of(&mut moved, &payloads[40..60]));
    assert_eq!(post(&daemon, "/v1/connections/c/resume", &[], &of_channel).status, 200);
    pace(&two, ports[0], &rtp_of(&mut moved, &payloads[60..]));
    assert_eq!(post(&daemon, "/v1/connections/c/end", &[], &json!({})).status, 200);
    let (manifest, recording) = place.recording("c");
    let sounds = recording.sounds(0);
    assert!(heard(&sounds, &payloads[..20]) && heard(&sounds, &payloads[140..]), "{manifest}");
    assert!(payloads[40..60].chunks(2).all(|paused| !heard(&sounds, paused)), "{manifest}");
    let kept = manifest["channels"]["caller"]["packets"].as_u64().unwrap();
    assert_eq!(manifest["channels"]["caller"]["refused"], json!({ "other_source": 160 - kept }));
    daemon.stop();
}

#[test]
fn ports_are_given_back_and_used_again_one_after_the_other() {
    let (place, low) = place_with_ports(2);
    let daemon = Daemon::start(&place);
    let id = |n: usize| json!({ "connection_id": format!("call-{n}") });
    assert_eq!(open(&daemon, &id(0)), [low, low + 2]);
    assert_eq!(open(&daemon, &id(1)), [low + 4, low + 6]);
    let refused = post(&daemon, "/v1/connections", &[], &id(2));
    assert_eq!((refused.status, refused.problem()["reason"].as_str()), (503, Some("no_ports")));
    assert_eq!(post(&daemon, "/v1/connections/call-1/end", &[], &json!({})).status, 200);
    let ports = wait_for("ports to be given back", || {
        let answer = post(&daemon, "/v1/connections", &[], &id(3));
        (answer.status == 201).then(|| open_ports(&answer))
    });
    assert_eq!(ports, [low + 4, low + 6].map(u64::from));
    // An id of its own for who has none.
    assert_eq!(post(&daemon, "/v1/connections/call-0/end", &[], &json!({})).status, 200);
    let answer = wait_for("ports to be given back", || {
        Some(post(&daemon, "/v1/connections", &[], &json!({}))).filter(|answer| answer.status == 201)
    });
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    let id = told["connection_id"].as_str().unwrap();
    assert_eq!(answer.header("location"), Some(format!("/v1/connections/{id}").as_str()));
    daemon.stop();
}

fn open_ports(answer: &Answer) -> [u64; 2] {
    let told: Value = serde_json::from_slice(&answer.body).unwrap();
    ["caller", "ai"].map(|channel| told[channel]["rtp"].as_u64().unwrap())
}

#[test]
fn the_answer_is_a_session_description_that_ffmpeg_reads() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    let body = json!({ "connection_id": "s", "caller": { "payload_types": { "96": "opus/48000/2" } }, "ai": { "payload_types": { "8": "PCMA/8000" } } });
    let answer = post(&daemon, "/v1/connections", &[("Accept", "application/sdp")], &body);
    assert_eq!((answer.status, answer.header("content-type")), (201, Some("application/sdp")));
    let sdp = String::from_utf8(answer.body).unwrap();
    assert_eq!(sdp.matches("m=audio ").count(), 2, "{sdp}");
    daemon.stop(); // FFmpeg listens on the ports of a description that it reads
    let path = place.root().join("call.sdp");
    std::fs::File::create(&path).unwrap().write_all(sdp.as_bytes()).unwrap();
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "info", "-protocol_whitelist", "file,udp,rtp", "-analyzeduration", "1000", "-i"])
        .arg(&path);
    command.stdin(Stdio::null());
    let Ok(output) = command.output() else {
        assert!(!is_strict(), "cannot ask ffprobe");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("Audio: opus, 48000 Hz, stereo") && said.contains("Audio: pcm_alaw, 8000 Hz"),
        "{said}"
    );
}

#[test]
fn what_is_no_call_is_refused_with_a_reason() {
    let (place, _) = place_with_ports(1);
    let daemon = Daemon::start(&place);
    for (body, said) in [
        (json!([]), "JSON"),
        (json!({ "connection_id": "" }), "connection_id"),
        (json!({ "caller": { "codec": "opus" } }), "caller"),
        (json!({ "ai": { "payload_types": { "300": "opus/48000/2" } } }), "300"),
    ] {
        let answer = post(&daemon, "/v1/connections", &[], &body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.problem()["detail"].as_str().unwrap().contains(said), "{}", answer.problem());
    }
    daemon.stop();
    let without = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&without);
    let answer = post(&daemon, "/v1/connections", &[], &json!({}));
    assert_eq!(answer.status, 501);
    assert!(answer.problem()["detail"].as_str().unwrap().contains("AUDIO_RTP_PORTS"));
    daemon.stop();
}

//! What it costs to finish an hour of call, against the FFmpeg command that did it before: `cargo bench`.
//!
//! The demo's call is repeated to an hour, as a spool file. sidetape renders it to its stereo file; FFmpeg makes its
//! stereo file of one mono file of each channel, which sidetape has made beforehand, since FFmpeg needs them as input.
//! Both are timed in turn, several times; the ratio is what counts, for both ran on one machine in the same minute.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use sidetape::config::RecordingFormat;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::io::capture::{read_capture, rtp_streams};
use sidetape::io::render::{Options, render};
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

const HOUR_US: i64 = 3_600_000_000;
const ROUNDS: usize = 3;

/// The command that the recorder replaces.
const FILTER: &str = "[0:a]aresample=48000,pan=mono|c0=c0[left]; [1:a]aresample=48000,pan=mono|c0=c0[right]; \
     [left][right]join=inputs=2:channel_layout=stereo[aout]";

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("hour.spool");
    let packets = write_spool(&spool);
    let options = |keep_channels| Options {
        tail: Duration::from_secs(2),
        ai_offset_ms: 0,
        keep_channels,
        longest: Duration::from_secs(14_400),
        format: RecordingFormat::Lossless,
        gains_db: [0.0; 2],
    };
    let rendered = render(&spool, &options(true)).unwrap();
    let call_s = rendered.manifest.duration_ms / 1000;
    println!(
        "a call of {call_s} s, {packets} packets, spool of {} bytes",
        fs::metadata(&spool).unwrap().len()
    );
    let (left, right) = (&rendered.files[1].path, &rendered.files[2].path);

    for round in 1..=ROUNDS {
        let start = Instant::now();
        let ours = render(&spool, &options(false)).unwrap();
        let ours_s = start.elapsed().as_secs_f64();
        let ours_bytes = ours.files[0].bytes;

        let out = dir.path().join("ffmpeg.opus");
        let start = Instant::now();
        let status = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-y", "-threads", "1", "-i"])
            .arg(left)
            .arg("-i")
            .arg(right)
            .args(["-filter_complex", FILTER, "-map", "[aout]", "-c:a", "libopus"])
            .arg(&out)
            .status();
        let Ok(status) = status else {
            println!("ffmpeg is not installed; sidetape alone took {ours_s:.2} s");
            continue;
        };
        assert!(status.success());
        let theirs_s = start.elapsed().as_secs_f64();
        let theirs_bytes = fs::metadata(&out).unwrap().len();
        println!(
            "round {round}: sidetape {ours_s:.2} s, {ours_bytes} bytes; ffmpeg {theirs_s:.2} s, {theirs_bytes} bytes; \
             ratio {:.0}",
            theirs_s / ours_s
        );
    }
}

/// Writes the demo's call, repeated to an hour with numbers and times that go on, as a sealed spool file.
fn write_spool(path: &Path) -> usize {
    let capture = include_bytes!("../fixtures/demo-call.pcap");
    let streams = rtp_streams(read_capture(capture).unwrap());
    let begin = streams.iter().flat_map(|stream| &stream.packets).map(|packet| packet.at_us).min().unwrap();
    // A call of 55 s, repeated every minute.
    let turn_us = 60_000_000;
    let mut out = Vec::new();
    let connection = ConnectionId::new("hour").unwrap();
    Header { connection, opened: Wall(begin), opened_mono: Mono(0), part: 1 }.append_to(&mut out);
    let mut frames = Vec::new();
    for turn in 0..HOUR_US / turn_us {
        for (channel, stream) in Channel::BOTH.into_iter().zip(&streams) {
            let first = u16::from_be_bytes(stream.packets[0].payload[2..4].try_into().unwrap());
            let last = stream.packets.last().unwrap();
            let span = u16::from_be_bytes(last.payload[2..4].try_into().unwrap()).wrapping_sub(first) + 1;
            for packet in &stream.packets {
                let mut rtp = packet.payload.clone();
                let turns = u32::try_from(turn).unwrap();
                let sequence = u16::from_be_bytes(rtp[2..4].try_into().unwrap());
                let sequence = sequence.wrapping_add(span.wrapping_mul(u16::try_from(turn).unwrap()));
                let timestamp = u32::from_be_bytes(rtp[4..8].try_into().unwrap());
                let timestamp = timestamp.wrapping_add(turns.wrapping_mul(60 * 48_000));
                rtp[2..4].copy_from_slice(&sequence.to_be_bytes());
                rtp[4..8].copy_from_slice(&timestamp.to_be_bytes());
                frames.push((packet.at_us - begin + turn * turn_us, channel, rtp));
            }
        }
    }
    frames.sort_by_key(|(at, ..)| *at);
    for (at, channel, rtp) in &frames {
        Record {
            kind: RecordKind::Tap(1),
            scope: Scope::Channel(*channel),
            at: Mono(u64::try_from(*at).unwrap()),
            gateway: None,
            body: rtp,
        }
        .append_to(&mut out);
    }
    Record::append_seal(Mono(0), SealCause::Released, &mut out);
    fs::write(path, out).unwrap();
    frames.len()
}

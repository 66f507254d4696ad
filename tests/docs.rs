//! The commands of `deploy/OPERATING.md` that play recordings and part their channels, run as they stand there.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::path::Path;
use std::process::Command;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::judges::{run, said};
use rig::media::{MUSIC, Sender, voice};
use rig::place::Place;

/// The block of shell commands in a section of the document.
fn commands(section: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/OPERATING.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once(&format!("\n## {section}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks: Vec<&str> =
        section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert!(!blocks.is_empty(), "{section}");
    blocks.concat()
}

/// How loud each whole second of a channel is, from 0 to 1: what an audio file sounds like, by FFmpeg.
fn seconds_of(path: &Path, channel: usize, channels: usize) -> Vec<f64> {
    let count = channels.to_string();
    let form = ["-f", "s16le", "-ar", "8000", "-ac", &count];
    let output =
        run(Command::new("ffmpeg").args(["-nostdin", "-v", "error", "-i"]).arg(path).args(form).arg("-"))
            .unwrap();
    assert!(output.status.success(), "{}: {}", path.display(), said(&output));
    let (samples, _) = output.stdout.as_chunks();
    let samples: Vec<f64> = samples
        .iter()
        .map(|s| f64::from(i16::from_le_bytes(*s)) / 32_768.0)
        .skip(channel)
        .step_by(channels)
        .collect();
    // The edges of a second belong to the one before, as resamplers ring.
    let loudness = |second: &[f64]| (second[800..7200].iter().map(|s| s * s).sum::<f64>() / 6400.0).sqrt();
    samples.chunks_exact(8000).map(loudness).collect()
}

/// In which of the seconds there is sound.
fn sounding(path: &Path, channel: usize, channels: usize) -> String {
    let loudness = seconds_of(path, channel, channels);
    loudness
        .iter()
        .map(|loud| {
            if *loud > 0.02 {
                'x'
            } else if *loud < 0.002 {
                '.'
            } else {
                '?'
            }
        })
        .collect()
}

#[test]
fn each_command_makes_what_its_comment_says_of_a_recording() {
    for program in ["ffmpeg", "opusdec", "gst-launch-1.0"] {
        if run(Command::new(program).arg("--version")).is_none() {
            return;
        }
    }
    // The caller speaks for two seconds; a second later the AI does for three. The tail is two seconds long.
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("call", CALLER, &Sender::new(1).packets(&voice(MUSIC, 150.0, 100)));
    gateway.play("call", AI, &Sender::starting(2, 3000).packets(&voice(MUSIC, 220.0, 150)));
    gateway.end("call");
    let (manifest, _) = place.recording("call");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(place.path_of(&manifest), folder.path().join("call.opus")).unwrap();

    let mut shell = Command::new("sh");
    shell.args(["-eu", "-c", &commands("Playing, and parting the channels")]).current_dir(folder.path());
    let output = run(&mut shell).unwrap();
    assert!(output.status.success(), "{}", said(&output));

    let (caller, ai, both) = ("xx......", "...xxx..", "xx.xxx..");
    for (file, wanted) in [
        ("caller.wav", vec![caller]),
        ("ai.wav", vec![ai]),
        ("both-caller.wav", vec![caller]),
        ("both-ai.wav", vec![ai]),
        ("mixed.wav", vec![both]),
        ("part.wav", vec![&caller[2..5], &ai[2..5]]),
        ("call.m4a", vec![caller, ai]),
        ("call.wav", vec![caller, ai]),
        ("call16.wav", vec![caller, ai]),
        ("gst.wav", vec![caller, ai]),
    ] {
        for (channel, wanted_seconds) in wanted.iter().enumerate() {
            let found = sounding(&folder.path().join(file), channel, wanted.len());
            assert_eq!(found, *wanted_seconds, "channel {channel} of {file}");
        }
    }
    // Nothing else was made, so that no command went unlooked at.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 11);
}

//! `sidetape load`: many calls at once, sent to a running daemon, to see what a machine can take.
//!
//! The calls are synthetic: two channels each, packets of 20 ms of one codec, in real time or as fast as the daemon reads,
//! with losses and jitter if wanted. What was sent is counted, and where the recordings can be seen, each call's manifest
//! is checked: every packet that was sent must be in it, and nothing else may be missing. It is what one sizes a machine
//! with, and what the benchmarks of whole daemons use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::replay::{config_of_environment, endpoint_of};
use crate::client::Endpoint;
use crate::client::tap_client::TapClient;
use crate::config::Secret;
use crate::frame::encode;
use crate::id::{Channel, ConnectionId, Scope};
use crate::io::clock::Clock;
use crate::time::Wall;

/// The length of a packet.
const PACKET: Duration = Duration::from_millis(20);
const PACKETS_A_SECOND: u32 = 50;
/// Connections to the daemon, each with a share of the calls.
const SENDERS_MAX: u32 = 4;
/// How long the last recordings are waited for, from when the last one appeared.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What the packets hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// Opus, 60 bytes a packet: 24 kb/s.
    Opus,
    /// G.711 mu-law, 160 bytes a packet.
    Pcmu,
    /// 16-bit samples at 16 kHz, 640 bytes a packet.
    L16,
}

/// Sends many calls at once to a running daemon, and checks that all of them are recorded.
#[derive(clap::Args, Clone, Debug)]
pub struct Load {
    /// Where the daemon listens: udp:HOST:PORT, unix-dgram:PATH or unix-stream:PATH [default: what AUDIO_UDP_LISTEN,
    /// AUDIO_UNIX_STREAM or AUDIO_UNIX_DGRAM say, as for the daemon]
    #[arg(long, value_name = "ENDPOINT")]
    to: Option<Endpoint>,
    /// How many calls there are at once
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    calls: u32,
    /// How long each call is, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=14_400))]
    seconds: u32,
    /// What the packets hold
    #[arg(long, value_name = "CODEC", default_value = "opus")]
    codec: Codec,
    /// Packets left out, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    loss: f64,
    /// Packets seem to arrive up to so many milliseconds late
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    jitter: u32,
    /// Send as fast as the daemon reads, not in real time
    #[arg(long)]
    flat_out: bool,
    /// The directory of the daemon's recordings, to check them there
    #[arg(long, value_name = "DIR")]
    check: Option<PathBuf>,
}

/// What was sent of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    id: String,
    /// Packets of caller and AI.
    packets: [u64; 2],
    /// Packets left out with others behind them: what a recorder can know of.
    lost: [u64; 2],
}

/// What one sender did.
#[derive(Debug, Default)]
struct Share {
    calls: Vec<Sent>,
    frames: u64,
    /// The longest that a round of packets was behind its time.
    behind: Duration,
}

impl Load {
    /// Sends the calls and prints what became of them.
    ///
    /// # Errors
    /// A daemon that does not answer, or, with `--check`, calls that are not recorded as they were sent.
    pub async fn run(self) -> anyhow::Result<()> {
        ensure!(
            (0.0..100.0).contains(&self.loss),
            "--loss is a share of the packets, from 0 to less than 100"
        );
        let config = config_of_environment(self.to.is_some())?;
        let key = config.tap_key.clone();
        let to = self.to.clone().map_or_else(|| endpoint_of(config), Ok)?;
        let clock = Clock::start();
        let run = clock.wall();
        let begun = Instant::now();
        let senders = SENDERS_MAX.min(self.calls);
        let tasks: Vec<_> = (0..senders)
            .map(|sender| {
                let calls: Vec<u32> = (0..self.calls).filter(|call| call % senders == sender).collect();
                tokio::spawn(send(self.clone(), calls, to.clone(), key.clone(), run))
            })
            .collect();
        let mut all = Share::default();
        for task in tasks {
            let share = task.await.context("a sender panicked")??;
            all.calls.extend(share.calls);
            all.frames += share.frames;
            all.behind = all.behind.max(share.behind);
        }
        let elapsed = begun.elapsed();
        println!("| | |\n| --- | --- |");
        println!("| calls | {} of {} s, {:?} over {to} |", self.calls, self.seconds, self.codec);
        println!(
            "| frames | {} in {:.1} s, {:.0} a second |",
            all.frames,
            elapsed.as_secs_f64(),
            rate(all.frames, elapsed)
        );
        if !self.flat_out {
            println!("| sent late | {} ms at most |", all.behind.as_millis());
        }
        match &self.check {
            Some(folder) => check(folder, &all.calls).await,
            None => Ok(()),
        }
    }

    fn payload(&self, packet: u32) -> Vec<u8> {
        let length = match self.codec {
            Codec::Opus => 60,
            Codec::Pcmu => 160,
            Codec::L16 => 640,
        };
        let noise = (1..length).map(|n: u32| {
            (packet.wrapping_mul(2_654_435_761).wrapping_add(n * 40_503) >> 11).to_le_bytes()[0]
        });
        // One CELT frame of 20 ms, in which every bit means something.
        let first = if self.codec == Codec::Opus { 0xf8 } else { 0x55 };
        std::iter::once(first).chain(noise).collect()
    }
}

/// Frames a second.
fn rate(frames: u64, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(frames).unwrap_or(u32::MAX)) / elapsed.as_secs_f64().max(0.001)
}

/// Numbers that look random and are the same for each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or(0)
    }

    /// Whether something of this probability happens.
    fn falls(&mut self, percent: f64) -> bool {
        f64::from(self.next()) < percent / 100.0 * f64::from(1u32 << 31)
    }

    fn up_to(&mut self, most: u32) -> u32 {
        self.next() % most.saturating_add(1)
    }
}

/// Sends a share of the calls.
async fn send(
    load: Load,
    calls: Vec<u32>,
    to: Endpoint,
    key: Option<Secret>,
    run: Wall,
) -> anyhow::Result<Share> {
    let mut client = TapClient::connect(&to, key.as_ref()).await?;
    let mut share = Share::default();
    let mut lines: Vec<Line> =
        calls.iter().map(|call| Line::new(*call, run)).collect::<anyhow::Result<_>>()?;
    let begun = tokio::time::Instant::now();
    // Where calls are kept by consent alone, these are meant to be kept.
    let rtpmaps = json!({
        "payload_types": {"96": "L16/16000", "111": "opus/48000/2"}, "labels": {"load": "true"}, "record": true
    });
    for line in &lines {
        client.send(&encode(3, Scope::Whole, None, &line.id, rtpmaps.to_string().as_bytes())).await?;
    }
    for packet in 0..load.seconds * PACKETS_A_SECOND {
        let due = begun + PACKET * packet;
        if !load.flat_out {
            share.behind = share.behind.max(due.elapsed());
            tokio::time::sleep_until(due).await;
        }
        let payload = load.payload(packet);
        for line in &mut lines {
            for channel in Channel::BOTH {
                if let Some(frame) = line.next_frame(&load, channel, packet, &payload) {
                    client.send(&frame).await?;
                    share.frames += 1;
                }
            }
        }
    }
    for line in lines {
        for channel in Channel::BOTH {
            let count = line.sent.packets[channel.index()].to_be_bytes();
            client.send(&encode(2, Scope::Channel(channel), None, &line.id, &count)).await?;
        }
        share.calls.push(line.sent);
    }
    client.confirm().await?;
    Ok(share)
}

/// One call as its sender sees it.
struct Line {
    id: ConnectionId,
    start: Wall,
    dice: Dice,
    /// Packets left out since the last that was sent.
    missing: [u64; 2],
    sent: Sent,
}

impl Line {
    fn new(call: u32, run: Wall) -> anyhow::Result<Self> {
        let id = format!("load-{}-{call}", run.0);
        Ok(Self {
            id: ConnectionId::new(&id)?,
            start: run,
            dice: Dice(u64::from(call)),
            missing: [0; 2],
            sent: Sent { id, packets: [0; 2], lost: [0; 2] },
        })
    }

    /// The frame of a channel's next packet, unless the network loses that.
    fn next_frame(&mut self, load: &Load, channel: Channel, packet: u32, payload: &[u8]) -> Option<Vec<u8>> {
        let side = channel.index();
        if self.dice.falls(load.loss) {
            // What is lost before the first packet was never there.
            self.missing[side] += u64::from(self.sent.packets[side] > 0);
            return None;
        }
        self.sent.lost[side] += std::mem::take(&mut self.missing[side]);
        self.sent.packets[side] += 1;
        let (payload_type, ticks) = match load.codec {
            Codec::Opus => (111, 960),
            Codec::Pcmu => (0, 160),
            Codec::L16 => (96, 320),
        };
        let sequence = (packet & 0xffff).to_be_bytes();
        let mut rtp = vec![0x80, payload_type, sequence[2], sequence[3]];
        rtp.extend_from_slice(&packet.wrapping_mul(ticks).to_be_bytes());
        rtp.extend_from_slice(&[0, 0, 0, if side == 0 { 1 } else { 2 }]);
        rtp.extend_from_slice(payload);
        let late_us = self.dice.up_to(load.jitter * 1000);
        let at = self.start.plus_us(i64::from(packet + 1) * 20_000 + i64::from(late_us));
        Some(encode(1, Scope::Channel(channel), Some(at), &self.id, &rtp))
    }
}

/// Waits for the manifests of the calls and compares them with what was sent.
async fn check(folder: &Path, calls: &[Sent]) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut wanted: BTreeMap<&str, &Sent> = calls.iter().map(|call| (call.id.as_str(), call)).collect();
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut last_found = Instant::now();
    while !wanted.is_empty() && last_found.elapsed() < PATIENCE {
        for id in wanted.keys().copied().map(str::to_owned).collect::<Vec<_>>() {
            let Ok(bytes) = std::fs::read(folder.join(format!("conversation_{id}_merged.json"))) else {
                continue;
            };
            let manifest: Value =
                serde_json::from_slice(&bytes).with_context(|| format!("the manifest of {id}"))?;
            let outcome = manifest["outcome"].as_str().unwrap_or("none").to_owned();
            *outcomes.entry(outcome).or_default() += 1;
            let sent = wanted.remove(id.as_str()).context("it was wanted")?;
            wrong.extend(disagreement(&manifest, sent));
            last_found = Instant::now();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let told: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let told = if told.is_empty() { String::new() } else { format!(": {}", told.join(", ")) };
    println!("| recorded | {} of {}{told} |", calls.len() - wanted.len(), calls.len());
    println!("| checked after | {:.1} s |", begun.elapsed().as_secs_f64());
    for line in wrong.iter().take(10) {
        println!("{line}");
    }
    ensure!(wanted.is_empty(), "{} calls are not recorded in {}", wanted.len(), folder.display());
    ensure!(wrong.is_empty(), "{} calls are not recorded as they were sent", wrong.len());
    Ok(())
}

/// What a manifest says other than what was sent.
fn disagreement(manifest: &Value, sent: &Sent) -> Option<String> {
    if manifest["outcome"] == "declined" {
        return Some(format!("{}: declined, nothing of it was kept", sent.id));
    }
    let lines = Channel::BOTH.into_iter().filter_map(|channel| {
        let counts = &manifest["channels"][channel.name()];
        let told = [&counts["packets"], &counts["lost"]].map(Value::as_u64);
        let (packets, lost) = (sent.packets[channel.index()], sent.lost[channel.index()]);
        let is_right = told == [Some(packets), Some(lost)] && counts["socket_lost"] == 0;
        (!is_right).then(|| format!("{} {channel}: sent {packets}, lost {lost}, manifest {counts}", sent.id))
    });
    lines.reduce(|all, line| format!("{all}\n{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(loss: f64, jitter: u32) -> Load {
        Load { to: None, calls: 1, seconds: 1, codec: Codec::Opus, loss, jitter, flat_out: true, check: None }
    }

    #[test]
    fn what_is_lost_is_counted_as_a_recorder_can_know_it() {
        let load = load(30.0, 5);
        let mut line = Line::new(7, Wall(1_000_000)).unwrap();
        let frames: Vec<_> =
            (0..1000).map(|n| line.next_frame(&load, Channel::Caller, n, &load.payload(n))).collect();
        let first = frames.iter().position(Option::is_some).unwrap();
        let last = frames.iter().rposition(Option::is_some).unwrap();
        let sent = frames.iter().flatten().count();
        assert!((600..800).contains(&sent), "{sent}");
        assert_eq!(line.sent.packets, [sent as u64, 0]);
        assert_eq!(line.sent.lost, [(last - first + 1 - sent) as u64, 0]);
    }

    #[test]
    fn each_frame_is_one_of_the_protocol_with_an_opus_packet() {
        let load = load(0.0, 0);
        let mut line = Line::new(0, Wall(1_000_000)).unwrap();
        let bytes = line.next_frame(&load, Channel::Ai, 3, &load.payload(3)).unwrap();
        let frame = crate::frame::parse(&bytes).unwrap();
        let rtp = crate::packet::parse_rtp(frame.body).unwrap();
        assert_eq!((rtp.sequence, rtp.timestamp), (3, 2880));
        assert_eq!(crate::opus::packet::shape(rtp.payload).unwrap().samples(), 960);
        assert_eq!(frame.gateway, Some(Wall(1_080_000)));
    }

    #[test]
    fn a_manifest_that_says_something_else_is_told() {
        let sent = Sent { id: "x".to_owned(), packets: [5, 6], lost: [1, 0] };
        let counts = |packets, lost| json!({"packets": packets, "lost": lost, "socket_lost": 0});
        let good = json!({"channels": {"caller": counts(5, 1), "ai": counts(6, 0)}});
        assert_eq!(disagreement(&good, &sent), None);
        let bad = json!({"channels": {"caller": counts(5, 0), "ai": counts(6, 0)}});
        assert!(disagreement(&bad, &sent).unwrap().contains("x caller: sent 5, lost 1"));
        let mut declined = good;
        declined["outcome"] = json!("declined");
        assert!(disagreement(&declined, &sent).unwrap().contains("x: declined"));
    }
}

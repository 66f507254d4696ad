//! Pauses, holds, parts, kills and orderly stops at random moments: nothing that was said in a pause is in any file, and
//! nothing that was promised and not paused is missing.
//!
//! `SIDETAPE_KILLS=500 cargo test --release --test paused_kills` ends the daemon as often as that; `SIDETAPE_KILLS_SEED`
//! repeats the choices of an earlier run. Each payload carries its own time, and is looked for in every file, in the pictures
//! of the recordings, and in excerpts of live calls.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::http::ask;
use rig::media::{SAMPLES_20_MS, Sender, marked_packet};
use rig::place::Place;

/// What the contract allows to be lost of what the daemon had read when it was killed.
const LOSS_MAX: Duration = Duration::from_millis(100);
/// How often the daemon is ended where nobody asks for more, in each of both ways of pausing.
const KILLS: u64 = 10;
const TICK: Duration = Duration::from_millis(20);
const CALLS: usize = 5;
const MARKER: &[u8] = b"own-";
const DIGITS: usize = 16;

/// Numbers that look random and can be had again (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

struct Sent {
    own: u64,
    /// When the daemon had read it for certain.
    read: Option<Instant>,
    /// Whether it is there for certain, unless it was paused; decided when the daemon ended that it was sent to.
    is_promised: Option<bool>,
}

/// A PAUSE or a RESUME.
struct Said {
    kind: u8,
    own: u64,
    /// When the daemon had read it for certain.
    read: Option<Instant>,
}

struct Call {
    id: String,
    senders: [Sender; 2],
    sent: Vec<Sent>,
    said: Vec<Said>,
    paused_from: Option<u64>,
    /// Times that were paused, and the wider ones of which something may be missing for it.
    paused: Vec<(u64, u64)>,
    doubtful: Vec<(u64, u64)>,
    is_held: bool,
    is_ended: bool,
}

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

impl Call {
    fn say(&self, gateway: &mut Gateway, kind: u8, at_us: u64) {
        gateway.send(&frame(kind, WHOLE, at_us, self.id.as_bytes(), b""));
    }

    /// Begins or ends a pause.
    fn tell(&mut self, gateway: &mut Gateway, kind: u8, at_us: u64) {
        self.say(gateway, kind, at_us);
        self.said.push(Said { kind, own: at_us, read: None });
    }

    /// Says again what may have been lost when the daemon ended, and nothing else: all that was promised is for the daemon to
    /// remember.
    fn say_again(&mut self, gateway: &mut Gateway, ended: Instant) {
        let is_new =
            |said: &Said| said.read.is_none_or(|read| ended.saturating_duration_since(read) < LOSS_MAX);
        self.said.retain(is_new);
        for said in &mut self.said {
            gateway.send(&frame(said.kind, WHOLE, said.own, self.id.as_bytes(), b""));
            said.read = None;
        }
    }

    /// A packet on each channel. No two of a process have one time.
    fn speak(&mut self, gateway: &mut Gateway, last_us: &mut u64) {
        for (sender, channel) in self.senders.iter_mut().zip([CALLER, AI]) {
            let own = now_us().max(*last_us + 1);
            *last_us = own;
            let text = format!("own-{own:016} {} {channel}", self.id);
            let packet = sender.packet(&marked_packet(&text), SAMPLES_20_MS);
            gateway.send(&frame(kind::RTP, channel, own, self.id.as_bytes(), &packet.rtp));
            self.sent.push(Sent { own, read: None, is_promised: None });
        }
    }

    /// Listens to the call as it is now: nothing that was paused by then is heard. False if there is no excerpt now.
    fn check_excerpt(&self, place: &Place) -> bool {
        let link = UnixStream::connect(place.root().join("http")).unwrap();
        let (id, to) = (self.id.replace(' ', "%20"), now_us());
        let target = format!("/v1/connections/{id}/audio?from={}&to={to}", to - 2_000_000);
        let answer = ask(link, "GET", &target);
        if answer.status != 200 {
            return false;
        }
        let standing = self.paused_from.map(|from| (from, u64::MAX));
        for own in times_in(&answer.body) {
            let is_in = |(from, to): &(u64, u64)| *from < own && own < *to;
            assert!(
                !self.paused.iter().chain(&standing).any(is_in),
                "{own} of {} was paused and is heard",
                self.id
            );
        }
        true
    }

    fn pause(&mut self, gateway: &mut Gateway, age_us: u64) {
        let from = now_us() - age_us;
        self.paused_from = Some(from);
        self.tell(gateway, kind::PAUSE, from);
    }

    fn resume(&mut self, gateway: &mut Gateway, to: u64) {
        let Some(from) = self.paused_from.take() else { return };
        self.paused.push((from, to));
        self.doubtful.push((from.saturating_sub(1000), now_us() + 5000));
        self.tell(gateway, kind::RESUME, to);
    }

    fn end(&mut self, gateway: &mut Gateway) {
        if let Some(from) = self.paused_from.take() {
            self.paused.push((from, u64::MAX));
            self.doubtful.push((from.saturating_sub(1000), u64::MAX));
        }
        // Perhaps once more: the one before may have been lost in a kill, and one too many is refused.
        if self.is_held {
            self.say(gateway, kind::RELEASE, 0);
        }
        self.say(gateway, kind::END, 0);
        self.is_ended = true;
    }
}

/// One gateway's calls, in one of both ways: parts and pauses of now, or pauses that reach back.
fn run(kills: u64, seed: u64, reaches_back: bool) {
    println!("{kills} ends, SIDETAPE_KILLS_SEED={seed}");
    let mut place = Place::new()
        .with("AUDIO_RESUME_SECS", "20")
        .with("AUDIO_MAX_DURATION_SECS", if reaches_back { "600" } else { "2" })
        .with("AUDIO_KEEP_CHANNELS", "true")
        .with("AUDIO_LOG", "warn,sidetape=info,sidetape::io::ingest=warn,sidetape::io::finish=warn");
    let http = place.root().join("http");
    place.set("AUDIO_HTTP_LISTEN", &format!("unix:{}", http.display()));
    let (mut dice, mut calls, mut opened, mut last_us) = (Dice(seed), Vec::<Call>::new(), 0, 0);
    let (mut ended, mut excerpts) = (Instant::now(), 0);
    for _ in 0..kills {
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        // A gateway that lost its daemon says again what it said last.
        let open = calls.iter_mut().filter(|call| !call.is_ended);
        open.for_each(|call| call.say_again(&mut gateway, ended));
        for _ in 0..3 + dice.below(60) {
            let tick = Instant::now();
            if calls.iter().filter(|call| !call.is_ended).count() < CALLS && dice.once_in(3) {
                opened += 1;
                let id = format!("call {opened}");
                gateway.meta(&id, &json!({ "labels": { "id": id } }));
                let is_held = dice.once_in(2);
                if is_held {
                    gateway.say(kind::HOLD, WHOLE, &id);
                }
                let senders = [Sender::new(1), Sender::new(2)];
                let (sent, said, paused, doubtful) = Default::default();
                let (paused_from, is_ended) = (None, false);
                calls.push(Call {
                    id,
                    senders,
                    sent,
                    said,
                    paused_from,
                    paused,
                    doubtful,
                    is_held,
                    is_ended,
                });
            }
            for call in calls.iter_mut().filter(|call| !call.is_ended) {
                call.speak(&mut gateway, &mut last_us);
                match call.paused_from {
                    None if dice.once_in(15) => {
                        let age_us = if reaches_back && dice.once_in(2) { dice.below(900_000) } else { 0 };
                        call.pause(&mut gateway, age_us);
                    }
                    Some(from) if dice.once_in(10) => {
                        let now = now_us();
                        let is_past = reaches_back && dice.once_in(3) && now > from + 1;
                        let to = if is_past { from + 1 + dice.below(now - from) } else { now };
                        call.resume(&mut gateway, to);
                    }
                    _ if dice.once_in(80) => call.end(&mut gateway),
                    _ => {}
                }
            }
            gateway.sync();
            let read = Some(Instant::now());
            for call in &mut calls {
                call.sent.iter_mut().for_each(|sent| sent.read = sent.read.or(read));
                call.said.iter_mut().for_each(|said| said.read = said.read.or(read));
            }
            for call in calls.iter().filter(|call| !call.is_ended) {
                if dice.once_in(40) {
                    excerpts += u32::from(call.check_excerpt(&place));
                }
            }
            std::thread::sleep(TICK.saturating_sub(tick.elapsed()));
        }
        ended = Instant::now();
        let is_orderly = dice.once_in(4);
        if is_orderly {
            daemon.stop();
        } else {
            daemon.kill();
        }
        for sent in calls.iter_mut().flat_map(|call| &mut call.sent) {
            let is_old = sent.read.is_some_and(|read| ended.saturating_duration_since(read) >= LOSS_MAX);
            sent.is_promised.get_or_insert(is_old || is_orderly && sent.read.is_some());
        }
    }
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    for call in &mut calls {
        call.say_again(&mut gateway, ended);
        call.end(&mut gateway);
    }
    gateway.sync();
    let is_spool = |name: &String| name.contains(".spool");
    rig::wait_for("the spool to be empty", || (!place.spool_files().iter().any(is_spool)).then_some(()));
    daemon.stop();
    for name in place.recordings() {
        let picture = place.root().join("pictures").join(name.replace('/', "_")).with_extension("svg");
        std::fs::create_dir_all(picture.parent().unwrap()).unwrap();
        let recording = place.storage().join(&name);
        let drawn = place.command("inspect").arg(recording).arg("--svg").arg(&picture).output().unwrap();
        assert!(picture.exists(), "{drawn:?}");
    }
    println!("{excerpts} excerpts of live calls");
    assert!(excerpts > 0);
    check(&place, &calls);
}

/// The times of the payloads that are in some bytes.
fn times_in(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let places = bytes.windows(MARKER.len()).enumerate().filter(|(_, window)| *window == MARKER);
    places.filter_map(|(at, _)| {
        let digits = bytes.get(at + MARKER.len()..at + MARKER.len() + DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

/// The times of the payloads that are in any file.
fn times(place: &Place) -> HashSet<u64> {
    let mut found = HashSet::new();
    for file in place.files() {
        let Ok(bytes) = std::fs::read(place.root().join(file)) else { continue };
        found.extend(times_in(&bytes));
    }
    found
}

fn check(place: &Place, calls: &[Call]) {
    let found = times(place);
    let (mut paused, mut promised, mut kept) = (0, 0, 0);
    for call in calls {
        for sent in &call.sent {
            let is_in =
                |times: &[(u64, u64)]| times.iter().any(|(from, to)| *from < sent.own && sent.own < *to);
            let is_there = found.contains(&sent.own);
            kept += u64::from(is_there);
            if is_in(&call.paused) {
                paused += 1;
                assert!(!is_there, "{} of {} was paused and is there: {:?}", sent.own, call.id, call.paused);
            } else if sent.is_promised == Some(true) && !is_in(&call.doubtful) {
                promised += 1;
                assert!(is_there, "{} of {} is missing, paused {:?}", sent.own, call.id, call.paused);
            }
        }
    }
    println!("{} calls: {paused} packets paused, {promised} promised, {kept} kept", calls.len());
    assert!(paused > 20 && promised > 100 && kept >= promised, "the load was none");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn parts_holds_kills_and_stops_forget_no_pause() {
    let kills = number("SIDETAPE_KILLS").unwrap_or(KILLS);
    run(kills, number("SIDETAPE_KILLS_SEED").unwrap_or_else(now_us), false);
}

#[test]
fn kills_and_stops_keep_nothing_that_a_later_pause_takes_out() {
    let kills = number("SIDETAPE_KILLS").unwrap_or(KILLS);
    run(kills, number("SIDETAPE_KILLS_SEED").unwrap_or_else(now_us), true);
}

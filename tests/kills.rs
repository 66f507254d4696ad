//! Killed at random moments, again and again, under load on all three sockets: nothing that was promised is missing.
//!
//! `SIDETAPE_KILLS=500 cargo test --release --test kills` kills as often as that; `SIDETAPE_KILLS_SEED` repeats the
//! choices of an earlier run, though not the moments at which the system schedules whom.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, SOCKETS, Socket, WHOLE, frame, kind};
use rig::judges::{check_form, judge};
use rig::media::{SAMPLES_20_MS, SPEECH, START_US, Sender, marked_packet, voice};
use rig::place::Place;
use rig::recording::{Recording, Sound, peak, sounds_in, sounds_of};

/// What the contract allows to be lost of what the daemon had read when it was killed.
const LOSS_MAX: Duration = Duration::from_millis(100);
/// How many kills there are where nobody asks for more.
const KILLS: u64 = 20;
/// How long a call waits for its gateway after a restart.
const RESUME: Duration = Duration::from_secs(2);
/// Calls of one gateway at once.
const CALLS: usize = 8;
/// One packet of each channel in so long.
const TICK: Duration = Duration::from_millis(20);
/// A thread that wanted to sleep for 2 ms and slept for longer than this shows that the machine stood still.
const STALL: Duration = Duration::from_millis(20);
const OUTCOMES: [&str; 6] = ["ok", "degraded", "recovered", "stale", "absent", "failed"];

/// Numbers that look random and can be had again (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A packet that was sent, and what became of it.
struct Noted {
    payload: Vec<u8>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Not answered for yet.
    Sent,
    /// The daemon that runs now had certainly read it by then.
    Read(Instant),
    /// A daemon had read it long enough before it was killed.
    Promised,
    /// A daemon was killed too soon after it was sent, or so soon after it had certainly read it: it may be there or not.
    Unknown(Option<Duration>),
}

/// A call as its gateway knows it.
struct Call {
    id: String,
    senders: [Sender; 2],
    sent: [Vec<Noted>; 2],
    /// When the next packets are due.
    due: Instant,
    /// Its END was sent.
    is_ended: bool,
    /// Its gateway has given it up after a kill.
    is_left: bool,
    /// Nothing more will be sent about it.
    is_over: bool,
}

impl Call {
    fn new(id: String) -> Self {
        let sender = |ssrc| Sender { at_us: now_us(), ..Sender::new(ssrc) };
        let (senders, sent) = ([sender(1), sender(2)], [Vec::new(), Vec::new()]);
        Self { id, senders, sent, due: Instant::now(), is_ended: false, is_left: false, is_over: false }
    }

    fn goes_on(&self) -> bool {
        !self.is_ended && !self.is_left
    }

    fn is_promised(&self) -> bool {
        self.sent.iter().flatten().any(|noted| noted.fate == Fate::Promised)
    }

    /// Sends what is due. What would have been due while there was no daemon is lost.
    fn play(&mut self, gateway: &mut Gateway) -> io::Result<()> {
        while self.due <= Instant::now() {
            let is_lost = self.due.elapsed() > TICK * 5;
            for (channel, sender) in self.senders.iter_mut().enumerate() {
                if is_lost {
                    sender.skip_packet(SAMPLES_20_MS);
                    continue;
                }
                let number = self.sent[channel].len();
                let payload = marked_packet(&format!("{} on channel {channel}, packet {number:06}", self.id));
                let packet = sender.packet(&payload, SAMPLES_20_MS);
                self.sent[channel].push(Noted { payload, fate: Fate::Sent });
                let channel = [CALLER, AI][channel];
                gateway.try_write(&frame(
                    kind::RTP,
                    channel,
                    packet.at_us,
                    self.id.as_bytes(),
                    &packet.rtp,
                ))?;
            }
            self.due += TICK;
        }
        Ok(())
    }

    fn end(&mut self, gateway: &mut Gateway) -> io::Result<()> {
        self.is_ended = true;
        gateway.try_write(&frame(kind::END, WHOLE, 0, self.id.as_bytes(), b""))
    }
}

fn now_us() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// The end of a daemon.
struct Killed {
    at: Instant,
    /// When the machine stood still, and for how long. A daemon that is not let run keeps no promise.
    stalls: Vec<(Instant, Duration)>,
}

impl Killed {
    /// How long before the kill something was, without the time in which the machine stood still.
    fn time_since(&self, then: Instant) -> Duration {
        let time = self.at.saturating_duration_since(then);
        let stalled =
            self.stalls.iter().filter(|(from, length)| *from + *length > then).map(|(_, length)| *length);
        time.saturating_sub(stalled.sum())
    }
}

/// One gateway: its socket, its calls, its dice.
struct Load {
    socket: Socket,
    dice: Dice,
    calls: Vec<Call>,
    /// Those about which nothing more is sent.
    done: Vec<Call>,
    opened: usize,
}

impl Load {
    /// Calls come and go until the daemon is killed, which ends in an error or in `is_killed`.
    fn run(&mut self, mut gateway: Gateway, is_killed: &AtomicBool) -> io::Result<()> {
        // A gateway that lost its daemon goes on with its calls, gives some up, and ends again what it has ended.
        for call in &mut self.calls {
            if call.goes_on() {
                call.is_left = self.dice.once_in(4);
            } else if call.is_ended && !call.is_left && self.dice.once_in(2) {
                call.end(&mut gateway)?;
            }
            call.is_over = !call.goes_on();
        }
        while !is_killed.load(Ordering::Acquire) {
            let tick = Instant::now();
            let live = self.calls.iter().filter(|call| call.goes_on()).count();
            if live < CALLS && self.dice.once_in(2) {
                self.opened += 1;
                let mut call = Call::new(format!("{:?} {}", self.socket, self.opened));
                let meta = json!({ "labels": { "id": call.id } }).to_string();
                gateway.try_write(&frame(kind::META, WHOLE, 0, call.id.as_bytes(), meta.as_bytes()))?;
                let played = call.play(&mut gateway);
                self.calls.push(call);
                played?;
            }
            for call in self.calls.iter_mut().filter(|call| call.goes_on()) {
                call.play(&mut gateway)?;
                if self.dice.once_in(60) {
                    call.end(&mut gateway)?;
                }
            }
            gateway.try_sync(is_killed)?;
            let now = Instant::now();
            for noted in self.noted().filter(|noted| noted.fate == Fate::Sent) {
                noted.fate = Fate::Read(now);
            }
            std::thread::sleep(TICK.saturating_sub(tick.elapsed()));
        }
        Ok(())
    }

    /// Decides what is promised, now that the daemon was killed.
    fn settle(&mut self, killed: &Killed) {
        for noted in self.noted() {
            noted.fate = match noted.fate {
                Fate::Read(read) if killed.time_since(read) >= LOSS_MAX => Fate::Promised,
                Fate::Read(read) => Fate::Unknown(Some(killed.time_since(read))),
                Fate::Sent => Fate::Unknown(None),
                settled => settled,
            };
        }
        let (over, calls) = std::mem::take(&mut self.calls).into_iter().partition(|call| call.is_over);
        self.calls = calls;
        self.done.extend::<Vec<Call>>(over);
    }

    fn noted(&mut self) -> impl Iterator<Item = &mut Noted> {
        self.calls.iter_mut().flat_map(|call| call.sent.iter_mut().flatten())
    }
}

#[test]
fn killed_at_random_moments_under_load_it_keeps_its_promises() {
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().unwrap());
    let kills = number("SIDETAPE_KILLS").unwrap_or(KILLS);
    let seed = number("SIDETAPE_KILLS_SEED").unwrap_or_else(now_us);
    println!("{kills} kills, SIDETAPE_KILLS_SEED={seed}");
    let place = Place::new()
        .with("AUDIO_RESUME_SECS", &RESUME.as_secs().to_string())
        .with("AUDIO_LOG", "warn,sidetape=info,sidetape::io::ingest=warn,sidetape::io::finish=warn");
    let mut dice = Dice(seed);
    let load =
        |socket| Load { socket, dice: Dice(dice.next()), calls: Vec::new(), done: Vec::new(), opened: 0 };
    let mut loads = SOCKETS.map(load);
    let mut stalls = 0;
    for kill in 1..=kills {
        // Now and then long enough for the calls that were given up to be finished.
        let life_ms = if kill % 10 == 0 { 2500 + dice.below(500) } else { 20 + dice.below(800) };
        let daemon = Daemon::start(&place);
        let is_killed = AtomicBool::new(false);
        let killed = std::thread::scope(|scope| {
            for load in &mut loads {
                let (gateway, is_killed) = (Gateway::connect(&place, &daemon, load.socket), &is_killed);
                scope.spawn(move || {
                    let ended = load.run(gateway, is_killed);
                    // Nothing but the kill may end it.
                    rig::wait_for("the kill", || is_killed.load(Ordering::Acquire).then_some(()));
                    drop(ended);
                });
            }
            let stalls = watch(Duration::from_millis(life_ms));
            let killed = Instant::now();
            daemon.kill();
            is_killed.store(true, Ordering::Release);
            Killed { at: killed, stalls }
        });
        stalls += killed.stalls.len();
        for load in &mut loads {
            load.settle(&killed);
        }
    }

    let daemon = Daemon::start(&place);
    for load in &mut loads {
        let mut gateway = Gateway::connect(&place, &daemon, load.socket);
        for call in load.calls.iter_mut().filter(|call| call.goes_on()) {
            if !load.dice.once_in(4) {
                call.play(&mut gateway).unwrap();
                call.end(&mut gateway).unwrap();
            }
        }
        gateway.sync();
    }
    rig::wait_for("the spool to be empty", || {
        place.files().iter().all(|file| file.extension().is_none_or(|e| e != "spool")).then_some(())
    });
    daemon.stop();
    println!("the machine stood still {stalls} times");
    check(&place, &loads);
}

/// Sleeps for so long, and notes when the machine stood still meanwhile: from when, and for how long.
fn watch(time: Duration) -> Vec<(Instant, Duration)> {
    let end = Instant::now() + time;
    let mut stalls = Vec::new();
    loop {
        let before = Instant::now();
        if before >= end {
            return stalls;
        }
        std::thread::sleep(Duration::from_millis(2).min(end - before));
        if before.elapsed() > STALL {
            stalls.push((before, before.elapsed()));
        }
    }
}

/// Checks what is there at the end against what was sent.
fn check(place: &Place, loads: &[Load; 3]) {
    let manifests = place.manifests();
    let mut by_id: HashMap<&str, Vec<&Value>> = HashMap::new();
    for manifest in &manifests {
        by_id.entry(manifest["connection_id"].as_str().unwrap()).or_default().push(manifest);
    }
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut opened, mut promised, mut kept, mut lost) = (0, 0, 0, Duration::ZERO);
    for (number, call) in loads.iter().flat_map(|load| load.done.iter().chain(&load.calls)).enumerate() {
        opened += 1;
        let found = by_id.remove(call.id.as_str()).unwrap_or_default();
        let (true, [manifest]) = (found.len() < 2, found.as_slice()) else {
            assert!(found.is_empty(), "{} ended in {} recordings: {found:#?}", call.id, found.len());
            assert!(!call.is_promised(), "{} is lost", call.id);
            continue;
        };
        let outcome = manifest["outcome"].as_str().unwrap();
        assert!(OUTCOMES.contains(&outcome), "{manifest}");
        *outcomes
            .entry(OUTCOMES[OUTCOMES.iter().position(|known| *known == outcome).unwrap()])
            .or_default() += 1;
        if outcome == "absent" {
            assert!(!call.is_promised(), "{} has lost its audio", call.id);
            continue;
        }
        // The META frame was sent in front of the first packet.
        if call.sent[0].first().is_some_and(|first| first.fate == Fate::Promised) {
            assert_eq!(manifest["labels"]["id"], call.id, "{manifest}");
        }
        let path = place.path_of(manifest);
        let recording = Recording::read(&path);
        recording.check(&path, manifest);
        match number % 100 {
            0 => judge(&path),
            n if n % 20 == 0 => check_form(&path),
            _ => {}
        }
        for (channel, sent) in call.sent.iter().enumerate() {
            promised += sent.iter().filter(|noted| noted.fate == Fate::Promised).count();
            let sounds = recording.sounds(channel);
            kept += sounds.len();
            lost = lost.max(find_in_order(manifest, sent, &sounds));
        }
    }
    println!("{opened} connections, {outcomes:?}; {promised} packets promised, {kept} kept");
    println!("the oldest packet that was read and lost had been read {lost:?} before a kill, at least");
    assert!(by_id.is_empty(), "recordings of nothing: {:?}", by_id.keys());
    assert!(opened > 20 && promised > 100, "the load was none: {opened} connections");
    assert_eq!(place.recordings().len(), manifests.len() - outcomes.get("absent").unwrap_or(&0));
    let left: Vec<_> = place
        .files()
        .into_iter()
        .filter(|file| {
            file.extension().is_none_or(|e| e != "opus" && e != "json")
                || file.to_str().unwrap().contains(".spool")
        })
        .collect();
    let is_of_spool = |file: &&std::path::PathBuf| !file.ends_with("lock") && !file.ends_with("ended");
    assert_eq!(
        left.iter().find(is_of_spool),
        None,
        "nothing but the lock of the spool and its notes is left"
    );
}

/// Checks that `heard` is what was sent, in order, without any of what was promised missing. Returns how long before a
/// kill the oldest of what is missing had been read.
fn find_in_order(manifest: &Value, sent: &[Noted], heard: &[Sound]) -> Duration {
    let mut rest = heard.iter();
    let mut next = rest.next();
    let (mut missing, mut oldest) = (Vec::new(), Duration::ZERO);
    for noted in sent {
        if next == sounds_of(&noted.payload).first() {
            next = rest.next();
            continue;
        }
        match noted.fate {
            Fate::Promised => missing.push(String::from_utf8_lossy(&noted.payload[1..])),
            Fate::Unknown(Some(age)) => oldest = oldest.max(age),
            _ => {}
        }
    }
    assert!(missing.is_empty(), "{missing:#?} of {} were read and are missing in {manifest:#}", sent.len());
    assert!(next.is_none(), "{next:?} was never sent, or not in this order: {manifest:#}");
    oldest
}

#[test]
fn references_holds_metadata_pauses_and_marks_outlive_a_kill_in_mid_call() {
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let id = "goes on";
    // PCMU unless META says otherwise, and says it still after the kill.
    let opus = |ssrc| Sender { payload_type: 0, ..Sender::new(ssrc) };
    let voices = [voice(SPEECH, 150.0, 160), voice(SPEECH, 210.0, 160)];
    let [caller, ai] = [opus(1).packets(&voices[0]), opus(2).packets(&voices[1])];
    let at = |packet: u64| START_US + packet * 20_000;
    let mark = |packet, name: &str| {
        let body = json!({ "name": name, "of": { "any": "kind" } }).to_string();
        frame(kind::MARK, AI, at(packet), id.as_bytes(), body.as_bytes())
    };

    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::Udp);
    let types = json!({ "0": "opus/48000/2" });
    gateway.meta(
        id,
        &json!({ "payload_types": types, "conversation_id": "c/7", "labels": { "a": "1" }, "x": 1 }),
    );
    gateway.say(kind::HOLD, WHOLE, id);
    gateway.play_both(id, &caller[..50], &ai[..50]);
    gateway.send(&mark(25, "before"));
    gateway.say_at(kind::PAUSE, CALLER, at(50), id);
    gateway.play_both(id, &caller[50..60], &ai[50..60]);
    gateway.say(kind::END, CALLER, id);
    gateway.send(&mark(59, "the last before the kill"));
    gateway.sync();
    rig::wait_for("the spool to have it all", || {
        place.spool_holds(b"the last before the kill").then_some(())
    });
    daemon.kill();

    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play_both(id, &caller[110..120], &ai[110..120]);
    gateway.say_at(kind::RESUME, CALLER, at(120), id);
    gateway.play_both(id, &caller[120..], &ai[120..]);
    gateway.send(&mark(130, "after"));
    gateway.meta(id, &json!({ "labels": { "b": "2" } }));
    gateway.say(kind::END, AI, id);
    // The hold keeps it open for longer than any linger: another call begins, ends and is published meanwhile.
    gateway.play("another", CALLER, &Sender::new(1).packets(&voices[0][..5]));
    gateway.end("another");
    place.manifest("another");
    assert_eq!(place.manifests_of(id).len(), 0, "the hold was forgotten");
    gateway.say(kind::RELEASE, WHOLE, id);
    gateway.sync();

    let (manifest, recording) = place.recording(id);
    assert_eq!(manifest["outcome"], "recovered", "{manifest}");
    assert_eq!(manifest["conversation_id"], "c/7");
    assert_eq!(manifest["file"]["key"], "conversation_c_7_merged.opus");
    assert_eq!(manifest["labels"], json!({ "a": "1", "b": "2" }));
    assert_eq!(manifest["meta"], json!({ "x": 1 }));
    assert_eq!(
        manifest["paused"],
        json!([{ "channel": "caller", "from_ms": 1000, "to_ms": 2400 }]),
        "{manifest}"
    );
    let marks = manifest["marks"].as_array().unwrap();
    let marks: Vec<_> = marks
        .iter()
        .map(|mark| (mark["name"].as_str().unwrap(), mark["offset_ms"].as_u64().unwrap()))
        .collect();
    assert_eq!(marks, [("before", 500), ("the last before the kill", 1180), ("after", 2600)]);
    assert_eq!(manifest["marks"][2]["of"], json!({ "any": "kind" }));

    assert!(recording.sounds(0) == sounds_in(&[&voices[0][..50], &voices[0][120..]].concat()));
    assert!(recording.sounds(1) == sounds_in(&[&voices[1][..60], &voices[1][110..]].concat()));
    let starts: Vec<u64> = recording.heard(1).map(|placed| placed.at / 48).collect();
    assert_eq!((starts[59], starts[60]), (1180, 2200), "the outage takes its time");
    let [caller, ai] = recording.decode();
    assert!(peak(&ai, 48 * 1500..48 * 2150) < 0.01, "the outage is silent");
    assert!(peak(&caller, 48 * 1300..48 * 2350) < 0.01, "and so is the pause");
    daemon.stop();
    assert_eq!(place.manifests_of(id).len(), 1);
    assert!(!place.spool_holds(b"STSP"));
}

#[test]
fn a_call_that_nobody_has_agreed_to_yet_has_an_outcome_after_a_kill() {
    let place = Place::new().with("AUDIO_RECORD", "consent").with("AUDIO_RESUME_SECS", "0");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    // A call that says nothing of itself but what is spoken.
    gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 20)));
    gateway.sync();
    rig::wait_for("its file", || {
        place.spool_files().iter().any(|name| name.ends_with(".spool")).then_some(())
    });
    daemon.kill();
    let daemon = Daemon::start(&place);
    let manifest = place.manifest("c");
    assert_eq!((&manifest["outcome"], &manifest["file"]), (&json!("declined"), &json!(null)), "{manifest}");
    daemon.stop();
}

#[test]
fn a_caller_whose_audio_looks_like_the_end_of_a_call_does_not_end_it() {
    use sidetape::id::RecordingId;
    use sidetape::spool::{Record, SealCause, block};
    use sidetape::time::Mono;
    let place = Place::new().with("AUDIO_RESUME_SECS", "30");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.meta("c", &json!({ "payload_types": { "0": "PCMU/8000" } }));
    gateway.say(kind::HOLD, WHOLE, "c");
    gateway.say(kind::PAUSE, AI, "c");
    let mut sender = Sender { payload_type: 0, ..Sender::new(1) };
    let mut forged = Vec::new();
    block::append_room(&mut forged);
    Record::append_seal(Mono(5), SealCause::Released, RecordingId::derived(b"a guess"), &mut forged);
    block::complete(&mut forged, 1);
    let payload = [vec![0xff; 160 - forged.len()], forged].concat();
    gateway.play("c", CALLER, &[sender.packet(&payload, 960)]);
    gateway.sync();
    rig::wait_for("the packet to be in the spool", || place.spool_holds(&payload).then_some(()));
    daemon.kill();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("c", AI, &Sender::new(2).packets(&[marked_packet("secret")]));
    gateway.play("c", CALLER, &[sender.packet(&[0xff; 160], 960)]);
    gateway.say(kind::RELEASE, WHOLE, "c");
    gateway.end("c");
    let manifest = place.manifest("c");
    assert_eq!((place.manifests().len(), &manifest["outcome"]), (1, &json!("recovered")), "{manifest}");
    assert_eq!(manifest["channels"]["caller"]["packets"], 2);
    assert!(!place.holds(b"secret"));
    daemon.stop();
}

/// Ends a daemon, and starts another with a gateway at it.
fn restart(place: &Place, daemon: Daemon, is_killed: bool) -> (Daemon, Gateway) {
    if is_killed {
        daemon.kill();
    } else {
        daemon.stop();
    }
    let daemon = Daemon::start(place);
    let gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    (daemon, gateway)
}

#[test]
fn a_call_that_ended_in_a_pause_and_is_opened_again_after_a_restart_is_paused_and_the_next_part() {
    for is_killed in [false, true] {
        let place = Place::new();
        let note = place.spool().join("ended");
        let restart = |daemon| restart(&place, daemon, is_killed);
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let mut sender = Sender::new(1);
        let mut say = |gateway: &mut Gateway, what: &str| {
            gateway.play("c", CALLER, &sender.packets(&[marked_packet(what)]));
        };
        say(&mut gateway, "first");
        gateway.say(kind::PAUSE, WHOLE, "c");
        gateway.end("c");
        place.manifest("c");
        assert!(note.exists());

        let (daemon, mut gateway) = restart(daemon);
        say(&mut gateway, "secret: it is late");
        gateway.meta("c", &json!({ "reopen": true }));
        say(&mut gateway, "secret: it is paused");
        gateway.end("c");
        let parts = |count| {
            rig::wait_for("its parts", || {
                let part = |found: &Value| found["part"].as_u64().unwrap_or(1);
                let mut parts: Vec<_> = place.manifests_of("c").iter().map(part).collect();
                parts.sort_unstable();
                (parts.len() == count).then_some(parts)
            })
        };
        assert_eq!(parts(2), [1, 2]);

        // It ends another time while it is open again, and then without a pause.
        let (daemon, mut gateway) = restart(daemon);
        gateway.meta("c", &json!({ "reopen": true }));
        say(&mut gateway, "secret: it still is");
        gateway.sync();
        rig::wait_for("its file", || place.spool_files().first().cloned());
        let (daemon, mut gateway) = restart(daemon);
        say(&mut gateway, "secret: and still");
        gateway.say(kind::RESUME, WHOLE, "c");
        say(&mut gateway, "public");
        gateway.end("c");
        assert_eq!(parts(3), [1, 2, 3]);
        let noted = std::fs::read_to_string(&note).unwrap();
        let last: Value = serde_json::from_str(noted.lines().last().unwrap()).unwrap();
        assert_eq!(last["state"], Value::Null, "nothing stands any more: {noted}");
        daemon.stop();
        assert!(!place.holds(b"secret") && place.holds(b"public"));
    }
}

#[test]
fn what_comes_within_a_minute_of_the_end_is_late_after_a_restart_too() {
    for is_killed in [false, true] {
        let place = Place::new();
        let restart = |daemon| restart(&place, daemon, is_killed);
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        let [mut sender, mut other] = [Sender::new(1), Sender::new(2)];
        gateway.play("c", CALLER, &sender.packets(&voice(SPEECH, 150.0, 20)));
        gateway.end("c");
        place.manifest("c");
        // This one ends at the same moment as the daemon.
        gateway.play("d", CALLER, &other.packets(&voice(SPEECH, 150.0, 20)));
        gateway.end("d");
        gateway.sync();
        rig::wait_for("its end to be in the spool", || place.spool_files().first().cloned());
        std::thread::sleep(Duration::from_millis(150));

        let mut daemon = daemon;
        for _ in 0..2 {
            (daemon, gateway) = restart(daemon);
            place.manifest("d");
            for (id, sender) in [("c", &mut sender), ("d", &mut other)] {
                gateway.play(id, CALLER, &sender.packets(&[marked_packet("too late")]));
                gateway.meta(id, &json!({ "conversation_id": "late" }));
            }
            gateway.sync();
        }
        gateway.meta("c", &json!({ "reopen": true }));
        gateway.play("c", CALLER, &sender.packets(&[marked_packet("another")]));
        gateway.end("c");
        let part = rig::wait_for("the next part", || {
            let parts = place.manifests_of("c");
            (parts.len() == 2).then(|| parts.iter().find_map(|found| found["part"].as_u64()))
        });
        assert_eq!(part, Some(2));
        let log = daemon.stop();
        assert!(log.contains("late=4"), "a packet and a META of each: {log}");
        assert_eq!(place.manifests().len(), 3);
        assert!(place.holds(b"another") && !place.holds(b"too late"));
    }
}

#[test]
fn a_call_that_nobody_has_ended_goes_on_at_once_after_a_stop_that_finishes_it() {
    let place = Place::new().with("AUDIO_ON_STOP", "finish");
    let mut sender = Sender::new(1);
    for (count, what) in [(1, "secret"), (2, "secret too")] {
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("c", CALLER, &sender.packets(&[marked_packet("said")]));
        gateway.say(kind::PAUSE, WHOLE, "c");
        gateway.play("c", CALLER, &sender.packets(&[marked_packet(what)]));
        gateway.sync();
        daemon.stop();
        rig::wait_for("its recordings", || (place.manifests_of("c").len() == count).then_some(()));
    }
    assert!(!place.holds(b"secret"));
}

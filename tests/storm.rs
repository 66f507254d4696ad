//! A bad day: a store of whose requests three in ten fail in every way there is, and a daemon that is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(feature = "gcs")]

mod rig;

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use rig::daemon::Daemon;
use rig::gateway::{CALLER, Gateway, Socket};
use rig::gcs::Gcs;
use rig::media::{SPEECH, Sender, voice};
use rig::place::Place;
use rig::proxy::{Fault, Proxy};
use rig::recording::{Recording, sounds_in};

/// Kills, spread over the recordings.
const KILLS: usize = 5;
/// What was sent is on disk by then (promise 1 of the contract).
const ON_DISK: Duration = Duration::from_millis(150);
/// How long the last recordings may take: the longest wait between two attempts is a minute.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn every_recording_gets_there_once_and_whole() {
    // A thousand are `SIDETAPE_STORM=1000`, best with --release.
    let count: usize = std::env::var("SIDETAPE_STORM").map_or(60, |text| text.parse().unwrap());
    let gcs = Gcs::start("calls");
    let proxy = Proxy::start(gcs.address());
    let mut place = Place::new().with("AUDIO_STORAGE_TYPE", "gcs").with("AUDIO_STORAGE_PATH", "calls/day");
    place.set("STORAGE_EMULATOR_HOST", &proxy.address().to_string());
    place.set("AUDIO_RESUME_SECS", "0");
    place.set("AUDIO_LOG", "warn,sidetape=info");
    // Eleven kinds of faults share three tenths.
    proxy.set_all(0.3 / 11.0);
    assert_eq!(Fault::ALL.len(), 11);
    let payloads = voice(SPEECH, 150.0, 60);
    let begun = Instant::now();
    let mut daemon = Daemon::start(&place);
    for batch in 0..=KILLS {
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        for n in (0..count).filter(|n| n % (KILLS + 1) == batch) {
            let id = format!("call-{n}");
            gateway.play(&id, CALLER, &Sender::new(1).packets(&payloads[..10 + n % 50]));
            gateway.end(&id);
        }
        if batch < KILLS {
            std::thread::sleep(ON_DISK);
            daemon.kill();
            daemon = Daemon::start(&place);
        }
    }
    let spools = || {
        let entries = std::fs::read_dir(place.spool()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains(".spool"))
            .count()
    };
    let deadline = Instant::now() + PATIENCE;
    while spools() > 0 {
        assert!(Instant::now() < deadline, "{} spool files are left", spools());
        std::thread::sleep(Duration::from_millis(100));
    }
    let faults = proxy.injected_in_all();
    println!(
        "{count} recordings, {KILLS} kills, {faults} faults in {} requests, {:.0} s",
        proxy.requests(),
        begun.elapsed().as_secs_f64()
    );
    assert!(faults > count as u64 / 4, "{faults} faults are no storm");
    assert_eq!(gcs.names().len(), 2 * count, "audio and manifest of each, and nothing else");
    for n in 0..count {
        let name = |ending: &str| format!("day/conversation_call-{n}_merged.{ending}");
        let (audio, manifest) = (gcs.object(&name("opus")).unwrap(), gcs.object(&name("json")).unwrap());
        assert_eq!((gcs.times_stored(&name("opus")), gcs.times_stored(&name("json"))), (1, 1), "call {n}");
        let manifest: Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let sum: String = Sha256::digest(&audio.bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(manifest["file"]["sha256"], sum, "call {n}");
        assert_eq!(manifest["connection_id"], format!("call-{n}"));
        if n % 20 == 0 {
            let path = place.root().join("fetched.opus");
            std::fs::write(&path, &audio.bytes).unwrap();
            assert!(Recording::read(&path).sounds(0) == sounds_in(&payloads[..10 + n % 50]), "call {n}");
        }
    }
    daemon.stop();
}

//! A bad day: a store of whose requests three in ten fail in every way there is, and a daemon that is killed meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(feature = "gcs", feature = "s3", feature = "azure"))]

mod rig;

use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use rig::cloud::Cloud;
use rig::daemon::Daemon;
use rig::gateway::{CALLER, Gateway, Socket};
use rig::media::{SPEECH, Sender, voice};
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
    // Each has its own bad day, at the same time: most of it is waiting.
    std::thread::scope(|scope| {
        for cloud in Cloud::all() {
            scope.spawn(move || bad_day(&cloud, count));
        }
    });
}

fn bad_day(cloud: &Cloud, count: usize) {
    let proxy = Proxy::start(cloud.address());
    let mut place = cloud.place_at(proxy.address());
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
    let deadline = Instant::now() + PATIENCE;
    while !place.spool_files().is_empty() {
        assert!(Instant::now() < deadline, "{}: {:?} are left", cloud.name(), place.spool_files());
        std::thread::sleep(Duration::from_millis(100));
    }
    let faults = proxy.injected_in_all();
    println!(
        "{}: {count} recordings, {KILLS} kills, {faults} faults in {} requests, {:.0} s",
        cloud.name(),
        proxy.requests(),
        begun.elapsed().as_secs_f64()
    );
    assert!(faults > count as u64 / 4, "{faults} faults are no storm");
    assert_eq!(cloud.names().len(), 2 * count, "audio and manifest of each, and nothing else");
    for n in 0..count {
        let name = |ending: &str| format!("conversation_call-{n}_merged.{ending}");
        let (audio, manifest) = (cloud.object(&name("opus")).unwrap(), cloud.object(&name("json")).unwrap());
        if let Cloud::Gcs(gcs) = cloud {
            let times = |ending| gcs.times_stored(&format!("pre fix/{}", name(ending)));
            assert_eq!((times("opus"), times("json")), (1, 1), "call {n}");
        }
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

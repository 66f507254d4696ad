//! A store that is down for as long as it takes: calls go on being recorded, and nothing grows but the spool.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(feature = "gcs", feature = "s3", feature = "azure"))]

mod rig;

use std::time::{Duration, Instant};

use serde_json::Value;

use rig::cloud::Cloud;
use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::media::{SPEECH, Sender, voice};
use rig::proxy::Proxy;
use rig::recording::{Recording, sounds_in};

/// Calls that end in a second.
const CALLS_A_SECOND: usize = 40;
/// A connection is remembered for a minute after its end. What that takes for each, as measured without a store, is no
/// growth of the outage.
const REMEMBERED_BYTES: u64 = 2048;
/// What an allocator may add by chance.
const SLACK_KIB: u64 = 4 * 1024;
/// Sockets and files of what is just being tried, more or fewer.
const SLACK_DESCRIPTORS: usize = 24;
/// How long everything may take to be published when the store is back.
const PATIENCE: Duration = Duration::from_secs(900);

#[test]
fn a_store_that_is_down_costs_the_spool_and_nothing_else() {
    // An hour in which a call ends each second is `SIDETAPE_OUTAGE_SECS=90`.
    let seconds: usize = std::env::var("SIDETAPE_OUTAGE_SECS").map_or(20, |text| text.parse().unwrap());
    std::thread::scope(|scope| {
        for cloud in Cloud::all() {
            scope.spawn(move || outage(&cloud, seconds));
        }
    });
}

fn outage(cloud: &Cloud, seconds: usize) {
    let proxy = Proxy::start(cloud.address());
    let place = cloud.place_at(proxy.address()).with("AUDIO_LOG", "warn,sidetape=info");
    proxy.down();
    let daemon = Daemon::start(&place);
    let payloads = voice(SPEECH, 150.0, 50);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let (begun, count) = (Instant::now(), seconds * CALLS_A_SECOND);
    let mut samples = Vec::new();
    for second in 0..seconds {
        for n in second * CALLS_A_SECOND..(second + 1) * CALLS_A_SECOND {
            let id = format!("call-{n}");
            gateway.play(&id, CALLER, &Sender::new(1).packets(&payloads));
            gateway.play(&id, AI, &Sender::new(2).packets(&payloads[..25]));
            gateway.end(&id);
        }
        gateway.sync();
        samples.push((second, daemon.memory_kib(), daemon.descriptors()));
        std::thread::sleep(Duration::from_secs(second as u64 + 1).saturating_sub(begun.elapsed()));
    }
    // The outbox is full after a quarter. From then on one quarter should be like the next two.
    let most = |range: std::ops::Range<usize>| {
        let samples = &samples[range];
        (samples.iter().map(|s| s.1).max().unwrap(), samples.iter().map(|s| s.2).max().unwrap())
    };
    let (quarter, half) = (seconds / 4, seconds / 2);
    let ((memory, descriptors), (later_memory, later_descriptors)) =
        (most(quarter..half), most(half..seconds));
    println!(
        "{}: {count} calls in {:.0} s; in the second quarter at most {memory} KiB and {descriptors} descriptors, in the second half {later_memory} and {later_descriptors}",
        cloud.name(),
        begun.elapsed().as_secs_f64(),
    );
    let remembered = (half * CALLS_A_SECOND) as u64 * REMEMBERED_BYTES / 1024;
    assert!(later_memory <= memory + remembered + SLACK_KIB, "{samples:?}");
    assert!(later_descriptors <= descriptors + SLACK_DESCRIPTORS, "{samples:?}");
    assert!(cloud.names().is_empty());

    proxy.up();
    let back = Instant::now();
    while !place.spool_files().is_empty() {
        assert!(back.elapsed() < PATIENCE, "{} spool files are left", place.spool_files().len());
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}: all there {:.0} s later", cloud.name(), back.elapsed().as_secs_f64());
    assert_eq!(cloud.names().len(), 2 * count, "audio and manifest of each, and nothing else");
    for n in 0..count {
        let object = cloud.object(&format!("conversation_call-{n}_merged.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&object.bytes).unwrap();
        assert_eq!(manifest["outcome"], "ok", "{manifest}");
        let packets =
            [&manifest["channels"]["caller"], &manifest["channels"]["ai"]].map(|c| c["packets"].as_u64());
        assert_eq!(packets, [Some(50), Some(25)], "{manifest}");
    }
    let audio = cloud.object("conversation_call-7_merged.opus").unwrap();
    let path = place.root().join("fetched.opus");
    std::fs::write(&path, &audio.bytes).unwrap();
    assert!(Recording::read(&path).sounds(0) == sounds_in(&payloads));
    let log = daemon.stop();
    assert!(!log.contains("frames dropped"), "{log}");
}

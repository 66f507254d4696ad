//! Cloud stores: what is recorded gets there once, whole and described, whatever happens on the way.
//!
//! S3 is moto's, Azure is Azurite's, each where it is installed; Google Cloud Storage is the rig's own server.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(feature = "gcs", feature = "s3", feature = "azure"))]

mod rig;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use sidetape::config::RecordingFormat::Lossless;
use sidetape::io::finish::Finisher;
use sidetape::io::outbox::ITEMS_MAX;
use sidetape::io::store::local::LocalStore;
use sidetape::metrics::Metrics;

use rig::cloud::{BUCKET, Cloud};
use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::gcs::{Access, Gcs, Purpose, rfc9110};
use rig::media::{SPEECH, Sender, marked_packet, voice};
use rig::place::Place;
use rig::proxy::{Fault, Proxy};
use rig::recording::{Recording, sounds_in};
use rig::stores::{AZURITE_ACCOUNT, AZURITE_KEY, GcpEmulator};
use rig::wait_for;

fn await_empty_spool(place: &Place) {
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
}

/// Reads a recording out of its bytes.
fn recording(place: &Place, bytes: &[u8]) -> Recording {
    let path = place.root().join("fetched.opus");
    std::fs::write(&path, bytes).unwrap();
    Recording::read(&path)
}

/// Plays a call to its end.
fn call(place: &Place, daemon: &Daemon, id: &str, packets: &[Vec<u8>]) {
    let mut gateway = Gateway::connect(place, daemon, Socket::UnixStream);
    gateway.play(id, CALLER, &Sender::new(1).packets(packets));
    gateway.end(id);
}

#[test]
fn a_call_is_published_whole_and_described_and_a_taken_name_gets_a_number() {
    for cloud in Cloud::all() {
        let place = cloud.place().with("AUDIO_KEEP_CHANNELS", "true");
        let daemon = Daemon::start(&place);
        let payloads = voice(SPEECH, 150.0, 100);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("c 1~\u{e9}", CALLER, &Sender::new(1).packets(&payloads));
        gateway.play("c 1~\u{e9}", AI, &Sender::new(2).packets(&payloads[..50]));
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let consent = json!({ "by": "key 1" });
        let meta = json!({
            "conversation_id": "same", "tenant": "x  %\u{e9}", "consent": consent, "traceparent": trace,
        });
        gateway.meta("c 1~\u{e9}", &meta);
        gateway.end("c 1~\u{e9}");
        let manifest = cloud.manifest("conversation_same_merged.json");
        let name = manifest["file"]["key"].as_str().unwrap();
        assert_eq!(name, "conversation_same_merged.opus");
        let stored = cloud.await_object(name);
        assert_eq!(manifest["file"]["bytes"], stored.bytes.len());
        assert_eq!(manifest["file"]["crc32c"], format!("{:08x}", crc32c::crc32c(&stored.bytes)));
        assert_eq!(stored.content_type, "audio/ogg; codecs=opus");
        assert!(recording(&place, &stored.bytes).sounds(0) == sounds_in(&payloads), "to the byte");
        assert_eq!((&manifest["consent"], &manifest["traceparent"]), (&consent, &json!(trace)));
        assert_eq!(manifest["meta"], json!({}));
        let labels = [
            ("connection", "c%201~%C3%A9"),
            ("consent", r#"{"by":"key%201"}"#),
            ("conversation", "same"),
            ("duration", "4.000"),
            ("outcome", "ok"),
            ("recording", manifest["recording_id"].as_str().unwrap()),
            ("tenant", "x%20%20%25%C3%A9"),
            ("traceparent", trace),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(stored.labels, BTreeMap::from(labels), "{}", cloud.name());
        let beside = cloud.await_object("conversation_same_merged.json");
        assert_eq!((beside.content_type.as_str(), beside.labels), ("application/json", stored.labels));
        for side in ["left", "right"] {
            cloud.await_object(&format!("conversation_same_merged_{side}.opus"));
        }
        await_empty_spool(&place);

        gateway.meta("another", &json!({ "conversation_id": "same" }));
        gateway.play("another", AI, &Sender::new(3).packets(&payloads));
        gateway.end("another");
        let second = cloud.manifest("conversation_same_merged-2.json");
        assert_eq!(second["connection_id"], "another");
        assert_eq!(second["file"]["key"], "conversation_same_merged-2.opus");
        let again = cloud.await_object(name);
        assert!(again.bytes == stored.bytes, "nothing is overwritten");
        await_empty_spool(&place);
        let log = daemon.stop();
        assert!(!log.contains("not-to-be-logged") && !log.contains(AZURITE_KEY), "{log}");
        assert!(log.contains(r#"calls/pre fix/conversation_same_merged.opus"#), "{log}");
    }
}

#[test]
fn what_was_put_before_a_crash_is_recognised_and_not_put_twice() {
    for cloud in Cloud::all() {
        let mut place = cloud.place();
        place.set("AUDIO_LINGER_MS", "0");
        let daemon = Daemon::start(&place);
        let payloads = voice(SPEECH, 150.0, 60);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("once", CALLER, &Sender::new(1).packets(&payloads));
        gateway.sync();
        wait_for("the spool", || place.spool_holds(&payloads[59][1..]).then_some(()));
        daemon.kill();
        let output = place.command("recover").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let first = cloud.await_object("conversation_once_merged.opus");
        assert!(place.spool_files().is_empty());

        // A new call of the same bytes: the spool as it was before the removal.
        let spool = keep_a_spool(&place, &payloads);
        let finished = |place: &Place| {
            let output = place.command("recover").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let copy = std::fs::read(&spool).unwrap();
        finished(&place);
        cloud.await_object("conversation_call_merged.opus");
        std::fs::write(&spool, copy).unwrap();
        finished(&place);
        assert!(place.spool_files().is_empty());
        assert!(cloud.object("conversation_call_merged-2.opus").is_none(), "{}", cloud.name());
        assert!(cloud.object("conversation_call_merged-2.json").is_none(), "{}", cloud.name());
        if let Cloud::Gcs(gcs) = &cloud {
            assert_eq!(gcs.times_stored("pre fix/conversation_call_merged.opus"), 1);
        }
        assert!(first.bytes == cloud.await_object("conversation_once_merged.opus").bytes);
    }
}

/// A sealed spool file of a call named `call`.
fn keep_a_spool(place: &Place, payloads: &[Vec<u8>]) -> PathBuf {
    let spool = place.spool().join("20260102T030405.678901Z-call-00000000.spool");
    rig::spool::write_spool(&spool, [&json!({}), &json!({})], [&Sender::new(1).packets(payloads), &[]]);
    spool
}

#[test]
fn a_large_recording_goes_in_parts_and_is_created_or_refused_all_the_same() {
    let packets: Vec<_> = (0..17_500).map(|n| marked_packet(&format!("{n:05}").repeat(200))).collect();
    for cloud in Cloud::all() {
        let place = cloud.place();
        std::fs::create_dir_all(place.spool()).unwrap();
        let recover = || {
            let output = place.command("recover").output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let spool = keep_a_spool(&place, &packets);
        let copy = std::fs::read(&spool).unwrap();
        recover();
        let stored = cloud.await_object("conversation_call_merged.opus");
        assert!(stored.bytes.len() > 2 * (8 << 20), "{}", stored.bytes.len());
        assert_eq!(stored.content_type, "audio/ogg; codecs=opus");
        assert_eq!(stored.labels["connection"], "call");
        assert!(recording(&place, &stored.bytes).sounds(0) == sounds_in(&packets));
        // Cut before the removal; then another call of the same name.
        std::fs::write(&spool, copy).unwrap();
        recover();
        assert!(cloud.object("conversation_call_merged-2.opus").is_none(), "{}", cloud.name());
        keep_a_spool(&place, &packets[1..]);
        recover();
        let second = cloud.await_object("conversation_call_merged-2.opus");
        assert!(recording(&place, &second.bytes).sounds(0) == sounds_in(&packets[1..]));
        assert!(cloud.await_object("conversation_call_merged.opus").bytes == stored.bytes);
        let beside = "pre fix/.20260102T030405.678901Z-call-00000000.part";
        assert!(cloud.object(beside.trim_start_matches("pre fix/")).is_none(), "no temporary object is left");
    }
}

#[test]
fn an_emulator_that_other_people_wrote_takes_both_kinds_of_uploads() {
    let Some(emulator) = GcpEmulator::start(BUCKET) else { return };
    let place = Place::new()
        .with("AUDIO_STORAGE_TYPE", "gcs")
        .with("AUDIO_STORAGE_PATH", BUCKET)
        .with("STORAGE_EMULATOR_HOST", &emulator.address().ip().to_string());
    let check = place.command("check").output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && said.contains("this emulator overwrites objects"), "{said}");
    let daemon = Daemon::start(&place);
    let small = voice(SPEECH, 150.0, 100);
    // More than what goes in one request.
    let large: Vec<_> = (0..3_000).map(|n| marked_packet(&format!("{n:05}").repeat(200))).collect();
    for (id, payloads) in [("small", &small), ("large", &large)] {
        call(&place, &daemon, id, payloads);
        let name = |ending: &str| format!("conversation_{id}_merged.{ending}");
        let manifest = wait_for("the manifest", || emulator.object(BUCKET, &name("json")));
        let manifest: serde_json::Value = serde_json::from_slice(&manifest.bytes).unwrap();
        let stored = emulator.object(BUCKET, &name("opus")).unwrap();
        assert_eq!(manifest["file"]["crc32c"], format!("{:08x}", crc32c::crc32c(&stored.bytes)));
        assert!(recording(&place, &stored.bytes).sounds(0) == sounds_in(payloads), "to the byte");
    }
    await_empty_spool(&place);
    daemon.stop();
}

#[test]
fn a_store_that_is_down_holds_up_no_recording_and_gets_it_all_when_it_is_back() {
    for cloud in Cloud::all() {
        let proxy = Proxy::start(cloud.address());
        let place = cloud.place_at(proxy.address());
        proxy.down();
        let daemon = Daemon::start(&place);
        let payloads = voice(SPEECH, 150.0, 60);
        for n in 0..4 {
            call(&place, &daemon, &format!("down {n}"), &payloads);
        }
        wait_for("the daemon to say so", || {
            daemon.log().contains("publishing failed, trying again").then_some(())
        });
        proxy.up();
        for fault in [Fault::CutAnswer, Fault::ResetWithin, Fault::TooManyForNow, Fault::Unavailable] {
            proxy.set_next(fault);
        }
        for n in 0..4 {
            let manifest = cloud.manifest(&format!("conversation_down {n}_merged.json"));
            let stored = cloud.await_object(manifest["file"]["key"].as_str().unwrap());
            assert!(recording(&place, &stored.bytes).sounds(0) == sounds_in(&payloads));
            assert!(cloud.object(&format!("conversation_down {n}_merged-2.opus")).is_none(), "once each");
        }
        await_empty_spool(&place);
        daemon.stop();
    }
}

#[test]
fn names_parts_and_channels_are_the_same_in_every_store() {
    for cloud in Cloud::all() {
        let place = cloud
            .place()
            .with("AUDIO_OBJECT_KEY", "{tenant}/{yyyy}/{mm}/{dd}/{id}.opus")
            .with("AUDIO_KEEP_CHANNELS", "true")
            .with("AUDIO_MAX_DURATION_SECS", "1");
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.meta("long", &json!({ "tenant": "t\u{fc}v/..", "conversation_id": "c~1" }));
        let mut sender = Sender::new(1);
        let begin = std::time::Instant::now();
        // In real time, because a part ends by the clock.
        for payload in voice(SPEECH, 150.0, 75) {
            for sent in sender.packets(&[payload]) {
                gateway.play("long", CALLER, &[sent]);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        assert!(begin.elapsed().as_secs() >= 1);
        gateway.end("long");
        let names = wait_for("both parts, in files of both channels", || {
            let names = cloud.names();
            (names.len() == 8 && place.spool_files().is_empty()).then_some(names)
        });
        let mut expected = Vec::new();
        for stem in ["c~1", "c~1-2"] {
            for ending in [".json", ".opus", "_left.opus", "_right.opus"] {
                expected.push(format!("t\u{fc}v_../2026/01/02/{stem}{ending}"));
            }
        }
        expected.sort();
        assert_eq!(names, expected, "{}", cloud.name());
        daemon.stop();
    }
}

#[test]
fn a_store_that_asks_to_be_left_alone_is_left_alone() {
    for cloud in Cloud::all() {
        let proxy = Proxy::start(cloud.address());
        proxy.ask_for_patience(4);
        proxy.set_next(Fault::TooManyForNow);
        let place = cloud.place_at(proxy.address());
        let daemon = Daemon::start(&place);
        call(&place, &daemon, "patient", &voice(SPEECH, 150.0, 30));
        cloud.await_object("conversation_patient_merged.json");
        let came = proxy.came();
        let waited = came[1] - came[0];
        // The first wait by itself would be a second at most.
        assert!(waited.as_millis() >= 3990, "{}: {waited:?}", cloud.name());
        daemon.stop();
    }
}

#[test]
fn a_wrong_clock_is_told_from_wrong_credentials() {
    let late = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let date = rfc9110(late);
    for (date, said) in
        [(Some(date), "the clock of this machine is wrong"), (None, "credentials are not taken")]
    {
        let gcs = Gcs::start(BUCKET);
        gcs.set_access(Access::Token("nobody has it".to_owned()));
        gcs.set_date(date);
        let cloud = Cloud::Gcs(gcs);
        let place = cloud.place();
        let check = place.command("check").output().unwrap();
        let text = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(!check.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn what_no_retry_mends_is_said_once_tried_seldom_and_kept() {
    let gcs = Gcs::start(BUCKET);
    gcs.set_access(Access::Refused);
    let cloud = Cloud::Gcs(gcs);
    let place = cloud.place();
    let daemon = Daemon::start(&place);
    let payloads = voice(SPEECH, 150.0, 30);
    call(&place, &daemon, "forbidden", &payloads);
    wait_for("an error", || daemon.log().contains("tried seldom").then_some(()));
    let Cloud::Gcs(gcs) = &cloud else { unreachable!() };
    let asked = gcs.asked().len();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!(gcs.asked().len(), asked, "not again within seconds");
    let log = {
        let log = daemon.log();
        daemon.kill();
        log
    };
    let line = log.lines().find(|line| line.contains("tried seldom")).unwrap();
    assert!(line.contains("ERROR") && line.contains("permission is missing"), "{line}");
    assert_eq!(log.matches("tried seldom").count(), 1);
    assert!(!place.spool_files().is_empty());
    gcs.set_access(Access::Open);
    let daemon = Daemon::start(&place);
    cloud.await_object("conversation_forbidden_merged.opus");
    daemon.stop();
}

#[test]
fn check_tries_each_store_for_real_and_says_what_is_missing() {
    for cloud in Cloud::all() {
        let mut place = cloud.place();
        let check = |place: &Place| {
            let output = place.command("check").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(!said.contains("not-to-be-logged") && !said.contains(AZURITE_KEY), "{said}");
            (output.status.success(), said)
        };
        let (is_good, said) = check(&place);
        assert!(is_good && said.contains("probe put, read back and removed"), "{}: {said}", cloud.name());
        if let Cloud::Gcs(gcs) = &cloud {
            assert!(gcs.names().is_empty(), "{:?}", gcs.names());
            gcs.set_access(Access::Refused);
            let (is_good, said) = check(&place);
            assert!(!is_good && said.contains("permission is missing"), "{said}");
            gcs.set_access(Access::Open);
        }
        place.set("AUDIO_STORAGE_PATH", "no-such-bucket");
        let (is_good, said) = check(&place);
        assert!(!is_good && said.contains("bucket or container is missing"), "{}: {said}", cloud.name());
        if let Cloud::Azure(_) = &cloud {
            let wrong = format!(
                "AccountName={AZURITE_ACCOUNT};AccountKey=AAAA;BlobEndpoint=http://{}/{AZURITE_ACCOUNT}",
                cloud.address()
            );
            place.set("AZURE_STORAGE_CONNECTION_STRING", &wrong);
            let (is_good, said) = check(&place);
            assert!(!is_good && said.contains("credentials are"), "{said}");
        }
    }
    let place = Place::new().with("AUDIO_STORAGE_TYPE", "gcs").with("AUDIO_STORAGE_PATH", BUCKET);
    let place = place.with("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json");
    let output = place.command("check").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("credentials are missing"), "{said}");
}

#[test]
fn a_backlog_of_any_length_is_held_by_the_spool_and_not_by_memory() {
    let place = Place::new();
    let spool = place.spool();
    std::fs::create_dir_all(&spool).unwrap();
    let count = 2 * ITEMS_MAX + 50;
    let payloads = voice(SPEECH, 150.0, 3);
    let sent = Sender::new(1).packets(&payloads);
    let files: Vec<_> = (0..count).map(|n| spool.join(format!("{n:04}.spool"))).collect();
    for file in &files {
        rig::spool::write_spool(file, [&json!({}), &json!({})], [&sent, &[]]);
    }
    // A file in the place of the directory: a disk that says no.
    let root = place.root().join("store");
    std::fs::write(&root, b"").unwrap();
    let (template, metrics) = ("{connection_id}.opus".to_owned(), Arc::new(Metrics::default()));
    let finisher = Arc::new(Finisher::new(
        LocalStore::new(&root),
        template,
        rig::spool::options(Lossless),
        Arc::clone(&metrics),
    ));
    let rendered = || {
        let entries = std::fs::read_dir(&spool).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "opus"))
            .count()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (sealed, to_finish) = tokio::sync::mpsc::channel(8);
        let run = tokio::spawn(Arc::clone(&finisher).run(to_finish, Default::default()));
        for file in &files {
            // It is never waited for, although nothing gets through.
            let send = sealed.send(file.clone());
            tokio::time::timeout(rig::PATIENCE, send).await.unwrap().unwrap();
        }
        drop(sealed);
        for _ in 0..20 {
            assert!(rendered() <= ITEMS_MAX + 1, "{} are rendered", rendered());
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(files.iter().all(|file| file.exists()));
        std::fs::remove_file(&root).unwrap();
        tokio::time::timeout(2 * rig::PATIENCE, run).await.expect("all get through").unwrap();
    });
    assert!(files.iter().all(|file| !file.exists()) && rendered() == 0);
    // All are the same call to the byte, so that each but the first finds itself there already.
    assert_eq!(metrics.published.load(Ordering::Relaxed), u64::try_from(count).unwrap());
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 2);
}

#[test]
fn many_calls_of_one_name_cost_a_store_a_few_requests_each() {
    const CALLS: usize = 60;
    let cloud = Cloud::Gcs(Gcs::start(BUCKET));
    let place = cloud.place();
    std::fs::create_dir_all(place.spool()).unwrap();
    for round in 1..=2 {
        for call in 0..CALLS {
            let sent = Sender::new(1).packets(&[marked_packet(&format!("call {call:03} of round {round}"))]);
            let file = place.spool().join(format!("{call:03}.spool"));
            rig::spool::write_spool(&file, [&json!({}), &json!({})], [&sent, &[]]);
        }
        // Another process each time: it knows nothing of the numbers that the one before gave.
        let output = place.command("recover").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(place.spool_files().is_empty(), "nor is a note left: {:?}", place.spool_files());
    }
    let names = cloud.names();
    assert_eq!(names.len(), 2 * 2 * CALLS, "a recording and a manifest for each: {names:?}");
    let Cloud::Gcs(gcs) = &cloud else { unreachable!() };
    let asked = gcs.asked().len();
    // To ask for each number before would be 14,000.
    assert!(asked < 10 * 2 * CALLS, "{asked} requests");
}

#[test]
fn an_upload_that_is_cut_goes_on_where_it_was() {
    let cloud = Cloud::Gcs(Gcs::start(BUCKET));
    let proxy = Proxy::start(cloud.address());
    let place = cloud.place_at(proxy.address());
    std::fs::create_dir_all(place.spool()).unwrap();
    let packets: Vec<_> = (0..6_000).map(|n| marked_packet(&format!("{n:05}").repeat(200))).collect();
    keep_a_spool(&place, &packets);
    proxy.set_next(Fault::ResetWithin);
    let output = place.command("recover").output().unwrap();
    assert!(output.status.success() || proxy.injected(Fault::ResetWithin) == 1);
    let output = place.command("recover").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stored = cloud.await_object("conversation_call_merged.opus");
    assert!(recording(&place, &stored.bytes).sounds(0) == sounds_in(&packets));
    let Cloud::Gcs(gcs) = &cloud else { unreachable!() };
    assert!(gcs.count(Purpose::Begin) >= 1 && gcs.times_stored("pre fix/conversation_call_merged.opus") == 1);
}

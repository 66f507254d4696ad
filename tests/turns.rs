//! Who waits for whom when calls are finished, which call is to blame when the daemon dies over one, and which number each
//! has of many that have one name.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use serde_json::json;

use rig::daemon::Daemon;
use rig::gateway::{CALLER, Gateway, Socket};
use rig::media::{SPEECH, Sender, marked_packet, voice};
use rig::place::Place;
use rig::wait_for;

/// A place whose recordings are encoded anew, which takes a while.
fn slow_place() -> Place {
    let place = Place::new().with("AUDIO_FORMAT", "compat").with("AUDIO_SHUTDOWN_SECS", "1");
    std::fs::create_dir_all(place.spool()).unwrap();
    place
}

/// Leaves the spool file of a call that is over, of so many packets of 20 ms and some 240 bytes.
fn leave(place: &Place, id: &str, packets: usize) {
    let payloads: Vec<Vec<u8>> = (0..packets).map(|n| marked_packet(&format!("{n:06}").repeat(40))).collect();
    let (file, types) = (place.spool().join(format!("{id}.spool")), json!({}));
    rig::spool::write_spool_of(id, &file, [&types, &types], [&Sender::new(1).packets(&payloads), &[]]);
}

fn await_file(place: &Place, name: &str) {
    let file = place.spool().join(name);
    wait_for(name, || file.exists().then_some(()));
}

#[test]
fn a_call_that_ends_the_daemon_twice_is_set_aside_and_all_others_are_published() {
    let place = slow_place();
    leave(&place, "victim", 6_000);
    let others = ["a", "b", "z"];
    others.iter().for_each(|id| leave(&place, id, 50));
    let daemon = Daemon::start(&place);
    await_file(&place, "victim.spool.trying");
    daemon.kill();

    let daemon = Daemon::start(&place);
    await_file(&place, "victim.spool.alone");
    // Now it is known that it is to blame, and no other.
    daemon.kill();

    let daemon = Daemon::start(&place);
    let manifest = place.manifest("victim");
    await_file(&place, "victim.spool.failed");
    assert_eq!((&manifest["outcome"], &manifest["file"]), (&json!("failed"), &json!(null)));
    assert!(manifest["reasons"].to_string().contains("the daemon died twice"), "{manifest}");
    others.iter().for_each(|id| assert_eq!(place.manifest(id)["outcome"], "ok"));
    wait_for("the notes to be gone", || (place.spool_files() == ["victim.spool.failed"]).then_some(()));
    // The daemon goes on.
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("after", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 20)));
    gateway.end("after");
    place.manifest("after");
    let log = daemon.stop();
    let told: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(
        matches!(told.as_slice(), [line] if line.contains("victim") && line.contains("sidetape recover")),
        "{log}"
    );

    // Somebody gives it another try.
    std::fs::rename(place.spool().join("victim.spool.failed"), place.spool().join("victim.spool")).unwrap();
    let output = place.command("recover").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let manifests = place.manifests_of("victim");
    assert!(manifests.iter().any(|manifest| manifest["outcome"] == "ok"), "{manifests:?}");
    assert!(place.spool_files().is_empty(), "{:?}", place.spool_files());
}

#[test]
fn a_daemon_that_is_stopped_again_and_again_blames_no_call() {
    let place = slow_place();
    leave(&place, "long", 6_000);
    for _ in 0..3 {
        let daemon = Daemon::start(&place);
        await_file(&place, "long.spool.trying");
        daemon.ask_to_stop();
        let note = place.spool().join("long.spool.trying");
        wait_for("the note to be gone", || (!note.exists()).then_some(()));
        // Whether it ends in time, or somebody loses patience.
        daemon.kill();
    }
    assert_eq!(place.spool_files().iter().filter(|name| !name.ends_with(".opus")).count(), 1);
    let daemon = Daemon::start(&place);
    assert_eq!(place.manifest("long")["outcome"], "ok");
    daemon.stop();
}

#[test]
fn a_short_call_does_not_wait_for_long_ones_however_many_are_being_made() {
    let place = slow_place();
    let cores = std::thread::available_parallelism().unwrap().get();
    let long: Vec<String> = (0..cores + 2).map(|n| format!("long {n}")).collect();
    long.iter().for_each(|id| leave(&place, id, 24_000));
    let daemon = Daemon::start(&place);
    wait_for("as many long ones to be made as there are cores", || {
        let begun = place.spool_files().iter().filter(|name| name.ends_with(".trying")).count();
        (begun >= cores).then_some(())
    });
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let packets: Vec<_> = (0..20).map(|n| marked_packet(&format!("packet {n}"))).collect();
    gateway.play("short", CALLER, &Sender::new(1).packets(&packets));
    gateway.end("short");
    place.manifest("short");
    let done = long.iter().filter(|id| !place.manifests_of(id).is_empty()).count();
    assert!(done < 2, "{done} of the long ones went before");
    daemon.kill();
}

#[test]
fn a_recording_that_has_a_number_is_found_under_it_after_a_crash_between_any_two_steps() {
    let place = Place::new();
    std::fs::create_dir_all(place.spool()).unwrap();
    let leave = |letter: &str| {
        let sent = Sender::new(1).packets(&[marked_packet(&format!("call {letter}"))]);
        let file = place.spool().join(format!("{letter}.spool"));
        rig::spool::write_spool(&file, [&json!({}), &json!({})], [&sent, &[]]);
    };
    let recover = || {
        let output = place.command("recover").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(place.spool_files().is_empty(), "{:?}", place.spool_files());
    };
    ["a", "b", "c", "d"].into_iter().for_each(leave);
    recover();
    let stored = || {
        let names = place.files().into_iter().filter(|name| !name.ends_with("lock"));
        names.map(|name| (std::fs::read(place.root().join(&name)).unwrap(), name)).collect::<Vec<_>>()
    };
    let all = stored();
    assert_eq!(all.len(), 8);
    let [audio, manifest] = ["opus", "json"].map(|kind| format!("conversation_call_merged-3.{kind}"));
    for missing in [vec![&audio, &manifest], vec![&manifest], vec![]] {
        leave("c");
        // It was noted before anything was put.
        std::fs::write(place.spool().join("c.spool.name"), "3\n").unwrap();
        missing.iter().for_each(|name| std::fs::remove_file(place.storage().join(name)).unwrap());
        recover();
        assert!(stored() == all, "{missing:?}: {:?}", place.files());
    }
}

#[test]
fn a_call_that_ended_the_daemon_twice_waits_for_the_first_storage_and_is_made_by_none() {
    let mut place = slow_place();
    let backup = place.root().join("backup");
    place.set("AUDIO_BACKUP_STORAGE_TYPE", "local");
    place.set("AUDIO_BACKUP_STORAGE_PATH", backup.to_str().unwrap());
    place.set("AUDIO_BACKUP_AFTER_SECS", "0");
    std::fs::remove_dir(place.storage()).unwrap();
    std::fs::write(place.storage(), b"").unwrap();
    leave(&place, "victim", 50);
    std::fs::write(place.spool().join("victim.spool.alone"), b"").unwrap();
    leave(&place, "other", 50);
    let daemon = Daemon::start(&place);
    await_file(&place, "other.spool.backup");
    wait_for("the victim's turn", || {
        let log = daemon.log();
        log.lines().any(|line| line.contains("publishing failed") && line.contains("victim")).then_some(())
    });
    std::fs::remove_file(place.storage()).unwrap();
    std::fs::create_dir(place.storage()).unwrap();
    let manifest = place.manifest("victim");
    assert_eq!((&manifest["outcome"], &manifest["file"]), (&json!("failed"), &json!(null)), "{manifest}");
    await_file(&place, "victim.spool.failed");
    assert!(!backup.join("conversation_victim_merged.json").exists());
    assert_eq!(place.manifest("other")["outcome"], "ok");
    daemon.stop();
}

//! The backup storage: used while the first choice fails, and emptied into it when that works again.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::path::{Path, PathBuf};

use rig::daemon::Daemon;
use rig::disk::IoErrors;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::http::http_address;
use rig::media::{SPEECH, Sender, voice};
use rig::metrics::Page;
use rig::place::Place;
use rig::recording::{Recording, sounds_in};
use rig::wait_for;

/// The names of the files in a directory, or none.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// A place whose daemon has a backup, and a storage that takes nothing: a file is where its directory should be.
fn broken(after_secs: &str) -> (Place, PathBuf) {
    let mut place = Place::new();
    let backup = place.root().join("some/where/else");
    place.set("AUDIO_BACKUP_STORAGE_TYPE", "local");
    place.set("AUDIO_BACKUP_STORAGE_PATH", backup.to_str().unwrap());
    place.set("AUDIO_BACKUP_AFTER_SECS", after_secs);
    std::fs::remove_dir(place.storage()).unwrap();
    std::fs::write(place.storage(), b"").unwrap();
    (place, backup)
}

fn mend(place: &Place) {
    std::fs::remove_file(place.storage()).unwrap();
    std::fs::create_dir(place.storage()).unwrap();
}

fn spool(place: &Place, ending: &str) -> Vec<String> {
    names(&place.spool()).into_iter().filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn what_the_first_choice_does_not_take_is_in_the_backup_until_it_does() {
    let (place, backup) = broken("1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 50);
    for id in ["one", "two"] {
        gateway.play(id, CALLER, &Sender::new(1).packets(&payloads));
        gateway.end(id);
    }
    let in_backup = ["conversation_one_merged", "conversation_two_merged"];
    let in_backup: Vec<_> =
        in_backup.iter().flat_map(|stem| [format!("{stem}.json"), format!("{stem}.opus")]).collect();
    wait_for("both to be in the backup", || (names(&backup) == in_backup).then_some(()));
    wait_for("both spool files to be set aside", || {
        (spool(&place, ".spool.backup").len() == 2).then_some(())
    });
    // What a vain attempt to bring one back has made may be there: `….spool.backup.opus`.
    assert!(spool(&place, ".spool").is_empty() && spool(&place, ".spool.opus").is_empty());
    let path = backup.join("conversation_one_merged.opus");
    assert!(Recording::read(&path).sounds(0) == sounds_in(&payloads), "it can be had meanwhile");
    assert!(daemon.log().contains("recording is in the backup storage"), "{}", daemon.log());

    mend(&place);
    for id in ["one", "two"] {
        let (manifest, recording) = place.recording(id);
        assert_eq!(manifest["outcome"], "ok");
        assert!(recording.sounds(0) == sounds_in(&payloads));
    }
    wait_for("the backup to be empty", || names(&backup).is_empty().then_some(()));
    wait_for("the spool to be empty", || {
        spool(&place, "").iter().all(|name| !name.contains(".spool")).then_some(())
    });
    assert_eq!(place.manifests().len(), 2, "each once");
    daemon.stop();
}

#[test]
fn what_is_brought_back_is_told_once_where_the_disk_does_not_remove_its_spool_file() {
    let (mut place, backup) = broken("0");
    let Some(errors) = IoErrors::prepare(&mut place) else { return };
    place.set("FAIL_ON", ".spool.backup");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 50)));
    gateway.end("c");
    wait_for("the spool file to be set aside", || spool(&place, ".spool.backup").pop());
    errors.set("unlink");
    mend(&place);
    let attempts = || daemon.log().matches("cannot be brought back from the backup storage").count();
    wait_for("three attempts", || (attempts() >= 3).then_some(()));
    assert!(names(&backup).is_empty() && spool(&place, ".spool.backup").len() == 1);
    errors.set("");
    wait_for("the spool to be empty", || spool(&place, ".spool.backup").is_empty().then_some(()));
    let log = daemon.stop();
    for once in ["recording published", "removed from the backup storage"] {
        assert_eq!(log.matches(once).count(), 1, "{once}: {log}");
    }
    assert_eq!(place.manifests().len(), 1);
}

#[test]
fn a_killed_daemon_brings_back_what_is_in_the_backup_and_nothing_of_anothers() {
    let (place, backup) = broken("0");
    // Another machine uses the same backup, and a call of the same name.
    std::fs::create_dir_all(&backup).unwrap();
    std::fs::write(backup.join("conversation_c_merged.opus"), b"another").unwrap();
    std::fs::write(backup.join("conversation_c_merged.json"), b"another").unwrap();
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 50);
    gateway.play("c", AI, &Sender::new(1).packets(&payloads));
    gateway.end("c");
    wait_for("the spool file to be set aside", || spool(&place, ".spool.backup").pop());
    assert!(backup.join("conversation_c_merged-2.opus").exists(), "{:?}", names(&backup));
    daemon.kill();
    mend(&place);
    let daemon = Daemon::start(&place);
    let (_, recording) = place.recording("c");
    assert!(recording.sounds(1) == sounds_in(&payloads));
    wait_for("the backup to be empty of ours", || (names(&backup).len() == 2).then_some(()));
    assert_eq!(std::fs::read(backup.join("conversation_c_merged.opus")).unwrap(), b"another");
    wait_for("the spool to be empty", || spool(&place, ".backup").is_empty().then_some(()));
    daemon.stop();
}

#[test]
fn those_that_always_fail_keep_no_other_in_the_backup() {
    let (mut place, backup) = broken("0");
    place.set("AUDIO_OBJECT_KEY", "{tenant}/{id}.opus");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 50);
    for (n, tenant) in ["bad", "bad", "bad", "bad", "good"].iter().enumerate() {
        let id = format!("call-{n}");
        gateway.meta(&id, &serde_json::json!({ "tenant": tenant }));
        gateway.play(&id, CALLER, &Sender::new(1).packets(&payloads));
        gateway.end(&id);
    }
    wait_for("all to be in the backup", || (spool(&place, ".spool.backup").len() == 5).then_some(()));
    mend(&place);
    // A file where the directory of the first four should be.
    std::fs::write(place.storage().join("bad"), b"").unwrap();
    place.recording("call-4");
    wait_for("it to leave the backup", || names(&backup.join("good")).is_empty().then_some(()));
    assert_eq!(names(&backup.join("bad")).len(), 8, "the others stay");
    std::fs::remove_file(place.storage().join("bad")).unwrap();
    for n in 0..4 {
        place.recording(&format!("call-{n}"));
    }
    daemon.stop();
}

/// Plays a call into the backup, and kills the daemon. Returns the spool file that is set aside.
fn killed_with_one_in_the_backup(place: &Place, payloads: &[Vec<u8>]) -> PathBuf {
    let daemon = Daemon::start(place);
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    gateway.play("c", CALLER, &Sender::new(1).packets(payloads));
    gateway.end("c");
    let name = wait_for("the spool file to be set aside", || spool(place, ".spool.backup").pop());
    daemon.kill();
    place.spool().join(name)
}

#[test]
fn what_is_in_the_backup_under_a_number_is_brought_back_too() {
    let (place, backup) = broken("0");
    let payloads = voice(SPEECH, 150.0, 50);
    let file = killed_with_one_in_the_backup(&place, &payloads);
    std::fs::rename(&file, file.with_extension("backup-2")).unwrap();
    mend(&place);
    let daemon = Daemon::start(&place);
    let (_, recording) = place.recording("c");
    assert!(recording.sounds(0) == sounds_in(&payloads));
    wait_for("the backup to be empty", || names(&backup).is_empty().then_some(()));
    wait_for("the spool to be empty", || {
        spool(&place, "").iter().all(|name| !name.contains(".spool")).then_some(())
    });
    daemon.stop();
}

#[test]
fn what_is_in_the_backup_and_turns_out_damaged_is_set_aside_as_that() {
    let (place, _) = broken("0");
    let file = killed_with_one_in_the_backup(&place, &voice(SPEECH, 150.0, 50));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    mend(&place);
    let place = place.with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&place);
    let (manifest, _) = place.recording("c");
    assert!(manifest["reasons"].as_array().unwrap().iter().any(|reason| reason == "spool_damaged"));
    wait_for("it to leave the backup", || {
        spool(&place, "").iter().all(|name| !name.contains(".backup")).then_some(())
    });
    assert_eq!(spool(&place, ".spool.damaged").len(), 1, "{:?}", spool(&place, ""));
    Page::when(&http_address(&daemon), r#"sidetape_spool_files{state="damaged"}"#, |files| files == 1.0);
    daemon.stop();
}

#[test]
fn before_its_time_the_backup_is_not_used() {
    let (place, backup) = broken("300");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 50)));
    gateway.end("c");
    wait_for("two attempts", || {
        (daemon.log().matches("publishing failed, trying again").count() >= 2).then_some(())
    });
    assert!(names(&backup).is_empty());
    mend(&place);
    place.recording("c");
    daemon.stop();
}

#[test]
fn a_backup_that_is_none_stops_the_start() {
    for (kind, path, word) in [
        ("local", "", "AUDIO_BACKUP_STORAGE_PATH beside it"),
        ("", "/x", "nothing unless AUDIO_BACKUP_STORAGE_TYPE"),
        ("tape", "/x", "local or gcs or s3 or azure"),
        ("s3", "../x", "AUDIO_BACKUP_STORAGE_PATH"),
    ] {
        let mut place = Place::new();
        place.set("AUDIO_BACKUP_STORAGE_TYPE", kind);
        place.set("AUDIO_BACKUP_STORAGE_PATH", path);
        let ended = Daemon::start_in_vain(&place);
        assert_eq!(ended.code, Some(2), "{}", ended.said);
        assert!(ended.said.contains(word), "{kind} {path}: {}", ended.said);
    }
    let place = Place::new();
    let same = place.storage();
    let place = place.with("AUDIO_BACKUP_STORAGE_TYPE", "local");
    let place = place.with("AUDIO_BACKUP_STORAGE_PATH", same.to_str().unwrap());
    assert!(Daemon::start_in_vain(&place).said.contains("another place"));
}

#[test]
fn a_call_without_audio_goes_to_the_backup_like_any_other() {
    let (place, backup) = broken("1");
    let daemon = Daemon::start(&place);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.meta("silent", &serde_json::json!({ "a": 1 }));
    gateway.end("silent");
    wait_for("it to be in the backup", || {
        (names(&backup) == ["conversation_silent_merged.json"]).then_some(())
    });
    let log = daemon.stop();
    assert!(!log.contains("is taken"), "{log}");
}

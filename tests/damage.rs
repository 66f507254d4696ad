//! What a start makes of a spool as a crash or a bad disk left it: one test for each numbered step of durability
//! (`src/lib.rs`; step 7, the catalogue, is not built), then every kind of damage, then files that are not ours.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

use rig::daemon::Daemon;
use rig::media::{START_US, Sender, marked_packet};
use rig::place::{Place, without_absent};
use rig::recording::{Recording, sounds_in};

/// A spool file in the making.
#[derive(Clone)]
struct Spool {
    id: String,
    bytes: Vec<u8>,
    /// Where the header and each record end.
    ends: Vec<usize>,
    packets: Vec<Vec<u8>>,
    recording: RecordingId,
}

impl Spool {
    /// A call that is still open: so many packets of the caller.
    fn open(id: &str, packets: usize) -> Self {
        let opened = Wall(i64::try_from(START_US).unwrap());
        let mut bytes = Vec::new();
        let connection = ConnectionId::new(id).unwrap();
        let header = Header::derived(connection, opened, Mono(7), 1);
        header.append_to(&mut bytes);
        let mut ends = vec![bytes.len()];
        let packets: Vec<_> = (0..packets).map(|n| marked_packet(&format!("{id}, packet {n:03}"))).collect();
        for (at, sent) in (7u64..).step_by(20_000).zip(Sender::new(1).packets(&packets)) {
            let (kind, scope) = (RecordKind::Tap(1), Scope::Channel(Channel::Caller));
            Record { kind, scope, at: Mono(at), gateway: None, body: &sent.rtp }.append_to(&mut bytes);
            ends.push(bytes.len());
        }
        Self { id: id.to_owned(), bytes, ends, packets, recording: header.recording }
    }

    /// A call that is over.
    fn sealed(id: &str, packets: usize) -> Self {
        let mut spool = Self::open(id, packets);
        Record::append_seal(Mono(9_000_000), SealCause::Released, spool.recording, &mut spool.bytes);
        spool.ends.push(spool.bytes.len());
        spool
    }

    fn stem(&self) -> String {
        format!("20260102T030405.678901Z-{}-{:08x}", self.id, crc32c::crc32c(self.id.as_bytes()))
    }

    fn path(&self, place: &Place) -> PathBuf {
        place.spool().join(format!("{}.spool", self.stem()))
    }

    fn write(&self, place: &Place) {
        fs::create_dir_all(place.spool()).unwrap();
        fs::write(self.path(place), &self.bytes).unwrap();
    }
}

/// A place where nobody waits for a gateway.
fn place() -> Place {
    Place::new().with("AUDIO_RESUME_SECS", "0")
}

/// Starts a daemon, lets it finish all that it finds, and returns what it said.
fn start(place: &Place) -> String {
    let daemon = Daemon::start(place);
    let is_spool = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "spool");
    rig::wait_for("the spool to be finished", || (!place.files().iter().any(is_spool)).then_some(()));
    daemon.stop()
}

/// What is in a folder, but for the spool's lock and its notes of calls that have ended.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| name != "lock" && name != "ended")
        .map(|name| (name.clone(), fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// What is published of a spool where nothing goes wrong: every step can be told by it, since the same spool file gives
/// the same bytes.
fn published(spool: &Spool, settings: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    let mut place = place();
    for (variable, value) in settings {
        place.set(variable, value);
    }
    spool.write(&place);
    assert!(place.command("recover").output().unwrap().status.success());
    content(&place.storage())
}

/// Checks that a start completes what `crash` leaves of a call: that, and no more, is published.
fn completes(spool: &Spool, settings: &[(&str, &str)], crash: impl Fn(&Place, &BTreeMap<String, Vec<u8>>)) {
    let expected = published(spool, settings);
    assert!(expected.len() >= 2, "{:?}", expected.keys());
    let mut place = place();
    for (variable, value) in settings {
        place.set(variable, value);
    }
    spool.write(&place);
    crash(&place, &expected);
    let others = content(&place.storage());
    start(&place);
    let mut found = content(&place.storage());
    found.retain(|name, bytes| expected.contains_key(name) || others.get(name) != Some(bytes));
    assert!(found == expected, "{:?} instead of {:?}", found.keys(), expected.keys());
    assert_eq!(content(&place.spool()).keys().collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Reads the manifest of a call and its recording, if it has one.
fn outcome(place: &Place, id: &str) -> (Value, Option<Recording>) {
    let manifest = fs::read(place.storage().join(format!("conversation_{id}_merged.json")));
    let manifest = manifest.unwrap_or_else(|error| panic!("manifest of {id}: {error}"));
    let manifest = without_absent(serde_json::from_slice(&manifest).unwrap());
    let recording = manifest["file"].is_object().then(|| {
        let path = place.path_of(&manifest);
        let recording = Recording::read(&path);
        recording.check(&path, &manifest);
        recording
    });
    (manifest, recording)
}

fn is_said_to_be_damaged(manifest: &Value) -> bool {
    manifest["reasons"].as_array().unwrap().iter().any(|reason| reason == "spool_damaged")
}

#[test]
fn step_1_killed_while_it_appends_it_cuts_off_the_torn_record_wherever_it_was_torn() {
    let place = place();
    let whole = Spool::open("torn", 6);
    let cuts = whole.ends[4] + 1..whole.bytes.len();
    let torn = cuts.map(|cut| {
        let mut spool = Spool::open(&format!("torn-{cut:04}"), 6);
        // The ids are longer by five bytes, and stand in each packet, too.
        let cut = cut + spool.bytes.len() - whole.bytes.len();
        spool.bytes.truncate(cut);
        spool
    });
    let torn: Vec<_> = torn.collect();
    assert!(torn.len() > 100);
    torn.iter().for_each(|spool| spool.write(&place));
    start(&place);
    for spool in &torn {
        let (manifest, recording) = outcome(&place, &spool.id);
        let kept = spool.ends.iter().filter(|end| **end <= spool.bytes.len()).count() - 1;
        assert!(recording.unwrap().sounds(0) == sounds_in(&spool.packets[..kept]), "{manifest}");
        assert_eq!(manifest["outcome"], "recovered");
        assert!(!is_said_to_be_damaged(&manifest), "a torn end is nothing unusual: {manifest}");
    }
    assert_eq!(place.manifests().len(), torn.len());
    assert_eq!(content(&place.spool()).len(), 0);
}

#[test]
fn step_1_killed_between_a_file_and_its_first_byte_it_leaves_nothing() {
    let place = place();
    Spool { bytes: Vec::new(), ..Spool::open("empty", 0) }.write(&place);
    let log = start(&place);
    assert!(log.contains("empty spool file removed") && !log.contains("ERROR"), "{log}");
    assert_eq!((content(&place.spool()).len(), content(&place.storage()).len()), (0, 0));
}

#[test]
fn step_2_what_was_synced_before_a_power_failure_is_published_and_what_was_not_is_told() {
    let place = place();
    // Some file systems leave zeros where the length was synced and the bytes were not.
    let holes = [0, 1, 3, 4, 70_000];
    let spools: Vec<_> = (1..=6usize)
        .flat_map(|records| holes.map(|hole| (records, hole)))
        .map(|(records, hole)| {
            let mut spool = Spool::open(&format!("power-{records}-{hole}"), 6);
            spool.bytes.truncate(spool.ends[records]);
            spool.bytes.resize(spool.bytes.len() + hole, 0);
            (records, hole, spool)
        })
        .collect();
    spools.iter().for_each(|(.., spool)| spool.write(&place));
    start(&place);
    for (records, hole, spool) in &spools {
        let (manifest, recording) = outcome(&place, &spool.id);
        assert!(recording.unwrap().sounds(0) == sounds_in(&spool.packets[..*records]), "{manifest}");
        assert_eq!(manifest["outcome"], "recovered");
        let kept = place.spool().join(format!("{}.spool.damaged", spool.stem()));
        // Fewer zeros than a record's length takes are as good as a torn record.
        assert_eq!(is_said_to_be_damaged(&manifest), *hole > 3, "{hole} {manifest}");
        assert_eq!(fs::read(&kept).is_ok_and(|kept| kept.starts_with(&spool.bytes)), *hole > 3);
    }
}

#[test]
fn step_3_a_call_that_was_sealed_is_rendered_and_published() {
    completes(&Spool::sealed("sealed", 20), &[], |_, _| {});
}

#[test]
fn step_3_a_torn_seal_is_written_again() {
    let place = place();
    let mut spool = Spool::sealed("torn-seal", 20);
    spool.bytes.pop();
    spool.write(&place);
    start(&place);
    let (manifest, recording) = outcome(&place, "torn-seal");
    assert_eq!(manifest["outcome"], "recovered");
    assert!(recording.unwrap().sounds(0) == sounds_in(&spool.packets));
    assert_eq!((place.manifests().len(), content(&place.spool()).len()), (1, 0));
}

#[test]
fn step_4_a_half_rendered_recording_is_rendered_anew() {
    let spool = Spool::sealed("rendered", 20);
    let keep = [("AUDIO_KEEP_CHANNELS", "true")];
    for suffix in ["opus", "left", "right"] {
        let beside = |place: &Place| place.spool().join(format!("{}.spool.{suffix}", spool.stem()));
        completes(&spool, &keep, |place, _| fs::write(beside(place), b"OggS and no more").unwrap());
        // What another version rendered may be longer.
        completes(&spool, &keep, |place, _| fs::write(beside(place), vec![b'x'; 200_000]).unwrap());
    }
}

#[test]
fn step_4_a_recording_that_was_rendered_whole_is_published_once() {
    let spool = Spool::sealed("rendered", 20);
    completes(&spool, &[], |place, published| {
        let rendered = &published["conversation_rendered_merged.opus"];
        fs::write(place.spool().join(format!("{}.spool.opus", spool.stem())), rendered).unwrap();
    });
}

#[test]
fn step_5_a_half_put_recording_is_put_again() {
    let spool = Spool::sealed("half-put", 20);
    completes(&spool, &[], |place, published| {
        let half = &published["conversation_half-put_merged.opus"][..300];
        fs::write(place.storage().join(format!(".{}.part", spool.stem())), half).unwrap();
    });
}

#[test]
fn step_5_a_recording_that_was_put_gets_its_manifest_and_no_second_name() {
    let spool = Spool::sealed("put", 20);
    let keep = [("AUDIO_KEEP_CHANNELS", "true")];
    let names = [
        "conversation_put_merged.opus",
        "conversation_put_merged_left.opus",
        "conversation_put_merged_right.opus",
    ];
    for put in 1..=names.len() {
        completes(&spool, &keep, |place, published| {
            for name in &names[..put] {
                fs::write(place.storage().join(name), &published[*name]).unwrap();
            }
        });
    }
}

#[test]
fn step_5_a_recording_that_was_put_under_a_second_name_gets_its_manifest_there() {
    let spool = Spool::sealed("second", 20);
    let place = place();
    let first = [
        place.storage().join("conversation_second_merged.opus"),
        place.storage().join("conversation_second_merged.json"),
    ];
    let audio = &published(&spool, &[])["conversation_second_merged.opus"];
    for path in &first {
        fs::write(path, b"another call's").unwrap();
    }
    fs::write(place.storage().join("conversation_second_merged-2.opus"), audio).unwrap();
    spool.write(&place);
    start(&place);
    let found = content(&place.storage());
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "conversation_second_merged-2.json",
            "conversation_second_merged-2.opus",
            "conversation_second_merged.json",
            "conversation_second_merged.opus"
        ]
    );
    assert!(first.iter().all(|path| fs::read(path).unwrap() == b"another call's"));
    assert_eq!(&found["conversation_second_merged-2.opus"], audio);
    let manifest: Value = serde_json::from_slice(&found["conversation_second_merged-2.json"]).unwrap();
    assert_eq!(manifest["file"]["key"], "conversation_second_merged-2.opus");
}

#[test]
fn step_6_a_half_put_manifest_is_put_again() {
    let spool = Spool::sealed("manifest", 20);
    completes(&spool, &[], |place, published| {
        let name = "conversation_manifest_merged.opus";
        fs::write(place.storage().join(name), &published[name]).unwrap();
        let half = &published["conversation_manifest_merged.json"][..100];
        fs::write(place.storage().join(format!(".{}.part", spool.stem())), half).unwrap();
    });
}

#[test]
fn step_6_where_the_manifest_is_there_only_the_spool_is_removed() {
    let all = |place: &Place, published: &BTreeMap<String, Vec<u8>>| {
        for (name, bytes) in published {
            fs::write(place.storage().join(name), bytes).unwrap();
        }
    };
    completes(&Spool::sealed("all-there", 20), &[], all);
    completes(&Spool::sealed("all-there", 20), &[("AUDIO_KEEP_CHANNELS", "true")], all);
}

#[test]
fn step_8_what_was_set_aside_is_left_where_it_is() {
    let place = place();
    let spool = Spool::sealed("aside", 20);
    spool.write(&place);
    for suffix in ["kept", "failed", "damaged", "failed-2"] {
        fs::copy(spool.path(&place), place.spool().join(format!("{}.spool.{suffix}", spool.stem()))).unwrap();
    }
    fs::remove_file(spool.path(&place)).unwrap();
    let before = content(&place.spool());
    start(&place);
    assert!(content(&place.spool()) == before, "{:?}", before.keys());
    assert_eq!(content(&place.storage()).len(), 0, "nothing is published twice");
}

#[test]
fn a_flipped_bit_costs_the_record_that_it_is_in_and_the_file_is_kept() {
    let place = place();
    let bits = Spool::sealed("bit-00000", 8).bytes.len() * 8;
    // Each bit of a header's first bytes, each kind of place after that.
    let flipped: Vec<_> = (0..64)
        .chain((64..bits).step_by(41))
        .map(|bit| {
            let mut spool = Spool::sealed(&format!("bit-{bit:05}"), 8);
            spool.bytes[bit / 8] ^= 1 << (bit % 8);
            (bit, spool)
        })
        .collect();
    flipped.iter().for_each(|(_, spool)| spool.write(&place));
    let log = start(&place);
    for (bit, spool) in &flipped {
        let hit = spool.ends.iter().position(|end| bit / 8 < *end).unwrap();
        let (manifest, recording) = outcome(&place, &spool.id);
        let mut expected = spool.packets.clone();
        if (1..=8).contains(&hit) {
            expected.remove(hit - 1);
        }
        assert!(recording.unwrap().sounds(0) == sounds_in(&expected), "bit {bit}: {manifest}");
        let kept = fs::read(place.spool().join(format!("{}.spool.damaged", spool.stem())));
        // A last record that seems to be longer than the file is what a crash leaves: it is cut off.
        if hit == 9 && kept.is_err() {
            assert_eq!(manifest["outcome"], "recovered", "bit {bit}: {manifest}");
            assert!(bit / 8 < spool.ends[8] + 4, "bit {bit} is not in a length");
            continue;
        }
        assert!(is_said_to_be_damaged(&manifest), "bit {bit}: {manifest}");
        assert!(kept.unwrap().starts_with(&spool.bytes), "bit {bit}: what was damaged is kept as it was");
        let id = format!("connection=\"{}\"", spool.id);
        let said: Vec<_> = log.lines().filter(|line| line.contains(&id) && line.contains("ERROR")).collect();
        assert!(said.len() == 1 && said[0].contains(".spool.damaged"), "bit {bit}: {said:?}");
    }
    assert_eq!(place.manifests().len(), flipped.len());
}

#[test]
fn a_damaged_place_in_an_open_call_is_kept_and_the_call_goes_on_behind_it() {
    let place = place();
    let mut spool = Spool::open("hole", 20);
    let (from, to) = (spool.ends[5] + 3, spool.ends[8] - 3);
    spool.bytes[from..to].fill(0xee);
    spool.write(&place);
    let log = start(&place);
    let (manifest, recording) = outcome(&place, "hole");
    let expected = [&spool.packets[..5], &spool.packets[8..]].concat();
    assert!(recording.unwrap().sounds(0) == sounds_in(&expected), "{manifest}");
    assert_eq!(manifest["outcome"], "recovered");
    assert!(is_said_to_be_damaged(&manifest), "{manifest}");
    let kept = content(&place.spool());
    let [(name, bytes)] = kept.iter().collect::<Vec<_>>()[..] else { panic!("{:?}", kept.keys()) };
    assert!(name.ends_with(".spool.damaged") && bytes.starts_with(&spool.bytes), "{name}");
    assert!(log.contains(name.as_str()), "{log}");
}

#[test]
fn what_is_no_spool_file_is_set_aside_once_with_a_word_and_stops_nothing() {
    let place = place();
    let good = Spool::sealed("good", 20);
    good.write(&place);
    let in_spool = |name: &str| place.spool().join(name);
    let header = &good.bytes[..good.ends[0]];
    let mut version_3 = header.to_vec();
    version_3[5] = 3;
    let sum_at = version_3.len() - 4;
    let sum = crc32c::crc32c(&version_3[..sum_at]).to_be_bytes();
    version_3[sum_at..].copy_from_slice(&sum);
    let random: Vec<u8> =
        (0..50_000u32).flat_map(|n| crc32c::crc32c(&n.to_be_bytes()).to_be_bytes()).collect();
    let files: [(&str, &[u8]); 7] = [
        ("empty.spool", b""),
        ("letter.spool", b"Dear Sir or Madam,\n"),
        ("random.spool", &random),
        ("zeros.spool", &[0; 100_000]),
        ("truncated-header.spool", &header[..header.len() - 1]),
        ("magic.spool", b"STSP"),
        ("version.spool", &version_3),
    ];
    for (name, bytes) in files {
        fs::write(in_spool(name), bytes).unwrap();
    }
    fs::create_dir(in_spool("folder.spool")).unwrap();
    fs::write(in_spool("folder.spool/file"), b"in it").unwrap();
    fs::write(place.root().join("elsewhere"), &good.bytes).unwrap();
    std::os::unix::fs::symlink(place.root().join("elsewhere"), in_spool("link.spool")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", in_spool("dangling.spool")).unwrap();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_bits_retain(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, in_spool("pipe.spool"), fifo, mode, 0).unwrap();
    fs::write(in_spool("letter.spool.failed"), b"an older letter").unwrap();

    let log = start(&place);
    let aside = [
        "empty",
        "random",
        "zeros",
        "truncated-header",
        "magic",
        "version",
        "folder",
        "link",
        "dangling",
        "pipe",
    ];
    let mut aside: Vec<String> = aside.iter().map(|name| format!("{name}.spool.failed")).collect();
    aside.push("letter.spool.failed-2".to_owned());
    for name in &aside {
        let said: Vec<_> = log.lines().filter(|line| line.contains(&format!("/{name} "))).collect();
        assert!(said.len() == 1 && said[0].contains("set aside"), "{name}: {said:?}");
        assert!(in_spool(name).symlink_metadata().is_ok(), "{name}");
    }
    for (name, bytes) in files {
        let name = if name == "letter.spool" {
            "letter.spool.failed-2".to_owned()
        } else {
            format!("{name}.failed")
        };
        assert!(fs::read(in_spool(&name)).unwrap() == bytes, "{name}");
    }
    assert_eq!(fs::read(in_spool("letter.spool.failed")).unwrap(), b"an older letter");
    assert_eq!(fs::read(in_spool("folder.spool.failed/file")).unwrap(), b"in it");
    assert!(place.root().join("elsewhere").exists());
    assert_eq!(outcome(&place, "good").0["outcome"], "ok");
    assert_eq!(place.manifests().len(), 1);

    let again = start(&place);
    assert!(!again.contains("set aside") && !again.contains("ERROR"), "{again}");
}

#[test]
fn a_file_with_nothing_but_its_header_is_a_call_without_audio() {
    let place = place();
    Spool::open("header", 0).write(&place);
    start(&place);
    assert_eq!(outcome(&place, "header").0["outcome"], "absent");
    assert_eq!(content(&place.spool()).len(), 0);
}

#[test]
fn recover_tells_of_what_it_set_aside() {
    let place = place();
    Spool::sealed("good", 5).write(&place);
    fs::write(place.spool().join("letter.spool"), b"Dear Sir or Madam,\n").unwrap();
    let recover = || {
        let output = place.command("recover").output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (status, said) = recover();
    assert_eq!(status, Some(1), "somebody has to look at it: {said}");
    assert!(
        said.starts_with("1 of 1 connections finished\n1 files are no spool files, and were set aside\n")
    );
    let aside = place.spool().join("letter.spool.failed");
    assert!(said.contains(&format!("set aside: {}\n", aside.display())), "{said}");
    let (status, said) = recover();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("\n1 files were set aside before, and were not touched\n"), "{said}");
}

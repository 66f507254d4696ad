//! Row `start`: how soon a daemon receives that finds a thousand calls in its spool.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};
use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::io::spool_dir::SpoolDir;
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

use super::peer::{Daemon, PATIENCE, folder};
use super::table::{Row, median};

const CALLS: usize = 1000;
/// A minute of both channels.
const PACKETS: u64 = 3000;
const ROUNDS: usize = 3;

/// Measures from `exec` to READY=1, as a service manager sees it.
pub(crate) fn measure() -> Vec<Row> {
    let (mut ready, mut done) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = folder();
        write_spool(&dir.path().join("spool"));
        let begun = Instant::now();
        let daemon = Daemon::start_in(dir);
        ready.push(daemon.ready_after.as_secs_f64() * 1000.0);
        while daemon.recordings() < CALLS {
            assert!(begun.elapsed() < PATIENCE, "not all are published: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        done.push(begun.elapsed().as_secs_f64());
    }
    let ready = median(ready);
    vec![Row {
        what: "cold start to ready, 1,000 calls of a minute in the spool".to_owned(),
        measured: format!("{ready:.0} ms"),
        against: format!("all published after {:.1} s", median(done)),
        ratio: String::new(),
        goal: "≤ 200 ms",
        is_met: Some(ready <= 200.0),
    }]
}

/// Writes calls of a minute, every second one of them sealed, and lets the system forget what it has of them in memory.
fn write_spool(path: &std::path::Path) {
    let spool = SpoolDir::open(path).unwrap();
    for call in 0..CALLS {
        let connection = ConnectionId::new(&format!("0192a0b4-7c1e-7d3f-8a2b-{call:012}")).unwrap();
        let opened = Wall(1_800_000_000_000_000);
        let file = spool.new_file(&connection, opened, RecordingId::derived(connection.as_str().as_bytes()));
        let mut bytes = Vec::new();
        let header = Header::derived(connection, opened, Mono(0), 1);
        header.append_to(&mut bytes);
        for packet in 0..PACKETS {
            for channel in Channel::BOTH {
                let mut rtp = vec![0x80, 111];
                rtp.extend_from_slice(&packet.to_be_bytes()[6..]);
                rtp.extend_from_slice(&(packet * 960).to_be_bytes()[4..]);
                rtp.extend_from_slice(&[0, 0, 0, 1, 0xf8]);
                rtp.extend((1..60u8).map(|n| n.wrapping_mul(151)));
                let (kind, scope) = (RecordKind::Tap(1), Scope::Channel(channel));
                let at = Mono(packet * 20_000);
                Record { kind, scope, at, gateway: None, body: &rtp }.append_to(&mut bytes);
            }
        }
        if call % 2 == 0 {
            Record::append_seal(Mono(PACKETS * 20_000), SealCause::Released, header.recording, &mut bytes);
        }
        fs::write(&file, bytes).unwrap();
        let file = File::open(file).unwrap();
        file.sync_all().unwrap();
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

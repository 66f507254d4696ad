//! The metrics: each figure against what was really sent, lost, refused and published.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::net::{TcpStream, UdpSocket};

use serde_json::json;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket, WHOLE, frame, kind};
use rig::http::{ask_with, http_address};
use rig::judges::check_metrics;
use rig::media::{SPEECH, Sender, voice};
use rig::metrics::Page;
use rig::place::Place;

const TOKEN: &str = "Xh6Lp0-Dc3Gs9~Uf1Ew8.test";

fn place() -> Place {
    Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0")
}

#[test]
fn each_figure_is_what_was_sent_lost_refused_and_published() {
    let place = place();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let page = Page::of(&address);
    check_metrics(&page.0);
    for name in ["received_frames_total", "refused_frames_total", "finished_connections_total", "spool_files"]
    {
        assert_eq!(page.sum(&format!("sidetape_{name}")), 0.0, "{name}");
    }
    assert_eq!(page.value("sidetape_ready"), 1.0);
    assert_eq!(page.value("sidetape_max_connections"), 20_000.0);

    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 100);
    let mut sender = Sender::new(1);
    let mut sent = sender.packets(&payloads[..50]);
    // Three that the network lost, and one that came twice.
    (0..3).for_each(|_| sender.skip_packet(960));
    sent.extend(sender.packets(&payloads[50..]));
    sent.push(sent[99].clone());
    gateway.play("done", CALLER, &sent);
    gateway.play("done", AI, &Sender::new(2).packets(&payloads[..40]));
    // Two that the socket lost, as the gateway counts: of the AI.
    gateway.send(&frame(kind::END, AI, 0, b"done", &42u64.to_be_bytes()));
    gateway.say(kind::END, CALLER, "done");
    gateway.meta("silent", &json!({}));
    gateway.end("silent");
    gateway.play("open", CALLER, &sent[..10]);
    gateway.write_bytes(b"not a frame at all");
    gateway.send(&frame(kind::HOLD, WHOLE, 0, b"nobody", b""));
    gateway.sync();
    let manifest = place.manifest("done");
    assert_eq!(manifest["channels"]["ai"]["socket_lost"], 2, "{manifest}");
    place.manifest("silent");
    let page = Page::when(&address, "sidetape_published_recordings_total", |count| count == 2.0);
    check_metrics(&page.0);

    let frames = 101.0 + 40.0 + 2.0 + 2.0 + 10.0;
    let length = manifest["duration_ms"].as_f64().unwrap() / 1000.0;
    for (sample, expected) in [
        ("sidetape_received_frames_total", frames + 2.0),
        (r#"sidetape_refused_frames_total{reason="bad_magic"}"#, 1.0),
        (r#"sidetape_refused_frames_total{reason="unknown_connection"}"#, 1.0),
        (r#"sidetape_refused_frames_total{reason="late"}"#, 0.0),
        ("sidetape_udp_overflow_datagrams_total", 0.0),
        ("sidetape_open_connections", 1.0),
        ("sidetape_opened_connections_total", 3.0),
        ("sidetape_resumed_connections_total", 0.0),
        (r#"sidetape_finished_connections_total{outcome="degraded"}"#, 1.0),
        (r#"sidetape_finished_connections_total{outcome="absent"}"#, 1.0),
        (r#"sidetape_finished_connections_total{outcome="ok"}"#, 0.0),
        ("sidetape_recorded_seconds_total", length),
        (r#"sidetape_recorded_packets_total{channel="caller"}"#, 101.0),
        (r#"sidetape_recorded_packets_total{channel="ai"}"#, 40.0),
        (r#"sidetape_lost_packets_total{channel="caller",cause="network"}"#, 3.0),
        (r#"sidetape_lost_packets_total{channel="caller",cause="socket"}"#, 0.0),
        (r#"sidetape_lost_packets_total{channel="ai",cause="socket"}"#, 2.0),
        (r#"sidetape_recovered_packets_total{channel="caller"}"#, 0.0),
        (r#"sidetape_spool_files{state="open"}"#, 1.0),
        (r#"sidetape_spool_files{state="unpublished"}"#, 0.0),
        ("sidetape_unpublished_oldest_seconds", 0.0),
        ("sidetape_spool_writable", 1.0),
        ("sidetape_spool_min_free_bytes", 0.0),
        (r#"sidetape_spool_errors_total{operation="write"}"#, 0.0),
        ("sidetape_render_seconds_count", 2.0),
        ("sidetape_failed_renders_total", 0.0),
        // The recording and both manifests.
        (r#"sidetape_uploads_total{result="created"}"#, 3.0),
        ("sidetape_upload_seconds_count", 3.0),
        ("sidetape_end_to_published_seconds_count", 2.0),
        (r#"sidetape_end_to_published_seconds_bucket{le="60"}"#, 2.0),
        ("sidetape_backed_up_recordings_total", 0.0),
    ] {
        assert_eq!(page.value(sample), expected, "{sample} in {}", page.0);
    }
    assert_eq!(page.sum("sidetape_publish_retries_total"), 0.0);
    let stored: u64 =
        std::fs::read_dir(place.storage()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(page.value("sidetape_uploaded_bytes_total"), stored as f64);
    // Ten packets and what is around them, after what the two others took.
    let page = Page::when(&address, r#"sidetape_spool_bytes{state="open"}"#, |bytes| bytes > 500.0);
    assert!(
        page.value("sidetape_spool_written_bytes_total")
            > page.value(r#"sidetape_spool_bytes{state="open"}"#)
    );
    assert!(page.value("sidetape_spool_write_seconds_count") >= 1.0);
    assert!(page.value("sidetape_spool_free_bytes") > 1e6);
    assert!((0.0..600.0).contains(&page.value("sidetape_spool_oldest_seconds")));
    assert!(page.value("process_resident_memory_bytes") > 1e6);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..600.0).contains(&(now - page.value("process_start_time_seconds"))));
    daemon.stop();
}

#[test]
fn a_storage_that_takes_nothing_is_seen_until_it_does_and_so_is_what_a_kill_left() {
    let place = place();
    // A file where the folder of recordings should be.
    std::fs::remove_dir(place.storage()).unwrap();
    std::fs::write(place.storage(), b"").unwrap();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let sent = Sender::new(1).packets(&voice(SPEECH, 150.0, 50));
    gateway.play("waiting", CALLER, &sent);
    gateway.end("waiting");
    gateway.play("open", CALLER, &sent);
    gateway.sync();
    let page = Page::when(&address, "sidetape_unpublished_oldest_seconds", |seconds| seconds > 1.5);
    assert!(page.sum("sidetape_publish_retries_total") >= 1.0, "{}", page.0);
    assert!(page.value(r#"sidetape_uploads_total{result="failed"}"#) >= 1.0, "{}", page.0);
    for (state, files) in [("unpublished", 1.0), ("rendered", 1.0), ("open", 1.0), ("backup", 0.0)] {
        assert_eq!(page.value(&format!("sidetape_spool_files{{state=\"{state}\"}}")), files, "{state}");
    }
    assert!(page.value("sidetape_spool_oldest_seconds") >= page.value("sidetape_unpublished_oldest_seconds"));
    daemon.kill();

    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let page = Page::of(&address);
    assert_eq!(page.value("sidetape_resumed_connections_total"), 1.0);
    assert_eq!(page.value("sidetape_opened_connections_total"), 0.0);
    assert!(page.value("sidetape_unpublished_oldest_seconds") > 1.5, "it has waited through the restart");
    std::fs::remove_file(place.storage()).unwrap();
    std::fs::create_dir(place.storage()).unwrap();
    place.manifest("waiting");
    let page = Page::when(&address, "sidetape_unpublished_oldest_seconds", |seconds| seconds == 0.0);
    assert_eq!(page.value(r#"sidetape_end_to_published_seconds_bucket{le="1"}"#), 0.0, "{}", page.0);
    assert_eq!(page.value("sidetape_end_to_published_seconds_count"), 1.0);
    daemon.stop();
}

#[test]
fn what_goes_through_the_backup_is_counted_where_it_is() {
    let mut place = place().with("AUDIO_BACKUP_STORAGE_TYPE", "local").with("AUDIO_BACKUP_AFTER_SECS", "0");
    let backup = place.root().join("backup");
    place.set("AUDIO_BACKUP_STORAGE_PATH", backup.to_str().unwrap());
    std::fs::remove_dir(place.storage()).unwrap();
    std::fs::write(place.storage(), b"").unwrap();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 50)));
    gateway.end("c");
    let page = Page::when(&address, r#"sidetape_spool_files{state="backup"}"#, |files| files == 1.0);
    assert_eq!(page.value("sidetape_backed_up_recordings_total"), 1.0);
    assert_eq!(page.value("sidetape_published_recordings_total"), 0.0);
    assert_eq!(page.value("sidetape_unpublished_oldest_seconds"), 0.0, "it can be had");
    std::fs::remove_file(place.storage()).unwrap();
    std::fs::create_dir(place.storage()).unwrap();
    let page = Page::when(&address, "sidetape_published_recordings_total", |count| count == 1.0);
    assert!(page.sum("sidetape_publish_retries_total") <= 5.0, "{}", page.0);
    Page::when(&address, r#"sidetape_spool_files{state="backup"}"#, |files| files == 0.0);
    daemon.stop();
}

#[test]
fn what_the_kernel_drops_because_the_daemon_is_not_scheduled_is_counted() {
    let place = place();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(daemon.udp()).unwrap();
    daemon.freeze();
    // More than the 64 MiB that the kernel makes of the 32 asked for.
    let count = 2000;
    for _ in 0..count {
        socket.send(&vec![0; 60_000]).unwrap();
    }
    daemon.thaw();
    let handled = |page: &Page| {
        let dropped = page.value("sidetape_udp_overflow_datagrams_total");
        (dropped, page.value(r#"sidetape_refused_frames_total{reason="bad_magic"}"#))
    };
    let (dropped, refused) = rig::wait_for("each datagram to be accounted for", || {
        let (dropped, refused) = handled(&Page::of(&address));
        (dropped + refused == f64::from(count)).then_some((dropped, refused))
    });
    assert!(dropped >= 1.0 && refused >= 1.0, "{dropped} dropped and {refused} refused");
    daemon.stop();
}

#[test]
fn the_page_names_no_call_and_no_secret_and_asks_for_the_token() {
    let place =
        place().with("AUDIO_HTTP_TOKEN", TOKEN).with("AUDIO_TAP_KEY", "another secret of enough bytes");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    gateway.meta("call-of-somebody", &json!({"tenant": "tenant-of-somebody", "labels": {"who": "somebody"}}));
    gateway.sync();
    let link = || TcpStream::connect(&address).unwrap();
    assert_eq!(ask_with(link(), "GET", "/metrics", "").problem()["status"], 401);
    let answer = ask_with(link(), "GET", "/metrics", &format!("Authorization: Bearer {TOKEN}\r\n"));
    let page = String::from_utf8(answer.body).unwrap();
    assert_eq!(Page(page.clone()).value("sidetape_open_connections"), 1.0);
    for word in ["somebody", TOKEN, "another secret"] {
        assert!(!page.contains(word), "{word} in {page}");
    }
    daemon.stop();
}

#[test]
fn a_storage_that_is_away_is_told_with_the_connections_that_wait_for_it_and_measured_while_it_is() {
    let place = place();
    // A file is where the directory has to be.
    std::fs::create_dir_all(place.storage().parent().unwrap()).unwrap();
    drop(std::fs::remove_dir(place.storage()));
    std::fs::write(place.storage(), "").unwrap();
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    assert_eq!(Page::of(&address).value("sidetape_storage_failing_seconds"), 0.0);
    assert!(Page::of(&address).value("sidetape_spool_lasts_seconds").is_infinite());
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    for id in ["one", "two", "three"] {
        gateway.play(id, CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 20)));
        gateway.end(id);
        rig::wait_for("a line about it", || {
            let log = daemon.log();
            let mut lines = log.lines().filter(|line| line.contains("publishing failed, trying again"));
            lines.any(|line| line.contains(&format!("connection=\"{id}\""))).then_some(())
        });
    }
    let page = Page::when(&address, "sidetape_storage_failing_seconds", |seconds| seconds > 1.0);
    check_metrics(&page.0);
    assert_eq!(page.value(r#"sidetape_spool_files{state="unpublished"}"#), 3.0);
    std::fs::remove_file(place.storage()).unwrap();
    for id in ["one", "two", "three"] {
        assert_eq!(place.manifest(id)["outcome"], "ok");
    }
    Page::when(&address, "sidetape_storage_failing_seconds", |seconds| seconds == 0.0);
    let log = daemon.stop();
    for id in ["one", "two", "three"] {
        let mut lines = log.lines().filter(|line| line.contains("publishing succeeded at last"));
        assert!(lines.any(|line| line.contains(&format!("connection=\"{id}\""))), "{log}");
    }
}

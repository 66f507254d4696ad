//! The rig's own servers: the object stores answer as the real ones are documented, and the proxy injects what it counts.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};

use rig::gcs::{Access, Gcs, Purpose, QUANTUM_BYTES};
use rig::http::Answer;
use rig::proxy::{Fault, Proxy};
use rig::stores::{Azurite, Moto};
use rig::wait_for;
use rig::wire::{base64, from_base64, send};
use serde_json::{Value, json};

/// What loses a request or its answer, and whether the server did what was asked.
const LOST: [(Fault, bool); 3] =
    [(Fault::ResetBefore, false), (Fault::ResetWithin, false), (Fault::CutAnswer, true)];

const UPLOAD: &str = "/upload/storage/v1/b/calls/o";

fn noise(bytes: usize) -> Vec<u8> {
    (0..u32::try_from(bytes).unwrap()).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

fn crc32c_of(bytes: &[u8]) -> String {
    base64(&crc32c::crc32c(bytes).to_be_bytes())
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}: {}", answer.head, String::from_utf8_lossy(&answer.body));
    serde_json::from_slice(&answer.body).unwrap()
}

/// Uploads in one request, in parts as the real client writes them.
fn upload(
    to: SocketAddr,
    name: &str,
    insert: &Value,
    media: &[u8],
    last: &Value,
    query: &str,
) -> io::Result<Answer> {
    let part = "Content-Type: application/json; charset=UTF-8\r\n\r\n";
    let mut body =
        format!("--cut\r\nContent-Disposition: form-data; name=\"metadata\"\r\n{part}{insert}\r\n")
            .into_bytes();
    body.extend_from_slice(b"--cut\r\nContent-Disposition: form-data; name=\"media\"\r\n\r\n");
    body.extend_from_slice(media);
    body.extend_from_slice(format!("\r\n--cut\r\n{part}{last}\r\n--cut--\r\n").as_bytes());
    let target = format!("{UPLOAD}?uploadType=multipart&name={name}{query}");
    send(to, "POST", &target, &[("Content-Type", "multipart/related; boundary=cut")], &body)
}

/// Begins an upload in several requests: the target that it goes on with.
fn begin(to: SocketAddr, name: &str, insert: &Value, query: &str) -> String {
    let target = format!("{UPLOAD}?uploadType=resumable&name={name}{query}");
    let answer = send(to, "POST", &target, &[], insert.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    let location = answer.header("location").unwrap().to_owned();
    location.strip_prefix(&format!("http://{to}")).expect("the address that was asked").to_owned()
}

fn put(to: SocketAddr, session: &str, range: &str, bytes: &[u8]) -> io::Result<Answer> {
    send(to, "PUT", session, &[("Content-Range", range)], bytes)
}

#[test]
fn base64_is_that_of_the_standard() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
        assert_eq!(base64(bytes.as_bytes()), text);
        assert_eq!(from_base64(text), bytes.as_bytes());
    }
}

#[test]
fn gcs_stores_an_upload_in_parts_and_gives_it_back() {
    let gcs = Gcs::start("calls");
    let media = noise(100_000);
    let insert = json!({ "contentType": "audio/ogg", "metadata": { "parts": "2" } });
    let last = json!({ "crc32c": crc32c_of(&media) });
    let resource = json_of(&upload(gcs.address(), "a%2Fb+c.ogg", &insert, &media, &last, "").unwrap());
    assert_eq!(resource["name"], "a/b c.ogg");
    assert_eq!(resource["size"], "100000");
    assert_eq!(resource["crc32c"], crc32c_of(&media));
    assert_eq!(resource["metadata"]["parts"], "2");
    let stored = gcs.object("a/b c.ogg").unwrap();
    assert!(stored.bytes == media && stored.content_type == "audio/ogg");
    assert_eq!(stored.metadata["parts"], "2");

    let target = "/storage/v1/b/calls/o/a%2Fb%20c.ogg";
    assert_eq!(json_of(&send(gcs.address(), "GET", target, &[], b"").unwrap()), resource);
    let read = send(gcs.address(), "GET", &format!("{target}?alt=media"), &[], b"").unwrap();
    assert!(read.status == 200 && read.body == media);
    assert_eq!(read.header("x-goog-hash").unwrap(), format!("crc32c={}", crc32c_of(&media)));
    assert_eq!(read.header("x-goog-generation").unwrap(), resource["generation"].as_str().unwrap());
    assert_eq!(read.header("x-goog-meta-parts"), Some("2"));
    let ranged = [("Range", "bytes=10-19")];
    let part = send(gcs.address(), "GET", &format!("{target}?alt=media"), &ranged, b"").unwrap();
    assert!(part.status == 206 && part.body == media[10..20]);
    assert_eq!(part.header("content-range"), Some("bytes 10-19/100000"));

    assert_eq!(send(gcs.address(), "DELETE", target, &[], b"").unwrap().status, 204);
    assert_eq!(send(gcs.address(), "DELETE", target, &[], b"").unwrap().status, 404);
    assert!(gcs.names().is_empty() && gcs.times_stored("a/b c.ogg") == 1);
}

#[test]
fn gcs_stores_nothing_where_a_precondition_or_a_checksum_does_not_hold() {
    let gcs = Gcs::start("calls");
    let to = gcs.address();
    let right = json!({ "crc32c": crc32c_of(b"one") });
    assert_eq!(upload(to, "a", &json!({}), b"one", &right, "&ifGenerationMatch=0").unwrap().status, 200);
    let again = upload(to, "a", &json!({}), b"one", &right, "&ifGenerationMatch=0").unwrap();
    assert_eq!(again.status, 412);
    let problem: Value = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(problem["error"]["errors"][0]["reason"], "conditionNotMet");
    assert_eq!(gcs.times_stored("a"), 1);
    for (first, last) in [(right.clone(), json!({})), (json!({}), right.clone())] {
        assert_eq!(upload(to, "b", &first, b"two", &last, "").unwrap().status, 400);
    }
    assert!(gcs.object("b").is_none());
    // A session that began when the name was free ends when it is not.
    let session = begin(to, "c", &json!({}), "&ifGenerationMatch=0");
    gcs.plant("calls", "c", b"theirs");
    assert_eq!(put(to, &session, "bytes 0-3/4", b"ours").unwrap().status, 412);
    assert_eq!(gcs.object("c").unwrap().bytes, b"theirs");
    let session = begin(to, "d", &right, "");
    assert_eq!(put(to, &session, "bytes 0-2/3", b"two").unwrap().status, 400);
    assert!(gcs.object("d").is_none());
}

#[test]
fn gcs_keeps_whole_quanta_of_a_body_that_was_cut_and_goes_on_from_there() {
    let gcs = Gcs::start("calls");
    let to = gcs.address();
    let media = noise(3 * QUANTUM_BYTES);
    let session = begin(to, "a", &json!({ "crc32c": crc32c_of(&media) }), "");
    let nothing = put(to, &session, "bytes */*", b"").unwrap();
    assert!(nothing.status == 308 && nothing.header("range").is_none(), "{}", nothing.head);

    // A whole piece, then one whose connection ends in its middle.
    let whole = format!("bytes 0-{}/*", QUANTUM_BYTES - 1);
    let first = put(to, &session, &whole, &media[..QUANTUM_BYTES]).unwrap();
    let kept = format!("bytes=0-{}", QUANTUM_BYTES - 1);
    assert!(first.status == 308 && first.header("range") == Some(&kept), "{}", first.head);
    let rest = media.len() - QUANTUM_BYTES;
    let range = format!("bytes {QUANTUM_BYTES}-{}/{}", media.len() - 1, media.len());
    let mut link = TcpStream::connect(to).unwrap();
    write!(link, "PUT {session} HTTP/1.1\r\nContent-Length: {rest}\r\nContent-Range: {range}\r\n\r\n")
        .unwrap();
    link.write_all(&media[QUANTUM_BYTES..2 * QUANTUM_BYTES + 1000]).unwrap();
    drop(link);

    let kept = format!("bytes=0-{}", 2 * QUANTUM_BYTES - 1);
    wait_for("the second quantum to be there, and no more", || {
        let answer = put(to, &session, "bytes */*", b"").unwrap();
        assert_eq!(answer.status, 308);
        // Asking takes the session away from the connection that has just ended; what it had not read yet is lost.
        let is_there = answer.header("range") == Some(&kept);
        let again = format!("bytes {QUANTUM_BYTES}-{}/*", 2 * QUANTUM_BYTES - 1);
        let sent =
            (!is_there).then(|| put(to, &session, &again, &media[QUANTUM_BYTES..2 * QUANTUM_BYTES]).unwrap());
        sent.is_none().then_some(())
    });
    let behind = format!("bytes {}-{}/{}", media.len() - 1, media.len() - 1, media.len());
    assert_eq!(put(to, &session, &behind, &media[..1]).unwrap().status, 400, "a gap");
    // Bytes that are there already may come again.
    let range = format!("bytes {}-{}/{}", QUANTUM_BYTES, media.len() - 1, media.len());
    let resource = json_of(&put(to, &session, &range, &media[QUANTUM_BYTES..]).unwrap());
    assert_eq!(resource["size"], media.len().to_string());
    assert!(gcs.object("a").unwrap().bytes == media);
    // Whoever has not heard of it may ask, and stores nothing by that.
    assert_eq!(json_of(&put(to, &session, "bytes */*", b"").unwrap()), resource);
    assert_eq!(gcs.times_stored("a"), 1);
    assert!(gcs.count(Purpose::Query) >= 3 && gcs.count(Purpose::Begin) == 1);
}

#[test]
fn gcs_refuses_as_the_service_does() {
    let gcs = Gcs::start("calls");
    let to = gcs.address();
    let status = || upload(to, "a", &json!({}), b"one", &json!({}), "").unwrap().status;
    let session = begin(to, "b", &json!({}), "");
    gcs.expire_sessions();
    assert_eq!(put(to, &session, "bytes 0-2/3", b"one").unwrap().status, 410);
    gcs.set_access(Access::Refused);
    assert_eq!(status(), 403);
    gcs.set_access(Access::Token("secret".to_owned()));
    assert_eq!(status(), 401);
    let read =
        |token| send(to, "GET", "/storage/v1/b/calls", &[("Authorization", token)], b"").unwrap().status;
    assert_eq!([read("Bearer wrong"), read("Bearer secret")], [401, 200]);
    gcs.set_access(Access::Open);
    gcs.remove_buckets();
    assert_eq!(status(), 404);
    gcs.create_bucket("calls");
    assert_eq!(status(), 200);
    let statuses: Vec<u16> = gcs.asked().iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [200, 410, 403, 401, 401, 200, 404, 200]);
}

#[test]
fn the_proxy_injects_what_it_counts() {
    let gcs = Gcs::start("calls");
    let proxy = Proxy::start(gcs.address());
    let media = noise(300_000);
    let last = json!({ "crc32c": crc32c_of(&media) });
    let try_upload = |name: &str| upload(proxy.address(), name, &json!({}), &media, &last, "");
    for fault in Fault::ALL {
        proxy.set_next(fault);
        let name = format!("{fault:?}");
        let result = try_upload(&name);
        let status = result.as_ref().map_or(0, |answer| answer.status);
        let (expected, stored) = match fault {
            Fault::ResetBefore | Fault::ResetWithin => (0, 0),
            Fault::CutAnswer => (0, 1),
            Fault::TooMany | Fault::TooManyForNow => (429, 0),
            Fault::Internal => (500, 0),
            Fault::Unavailable => (503, 0),
            Fault::TimedOut => (408, 0),
            Fault::Unauthorized => (401, 0),
            Fault::Slow | Fault::BadChecksum => (200, 1),
        };
        assert_eq!((status, gcs.times_stored(&name)), (expected, stored), "{fault:?}");
        assert_eq!(proxy.injected(fault), 1, "{fault:?}");
        if let Ok(answer) = result {
            assert_eq!(answer.header("retry-after").is_some(), fault == Fault::TooManyForNow);
            let is_right = String::from_utf8_lossy(&answer.body).contains(&crc32c_of(&media));
            assert_eq!(is_right, fault == Fault::Slow, "{fault:?}");
        }
    }
    assert_eq!(proxy.injected_in_all(), 11);

    proxy.set(Fault::Unavailable, 0.5);
    let statuses: Vec<u16> = (0..100).map(|_| try_upload("many").unwrap().status).collect();
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(u64::try_from(failed).unwrap(), proxy.injected(Fault::Unavailable) - 1);
    assert!((20..80).contains(&failed), "{failed} of 100");
    assert_eq!(proxy.requests(), 111);
    proxy.set_all(0.0);

    proxy.down();
    assert_eq!(try_upload("down").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    proxy.up();
    assert_eq!(try_upload("up").unwrap().status, 200);
}

#[test]
fn the_same_seed_brings_the_same_faults() {
    let gcs = Gcs::start("calls");
    let run = || {
        let proxy = Proxy::start_with_seed(gcs.address(), 7);
        proxy.set_all(0.07);
        let ask =
            |_| send(proxy.address(), "GET", "/storage/v1/b/calls", &[], b"").map_or(0, |found| found.status);
        (0..60).map(ask).collect::<Vec<_>>()
    };
    let first = run();
    assert_eq!(first, run());
    assert!(first.contains(&200) && first.contains(&0) && first.contains(&503));
}

#[test]
fn a_session_begun_through_the_proxy_goes_on_through_it() {
    let gcs = Gcs::start("calls");
    let proxy = Proxy::start_with_seed(gcs.address(), 1);
    let to = proxy.address();
    let media = noise(4 * QUANTUM_BYTES);
    proxy.set_next_after(1, Fault::ResetWithin);
    let session = begin(to, "a", &json!({}), "");
    let range = |begin: usize| format!("bytes {begin}-{}/{}", media.len() - 1, media.len());
    assert!(put(to, &session, &range(0), &media).is_err());
    let there = put(to, &session, "bytes */*", b"").unwrap();
    let end = there.header("range").and_then(|range| range.strip_prefix("bytes=0-")?.parse::<usize>().ok());
    let begin = end.map_or(0, |last| last + 1);
    assert!(there.status == 308 && begin.is_multiple_of(QUANTUM_BYTES) && begin < media.len());
    proxy.set_next(Fault::CutAnswer);
    assert!(put(to, &session, &range(begin), &media[begin..]).is_err());
    assert_eq!(json_of(&put(to, &session, "bytes */*", b"").unwrap())["size"], media.len().to_string());
    assert!(gcs.object("a").unwrap().bytes == media);
    assert_eq!(gcs.times_stored("a"), 1);
}

#[test]
fn moto_gives_back_what_it_was_given_and_stores_nothing_that_was_cut() {
    let Some(moto) = Moto::start() else { return };
    moto.create_bucket("calls");
    let media = noise(300_000);
    let headers = [("Content-Type", "audio/ogg"), ("x-amz-meta-parts", "2")];
    let answer = send(moto.address(), "PUT", "/calls/a/b%20c.ogg", &headers, &media).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.head);
    let found = moto.object("calls", "a/b c.ogg").unwrap();
    assert!(found.bytes == media && found.metadata["parts"] == "2");
    assert!(found.head.to_lowercase().contains("content-type: audio/ogg"), "{}", found.head);

    let proxy = Proxy::start_with_seed(moto.address(), 1);
    for (fault, is_stored) in LOST {
        proxy.set_next(fault);
        let target = format!("/calls/{fault:?}");
        assert!(send(proxy.address(), "PUT", &target, &[], &media).is_err());
        assert_eq!(moto.object("calls", &format!("{fault:?}")).is_some(), is_stored, "{fault:?}");
    }
    assert!(moto.object("calls", "nothing").is_none());
}

#[test]
fn azurite_gives_back_what_it_was_given_and_stores_nothing_that_was_cut() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create_container("calls");
    let media = noise(300_000);
    let headers =
        [("x-ms-blob-type", "BlockBlob"), ("x-ms-blob-content-type", "audio/ogg"), ("x-ms-meta-parts", "2")];
    let answer = azurite.ask(azurite.address(), "PUT", "/calls/a/b%20c.ogg", &[], &headers, &media).unwrap();
    assert_eq!(answer.status, 201, "{}: {}", answer.head, String::from_utf8_lossy(&answer.body));
    let found = azurite.object("calls", "a/b c.ogg").unwrap();
    assert!(found.bytes == media && found.metadata["parts"] == "2");
    assert!(found.head.to_lowercase().contains("content-type: audio/ogg"), "{}", found.head);
    assert!(azurite.object("calls", "nothing").is_none());
    let stranger = send(azurite.address(), "GET", "/devstoreaccount1/calls/a/b%20c.ogg", &[], b"").unwrap();
    assert_ne!(stranger.status, 200, "the container is not public");

    let proxy = Proxy::start_with_seed(azurite.address(), 1);
    for (fault, is_stored) in LOST {
        proxy.set_next(fault);
        let path = format!("/calls/{fault:?}");
        assert!(azurite.ask(proxy.address(), "PUT", &path, &[], &headers, &media).is_err());
        assert_eq!(azurite.object("calls", &format!("{fault:?}")).is_some(), is_stored, "{fault:?}");
    }
}

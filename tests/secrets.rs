//! Credentials of stores: used, and told to nobody, at the most talkative level of the log and whatever goes wrong.

#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![cfg(all(feature = "gcs", feature = "s3", feature = "azure"))]

mod rig;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use rig::cloud::{BUCKET, Cloud};
use rig::daemon::Daemon;
use rig::gateway::{CALLER, Gateway, Socket};
use rig::gcs::{Access, Gcs};
use rig::http::{ask, http_address};
use rig::media::{SPEECH, Sender, voice};
use rig::place::{Place, contains};
use rig::proxy::{Fault, Proxy};
use rig::stores::{AZURITE_ACCOUNT, AZURITE_KEY, Azurite};
use rig::{is_strict, wait_for};

const S3_SECRET: &str = "Zt7wQm3xKp9vLc2nBd5yRg8hJf4sAe6u";
const S3_SESSION: &str = "IQoJb3JpZ2luX2VjEJr-Hn4kTq6wYx8zVb1mCd3fGp5sLu7";

/// No part of a secret that would help to guess it is in what was said.
fn assert_kept(said: &[u8], secrets: &[String], what: &str) {
    for secret in secrets {
        for part in secret.as_bytes().windows(12) {
            assert!(!contains(said, part), "{} in {what}", String::from_utf8_lossy(part));
        }
    }
}

/// Records calls, has each fault happen once on their way, and returns all that the daemon said and left.
fn said_on_a_bad_day(place: &Place, proxy: &Proxy) -> String {
    let daemon = Daemon::start(place);
    for fault in Fault::ALL {
        proxy.set_next(fault);
    }
    let mut gateway = Gateway::connect(place, &daemon, Socket::UnixStream);
    let payloads = voice(SPEECH, 150.0, 50);
    for n in 0..4 {
        let id = format!("call-{n}");
        gateway.play(&id, CALLER, &Sender::new(1).packets(&payloads));
        gateway.end(&id);
    }
    wait_for("all to be published", || {
        (daemon.log().matches("recording published").count() == 4).then_some(())
    });
    wait_for("the spool to be empty", || place.spool_files().is_empty().then_some(()));
    assert!(proxy.injected_in_all() >= 10, "{} faults", proxy.injected_in_all());
    let page = ask(TcpStream::connect(http_address(&daemon)).unwrap(), "GET", "/metrics");
    assert_eq!(page.status, 200);
    let log = daemon.stop();
    assert!(log.contains("TRACE") && log.contains("publishing failed"), "{log}");
    // Azurite cannot delete for a shared access signature, so that `check` may fail here; tests/stores.rs has it succeed.
    let check = place.command("check").output().unwrap();
    [log.as_bytes(), &page.body, &check.stdout, &check.stderr].map(String::from_utf8_lossy).concat()
}

fn as_talkative(place: &mut Place, others: &[(&str, &str)]) {
    place.set("AUDIO_LOG", "trace");
    place.set("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    for (variable, value) in others {
        place.set(variable, value);
    }
}

#[test]
fn keys_and_session_tokens_of_s3_are_told_to_nobody() {
    let Some(cloud) = Cloud::all().into_iter().find(|cloud| matches!(cloud, Cloud::S3(_))) else { return };
    let proxy = Proxy::start(cloud.address());
    let mut place = cloud.place_at(proxy.address());
    let credentials = [("AWS_SECRET_ACCESS_KEY", S3_SECRET), ("AWS_SESSION_TOKEN", S3_SESSION)];
    as_talkative(&mut place, &credentials);
    let said = said_on_a_bad_day(&place, &proxy);
    assert_kept(said.as_bytes(), &[S3_SECRET.to_owned(), S3_SESSION.to_owned()], "what was said");
    assert!(!said.contains("AWS4-HMAC") && !said.contains("Signature="), "{said}");
}

#[test]
fn keys_and_shared_access_signatures_of_azure_are_told_to_nobody() {
    let Some(azurite) = Azurite::start() else { return };
    azurite.create_container(BUCKET);
    let (token, signature) = Azurite::shared_access_signature();
    let cloud = Cloud::Azure(azurite);
    let proxy = Proxy::start(cloud.address());
    let endpoint = format!("http://{}/{AZURITE_ACCOUNT}", proxy.address());
    let by_key = cloud.place_at(proxy.address());
    let by_token = cloud.place_at(proxy.address());
    let by_variables = [
        ("AZURE_STORAGE_CONNECTION_STRING", ""),
        ("AZURE_STORAGE_ACCOUNT", AZURITE_ACCOUNT),
        ("AZURE_STORAGE_SAS_TOKEN", token.as_str()),
        ("AZURE_STORAGE_ENDPOINT", endpoint.as_str()),
    ];
    let connection =
        format!("AccountName={AZURITE_ACCOUNT};BlobEndpoint={endpoint};SharedAccessSignature={token}");
    let by_string = [("AZURE_STORAGE_CONNECTION_STRING", connection.as_str())];
    let ways: [(Place, &[(&str, &str)]); 3] =
        [(by_key, &[]), (by_token, &by_variables), (cloud.place_at(proxy.address()), &by_string)];
    for (mut place, others) in ways {
        as_talkative(&mut place, others);
        let said = said_on_a_bad_day(&place, &proxy);
        let plain = rig::wire::from_percent(&signature);
        assert_kept(said.as_bytes(), &[AZURITE_KEY.to_owned(), signature.clone(), plain], "what was said");
        assert!(!said.contains("SharedKey "), "{said}");
        // Wrong ones are secrets of somebody, too.
        place.set("AZURE_STORAGE_CONNECTION_STRING", "");
        place.set("AZURE_STORAGE_ACCOUNT", AZURITE_ACCOUNT);
        place.set("AZURE_STORAGE_ENDPOINT", &endpoint);
        place.set("AZURE_STORAGE_SAS_TOKEN", &token.replace("sp=rwdlac", "sp=r"));
        let check = place.command("check").output().unwrap();
        assert!(!check.status.success());
        assert_kept(
            &[check.stdout, check.stderr].concat(),
            std::slice::from_ref(&signature),
            "a failed check",
        );
    }
}

/// A service account's key file, made here so that there is no key in the repository, and its private lines.
fn service_account(folder: &Path) -> Option<Vec<String>> {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output();
    let Ok(made) = made else {
        assert!(!is_strict(), "there is no openssl on the path");
        println!("there is no openssl on the path");
        return None;
    };
    assert!(made.status.success());
    let pem = String::from_utf8(made.stdout).unwrap();
    let key = json!({
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "0123456789abcdef0123456789abcdef",
        "private_key": pem,
        "client_email": "recorder@p.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    });
    std::fs::write(folder.join("key.json"), key.to_string()).unwrap();
    Some(pem.lines().filter(|line| !line.starts_with("---")).map(str::to_owned).collect())
}

#[test]
fn keys_tokens_and_session_addresses_of_google_are_told_to_nobody() {
    let gcs = Gcs::start(BUCKET);
    let proxy = Proxy::start(gcs.address());
    let mut place = Place::new().with("AUDIO_STORAGE_TYPE", "gcs").with("AUDIO_STORAGE_PATH", BUCKET);
    let Some(mut secrets) = service_account(place.root()) else { return };
    let (endpoint, key) = (proxy.endpoint(), place.root().join("key.json"));
    let key = key.to_str().unwrap().to_owned();
    let credentials = [
        ("CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE", endpoint.as_str()),
        ("GOOGLE_APPLICATION_CREDENTIALS", &key),
    ];
    as_talkative(&mut place, &credentials);
    let said = said_on_a_bad_day(&place, &proxy);
    let tokens: Vec<String> =
        gcs.asked().iter().filter_map(|asked| bearer(asked.head.header("authorization")?)).collect();
    assert!(tokens.len() > 8, "each request shows one");
    // The first part of a token says only how it is signed; the second has no secret, but is of no use to a reader.
    secrets.extend(tokens.iter().map(|token| token.rsplit('.').next().unwrap().to_owned()));
    assert_kept(said.as_bytes(), &secrets, "what was said");
    assert!(!said.contains("Bearer ") && !said.contains("upload_id="), "{said}");

    gcs.set_access(Access::Token("another".to_owned()));
    let check = place.command("check").output().unwrap();
    let said = [check.stdout, check.stderr].concat();
    assert!(!check.status.success());
    secrets.extend(gcs.asked().iter().filter_map(|asked| bearer(asked.head.header("authorization")?)));
    assert_kept(&said, &secrets, "a failed check");
}

fn bearer(header: &str) -> Option<String> {
    header.strip_prefix("Bearer ").map(str::to_owned)
}

/// A recording's manifest holds what its gateway said, and nothing of where it is kept.
#[test]
fn a_manifest_has_no_credentials() {
    for cloud in Cloud::all() {
        let place = cloud.place().with("AWS_SESSION_TOKEN", S3_SESSION);
        let daemon = Daemon::start(&place);
        let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
        gateway.play("c", CALLER, &Sender::new(1).packets(&voice(SPEECH, 150.0, 20)));
        gateway.end("c");
        let manifest: Value = cloud.manifest("conversation_c_merged.json");
        let text = manifest.to_string();
        let secrets = ["not-to-be-logged".to_owned(), AZURITE_KEY.to_owned(), S3_SESSION.to_owned()];
        assert_kept(text.as_bytes(), &secrets, "a manifest");
        daemon.stop();
    }
}

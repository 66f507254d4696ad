//! The alerts and the dashboard: each alert fires where it should, and each panel has something to show.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod rig;

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sidetape::manifest::Outcome;
use sidetape::metrics::exposition::names;
use sidetape::metrics::{DropReason, Loss, RetryCause, SpoolState, Upload, Word};
use sidetape::spool::name::Aside;

use rig::daemon::Daemon;
use rig::gateway::{AI, CALLER, Gateway, Socket};
use rig::http::http_address;
use rig::judges::promtool;
use rig::media::{SPEECH, Sender, voice};
use rig::place::Place;
use rig::wait_for;
use rig::wire::{send, to_percent};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The names of the alerts.
fn alerts() -> BTreeSet<String> {
    let rules = read("deploy/alerts.yaml");
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// The queries of the dashboard, for a job and a window of a test.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    let queries = targets.chain(annotations).map(|target| target["expr"].as_str().unwrap());
    let filled = |query: &str| {
        query.replace("$job", "sidetape").replace("$instance", ".*").replace("$__rate_interval", "20s")
    };
    queries.map(filled).collect()
}

#[test]
fn each_alert_fires_where_it_should_and_nothing_else_does() {
    promtool(&["check", "rules", file("deploy/alerts.yaml").to_str().unwrap()]);
    promtool(&["test", "rules", file("tests/alerts.yaml").to_str().unwrap()]);
    let tests = read("tests/alerts.yaml");
    for alert in alerts() {
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "tests/alerts.yaml does not fire {alert}");
    }
    assert!(alerts().len() > 30);
}

/// The words of the program's own metrics in a text, without what histograms add to them.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let own = words.filter(|word| word.starts_with("sidetape_") || word.starts_with("process_"));
    let known = names();
    let plain = |word: &str| {
        let stem = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| word.strip_suffix(suffix));
        stem.filter(|stem| known.iter().any(|name| name == stem)).unwrap_or(word).to_owned()
    };
    own.map(plain).collect()
}

#[test]
fn alerts_and_dashboard_name_what_there_is() {
    let known: BTreeSet<String> = names().into_iter().collect();
    let (rules, tests, queries) =
        (read("deploy/alerts.yaml"), read("tests/alerts.yaml"), queries().join("\n"));
    for text in [&rules, &tests, &queries] {
        let unknown: Vec<_> = metrics_in(text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
    let shown = metrics_in(&queries);
    let missing: Vec<_> = known.difference(&shown).collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");

    fn words<W: Word>() -> Vec<&'static str> {
        W::ALL.iter().map(|word| word.word()).collect()
    }
    let labels = [
        ("reason", words::<DropReason>()),
        ("cause", [words::<RetryCause>(), words::<Loss>()].concat()),
        ("outcome", words::<Outcome>()),
        ("state", words::<SpoolState>()),
        ("result", words::<Upload>()),
    ];
    for text in [rules, tests, queries] {
        for (label, words) in &labels {
            for operator in ["=\"", "=~\"", "!~\""] {
                let matcher = format!("{label}{operator}");
                let uses = text.split(&matcher).skip(1);
                // Prometheus's own word for alerts.
                let uses = uses.filter(|rest| !rest.starts_with("firing\""));
                for word in uses.flat_map(|rest| rest.split('"').next().unwrap().split('|')) {
                    // A word, or the beginning of some.
                    let beginning = word.trim_end_matches(".*");
                    let is_known = words
                        .iter()
                        .any(|known| *known == word || (beginning != word && known.starts_with(beginning)));
                    assert!(is_known, "there is no {label} {word}");
                }
            }
        }
    }
}

#[test]
fn whatever_state_of_a_file_waits_for_a_person_is_told_to_one() {
    let mut waiting: Vec<_> = Aside::ALL.into_iter().filter(|why| why.waits_for_a_person()).collect();
    waiting.sort_by_key(|why| why.name());
    let words: Vec<_> = waiting.iter().map(|why| SpoolState::from(*why).name()).collect();
    let matcher = format!("state=~\"{}\"", words.join("|"));
    assert!(
        read("deploy/alerts.yaml").contains(&format!("sidetape_spool_files{{{matcher}}} > 0")),
        "{matcher}"
    );
    assert!(queries().iter().any(|query| query.contains(&matcher)), "{matcher}");
    let (readme, operating) = (read("README.md"), read("deploy/OPERATING.md"));
    for why in Aside::ALL {
        let name = why.name();
        assert!(readme.contains(&format!("\n| `….spool.{name}` | ")), "README.md does not explain {name}");
        assert!(operating.contains(&format!("`.spool.{name}`")), "deploy/OPERATING.md does not name {name}");
    }
}

/// A Prometheus that reads a daemon once a second.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    /// Starts one; or nothing, after saying so, where it is not installed and need not be.
    fn start(place: &Place, daemon: &str) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = place.root().join("prometheus.yaml");
        let (rules, data) = (file("deploy/alerts.yaml"), place.root().join("prometheus"));
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
             scrape_configs: [{{job_name: sidetape, static_configs: [{{targets: [\"{daemon}\"]}}]}}]\n",
            rules.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={address}"));
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Some(Self { child, address }),
            Err(error) => {
                assert!(!rig::is_strict(), "prometheus: {error}");
                println!("prometheus: {error}");
                None
            }
        }
    }

    /// What a query finds.
    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let target = format!("/api/v1/query?query={}", to_percent(query, false));
        // At first it does not listen, and then it is not ready.
        let answer =
            send(self.address, "GET", &target, &[], b"").ok().filter(|answer| answer.status != 503)?;
        let found: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(found["status"], "success", "{query}: {found}");
        Some(found["data"]["result"].as_array().unwrap().clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn each_panel_has_something_to_show_of_a_daemon_that_works() {
    let place = Place::new().with("AUDIO_HTTP_LISTEN", "127.0.0.1:0");
    let daemon = Daemon::start(&place);
    let address = http_address(&daemon);
    let Some(prometheus) = Prometheus::start(&place, &address) else { return };
    let reads = |least: f64| {
        wait_for("Prometheus to have read the daemon", || {
            let found = prometheus.query(r#"count_over_time(up{job="sidetape"}[1h])"#)?;
            let count: f64 = found.first()?["value"][1].as_str()?.parse().ok()?;
            (count >= least).then_some(count)
        })
    };
    let before = reads(1.0);
    let mut gateway = Gateway::connect(&place, &daemon, Socket::UnixStream);
    let mut sender = Sender::new(1);
    let payloads = voice(SPEECH, 150.0, 100);
    let mut sent = sender.packets(&payloads[..50]);
    sender.skip_packet(960);
    sent.extend(sender.packets(&payloads[50..]));
    gateway.play("c", CALLER, &sent);
    gateway.play("c", AI, &Sender::new(2).packets(&payloads));
    gateway.write_bytes(b"no frame at all");
    gateway.end("c");
    place.manifest("c");
    gateway.play("open", CALLER, &sent);
    gateway.sync();
    reads(before + 4.0);
    for query in queries() {
        // What shows nothing as long as nothing is wrong is only asked.
        let is_for_faults = query.ends_with("> 0");
        let found = prometheus.query(&query).unwrap();
        assert!(is_for_faults || !found.is_empty(), "nothing to show: {query}");
    }
    let found = prometheus.query(r#"sidetape_open_connections{job="sidetape"}"#).unwrap();
    assert_eq!(found[0]["value"][1], "1");
    let refused = queries().into_iter().find(|query| query.contains("by (reason)")).unwrap();
    let found = prometheus.query(&refused).unwrap();
    assert_eq!(found[0]["metric"]["reason"], "short", "{found:?}");
    let firing = prometheus.query(r#"ALERTS{alertstate="firing"}"#).unwrap();
    assert!(firing.is_empty(), "{firing:?}");
    daemon.stop();
}

//! `sidetape demo`: the whole program at work, with nothing to set up.
//!
//! A daemon is started in this process, on a free UDP port and with a spool of its own that goes away afterwards. A
//! call that is part of the program is sent to it as a gateway would send it, and what it recorded is told in plain
//! words. The environment's settings are left aside, so that the demo is the same everywhere; only `AUDIO_LOG` holds.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::configure_apart;
use super::replay::{Call, named_after, plan, send};
use crate::client::Endpoint;
use crate::config::Settings;
use crate::daemon::Daemon;
use crate::id::ConnectionId;
use crate::io::capture::{read_capture, rtp_streams};
use crate::io::clock::Clock;

/// A call of 55 s, see `fixtures/README.md`.
const DEMO_CALL: &[u8] = include_bytes!("../../fixtures/demo-call.pcap");
/// How long the recording is waited for. It takes the linger of 500 ms and some more; a disk may be very slow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the output directory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Records a call that is part of this program, and leaves nothing behind but the recording.
#[derive(clap::Args, Clone, Debug)]
pub struct Demo {
    /// Let the call take as long as it took, instead of sending it as fast as it can be recorded
    #[arg(long)]
    realtime: bool,
    /// Where the recording goes
    #[arg(long, value_name = "DIR", default_value = "./recordings")]
    output: PathBuf,
}

impl Demo {
    /// Starts a daemon, sends it the call, waits for the recording, and prints what is in it.
    ///
    /// # Errors
    /// Whatever keeps the daemon from recording, such as a directory that cannot be written.
    pub async fn run(self) -> anyhow::Result<()> {
        // Caught so that the spool is removed.
        tokio::select! {
            told = self.record() => print!("{}", told?),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.context("cannot catch SIGINT")?;
                anyhow::bail!("interrupted");
            }
        }
        Ok(())
    }

    /// Records the call and returns what there is to say about it.
    async fn record(&self) -> anyhow::Result<String> {
        let spool = tempfile::tempdir().context("cannot make a directory for the spool")?;
        let log = std::env::var("AUDIO_LOG").ok().filter(|filter| !filter.is_empty());
        let settings = Settings {
            storage_path: Some(path_text(&self.output)?),
            spool_dir: Some(path_text(spool.path())?),
            udp_listen: Some("127.0.0.1:0".to_owned()),
            // The call is small; a nearly full disk is no reason to refuse it.
            min_free_bytes: Some("0".to_owned()),
            // Nothing starts in this spool again.
            on_stop: Some("finish".to_owned()),
            log: log.or_else(|| Some("warn".to_owned())),
            ..Settings::default()
        };
        let config = configure_apart(&settings)?;
        let before = manifests(&self.output)?;
        let daemon = Daemon::start(config).await?;
        let udp = daemon.bound().udp.context("the daemon listens on no udp port")?;

        let start = Clock::start().wall();
        let call = Call {
            connection: named_after(Path::new("demo"), start),
            start,
            conversation_id: None,
            rtpmaps: Vec::new(),
            ssrcs: Default::default(),
            longest: Duration::from_secs(14_400),
            is_left_open: false,
        };
        let plan = plan(vec![rtp_streams(read_capture(DEMO_CALL)?.datagrams)], &call)?;
        let begin = Instant::now();
        send(&plan, &Endpoint::Udp(udp), None, self.realtime, Duration::ZERO).await?;
        let (path, manifest) = await_manifest(&self.output, &before, &call.connection).await?;
        let elapsed = begin.elapsed();
        daemon.shutdown().await?;
        Ok(report(&path, &manifest, plan.span, elapsed))
    }
}

/// Returns a path as a setting, which is text.
fn path_text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("path is not utf-8: {}", path.display()))?;
    Ok(text.to_owned())
}

/// Looks for the manifest of a connection among those that were not there before, until it is there.
async fn await_manifest(
    folder: &Path,
    before: &BTreeSet<PathBuf>,
    connection: &ConnectionId,
) -> anyhow::Result<(PathBuf, Value)> {
    let look = async {
        loop {
            if let Some(found) = find_manifest(folder, before, connection)? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
        let (seconds, folder) = (PATIENCE.as_secs(), folder.display());
        anyhow::bail!(
            "no recording of {connection} in {folder} after {seconds} s; AUDIO_LOG=debug tells more"
        )
    })
}

fn find_manifest(
    folder: &Path,
    before: &BTreeSet<PathBuf>,
    connection: &ConnectionId,
) -> anyhow::Result<Option<(PathBuf, Value)>> {
    for path in manifests(folder)?.difference(before) {
        // Another program may share the directory: what is not a manifest is not meant.
        let Ok(manifest) = serde_json::from_slice::<Value>(&std::fs::read(path)?) else { continue };
        if manifest["connection_id"] == connection.as_str() {
            return Ok(Some((path.clone(), manifest)));
        }
    }
    Ok(None)
}

/// Lists the `.json` files of a directory; of one that does not exist, none.
fn manifests(folder: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let tried = || format!("cannot list {}", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.with_context(tried)?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<BTreeSet<_>>>();
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    Ok(paths.with_context(tried)?.into_iter().filter(is_json).collect())
}

/// Says what was recorded, for somebody who sees it for the first time.
fn report(manifest_path: &Path, manifest: &Value, span: Duration, elapsed: Duration) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let seconds = |value: &Value| Duration::from_millis(number(value)).as_secs_f64();
    let row = |name: &str, counts: &Value| {
        let [packets, lost, duplicate, reordered] =
            ["packets", "lost", "duplicate", "reordered"].map(|key| number(&counts[key]));
        let silence = seconds(&counts["silence_ms"]);
        format!("{name:<14}{packets:>9}{lost:>7}{duplicate:>12}{reordered:>11}{silence:>9.1} s")
    };
    let reasons: Vec<&str> =
        manifest["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let because = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    format!(
        "A phone call of {span:.0} s between a person and an AI, recorded in {elapsed:.1} s.

Recording  {recording}
Manifest   {manifest_path}
Length     {length:.1} s, with the silence after the last word
Outcome    {outcome}{because}
Size       {bytes} bytes

Channel         packets   lost  duplicates  reordered    silence
{caller}
{ai}

The packets that the caller's network lost, doubled or swapped are part of the demo.

Listen     ffplay {recording}
           or any other player, or a browser: the caller is left, the AI right
Go on      sidetape serve
           waits for the calls of your own gateway
",
        span = span.as_secs_f64(),
        elapsed = elapsed.as_secs_f64(),
        recording = manifest_path.with_extension("opus").display(),
        manifest_path = manifest_path.display(),
        length = seconds(&manifest["duration_ms"]),
        outcome = manifest["outcome"].as_str().unwrap_or("unknown"),
        bytes = number(&manifest["file"]["bytes"]),
        caller = row("caller, left", &manifest["channels"]["caller"]),
        ai = row("AI, right", &manifest["channels"]["ai"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_call_in_the_program_has_two_sides_and_nothing_else() {
        let streams = rtp_streams(read_capture(DEMO_CALL).unwrap().datagrams);
        let sources: Vec<&str> = streams.iter().map(|stream| stream.source.as_str()).collect();
        assert_eq!(sources, ["10.0.0.1:4000", "10.0.0.2:5000"]);
        for stream in streams {
            assert_eq!(stream.payload_types.keys().copied().collect::<Vec<_>>(), [111]);
        }
    }

    #[test]
    fn the_manifest_is_the_new_one_of_the_connection() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("not yet");
        assert!(manifests(&nowhere).unwrap().is_empty());
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let id = ConnectionId::new("demo-1").unwrap();
        write("old.json", r#"{"connection_id":"demo-1"}"#);
        let before = manifests(folder.path()).unwrap();
        write("other.json", r#"{"connection_id":"demo-2"}"#);
        write("broken.json", r#"{"connection_id":"de"#);
        write("new.opus", "");
        assert_eq!(find_manifest(folder.path(), &before, &id).unwrap(), None);
        write("new.json", r#"{"connection_id":"demo-1"}"#);
        let (path, _) = find_manifest(folder.path(), &before, &id).unwrap().unwrap();
        assert_eq!(path, folder.path().join("new.json"));
    }

    #[test]
    fn what_was_recorded_is_told_in_plain_words() {
        let manifest = serde_json::json!({
            "duration_ms": 57_040, "outcome": "degraded", "reasons": ["lost", "reordered"], "file": {"bytes": 201_234},
            "channels": {
                "caller": {"packets": 2000, "lost": 4, "duplicate": 2, "reordered": 3, "silence_ms": 12_340},
                "ai": {"packets": 1400, "lost": 0, "duplicate": 0, "reordered": 0, "silence_ms": 25_000},
            },
        });
        let text =
            report(Path::new("out/a.json"), &manifest, Duration::from_secs(55), Duration::from_millis(720));
        for expected in [
            "A phone call of 55 s between a person and an AI, recorded in 0.7 s.",
            "Recording  out/a.opus",
            "Length     57.0 s",
            "Outcome    degraded (lost, reordered)",
            "Size       201234 bytes",
            "caller, left       2000      4           2          3     12.3 s",
            "AI, right          1400      0           0          0     25.0 s",
            "ffplay out/a.opus",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
    }
}

//! Other programs that have to accept a recording without a word of complaint.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::is_strict;

/// Lets every judge that is installed look at a recording and decode it.
pub(crate) fn judge(path: &Path) {
    check_form(path);
    for decoder in ["opus", "libopus"] {
        let silent = ["-nostdin", "-v", "warning", "-c:a", decoder, "-i"];
        accepts(Command::new("ffmpeg").args(silent).arg(path).args(["-f", "null", "-"]));
    }
    let source = format!("location={}", path.display());
    let pipeline = ["!", "oggdemux", "!", "opusdec", "!", "fakesink", "sync=false"];
    accepts(Command::new("gst-launch-1.0").args(["-q", "filesrc", &source]).args(pipeline));
}

/// Lets the judges of form alone look at a recording: not what is in it, but how it is written down.
pub(crate) fn check_form(path: &Path) {
    if let Some(output) = run(Command::new("opusinfo").arg(path)) {
        let said = said(&output);
        assert!(output.status.success(), "opusinfo on {}: {said}", path.display());
        assert!(!said.to_lowercase().contains("warning"), "opusinfo on {}: {said}", path.display());
    }
    accepts(Command::new("oggz-validate").arg(path));
}

/// Decodes a file with FFmpeg's libopus to interleaved samples; nothing where FFmpeg is not installed.
pub(crate) fn decode_with_ffmpeg(path: &Path) -> Option<Vec<i16>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "warning", "-c:a", "libopus", "-i"]).arg(path);
    let output = run(command.args(["-f", "s16le", "-c:a", "pcm_s16le", "-"]))?;
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    let (samples, _) = output.stdout.as_chunks();
    Some(samples.iter().map(|sample| i16::from_le_bytes(*sample)).collect())
}

/// Decodes raw audio, of which `form` are FFmpeg's options, to interleaved samples; nothing where FFmpeg is not
/// installed.
pub(crate) fn decode_raw_with_ffmpeg(form: &[String], bytes: &[u8]) -> Option<Vec<i16>> {
    let out = convert_with_ffmpeg(form, bytes, &["-f", "s16le", "-c:a", "pcm_s16le"])?;
    let (samples, _) = out.as_chunks();
    Some(samples.iter().map(|sample| i16::from_le_bytes(*sample)).collect())
}

/// Encodes samples at 16 kHz as G.722; nothing where FFmpeg is not installed.
pub(crate) fn encode_g722_with_ffmpeg(samples: &[i16]) -> Option<Vec<u8>> {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let form = ["-f", "s16le", "-ar", "16000", "-ac", "1"].map(str::to_owned);
    convert_with_ffmpeg(&form, &bytes, &["-c:a", "g722", "-f", "g722"])
}

fn convert_with_ffmpeg(from: &[String], bytes: &[u8], to: &[&str]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let input = folder.path().join("input");
    std::fs::write(&input, bytes).expect("a file for a test");
    let mut command = Command::new("ffmpeg");
    // Raw audio has no header, and FFmpeg always warns that it guesses.
    command.args(["-nostdin", "-v", "error"]).args(from).arg("-i").arg(&input);
    let output = run(command.args(to).arg("-"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {said}");
    Some(output.stdout)
}

/// Lets Prometheus's own tool read a page of metrics. It complains of names and units, too.
pub(crate) fn check_metrics(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return missing(&command, &error),
    };
    let written = child.stdin.take().expect("it is piped").write_all(page.as_bytes());
    let output = child.wait_with_output().expect("its output is text");
    let said = said(&output);
    assert!(written.is_ok() && output.status.success() && said.trim().is_empty(), "promtool: {said}\n{page}");
}

/// Lets Prometheus's own tool do something that succeeds.
pub(crate) fn promtool(words: &[&str]) {
    if let Some(output) = run(Command::new("promtool").args(words)) {
        assert!(output.status.success(), "promtool {words:?}: {}", said(&output));
    }
}

/// Runs a judge that says nothing of a good file.
fn accepts(command: &mut Command) {
    if let Some(output) = run(command) {
        let said = said(&output);
        assert!(output.status.success() && said.trim().is_empty(), "{command:?} ({}): {said}", output.status);
    }
}

/// Runs a program that may be missing on a developer's machine, and must not be missing in CI.
pub(crate) fn run(command: &mut Command) -> Option<Output> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            missing(command, &error);
            None
        }
    }
}

fn missing(command: &Command, error: &io::Error) {
    let message = format!("cannot ask {:?}: {error}", command.get_program());
    assert!(!is_strict(), "{message}");
    println!("{message}");
}

/// All that a program wrote.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

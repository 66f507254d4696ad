//! Other programs that have to accept a recording without a word of complaint.

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

/// Runs a judge that says nothing of a good file.
fn accepts(command: &mut Command) {
    if let Some(output) = run(command) {
        let said = said(&output);
        assert!(output.status.success() && said.trim().is_empty(), "{command:?} ({}): {said}", output.status);
    }
}

fn run(command: &mut Command) -> Option<Output> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            let message = format!("cannot ask {:?}: {error}", command.get_program());
            assert!(!is_strict(), "{message}");
            println!("{message}");
            None
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

//! Captures are read for a replay, and what they lack is told.

use std::path::Path;

use anyhow::{Context, bail};

use crate::io::capture::{Capture, RtpStream, read_capture, rtp_streams};

/// What is of use in a capture.
pub(super) struct File {
    pub(super) streams: Vec<RtpStream>,
    /// As [`Capture::kept_bytes`].
    pub(super) kept_bytes: usize,
}

/// Reads a capture, and tells of what in it cannot be sent.
pub(super) fn load(path: &Path) -> anyhow::Result<File> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let capture = read_capture(&bytes).with_context(|| format!("cannot read {name}"))?;
    let Capture { datagrams, cut_frames, kept_bytes, torn_bytes } = capture;
    if torn_bytes > 0 {
        eprintln!("{name} is cut off or damaged: its last {torn_bytes} bytes are not read");
    }
    let cut = datagrams.iter().filter(|datagram| datagram.is_cut).count() + cut_frames;
    let streams = rtp_streams(datagrams);
    if streams.is_empty() && cut > 0 {
        bail!(
            "no rtp stream of 3 packets or more in {name}: of {cut} packets only the start was captured \
             (-s {kept_bytes}); capture whole packets (-s 0)"
        );
    }
    if streams.is_empty() {
        bail!("no rtp stream of 3 packets or more in {name}");
    }
    if cut_frames > 0 {
        eprintln!("{name}: {cut_frames} packets are cut off before they say what they are, and not sent");
    }
    Ok(File { streams, kept_bytes })
}

/// Tells of packets of which captures kept only so much.
pub(super) fn told_cut([caller, ai]: [u64; 2], kept_bytes: usize) -> String {
    format!(
        "not sent: {caller} packets of the caller and {ai} of the ai, of which only the start was captured \
         (-s {kept_bytes}); capture whole packets (-s 0)"
    )
}

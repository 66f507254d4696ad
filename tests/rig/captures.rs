//! Real captures, from the folder that `SIDETAPE_CAPTURES` names.

use std::path::PathBuf;

use sidetape::io::capture::{read_capture, rtp_streams};

use super::media::{Sent, samples_of};
use super::recording::{Sound, frames_of};

/// One direction of a real call in Opus, and what is known of it from other programs.
pub(crate) struct Capture {
    /// The file's name.
    pub(crate) name: &'static str,
    /// RTP packets in it.
    pub(crate) packets: u64,
    /// Packets that never came.
    pub(crate) lost: u64,
    /// Packets that came after a later one.
    pub(crate) reordered: u64,
    /// The packets, with times from the beginning of the call on.
    pub(crate) sent: Vec<Sent>,
}

/// Name, packets, lost, reordered: as tshark counts them.
const OPUS: [(&str, u64, u64, u64); 7] = [
    ("opus-2013785496.pcap", 765, 0, 0),
    ("16_bit_48khz_60_fec_rtp.pcapng", 3000, 0, 0),
    ("16_bit_48khz_60_fec_dropped.pcapng", 2971, 29, 0),
    ("sip-rtp-opus.pcap", 425, 0, 0),
    ("opus-edge-congestion20_60_40.pcapng", 3083, 6, 0),
    ("rtp-534late-24loss-7000total.pcapng", 7108, 24, 30),
    ("derived_stereo_celt_96k_20s.pcap", 1000, 0, 0),
];

/// The captures that hold Opus, beginning at `start_us`; or nothing, after saying so, where there is no such folder.
pub(crate) fn opus_captures(start_us: u64) -> Option<Vec<Capture>> {
    let folder = folder()?;
    let read = |(name, packets, lost, reordered)| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let streams =
            rtp_streams(read_capture(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).datagrams);
        let [stream] = streams.as_slice() else { panic!("{name} has {} streams", streams.len()) };
        let first_us = stream.packets.iter().map(|packet| packet.at_us).min().expect("no stream is empty");
        let since_start = |at_us: i64| u64::try_from(at_us - first_us).expect("not before the first");
        let sent: Vec<Sent> = stream
            .packets
            .iter()
            .map(|packet| Sent { at_us: start_us + since_start(packet.at_us), rtp: packet.payload.clone() })
            .collect();
        assert_eq!(sent.len(), usize::try_from(packets).expect("a few thousand"), "packets of {name}");
        Capture { name, packets, lost, reordered, sent }
    };
    Some(OPUS.map(read).into())
}

/// The payloads of all packets of one payload type in a capture, stream after stream, in the order in which they were
/// captured; or nothing, after saying so, where there are no captures.
pub(crate) fn audio_payloads(name: &str, payload_type: u8) -> Option<Vec<Vec<u8>>> {
    let bytes = std::fs::read(folder()?.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let streams =
        rtp_streams(read_capture(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).datagrams);
    let datagrams = streams.into_iter().flat_map(|stream| stream.packets);
    let packets = datagrams.map(|datagram| Sent { at_us: 0, rtp: datagram.payload }.read());
    let audio = packets.filter(|packet| packet.header.payload_type == payload_type);
    Some(audio.map(|packet| packet.payload.to_vec()).collect())
}

/// Each stream of a capture: its SSRC, and its packets with times from 1 s after the epoch on.
pub(crate) fn streams(name: &str) -> Option<Vec<(u32, Vec<Sent>)>> {
    let bytes = std::fs::read(folder()?.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let streams =
        rtp_streams(read_capture(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")).datagrams);
    let first_us = streams.iter().flat_map(|stream| &stream.packets).map(|packet| packet.at_us).min()?;
    let since_first = |at_us: i64| u64::try_from(at_us - first_us).expect("not before the first") + 1_000_000;
    let sent = streams.iter().map(|stream| {
        let packets = stream.packets.iter();
        let sent = packets.map(|p| Sent { at_us: since_first(p.at_us), rtp: p.payload.clone() });
        (stream.ssrc, sent.collect())
    });
    Some(sent.collect())
}

/// The folder of captures; or nothing, after saying so, where there is none and need not be.
fn folder() -> Option<PathBuf> {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    let folder = std::env::var_os("SIDETAPE_CAPTURES").map_or_else(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!("no captures in {}: set SIDETAPE_CAPTURES", folder.display());
    assert!(!super::is_strict(), "{message}");
    println!("{message}");
    None
}

impl Capture {
    /// The Opus frames of the capture in the order in which they were sent, each once, with their RTP time from the
    /// first of them on.
    pub(crate) fn sounds(&self) -> Vec<(i64, Sound)> {
        let mut packets: Vec<(i64, i64, Vec<u8>)> = Vec::new();
        // Both counters wrap, and both are followed from the latest packet so far.
        let mut latest: Option<(i64, i64, u16, u32)> = None;
        for packet in self.sent.iter().map(Sent::read).filter(|packet| packet.header.payload_type != 101) {
            let (sequence, timestamp) = (packet.header.sequence_number, packet.header.timestamp);
            let (number, ticks) = latest.map_or((0, 0), |(number, ticks, last_sequence, last_timestamp)| {
                let step = sequence.wrapping_sub(last_sequence).cast_signed();
                let time = timestamp.wrapping_sub(last_timestamp).cast_signed();
                (number + i64::from(step), ticks + i64::from(time))
            });
            latest = latest.max(Some((number, ticks, sequence, timestamp)));
            packets.push((number, ticks, packet.payload.to_vec()));
        }
        packets.sort();
        packets.dedup_by_key(|(number, ..)| *number);
        let frames = packets.iter().flat_map(|(_, ticks, payload)| {
            let frames = frames_of(payload);
            let step = i64::from(samples_of(payload)) / i64::try_from(frames.len()).expect("at most 48");
            (0..).map(move |index| ticks + step * index).zip(frames)
        });
        frames.filter(|(_, sound)| sound.is_heard()).collect()
    }
}

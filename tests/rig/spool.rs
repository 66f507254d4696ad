//! A call rendered without a daemon: packets of both channels into a spool file, and the recording made of it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sidetape::config::RecordingFormat;
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::io::render::{Options, Rendered, render};
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

use super::media::Sent;

/// What recordings are made with unless a test says otherwise.
pub(crate) fn options(format: RecordingFormat) -> Options {
    Options {
        tail: Duration::ZERO,
        ai_offset_ms: 0,
        keep_channels: false,
        longest: Duration::from_secs(14_400),
        format,
        gains_db: [0.0; 2],
        masks_digits: false,
    }
}

/// Writes a sealed spool file of a call.
pub(crate) fn write_spool(path: &Path, payload_types: [&Value; 2], channels: [&[Sent]; 2]) {
    write_spool_of("call", path, payload_types, channels);
}

/// Writes a sealed spool file of the call of that id.
pub(crate) fn write_spool_of(id: &str, path: &Path, payload_types: [&Value; 2], channels: [&[Sent]; 2]) {
    let begin = channels.iter().flat_map(|sent| sent.iter()).map(|sent| sent.at_us).min().unwrap_or(0);
    let opened = Wall(i64::try_from(begin).expect("a time of this century"));
    let connection = ConnectionId::new(id).expect("a good id");
    let mut out = Vec::new();
    let header = Header::derived(connection, opened, Mono(0), 1);
    header.append_to(&mut out);
    let mut append = |kind, channel, at, body: &[u8]| {
        let scope = Scope::Channel(channel);
        Record { kind: RecordKind::Tap(kind), scope, at: Mono(at), gateway: None, body }.append_to(&mut out);
    };
    for channel in Channel::BOTH {
        let meta = json!({ "payload_types": payload_types[channel.index()] }).to_string();
        append(3, channel, 0, meta.as_bytes());
    }
    let mut packets: Vec<(u64, Channel, &[u8])> = Vec::new();
    for channel in Channel::BOTH {
        let sent = channels[channel.index()].iter();
        packets.extend(sent.map(|sent| (sent.at_us - begin, channel, sent.rtp.as_slice())));
    }
    packets.sort_by_key(|(at, ..)| *at);
    for (at, channel, rtp) in packets {
        append(1, channel, at, rtp);
    }
    Record::append_seal(Mono(0), SealCause::Released, header.recording, &mut out);
    std::fs::write(path, out).expect("a writable folder");
}

/// Renders a call in a format, and decodes both channels with a decoder of libopus.
pub(crate) fn record(
    directory: &Path,
    payload_types: [&Value; 2],
    channels: [&[Sent]; 2],
    options: &Options,
) -> (Rendered, [Vec<f32>; 2]) {
    let spool = directory.join("call.spool");
    write_spool(&spool, payload_types, channels);
    let rendered = render(&spool, options).expect("a recording");
    let decoded = decode(&rendered.files[0].path);
    (rendered, decoded)
}

/// Decodes an Ogg Opus file of either format: what a player plays.
pub(crate) fn decode(path: &Path) -> [Vec<f32>; 2] {
    let bytes = std::fs::read(path).expect("a file");
    let mut reader = ogg::PacketReader::new(std::io::Cursor::new(bytes));
    let head = reader.read_packet_expected().expect("a head").data;
    reader.read_packet_expected().expect("tags");
    let streams = if head[18] == 0 { (1, 1) } else { (head[19], head[20]) };
    let (streams, coupled) = streams;
    let mut decoder = opus::MSDecoder::new(48_000, streams, coupled, &[0, 1]).expect("a stereo file");
    let skip = usize::from(u16::from_le_bytes([head[10], head[11]]));
    let (mut channels, mut granule) = ([Vec::new(), Vec::new()], 0);
    let mut pcm = vec![0.0; 5760 * 2];
    while let Some(packet) = reader.read_packet().expect("whole pages") {
        let samples = decoder.decode_float(&packet.data, &mut pcm, false).expect("libopus decodes");
        for pair in pcm[..samples * 2].chunks_exact(2) {
            channels[0].push(pair[0]);
            channels[1].push(pair[1]);
        }
        granule = packet.absgp_page();
    }
    channels.map(|mut pcm| {
        pcm.truncate(usize::try_from(granule).expect("a short file"));
        pcm.drain(..skip);
        pcm
    })
}

//! What each stage of a recording costs, one by one: `cargo bench --bench stages`.
//!
//! The call is the demo's, for ten minutes. Beside two stages stands what one would take instead: the `rtp` crate of
//! webrtc-rs for parsing, the `ogg` crate for pages. Times are for the whole call; `items/s` are its packets.
#![allow(clippy::unwrap_used, reason = "a benchmark may fail")]
#![allow(clippy::cast_possible_truncation, reason = "the parts of a ten minutes' call are small")]

#[path = "compare/call.rs"]
#[allow(dead_code, reason = "the forms of the call that other programs read")]
mod call;

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use ogg::{PacketWriteEndInfo, PacketWriter};
use sidetape::connection::Rules;
use sidetape::frame::{encode, parse};
use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::io::clock::Clock;
use sidetape::io::gate::{Gate, Via};
use sidetape::io::ingest::{Ingest, Limits};
use sidetape::io::spool_dir::SpoolDir;
use sidetape::io::spool_writer::SpoolWriter;
use sidetape::ledger::{ChannelLedger, Ledger};
use sidetape::metrics::Metrics;
use sidetape::mux::cells::Planner;
use sidetape::mux::lane::{Lane, Piece};
use sidetape::mux::lossless::Assembler;
use sidetape::mux::ogg::{Layout, PRE_SKIP, Pages, head, tags};
use sidetape::opus::packet;
use sidetape::packet::parse_rtp;
use sidetape::recording::{Arrangement, arrange};
use sidetape::spool::scan::Scanner;
use sidetape::spool::{Record, RecordKind};
use sidetape::time::Mono;
use webrtc_util::marshal::Unmarshal as _;

const SECONDS: i64 = 600;
const RTP: u8 = 1;
/// The longest recording, as configured by default.
const LONGEST: Duration = Duration::from_secs(14_400);
/// Bytes of the spool that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

fn main() {
    divan::main();
}

/// The call in the form in which each stage gets it.
struct Stages {
    rtp: Vec<(Channel, Vec<u8>)>,
    frames: Vec<Vec<u8>>,
    spool: Vec<u8>,
    ledger: Ledger,
    call: Arrangement,
    /// The Ogg packets, and how long each is.
    packets: Vec<(Vec<u8>, i64)>,
}

static STAGES: LazyLock<Stages> = LazyLock::new(|| {
    let call = call::Call::of(SECONDS);
    let id = ConnectionId::new("0192a0b4-7c1e-7d3f-8a2b-000000000001").unwrap();
    let rtp: Vec<_> = call.rtp().map(|(channel, rtp)| (channel, rtp.to_vec())).collect();
    let frames =
        rtp.iter().map(|(channel, rtp)| encode(RTP, Scope::Channel(*channel), None, &id, rtp)).collect();
    let spool = call.spool();
    let ledger = read(&spool);
    let call = arrange(&ledger, 0, LONGEST);
    let mut packets = Vec::new();
    assemble(&spool, &ledger, &call, |packet, samples| packets.push((packet.to_vec(), samples)));
    Stages { rtp, frames, spool, ledger, call, packets }
});

fn bench<T>(bencher: Bencher<'_, '_>, mut stage: impl FnMut(&Stages) -> T) {
    let stages = &*STAGES;
    bencher.counter(ItemsCount::new(stages.rtp.len())).bench_local(|| stage(stages));
}

/// Tap frames, and the RTP in them.
#[divan::bench]
fn a_parse(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        for frame in &stages.frames {
            black_box(parse_rtp(parse(frame).unwrap().body).unwrap());
        }
    });
}

/// The RTP alone, by the crate of webrtc-rs.
#[divan::bench]
fn a_parse_rtp_by_webrtc_rs(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        for (_, rtp) in &stages.rtp {
            black_box(rtp::packet::Packet::unmarshal(&mut rtp.as_slice()).unwrap());
        }
    });
}

/// From a frame's bytes to the spool's buffer, which its thread writes meanwhile.
#[divan::bench]
fn b_ingest(bencher: Bencher<'_, '_>) {
    let folder = tempfile::TempDir::new().unwrap();
    let spool = Arc::new(SpoolDir::open(folder.path()).unwrap());
    let (sealed, _end) = tokio::sync::mpsc::channel(1);
    let minute = Duration::from_secs(60);
    let reading = Rules::for_reading(false);
    let rules = Rules { linger: minute, retention: minute, resume: minute, max_duration: LONGEST, ..reading };
    let writer = SpoolWriter::start(folder.path(), Duration::from_secs(1), rules, sealed).unwrap();
    let limits = Limits { is_recording: true, max_connections: 10, rules, max_packets: u64::MAX };
    let ingest =
        Ingest::new(limits, Gate::new(None), Clock::start(), Arc::new(Metrics::default()), spool, writer);
    bench(bencher, |stages| {
        for frame in &stages.frames {
            black_box(ingest.receive(frame, Via::Unix, Mono(1)));
        }
    });
    ingest.stop_writer();
}

/// Records for the spool, each with its checksum.
#[divan::bench]
fn c_write_records(bencher: Bencher<'_, '_>) {
    let mut out = Vec::new();
    bench(bencher, |stages| {
        out.clear();
        for (channel, rtp) in &stages.rtp {
            let scope = Scope::Channel(*channel);
            Record { kind: RecordKind::Tap(RTP), scope, at: Mono(1), gateway: None, body: rtp }
                .append_to(&mut out);
        }
        black_box(out.len())
    });
}

/// Records out of the spool, each checksum compared.
#[divan::bench]
fn d_read_records(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        let mut bytes = 0;
        scan(&stages.spool, |_| (), |(), located| bytes += located.record.body.len());
        bytes
    });
}

/// The same, and what they say entered into the ledger.
#[divan::bench]
fn e_ledger(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| read(&stages.spool));
}

/// Both channels placed on one timeline.
#[divan::bench]
fn f_arrange(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| arrange(&stages.ledger, 0, LONGEST));
}

/// Time cut into cells, and Ogg packets made of frames.
#[divan::bench]
fn g_assemble(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        let mut bytes = 0;
        assemble(&stages.spool, &stages.ledger, &stages.call, |packet, _| bytes += packet.len());
        bytes
    });
}

/// Packets put into pages.
#[divan::bench]
fn h_pages(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        let mut pages = Pages::new(1, &head(Layout::TwoMonoStreams, PRE_SKIP), &tags("bench", &[]));
        let mut bytes = 0;
        for (packet, samples) in &stages.packets {
            pages.packet().extend_from_slice(packet);
            pages.push(*samples as u64);
            bytes += pages.bytes().len();
            pages.clear();
        }
        bytes
    });
}

/// The same by the `ogg` crate.
#[divan::bench]
fn h_pages_by_the_ogg_crate(bencher: Bencher<'_, '_>) {
    bench(bencher, |stages| {
        let mut writer = PacketWriter::new(std::io::sink());
        let (mut granule, mut on_page) = (0, 0);
        for (packet, samples) in &stages.packets {
            granule += *samples as u64;
            on_page += *samples;
            let is_full = on_page >= 48_000;
            let info = if is_full { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            on_page = if is_full { 0 } else { on_page };
            writer.write_packet(packet.clone(), 1, info, granule).unwrap();
        }
    });
}

/// Reads a spool in pieces, as the daemon reads a file.
fn scan<T>(
    spool: &[u8],
    begin: impl Fn(sidetape::spool::Header) -> T,
    mut each: impl FnMut(&mut T, &sidetape::spool::scan::Located<'_>),
) -> T {
    let mut scanner = Scanner::default();
    let mut state = None;
    for piece in spool.chunks(PIECE_BYTES) {
        scanner.feed(piece);
        if state.is_none() {
            state = scanner.header().unwrap().map(&begin);
        }
        while let Some(located) = scanner.next_record() {
            each(state.as_mut().unwrap(), &located);
        }
    }
    state.unwrap()
}

fn read(spool: &[u8]) -> Ledger {
    let begin = |header| {
        let mut ledger = Ledger::new(header);
        ledger.expect(spool.len() as u64);
        ledger
    };
    let mut ledger = scan(spool, begin, Ledger::record);
    ledger.close(LONGEST);
    ledger
}

/// Hands each Ogg packet to `each`, with its length in samples.
fn assemble(spool: &[u8], ledger: &Ledger, call: &Arrangement, mut each: impl FnMut(&[u8], i64)) {
    let pieces = Channel::BOTH.map(|channel| -> Vec<Piece> {
        call.channels[channel.index()].packets.iter().filter_map(Piece::of).collect()
    });
    let mut fetch = |channel: usize, piece: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
        let source = call.channels[channel].sources[piece] as usize;
        let ChannelLedger { rx, payloads, .. } = &ledger.channels[channel];
        let offset = payloads[source].offset as usize;
        out.extend_from_slice(&spool[offset..][..usize::from(rx[source].bytes)]);
        Ok(())
    };
    let [caller, ai] = &pieces;
    let (mut planner, mut assembler) =
        (Planner::new([Lane::new(caller), Lane::new(ai)]), Assembler::default());
    let mut out = Vec::new();
    while planner.end().is_none_or(|end| planner.position() < end) {
        let cell = planner.next_cell().unwrap();
        out.clear();
        assembler.stereo_packet(cell, &mut fetch, &mut out).unwrap();
        each(&out, cell.units * i64::from(packet::UNIT_SAMPLES));
    }
}

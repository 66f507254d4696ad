//! Calls that are made to cost much: each kind of record, with numbers and times chosen against whoever finishes them.
//!
//! A [`Kind`] makes the sealed spool file of a call of about so many packets. The benchmark `hostile` prints what each
//! costs; `tests/costs.rs` holds the bounds.

use sidetape::id::{Channel, ConnectionId, RecordingId, Scope};
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

/// When the calls begin.
const BEGIN_US: i64 = 1_767_225_600_000_000;

/// One frame of 20 ms of Opus at full band: silence.
const OPUS_20_MS: [u8; 3] = [0xf8, 0xff, 0xfe];
/// The same of 2.5 ms.
const OPUS_2_5_MS: [u8; 3] = [0xe0, 0xff, 0xfe];

/// A call of about so many packets, as a spool file.
pub(crate) type Make = fn(usize) -> Vec<u8>;

/// A kind of call, and the ordinary call that it is measured by.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) make: Make,
    pub(crate) ordinary: Make,
    /// What one packet costs beside the others, so that all kinds take about as long: a share of the packets.
    pub(crate) share: usize,
}

const fn kind(name: &'static str, make: Make) -> Kind {
    Kind { name, make, ordinary: opus, share: 1 }
}

/// A kind whose audio is encoded: measured by a call of G.711.
const fn encoded(name: &'static str, make: Make) -> Kind {
    Kind { name, make, ordinary: pcmu, share: 100 }
}

/// All kinds.
pub(crate) const KINDS: &[Kind] = &[
    kind("ordinary", opus),
    kind("shortest packets", shortest),
    kind("one at a time", one_at_a_time),
    kind("to and fro", to_and_fro),
    kind("forward and back", forward_and_back),
    kind("gaps", gaps),
    kind("sources", sources),
    kind("restarts", restarts),
    kind("two numberings", two_numberings),
    kind("jumps", jumps),
    kind("reversed", reversed),
    kind("random", random),
    kind("same packet", same_packet),
    kind("no time passes", no_time_passes),
    kind("all at once", all_at_once),
    kind("hidden pauses", hidden_pauses),
    kind("clock steps", clock_steps),
    kind("wandering clock", wandering_clock),
    kind("pauses", pauses),
    kind("pauses to and fro", pauses_to_and_fro),
    kind("clears", clears),
    kind("marks", marks),
    kind("key presses", key_presses),
    kind("sender reports", sender_reports),
    kind("reports in one packet", reports_in_one),
    kind("metadata", metadata),
    kind("meanings", meanings),
    kind("withheld", withheld),
    kind("resumed", resumed),
    kind("unreadable", unreadable),
    kind("damaged", damaged),
    kind("copies known", copies_known),
    kind("copies lost", copies_lost),
    kind("found: sources, copies", found_copies),
    kind("found: numberings", found_numberings),
    kind("found: frames move", found_moves),
    kind("48 frames", frames_48),
    kind("48 frames of own lengths", frames_48_listed),
    kind("2.5 ms", frames_2_5),
    kind("header extensions", extensions),
    encoded("ordinary G.711", pcmu),
    encoded("one G.711 a second", pcmu_gaps),
    encoded("G.711 and Opus", pcmu_and_opus),
    encoded("G.711 of one byte", pcmu_bytes),
    encoded("L16 of many rates", l16),
    encoded("codecs in turn", in_turn),
    encoded("no common grid", no_grid),
];

/// A spool file in the making.
struct File {
    bytes: Vec<u8>,
    last_us: u64,
    recording: RecordingId,
}

impl File {
    fn new() -> Self {
        let mut bytes = Vec::new();
        let connection = ConnectionId::new("hostile").expect("a good id");
        let header = Header::derived(connection, Wall(BEGIN_US), Mono(0), 1);
        header.append_to(&mut bytes);
        Self { bytes, last_us: 0, recording: header.recording }
    }

    fn record(&mut self, kind: RecordKind, scope: Scope, at_us: usize, gateway_us: Option<i64>, body: &[u8]) {
        let at = at_us as u64;
        self.last_us = self.last_us.max(at);
        let gateway = gateway_us.map(|after| Wall(BEGIN_US + after));
        Record { kind, scope, at: Mono(at), gateway, body }.append_to(&mut self.bytes);
    }

    fn packet(&mut self, channel: Channel, at_us: usize, packet: &Packet<'_>) {
        self.record(RecordKind::Tap(1), Scope::Channel(channel), at_us, None, &packet.rtp());
    }

    fn control(&mut self, kind: u8, scope: Scope, at_us: usize, body: &[u8]) {
        self.record(RecordKind::Tap(kind), scope, at_us, None, body);
    }

    fn seal(mut self) -> Vec<u8> {
        Record::append_seal(Mono(self.last_us), SealCause::Released, self.recording, &mut self.bytes);
        self.bytes
    }
}

struct Packet<'a> {
    payload_type: u8,
    sequence: usize,
    timestamp: usize,
    ssrc: usize,
    payload: &'a [u8],
}

impl Packet<'_> {
    fn rtp(&self) -> Vec<u8> {
        let mut rtp = vec![0x80, self.payload_type];
        rtp.extend((self.sequence as u16).to_be_bytes());
        rtp.extend((self.timestamp as u32).to_be_bytes());
        rtp.extend((self.ssrc as u32).to_be_bytes());
        rtp.extend(self.payload);
        rtp
    }
}

fn opus_packet(sequence: usize, timestamp: usize, ssrc: usize) -> Packet<'static> {
    Packet { payload_type: 111, sequence, timestamp, ssrc, payload: &OPUS_20_MS }
}

/// A call of the caller's packets, one after the other.
fn of_packets<'a>(count: usize, packet: impl Fn(usize) -> (usize, Packet<'a>)) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        let (at_us, packet) = packet(n);
        file.packet(Channel::Caller, at_us, &packet);
    }
    file.seal()
}

/// Numbers that look like chance, and are the same each time.
pub(crate) fn chance(n: usize) -> usize {
    let mut x = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 31)) as usize
}

/// Both sides send always, as a gateway does: 60 bytes each 20 ms.
fn opus(count: usize) -> Vec<u8> {
    let mut file = File::new();
    let mut payload = [0x55; 60];
    payload[0] = 0x78;
    for n in 0..count {
        let (channel, n) = (Channel::BOTH[n % 2], n / 2);
        let packet =
            Packet { payload_type: 111, sequence: n, timestamp: n * 960, ssrc: 7, payload: &payload };
        let at_us = n * 20_000 + chance(n) % 3000;
        let gateway = Some(at_us as i64 - 300);
        file.record(RecordKind::Tap(1), Scope::Channel(channel), at_us, gateway, &packet.rtp());
    }
    file.seal()
}

fn shortest(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let payload = &OPUS_20_MS[..1];
        (n * 20_000, Packet { payload_type: 111, sequence: n, timestamp: n * 960, ssrc: 7, payload })
    })
}

/// Each after the next one: everything is reordered.
fn one_at_a_time(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 20_000, opus_packet(n ^ 1, (n ^ 1) * 960, 7)))
}

/// In the order of numbers, media time goes to and fro by 0.4 s and never gets on.
fn to_and_fro(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let timestamp = if n % 2 == 0 { 100_000 } else { 100_000 - 19_200 };
        let packet = Packet { payload: &OPUS_2_5_MS, ..opus_packet(n ^ 1, timestamp, 7) };
        (n / 2 * 20_000, packet)
    })
}

/// A second of packets without time between them, and then a gap, and back.
fn forward_and_back(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let timestamp = 500_000 + n % 290 * 10 + n / 290 % 2 * 10_000;
        (n * 2500, Packet { payload: &OPUS_2_5_MS, ..opus_packet(n, timestamp, 7) })
    })
}

/// A gap of 31 ms in front of each packet.
fn gaps(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let delay_us = chance(n) % 400_000;
        (n * 34_000 + delay_us, Packet { payload: &OPUS_2_5_MS, ..opus_packet(n, n * 1632, 7) })
    })
}

fn sources(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 10_000, opus_packet(n, n * 480, 1000 + n)))
}

/// One source that begins anew after three packets.
fn restarts(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let (epoch, n_of) = (n / 3, n % 3);
        (n * 10_000, opus_packet(epoch * 9973 + n_of, epoch * 1_000_003_000 + n_of * 960, 7))
    })
}

/// One source with two numberings in turn.
fn two_numberings(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let other = n / 4 % 2;
        (n * 10_000, opus_packet(n + other * 30_000, n * 480 + other * 1_000_000_000, 7))
    })
}

fn jumps(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 20_000, opus_packet(n, n * 960 + n % 2 * 0x4000_0000, 7)))
}

fn reversed(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let back = n / 290 * 290 + (289 - n % 290);
        (n * 20_000, opus_packet(back, back * 960, 7))
    })
}

fn random(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 10_000, opus_packet(chance(n), chance(n + 1), chance(n + 2) % 3)))
}

fn same_packet(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 1000, opus_packet(5, 4800, 7)))
}

fn no_time_passes(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n, Packet { payload: &OPUS_2_5_MS, ..opus_packet(n, 4800, 7) }))
}

fn all_at_once(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n, Packet { payload: &OPUS_2_5_MS, ..opus_packet(n, n * 120, 7) }))
}

/// Timestamps that hide a pause in front of each third packet.
fn hidden_pauses(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 20_000 + n / 3 * 100_000, opus_packet(n, n * 960, 7)))
}

fn stepping(count: usize, step: impl Fn(usize) -> i64) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        let at_us = n * 25_000;
        let gateway = Some(at_us as i64 + step(n));
        let rtp = opus_packet(n, n * 1200, 7).rtp();
        file.record(RecordKind::Tap(1), Scope::Channel(Channel::Caller), at_us, gateway, &rtp);
    }
    file.seal()
}

/// The gateway's clock is set each 2.5 s.
fn clock_steps(count: usize) -> Vec<u8> {
    stepping(count, |n| (n / 100 % 2) as i64 * 10_000_000)
}

/// The gateway's clock is another one with each packet.
fn wandering_clock(count: usize) -> Vec<u8> {
    stepping(count, |n| (chance(n) % 3_000_000) as i64)
}

/// So many frames beside RTP are taken of a call at most.
const CONTROL_MAX: usize = 131_072;

fn with_control(count: usize, every: usize, control: impl Fn(&mut File, usize, usize)) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        let at_us = n * 20_000;
        file.packet(Channel::BOTH[n % 2], at_us, &opus_packet(n / 2, n * 480, 7));
        if n % every == 0 && n / every < CONTROL_MAX {
            control(&mut file, n / every, at_us + 1);
        }
    }
    file.seal()
}

fn pauses(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, n, at_us| match n % 2 {
        0 => file.control(6, Scope::Whole, at_us, br#"{"mode":"cut"}"#),
        _ => file.control(7, Scope::Whole, at_us, b""),
    })
}

/// Pauses by times of the gateway that lie anywhere in the call.
fn pauses_to_and_fro(count: usize) -> Vec<u8> {
    let span_us = count * 20_000;
    with_control(count, 1, |file, n, at_us| {
        let (kind, body) = if n % 2 == 0 { (6, &br#"{"mode":"silence"}"#[..]) } else { (7, &b""[..]) };
        let gateway = Some((chance(n) % span_us) as i64);
        file.record(RecordKind::Tap(kind), Scope::Channel(Channel::BOTH[n / 2 % 2]), at_us, gateway, body);
    })
}

fn clears(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, _, at_us| file.control(9, Scope::Channel(Channel::Ai), at_us, b""))
}

fn marks(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, _, at_us| file.control(8, Scope::Whole, at_us, br#"{"name":"n"}"#))
}

fn key_presses(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let packet = Packet { payload_type: 101, payload: b"\x01\x8a\x03\x20", ..opus_packet(n, n * 960, 7) };
        (n * 20_000, packet)
    })
}

fn report(n: usize) -> Vec<u8> {
    let mut report = vec![0x80, 200, 0, 6, 0, 0, 0, 7];
    report.extend((3_900_000_000 + n as u32 / 50).to_be_bytes());
    report.extend((n as u32 % 50 * 85_899_345).to_be_bytes());
    report.extend((n as u32 * 960).to_be_bytes());
    report.extend([0; 8]);
    report
}

fn sender_reports(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, n, at_us| {
        file.control(10, Scope::Channel(Channel::BOTH[n % 2]), at_us, &report(n / 2));
    })
}

/// Thousands of reports to a packet of RTCP.
fn reports_in_one(count: usize) -> Vec<u8> {
    with_control(count, 2000, |file, n, at_us| {
        let compound: Vec<u8> = (0..2000).flat_map(|k| report(n * 2000 + k)).collect();
        file.control(10, Scope::Whole, at_us, &compound);
    })
}

fn metadata(count: usize) -> Vec<u8> {
    let mut file = File::new();
    // As much as may be, and then a little of it again and again.
    let long: String = (0..6000).map(|n| format!(r#""k{n}":1,"#)).collect();
    file.control(3, Scope::Whole, 0, format!("{{{}}}", long.trim_end_matches(',')).as_bytes());
    for n in 0..count {
        file.control(3, Scope::Whole, n, format!(r#"{{"k{}":{}}}"#, n % 6000, n % 10).as_bytes());
    }
    file.seal()
}

/// A payload type that means another thing each time.
fn meanings(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, n, at_us| {
        let meaning =
            [r#"{"payload_types":{"111":"opus/48000/2"}}"#, r#"{"payload_types":{"111":"speex/16000"}}"#]
                [n % 2];
        file.control(3, Scope::Whole, at_us, meaning.as_bytes());
    })
}

fn withheld(count: usize) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        let packet = Packet { payload: b"", ..opus_packet(n, n * 960, 7) };
        file.record(RecordKind::Withheld, Scope::Channel(Channel::Caller), n * 20_000, None, &packet.rtp());
    }
    file.seal()
}

/// The daemon is started again in front of each packet.
fn resumed(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, _, at_us| {
        let body = (BEGIN_US + at_us as i64).to_be_bytes();
        file.record(RecordKind::Resumed, Scope::Whole, at_us, None, &body);
    })
}

fn unreadable(count: usize) -> Vec<u8> {
    with_control(count, 1, |file, _, at_us| file.control(3, Scope::Whole, at_us, b"{"))
}

/// Records with a bad sector in each, and payloads that look like long records to whoever looks for the next whole one.
fn damaged(count: usize) -> Vec<u8> {
    let mut looks_like = Vec::new();
    Record { kind: RecordKind::Tap(1), scope: Scope::Whole, at: Mono(0), gateway: None, body: &[0; 65_000] }
        .append_to(&mut looks_like);
    let payload = looks_like[..28].repeat(2);
    let mut file =
        of_packets(count, |n| (n * 20_000, Packet { payload: &payload, ..opus_packet(n, n * 960, 7) }));
    // The first record stays, so that there is a call.
    for at in (300..file.len()).step_by(96) {
        file[at] ^= 1;
    }
    file
}

/// A packet with copies of one byte each (RFC 2198).
fn redundant(count: usize, copies: usize, sequence: impl Fn(usize) -> usize) -> Vec<u8> {
    let mut file = File::new();
    file.control(3, Scope::Whole, 0, br#"{"payload_types":{"100":"red/48000/2","111":"opus/48000/2"}}"#);
    let mut payload = Vec::new();
    for age in (1..=copies).rev() {
        let offset = (age * 960).min(0x3fff);
        payload.extend([0x80 | 111, (offset >> 6) as u8, (offset << 2) as u8, 1]);
    }
    payload.push(111);
    payload.extend(vec![0xe0; copies]);
    payload.extend(OPUS_2_5_MS);
    for n in 0..count {
        let sequence = sequence(n);
        let packet =
            Packet { payload_type: 100, sequence, timestamp: sequence * 960, ssrc: 7, payload: &payload };
        file.packet(Channel::Caller, n * 20_000, &packet);
    }
    file.seal()
}

fn copies_known(count: usize) -> Vec<u8> {
    redundant(count, 32, |n| n % 33)
}

fn copies_lost(count: usize) -> Vec<u8> {
    redundant(count, 32, |n| n * 33)
}

/// 48 frames of 2.5 ms and one byte.
fn frames_48(count: usize) -> Vec<u8> {
    let payload = [&[0xe3, 48][..], &[0x55; 48]].concat();
    let mut file = File::new();
    for n in 0..count {
        let packet = Packet { payload: &payload, ..opus_packet(n / 2, n / 2 * 5760, 7) };
        file.packet(Channel::BOTH[n % 2], n * 60_000, &packet);
    }
    file.seal()
}

/// The same with the length of each, and padding.
fn frames_48_listed(count: usize) -> Vec<u8> {
    let payload = [&[0xe3, 0xc0 | 48, 9][..], &[1; 47], &[0x55; 48], &[0; 9]].concat();
    let mut file = File::new();
    for n in 0..count {
        let packet = Packet { payload: &payload, ..opus_packet(n / 2, n / 2 * 5760, 7) };
        file.packet(Channel::BOTH[n % 2], n * 60_000, &packet);
    }
    file.seal()
}

fn frames_2_5(count: usize) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        let packet = Packet { payload: &OPUS_2_5_MS, ..opus_packet(n / 2, n / 2 * 120, 7) };
        file.packet(Channel::BOTH[n % 2], n / 2 * 2500, &packet);
    }
    file.seal()
}

/// Long header extensions: bytes that are read and are nothing.
fn extensions(count: usize) -> Vec<u8> {
    let extension = [&[0xbe, 0xde, 0, 250][..], &[0x10, 0, 0, 0].repeat(250)].concat();
    let mut file = File::new();
    for n in 0..count {
        let mut rtp = opus_packet(n, n * 960, 7).rtp();
        rtp[0] |= 0x10;
        let rtp = [&rtp[..12], &extension, &rtp[12..]].concat();
        file.record(RecordKind::Tap(1), Scope::Channel(Channel::Caller), n * 20_000, None, &rtp);
    }
    file.seal()
}

fn pcmu_packet(sequence: usize, timestamp: usize, payload: &[u8]) -> Packet<'_> {
    Packet { payload_type: 0, sequence, timestamp, ssrc: 7, payload }
}

/// Both sides speak G.711 always.
fn pcmu(count: usize) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count {
        // Loud and low codes in a row: bytes drawn at random would be taken for encrypted ones.
        let payload: Vec<u8> = (0..160).map(|at| [0xff, 0xd5, 0x6a, 0x40][(n * 160 + at) / 7 % 4]).collect();
        file.packet(Channel::BOTH[n % 2], n / 2 * 20_000, &pcmu_packet(n / 2, n / 2 * 160, &payload));
    }
    file.seal()
}

/// A packet each 1.1 s: each is encoded by itself.
fn pcmu_gaps(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 1_100_000, pcmu_packet(n, n * 8800, &[0x7f; 160])))
}

fn pcmu_and_opus(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let at_us = n * 20_000;
        if n % 2 == 0 {
            (at_us, opus_packet(n, n * 960, 7))
        } else {
            (at_us, pcmu_packet(n, n * 960, &[0x7f; 160]))
        }
    })
}

fn pcmu_bytes(count: usize) -> Vec<u8> {
    of_packets(count, |n| (n * 20_000, pcmu_packet(n, n * 160, &[0x7f])))
}

/// Samples of another rate with each packet.
fn l16(count: usize) -> Vec<u8> {
    let mut file = File::new();
    let rates = [
        8000, 9001, 11_025, 17_003, 31_999, 47_999, 48_001, 55_001, 60_007, 66_666, 70_003, 77_777, 83_011,
        88_201, 91_009, 96_000,
    ];
    let types: Vec<String> = (0..16).map(|n| format!(r#""{}":"L16/{}""#, 96 + n, rates[n])).collect();
    file.control(3, Scope::Whole, 0, format!(r#"{{"payload_types":{{{}}}}}"#, types.join(",")).as_bytes());
    for n in 0..count {
        let packet = Packet { payload_type: 96 + n as u8 % 16, ..pcmu_packet(n, n * 9600, &[1; 160]) };
        file.packet(Channel::Caller, n * 1_200_000, &packet);
    }
    file.seal()
}

/// Another codec with each packet.
fn in_turn(count: usize) -> Vec<u8> {
    of_packets(count, |n| {
        let (payload_type, bytes) = [(0, 160), (8, 160), (9, 160), (10, 400), (11, 200)][n % 5];
        (n * 20_000, Packet { payload_type, ..pcmu_packet(n, n * 160, &[0x33; 400][..bytes]) })
    })
}

/// Frames of 60 ms beside frames of 20 ms that change their configuration and lie half of one off.
fn no_grid(count: usize) -> Vec<u8> {
    let mut file = File::new();
    for n in 0..count / 4 {
        let payload = [&[11 << 3][..], &[0x11; 20]].concat();
        let packet = Packet { payload: &payload, ..opus_packet(n, n * 2880, 7) };
        file.packet(Channel::Caller, n * 60_000, &packet);
        for k in 0..3 {
            let payload = [&[[9, 13, 31][(n + k) % 3] << 3][..], &[0x11; 20]].concat();
            let packet = Packet { payload: &payload, ..opus_packet(3 * n + k, n * 2880 + k * 960 + 480, 8) };
            file.packet(Channel::Ai, n * 60_000 + k * 20_000, &packet);
        }
    }
    file.seal()
}

/// A packet of a pattern, by what is different from the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) channel: Channel,
    pub(crate) payload_type: u8,
    /// The first byte of its Opus packet, and the frames in it.
    pub(crate) toc: u8,
    pub(crate) frames: u8,
    pub(crate) sequence: i64,
    pub(crate) timestamp: i64,
    pub(crate) arrival_us: i64,
    /// How far the gateway's time is off, if it gives one.
    pub(crate) gateway_us: Option<i64>,
    pub(crate) ssrc: usize,
    /// The kind of a frame behind it, if one of its own.
    pub(crate) control: u8,
}

impl Step {
    /// A packet as a gateway sends one after the other.
    pub(crate) const USUAL: Self = Self {
        channel: Channel::Caller,
        payload_type: 111,
        toc: 0x78,
        frames: 1,
        sequence: 1,
        timestamp: 960,
        arrival_us: 20_000,
        gateway_us: None,
        ssrc: 0,
        control: 0,
    };
}

/// What the search found: copies from a new source each time, beside packets of many frames that fit nowhere.
fn found_copies(count: usize) -> Vec<u8> {
    let new_source = Step {
        payload_type: 100,
        toc: 72,
        gateway_us: Some(-1_827_976_841),
        ssrc: 1000,
        control: 7,
        ..Step::USUAL
    };
    let many_frames = Step {
        channel: Channel::Ai,
        payload_type: 100,
        toc: 248,
        frames: 6,
        sequence: 321_979_501,
        timestamp: 2_147_482_688,
        arrival_us: 20_757,
        gateway_us: Some(0),
        ..Step::USUAL
    };
    of_steps(&[new_source, many_frames], count)
}

/// What the search found: two numberings of one source, one of them with copies.
fn found_numberings(count: usize) -> Vec<u8> {
    let redundant = Step { payload_type: 100, toc: 224, frames: 6, ssrc: 2, ..Step::USUAL };
    let backwards = Step { sequence: -614, ..Step::USUAL };
    of_steps(&[redundant, backwards], count)
}

/// What the search found: frames of lengths and places that have to be moved again and again.
fn found_moves(count: usize) -> Vec<u8> {
    let alone = Step {
        toc: 72,
        sequence: -563_055_839,
        timestamp: -781_484_689,
        gateway_us: Some(0),
        ssrc: 1000,
        control: 10,
        ..Step::USUAL
    };
    let backwards = Step {
        channel: Channel::Ai,
        payload_type: 112,
        toc: 80,
        sequence: -679_892_185,
        timestamp: -960,
        ssrc: 2,
        control: 6,
        ..Step::USUAL
    };
    let usual = Step { payload_type: 112, toc: 64, gateway_us: Some(0), ssrc: 2, control: 8, ..Step::USUAL };
    let redundant = Step {
        payload_type: 100,
        toc: 96,
        frames: 24,
        sequence: 0,
        timestamp: 714,
        gateway_us: Some(0),
        ..Step::USUAL
    };
    of_steps(&[alone, backwards, usual, redundant], count)
}

/// A call in which a pattern of packets is said over and over.
pub(crate) fn of_steps(pattern: &[Step], count: usize) -> Vec<u8> {
    let mut file = File::new();
    let types = br#"{"payload_types":{"100":"red/48000/2","112":"opus/48000/2"}}"#;
    file.control(3, Scope::Whole, 0, types);
    // Numbers and times of each channel; arrival is one for both.
    let (mut numbers, mut times, mut arrival_us) = ([0i64; 2], [1i64 << 20; 2], 0i64);
    for n in 0..count {
        let step = &pattern[n % pattern.len()];
        let side = step.channel.index();
        numbers[side] += step.sequence;
        times[side] += step.timestamp;
        arrival_us = (arrival_us + step.arrival_us % 10_000_000).max(0);
        let own = [&[step.toc | 3, step.frames][..], &vec![0x55; usize::from(step.frames)]].concat();
        let own = if step.frames == 1 { vec![step.toc, 0x55, 0x55] } else { own };
        let copies = [&[0x80 | 111, 15, 0, 1, 0x80 | 111, 7, 128, 1, 111, 0xe0, 0xe0][..], &own].concat();
        let packet = Packet {
            payload_type: step.payload_type,
            sequence: numbers[side] as usize,
            timestamp: times[side] as usize,
            ssrc: if step.ssrc == 1000 { n } else { step.ssrc },
            payload: if step.payload_type == 100 { &copies } else { &own },
        };
        let (scope, at_us) = (Scope::Channel(step.channel), arrival_us as usize);
        let gateway = step.gateway_us.map(|off| arrival_us + off);
        file.record(RecordKind::Tap(1), scope, at_us, gateway, &packet.rtp());
        match step.control {
            6 => file.control(6, scope, at_us, br#"{"mode":"cut"}"#),
            7 => file.control(7, scope, at_us, b""),
            8 => file.control(8, scope, at_us, br#"{"name":"n"}"#),
            9 => file.control(9, Scope::Channel(Channel::Ai), at_us, b""),
            10 => file.control(10, scope, at_us, &report(n)),
            _ => {}
        }
    }
    file.seal()
}

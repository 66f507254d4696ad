//! The call that all programs get: the demo's, repeated, in the form that each takes.

use std::fs;
use std::path::Path;

use sidetape::id::{Channel, ConnectionId, Scope};
use sidetape::io::capture::{read_capture, rtp_streams};
use sidetape::packet::parse_rtp;
use sidetape::spool::{Header, Record, RecordKind, SealCause};
use sidetape::time::{Mono, Wall};

/// The demo's call takes 55 s; it is repeated every minute.
const TURN_US: i64 = 60_000_000;

/// One packet, and when it came.
struct Packet {
    at_us: i64,
    channel: Channel,
    rtp: Vec<u8>,
}

/// A call of some length.
pub(crate) struct Call {
    begin_us: i64,
    packets: Vec<Packet>,
}

impl Call {
    /// The demo's call, repeated to a length with numbers and times that go on.
    pub(crate) fn of(seconds: i64) -> Self {
        let capture = include_bytes!("../../fixtures/demo-call.pcap");
        let streams = rtp_streams(read_capture(capture).unwrap().datagrams);
        let begin_us =
            streams.iter().flat_map(|stream| &stream.packets).map(|packet| packet.at_us).min().unwrap();
        let mut packets = Vec::new();
        for turn in 0..=(seconds * 1_000_000 - 1) / TURN_US {
            let turns = u32::try_from(turn).unwrap();
            for (channel, stream) in Channel::BOTH.into_iter().zip(&streams) {
                let number = |rtp: &[u8]| u16::from_be_bytes(rtp[2..4].try_into().unwrap());
                let (first, last) = (&stream.packets[0].payload, &stream.packets.last().unwrap().payload);
                let span = number(last).wrapping_sub(number(first)) + 1;
                for packet in &stream.packets {
                    let mut rtp = packet.payload.clone();
                    let sequence = number(&rtp).wrapping_add(span.wrapping_mul(turns as u16));
                    let timestamp = u32::from_be_bytes(rtp[4..8].try_into().unwrap());
                    let timestamp = timestamp.wrapping_add(turns.wrapping_mul(60 * 48_000));
                    rtp[2..4].copy_from_slice(&sequence.to_be_bytes());
                    rtp[4..8].copy_from_slice(&timestamp.to_be_bytes());
                    packets.push(Packet { at_us: packet.at_us - begin_us + turn * TURN_US, channel, rtp });
                }
            }
        }
        packets.retain(|packet| packet.at_us < seconds * 1_000_000);
        packets.sort_by_key(|packet| packet.at_us);
        Self { begin_us, packets }
    }

    /// A call in which both sides send a packet each 20 ms, of the demo's packets one after the other.
    pub(crate) fn dense(seconds: i64) -> Self {
        let demo = Self::of(60);
        let count = seconds * 50;
        let mut packets = Vec::new();
        for channel in Channel::BOTH {
            let mut from = demo.packets.iter().filter(|packet| packet.channel == channel).cycle();
            packets.extend((0..count).map(|number| {
                let mut rtp = from.next().unwrap().rtp.clone();
                rtp[2..4].copy_from_slice(&(number as u16).to_be_bytes());
                rtp[4..8].copy_from_slice(&(number as u32 * 960).to_be_bytes());
                Packet { at_us: number * 20_000, channel, rtp }
            }));
        }
        packets.sort_by_key(|packet| packet.at_us);
        Self { begin_us: demo.begin_us, packets }
    }

    /// How many packets it has.
    pub(crate) fn packets(&self) -> usize {
        self.packets.len()
    }

    /// The Opus that was received, in bytes.
    pub(crate) fn opus_bytes(&self) -> u64 {
        self.rtp().map(|(_, rtp)| parse_rtp(rtp).unwrap().payload.len() as u64).sum()
    }

    /// Writes it as a sealed spool file.
    pub(crate) fn write_spool(&self, path: &Path) {
        fs::write(path, self.spool()).unwrap();
    }

    /// The bytes of a sealed spool file of it.
    pub(crate) fn spool(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let connection = ConnectionId::new("call").unwrap();
        let opened = Wall(self.begin_us);
        let header = Header::derived(connection, opened, Mono(0), 1);
        header.append_to(&mut out);
        for packet in &self.packets {
            let (scope, at) = (Scope::Channel(packet.channel), Mono(packet.at_us as u64));
            Record { kind: RecordKind::Tap(1), scope, at, gateway: None, body: &packet.rtp }
                .append_to(&mut out);
        }
        Record::append_seal(Mono(0), SealCause::Released, header.recording, &mut out);
        out
    }

    /// Its RTP packets, in the order in which they came.
    pub(crate) fn rtp(&self) -> impl Iterator<Item = (Channel, &[u8])> {
        self.packets.iter().map(|packet| (packet.channel, packet.rtp.as_slice()))
    }

    /// Writes one channel as Janus' gateway records it: MJR, version 2.
    pub(crate) fn write_mjr(&self, channel: Channel, path: &Path) {
        let info = format!(r#"{{"t":"a","c":"opus","s":{0},"u":{0}}}"#, self.begin_us);
        let mut out = b"MJR00002".to_vec();
        out.extend((info.len() as u16).to_be_bytes());
        out.extend(info.as_bytes());
        for packet in self.packets.iter().filter(|packet| packet.channel == channel) {
            out.extend(b"MEET");
            out.extend(((packet.at_us / 1000) as u32).to_be_bytes());
            out.extend((packet.rtp.len() as u16).to_be_bytes());
            out.extend(&packet.rtp);
        }
        fs::write(path, out).unwrap();
    }

    /// Writes one channel as a capture of UDP over Ethernet, to port 5004.
    pub(crate) fn write_pcap(&self, channel: Channel, path: &Path) {
        let mut out = Vec::new();
        for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
            out.extend(word.to_le_bytes());
        }
        for packet in self.packets.iter().filter(|packet| packet.channel == channel) {
            let (udp, at) = (8 + packet.rtp.len() as u16, self.begin_us + packet.at_us);
            let length = 14 + 20 + u32::from(udp);
            for word in [(at / 1_000_000) as u32, (at % 1_000_000) as u32, length, length] {
                out.extend(word.to_le_bytes());
            }
            out.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
            let [high, low] = (20 + udp).to_be_bytes();
            // No checksums: pcapparse reads none.
            out.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1]);
            for field in [40_000, 5004, udp, 0] {
                out.extend(field.to_be_bytes());
            }
            out.extend(&packet.rtp);
        }
        fs::write(path, out).unwrap();
    }
}

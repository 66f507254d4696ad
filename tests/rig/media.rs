//! What is sent: voices encoded by libopus, and RTP packets written by another implementation (webrtc-rs).

use bytes::Bytes;
use opus::{Application, Bandwidth, Bitrate, Channels, Encoder, Signal};
use webrtc_util::marshal::{Marshal as _, Unmarshal as _};

/// When synthetic calls begin: 2026-01-02T03:04:05.678901Z.
pub(crate) const START_US: u64 = 1_767_323_045_678_901;

/// 20 ms at 48 kHz.
pub(crate) const SAMPLES_20_MS: u32 = 960;

/// One RTP packet and the moment at which the gateway received or sent it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// The packet.
    pub(crate) rtp: Vec<u8>,
}

impl Sent {
    /// The packet's header and payload, as webrtc-rs reads them.
    pub(crate) fn read(&self) -> rtp::packet::Packet {
        rtp::packet::Packet::unmarshal(&mut self.rtp.as_slice()).expect("a packet made or checked by the rig")
    }
}

/// An RTP sender that keeps real time: each packet is sent when its audio is complete.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// The source.
    pub(crate) ssrc: u32,
    /// What its packets say they hold.
    pub(crate) payload_type: u8,
    /// The number of the next packet.
    pub(crate) sequence: u16,
    /// The RTP time of the next packet.
    pub(crate) timestamp: u32,
    /// When the audio of the next packet begins.
    pub(crate) at_us: u64,
}

impl Sender {
    /// A sender of Opus from the call's beginning on, whose counters will soon wrap.
    pub(crate) fn new(ssrc: u32) -> Self {
        Self::starting(ssrc, 0)
    }

    /// A sender that begins so many milliseconds into the call.
    pub(crate) fn starting(ssrc: u32, ms: u64) -> Self {
        let at_us = START_US + ms * 1000;
        Self { ssrc, payload_type: 111, sequence: 65_530, timestamp: 0xffff_e000, at_us }
    }

    /// The next packet, of so many samples at 48 kHz.
    pub(crate) fn packet(&mut self, payload: &[u8], samples: u32) -> Sent {
        let header = rtp::header::Header {
            version: 2,
            payload_type: self.payload_type,
            sequence_number: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
            ..Default::default()
        };
        let packet = rtp::packet::Packet { header, payload: Bytes::copy_from_slice(payload) };
        let rtp = packet.marshal().expect("a packet of ordinary size").to_vec();
        self.skip_packet(samples);
        Sent { at_us: self.at_us, rtp }
    }

    /// The next packets, each of the length that it says itself.
    pub(crate) fn packets(&mut self, payloads: &[Vec<u8>]) -> Vec<Sent> {
        payloads.iter().map(|payload| self.packet(payload, samples_of(payload))).collect()
    }

    /// Leaves out a packet, as if the network had lost it.
    pub(crate) fn skip_packet(&mut self, samples: u32) {
        self.sequence = self.sequence.wrapping_add(1);
        self.skip_time(samples);
    }

    /// Says nothing for so long, as silence suppression does.
    pub(crate) fn skip_time(&mut self, samples: u32) {
        self.timestamp = self.timestamp.wrapping_add(samples);
        self.at_us += u64::from(samples) * 1000 / 48;
    }
}

/// The length of an Opus packet in samples at 48 kHz, by libopus.
pub(crate) fn samples_of(packet: &[u8]) -> u32 {
    let samples = opus::packet::get_nb_samples(packet, 48_000).expect("an opus packet");
    u32::try_from(samples).expect("at most 5760")
}

/// How libopus is to encode a voice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coding {
    /// What decides between speech and music coding.
    pub(crate) application: Application,
    /// The widest audio that is kept.
    pub(crate) bandwidth: Bandwidth,
    /// Bits per second.
    pub(crate) bits: i32,
    /// The length of a packet in units of 2.5 ms.
    pub(crate) units: usize,
}

/// Speech coding up to 8 kHz in packets of 20 ms: SILK.
pub(crate) const SPEECH: Coding =
    Coding { application: Application::Voip, bandwidth: Bandwidth::Wideband, bits: 20_000, units: 8 };
/// The same with the upper octaves: hybrid.
pub(crate) const HYBRID: Coding =
    Coding { application: Application::Voip, bandwidth: Bandwidth::Fullband, bits: 32_000, units: 8 };
/// Transform coding: CELT.
pub(crate) const MUSIC: Coding =
    Coding { application: Application::LowDelay, bandwidth: Bandwidth::Fullband, bits: 64_000, units: 8 };

/// Encodes `count` packets of a voice: a buzz that wavers in pitch and loudness, never silent, never the same.
pub(crate) fn voice(coding: Coding, pitch_hz: f32, count: usize) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new(48_000, Channels::Mono, coding.application).expect("a valid encoder");
    encoder.set_bitrate(Bitrate::Bits(coding.bits)).expect("a valid bitrate");
    encoder.set_bandwidth(coding.bandwidth).expect("a valid bandwidth");
    encoder.set_signal(Signal::Voice).expect("a valid signal");
    let (mut phase, mut time_s) = (0.0f32, 0.0f32);
    let mut next_sample = || {
        time_s += 1.0 / 48_000.0;
        let waver = (time_s * 7.0).sin();
        phase = (phase + pitch_hz * (1.0 + 0.05 * waver) / 48_000.0).fract();
        let harmonics =
            (1..=12u8).map(|n| (phase * std::f32::consts::TAU * f32::from(n)).sin() / f32::from(n));
        harmonics.sum::<f32>() * (0.16 + 0.08 * (time_s * 23.0).cos())
    };
    let mut encode = || {
        let pcm: Vec<f32> = (0..coding.units * 120).map(|_| next_sample()).collect();
        encoder.encode_vec_float(&pcm, 4000).expect("libopus encodes")
    };
    (0..count).map(|_| encode()).collect()
}

/// An Opus packet of one 20 ms frame that holds `text`, to be looked for in files. It decodes to noise.
pub(crate) fn marked_packet(text: &str) -> Vec<u8> {
    // The space says that nobody speaks, and that the packet before is not repeated in this one.
    let mut packet = vec![9 << 3, b' '];
    packet.extend_from_slice(text.as_bytes());
    packet
}

//! Encrypted media told from audio: SRTP has the headers of RTP in clear, and behind them bytes that look drawn at random.
//!
//! What a source sends is looked at in windows of a second. Of G.711 and G.722, a window is encrypted if all 256 bytes are as
//! frequent as each other, and so is what lies between neighbours: no sound is so, because codes stand for levels. White
//! noise at full scale is, in L16; there each packet must be longer than its time by an authentication tag, too. Bytes of Opus are nearly random in clear: there the first byte
//! of each packet tells, which names one mode of 32 for long stretches, and in ciphertext another one each time, of which
//! many are followed by what no packet is. Where nobody has told that it is Opus, its bytes must be even as well, because
//! codes of G.711 pass for Opus that is encrypted; and where it is told later to be another codec, what follows decides.
//!
//! A packet in a window that is encrypted is no audio. Limits: less than half a second is not looked at, nor sources beyond
//! four at once; where a source begins to encrypt, up to a second is heard unless its packets get longer. Takes time by the
//! bytes, of a packet 240 at most, and four packets' memory for each second.

use super::ChannelLedger;
use super::payload::Payload;
use crate::opus::packet;
use crate::packet::Rtp;
use crate::red::Block;
use crate::rtpmap::{Codec, Rtpmap};
use crate::timeline::Rx;

/// Sources that are looked at side by side.
const SOURCES_MAX: usize = 4;
/// How many bytes of a packet are counted: 30 ms of G.711.
const COUNTED_MAX: usize = 240;
/// A window of codes, and what the last one has to have: a second of G.711, and half of one.
const WINDOW_BYTES: u32 = 8000;
const WINDOW_BYTES_MIN: u32 = 4000;
/// A window of Opus packets, likewise.
const WINDOW_PACKETS: u32 = 50;
const WINDOW_PACKETS_MIN: u32 = 25;
/// So many bytes show whether they are even.
const EVEN_BYTES_MIN: u32 = 1280;
/// Chi-squared of 256 frequencies that are equal is 255, give or take 23. Sound has thousands.
const CHI_SQUARED_MAX: f64 = 400.0;
/// Authentication tags of SRTP, in bytes (RFC 3711, RFC 7714).
const TAGS: [u32; 3] = [4, 10, 16];

/// What the sources of a channel look like.
#[derive(Clone, Debug, Default)]
pub(super) struct Ciphers {
    /// Those that were heard last, the latest at the end.
    sources: Vec<Source>,
    /// Windows that are over, in which something may be encrypted or that lie beside one.
    windows: Vec<Window>,
}

/// A source in one codec.
#[derive(Clone, Debug)]
struct Source {
    key: Key,
    /// Whether its last window was, if there was one.
    is_encrypted: Option<bool>,
    window: Window,
    packets: u32,
    codes: [u16; 256],
    /// From one byte to the next.
    jumps: [u16; 256],
    counted: u32,
    /// Packets behind one with the number before, and those of them that are longer than that by a tag.
    steps: u32,
    tagged: u32,
    /// The first bytes that were there.
    firsts: [bool; 256],
    /// Packets that are no Opus, and those in the mode of the one before.
    broken: u32,
    repeated: u32,
    last: Option<(u16, u32, u8)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    ssrc: u32,
    payload_type: u8,
    rtpmap: Rtpmap,
    /// How many meanings of the payload type had been told.
    meanings: u8,
}

/// Packets of a source, by their places in the list of all.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// By which codec it was judged, too.
    key: Key,
    first: u32,
    last: u32,
    is_encrypted: bool,
    /// Whether there was enough of it to tell.
    is_judged: bool,
}

impl Ciphers {
    /// Looks at a packet that will have this place in the list.
    pub(super) fn see(
        &mut self,
        packet: &Rtp<'_>,
        block: &Block<'_>,
        (rtpmap, meanings): (Rtpmap, u8),
        place: usize,
    ) {
        let is_looked_at =
            matches!(rtpmap.codec, Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::L16);
        let Ok(place) = u32::try_from(place) else { return };
        if !is_looked_at || block.payload.is_empty() {
            return;
        }
        let key = Key { ssrc: packet.ssrc, payload_type: block.payload_type, rtpmap, meanings };
        match self.sources.iter().position(|source| source.key == key) {
            Some(found) => {
                let last = self.sources.len() - 1;
                if found != last {
                    self.sources[found..].rotate_left(1);
                }
            }
            None if self.sources.len() < SOURCES_MAX => self.sources.push(Source::new(key, place)),
            None => {
                let over = self.sources.remove(0);
                self.windows.extend(over.close(true));
                self.sources.push(Source::new(key, place));
            }
        }
        let Some(source) = self.sources.last_mut() else { return };
        source.enter(packet, block.payload, place);
        if source.is_full() {
            let over = source.clone();
            let closed = over.close(false);
            let is_encrypted = closed.map(|window| window.is_encrypted);
            *source = Source { is_encrypted, last: over.last, ..Source::new(key, place) };
            self.windows.extend(closed);
        }
    }
}

impl Source {
    fn new(key: Key, place: u32) -> Self {
        Self {
            key,
            is_encrypted: None,
            window: Window { key, first: place, last: place, is_encrypted: false, is_judged: false },
            packets: 0,
            codes: [0; 256],
            jumps: [0; 256],
            counted: 0,
            steps: 0,
            tagged: 0,
            firsts: [false; 256],
            broken: 0,
            repeated: 0,
            last: None,
        }
    }

    fn enter(&mut self, packet: &Rtp<'_>, payload: &[u8], place: u32) {
        if self.packets == 0 {
            self.window.first = place;
        }
        self.window.last = place;
        self.packets += 1;
        let mode = payload.first().map_or(0, |toc| toc >> 3);
        let before = self.last.replace((packet.sequence, packet.timestamp, mode));
        let mut last = None;
        // Of Opus the first byte is enough, where it was told to be Opus.
        let is_opus = self.key.rtpmap.codec == Codec::Opus && self.key.meanings > 0;
        for code in payload.iter().take(if is_opus { 1 } else { COUNTED_MAX }) {
            self.codes[usize::from(*code)] += 1;
            self.counted += 1;
            if let Some(last) = last.replace(*code) {
                self.jumps[usize::from(code.wrapping_sub(last))] += 1;
            }
        }
        match self.key.rtpmap.codec {
            Codec::Opus => {
                if let Some(first) = payload.first() {
                    self.firsts[usize::from(*first)] = true;
                }
                self.broken += u32::from(packet::parse(payload).is_err());
                self.repeated += u32::from(before.is_some_and(|(.., other)| other == mode));
            }
            Codec::L16 => {
                let Some((_, timestamp, _)) =
                    before.filter(|(sequence, ..)| packet.sequence.wrapping_sub(*sequence) == 1)
                else {
                    return;
                };
                let ticks = packet.timestamp.wrapping_sub(timestamp);
                let plain = ticks.saturating_mul(2).saturating_mul(u32::from(self.key.rtpmap.channels));
                let beyond = u32::try_from(payload.len()).unwrap_or(u32::MAX).checked_sub(plain);
                self.steps += 1;
                self.tagged += u32::from(beyond.is_some_and(|beyond| TAGS.contains(&beyond)));
            }
            _ => {}
        }
    }

    fn is_full(&self) -> bool {
        match self.key.rtpmap.codec {
            Codec::Opus => self.packets >= WINDOW_PACKETS,
            _ => self.counted >= WINDOW_BYTES,
        }
    }

    /// The window, if there is anything in it. One that is too short to tell is as the one before it, or behind it.
    fn close(&self, is_last: bool) -> Option<Window> {
        if self.packets == 0 {
            return None;
        }
        let tells = match self.key.rtpmap.codec {
            Codec::Opus => self.packets >= WINDOW_PACKETS_MIN,
            _ => self.counted >= WINDOW_BYTES_MIN,
        };
        let told = if is_last && !tells { self.is_encrypted } else { Some(self.looks_encrypted()) };
        Some(Window { is_encrypted: told == Some(true), is_judged: told.is_some(), ..self.window })
    }

    fn looks_encrypted(&self) -> bool {
        match self.key.rtpmap.codec {
            Codec::Opus => {
                let distinct =
                    u32::try_from(self.firsts.iter().filter(|is_there| **is_there).count()).unwrap_or(0);
                // Of 50 random packets 45 begin otherwise than all others, one or two are in the mode of the one before, and 10 to
                // 25 are broken.
                distinct * 10 >= self.packets * 6
                    && self.repeated * 10 <= self.packets * 2
                    && self.broken * 8 >= self.packets
                    // Codes of speech would pass as well.
                    && (self.counted < EVEN_BYTES_MIN || self.is_even())
            }
            Codec::L16 => self.is_even() && self.steps >= 10 && self.tagged * 10 >= self.steps * 9,
            _ => self.is_even(),
        }
    }

    /// Whether all bytes are as frequent as each other, and all ways from one to the next.
    fn is_even(&self) -> bool {
        [&self.codes, &self.jumps].into_iter().all(|counts| {
            let expected = counts.iter().copied().map(f64::from).sum::<f64>() / 256.0;
            let off = counts.iter().map(|count| (f64::from(*count) - expected).powi(2));
            off.sum::<f64>() / expected < CHI_SQUARED_MAX
        })
    }
}

impl Window {
    fn source(&self) -> (u32, u8) {
        (self.key.ssrc, self.key.payload_type)
    }
}

impl ChannelLedger {
    /// Notes which packets are encrypted. Before copies are put between them. `meant` tells what a payload type meant when so
    /// many meanings of it had been told.
    pub(super) fn find_encrypted(&mut self, meant: impl Fn(u8, u8) -> Rtpmap) {
        let Ciphers { sources, mut windows } = std::mem::take(&mut self.ciphers);
        windows.extend(sources.iter().filter_map(|source| source.close(true)));
        if !windows.iter().any(|window| window.is_encrypted) {
            return;
        }
        // Each source's in their order.
        windows.sort_by_key(|window| (window.source(), window.first));
        let mut next: Option<Window> = None;
        for window in windows.iter_mut().rev() {
            let key = window.key;
            // What its codec is may be told later: until then it was judged by another one.
            if !window.is_judged || meant(key.payload_type, key.meanings) != key.rtpmap {
                let next = next.filter(|next| next.source() == window.source());
                window.is_encrypted = next.is_some_and(|next| next.is_encrypted);
            }
            next = Some(*window);
        }
        for window in windows.iter().filter(|window| window.is_encrypted) {
            self.packets_of(*window).for_each(|(_, payload)| payload.note_encrypted());
        }
        for pair in windows.windows(2) {
            let [one, other] = *pair else { continue };
            if one.source() == other.source() && one.is_encrypted != other.is_encrypted {
                self.find_edge(one, other);
            }
        }
    }

    /// Notes the packets that are encrypted in a window beside one that is, where they are told by their length.
    fn find_edge(&mut self, one: Window, other: Window) {
        let (encrypted, mixed) = if one.is_encrypted { (one, other) } else { (other, one) };
        let Some(length) = self.packets_of(encrypted).map(|(bytes, _)| bytes).next() else { return };
        let mut packets: Vec<_> = self.packets_of(mixed).collect();
        // The last one that is of another length is the edge. Without one, lengths tell nothing.
        let edge = if one.is_encrypted {
            packets.iter().position(|(bytes, _)| *bytes != length).map(|edge| 0..edge)
        } else {
            let last = packets.iter().rposition(|(bytes, _)| *bytes != length);
            last.map(|last| last + 1..packets.len())
        };
        let Some(edge) = edge else { return };
        packets.drain(edge).for_each(|(_, payload)| payload.note_encrypted());
    }

    /// The packets of a window: their bytes, and what else is known of them.
    fn packets_of(&mut self, window: Window) -> impl Iterator<Item = (u16, &mut Payload)> {
        let [first, last] =
            [window.first, window.last].map(|place| usize::try_from(place).unwrap_or(usize::MAX));
        let range = first..self.rx.len().min(last.saturating_add(1));
        let both = self.rx[range.clone()].iter().zip(&mut self.payloads[range]);
        let is_own = move |(rx, payload): &(&Rx, &mut Payload)| {
            window.source() == (rx.ssrc, payload.payload_type) && !payload.is_withheld()
        };
        both.filter(is_own).map(|(rx, payload)| (rx.bytes, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::super::tests::{LONGEST, enter, ledger};
    use crate::timeline::RxKind;

    /// Bytes that look drawn at random.
    struct Noise(u64);

    impl Noise {
        fn byte(&mut self) -> u8 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0.to_be_bytes()[2]
        }

        fn bytes(&mut self, count: usize) -> Vec<u8> {
            (0..count).map(|_| self.byte()).collect()
        }

        /// From -1 to 1, evenly.
        fn sample(&mut self) -> f64 {
            f64::from(i16::from_be_bytes([self.byte(), self.byte()])) / 32_768.0
        }
    }

    /// A call of packets of this codec, each so many ticks long.
    fn call(rtpmap: &str, ticks: u32, payloads: impl Iterator<Item = Vec<u8>>) -> Ledger {
        call_told(0, rtpmap, ticks, payloads)
    }

    /// The same, where the codec is told in front of one of its packets.
    fn call_told(told: u32, rtpmap: &str, ticks: u32, payloads: impl Iterator<Item = Vec<u8>>) -> Ledger {
        let mut ledger = ledger();
        for (n, payload) in (0u32..).zip(payloads) {
            if n == told {
                let meta = format!(r#"{{"payload_types":{{"96":"{rtpmap}"}}}}"#);
                enter(&mut ledger, 3, 600, None, meta.as_bytes());
            }
            let [.., high, low] = n.to_be_bytes();
            let head = [&[0x80, 96, high, low][..], &(n * ticks).to_be_bytes(), &[0, 0, 0, 5]].concat();
            enter(&mut ledger, 1, 600 + u64::from(n) * 20_000, None, &[&head[..], &payload].concat());
        }
        ledger.close(LONGEST);
        ledger
    }

    fn encrypted(ledger: &Ledger) -> u64 {
        let caller = &ledger.channels[0];
        let silent = caller.rx.iter().filter(|rx| rx.kind == RxKind::Unusable).count();
        assert!(u64::try_from(silent).unwrap() >= caller.encrypted);
        caller.encrypted
    }

    /// The code of G.711 that is next to a sample.
    fn coded(codec: &str, sample: f64) -> u8 {
        let decode: fn(u8) -> i16 = match codec {
            "PCMU/8000" => audio_codec_algorithms::decode_ulaw,
            _ => audio_codec_algorithms::decode_alaw,
        };
        let wanted = sample * 32_767.0;
        let off = |code: &u8| (f64::from(decode(*code)) - wanted).abs();
        (0..=255).min_by(|one, other| off(one).total_cmp(&off(other))).unwrap()
    }

    #[test]
    fn what_looks_drawn_at_random_in_any_codec_is_no_audio() {
        let mut noise = Noise(88_172_645_463_325_252);
        for (rtpmap, ticks, bytes) in [
            ("PCMU/8000", 160, 170),
            ("PCMA/8000", 160, 164),
            ("PCMU/8000", 160, 160),
            ("G722/8000", 160, 170),
            ("L16/16000", 320, 650),
            ("L16/48000/2", 960, 3856),
            ("opus/48000/2", 960, 90),
            ("opus/48000/2", 960, 75),
            ("opus/48000/2", 960, 330),
        ] {
            for count in [40, 300, 1333] {
                let ledger = call(rtpmap, ticks, (0..count).map(|_| noise.bytes(bytes)));
                assert_eq!(encrypted(&ledger), count, "{rtpmap} {bytes}");
                assert!(!ledger.channels[0].has_unusable);
            }
        }
        // Opus of changing lengths, as speech has.
        let ledger = call("opus/48000/2", 960, (0..500).map(|n| noise.bytes(30 + n * 37 % 120)));
        assert_eq!(encrypted(&ledger), 500);
    }

    #[test]
    fn noise_that_is_sent_as_sound_is_sound() {
        let mut noise = Noise(1_181_783_497_276_652_981);
        for codec in ["PCMU/8000", "PCMA/8000"] {
            for (kind, level) in
                [("white", 1.0), ("white", 0.1), ("bell", 1.0), ("bell", 0.2), ("peaky", 1.0)]
            {
                let table: Vec<u8> = (0..4096).map(|n| coded(codec, f64::from(n) / 2048.0 - 1.0)).collect();
                let mut sample = || match kind {
                    "white" => noise.sample(),
                    // As loud as it may be: what is above full scale is cut.
                    "bell" => (0..6).map(|_| noise.sample()).sum::<f64>() / 1.5,
                    // As near to what codes are made for as noise can be: many small samples, few great ones.
                    _ => noise.sample().signum() * 10f64.powf(-3.0 * noise.sample().abs()),
                };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 4095")]
                let mut code = || table[((sample() * level).clamp(-1.0, 0.999) * 2048.0 + 2048.0) as usize];
                let payloads: Vec<Vec<u8>> = (0..400).map(|_| (0..160).map(|_| code()).collect()).collect();
                assert_eq!(encrypted(&call(codec, 160, payloads.into_iter())), 0, "{codec} {kind} {level}");
            }
        }
        for (rtpmap, ticks, bytes) in
            [("L16/16000", 320, 640), ("L16/8000", 160, 320), ("L16/48000/2", 960, 3840)]
        {
            assert_eq!(encrypted(&call(rtpmap, ticks, (0..400).map(|_| noise.bytes(bytes)))), 0, "{rtpmap}");
        }
        // Each code as often as the others, in an order.
        let ramp = |n: usize| (0..160).map(|at| u8::try_from((at * 7 + n) % 251).unwrap()).collect();
        assert_eq!(encrypted(&call("PCMU/8000", 160, (0..400).map(ramp))), 0);
        // Opus that changes its mode with each packet, and Opus whose bytes are random behind the first one.
        let mut packet = |n: u8| [vec![n << 3], noise.bytes(60)].concat();
        let changing: Vec<_> = (0..=255).chain(0..=255).map(&mut packet).collect();
        assert_eq!(encrypted(&call("opus/48000/2", 960, changing.into_iter())), 0);
        assert_eq!(encrypted(&call("opus/48000/2", 960, (0..500).map(|_| packet(15)))), 0);
    }

    #[test]
    fn a_call_that_goes_secure_is_silent_from_there_on() {
        let mut noise = Noise(2_463_534_242);
        let speech = |n: usize| {
            (0..160).map(|at| [0xff, 0xd5, 0x6a, 0x40][(n * 160 + at) / 7 % 4]).collect::<Vec<u8>>()
        };
        let payloads = (0..1000).map(|n| if (333..777).contains(&n) { noise.bytes(170) } else { speech(n) });
        let ledger = call("PCMU/8000", 160, payloads);
        let silent = ledger.channels[0].rx.iter().enumerate().filter(|(_, rx)| rx.kind == RxKind::Unusable);
        assert!(silent.map(|(n, _)| n).eq(333..777), "to the packet, as they are longer");
        assert_eq!(encrypted(&ledger), 444);
    }

    #[test]
    fn what_is_judged_before_its_codec_is_told_is_judged_by_what_follows() {
        // Codes of speech look as Opus does that is encrypted.
        let mut noise = Noise(521_288_629);
        let mut speech = || (0..160).map(|_| coded("PCMA/8000", noise.sample().powi(5))).collect::<Vec<_>>();
        let spoken: Vec<_> = (0..400).map(|_| speech()).collect();
        assert_eq!(encrypted(&call_told(400, "", 160, spoken.clone().into_iter())), 0, "never told");
        assert_eq!(encrypted(&call_told(170, "PCMA/8000", 160, spoken.clone().into_iter())), 0);
        assert_eq!(encrypted(&call_told(399, "PCMA/8000", 160, spoken.into_iter())), 0);
        let mut noise = Noise(362_436_069);
        for told in [1, 400] {
            let ledger = call_told(told, "opus/48000/2", 960, (0..400).map(|_| noise.bytes(90)));
            assert_eq!(encrypted(&ledger), 400, "told in front of packet {told}");
        }
        let ledger = call_told(170, "PCMA/8000", 160, (0..400).map(|_| noise.bytes(170)));
        assert_eq!(encrypted(&ledger), 400);
    }

    #[test]
    fn sources_beyond_those_that_are_looked_at_cost_no_more() {
        let mut ledger = ledger();
        let mut noise = Noise(9);
        for n in 0..20_000_u32 {
            let head = [&[0x80, 0, 0, 0][..], &0u32.to_be_bytes(), &(n % 9).to_be_bytes()].concat();
            enter(&mut ledger, 1, 600 + u64::from(n), None, &[&head[..], &noise.bytes(160)].concat());
        }
        ledger.close(LONGEST);
        assert_eq!(encrypted(&ledger), 0);
    }
}

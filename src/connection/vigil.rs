//! The watch over live calls: whether a channel is not heard while the other one talks.
//!
//! A caller whose microphone is dead, an AI whose stream is not forwarded: nobody notices before the recording is needed.
//! Time counts as talk while packets with sound come on a channel, no more than half a second apart, from the first
//! [`HEARD_US`] on; a channel is heard when that much has come of it. When the other one has talked for as long as the
//! operator allows since a channel was last heard, that is noticed, once, until it is heard again. A channel that has
//! ended or is paused is not waited for.
//!
//! Sound is told by looking at packets, not by decoding: Opus by the voice activity flags of SILK, and by length where it
//! has none (three bytes a frame are silence, and what DTX sends is shorter); G.711 by its lowest segment (40 dB below full
//! scale), L16 likewise. Of G.722 and unknown codecs each packet counts as sound. Comfort noise and DTMF do not.
//!
//! One packet in four of a channel is looked at, and stands for the others: that is enough for words, and keeps the watch
//! out of the receivers' way. What DTX sends now and then to keep a stream alive makes no talk, because
//! its packets are too far apart.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::time::Duration;

use crate::id::Channel;
use crate::opus::packet::parse;
use crate::packet::Rtp;
use crate::red;
use crate::rtpmap::{Codec, Rtpmap};
use crate::time::{Mono, micros};

/// One packet in so many is looked at. A power of two, so that the count may wrap.
const SAMPLED: u8 = 4;
/// Sound as long as a syllable: less is a click, or the comfort noise that DTX sends every 400 ms.
pub const HEARD_US: u64 = 200_000;
/// Packets of one utterance come closer together: those of 120 ms, one in four of them, are 480 ms apart.
const APART_MAX: Duration = Duration::from_millis(600);
/// Opus frames of so many bytes, with all that is around them, hold no sound: F8 FF FE is digital silence.
const SILENT_FRAME_BYTES: usize = 3;
/// Samples of 16 bits below this are silence: the lowest segment of G.711.
const SILENT_BELOW: u16 = 256;

/// How a channel is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Its packets hold no sound.
    Silent,
    /// It has no packets.
    Absent,
}

impl Silence {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Silent, Self::Absent];

    /// The word for it in the log and in the metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Absent => "absent",
        }
    }
}

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// A channel has not been heard while the other one talked.
    Missing(Channel, Silence),
    /// It is heard again.
    Back(Channel),
}

/// Both channels' state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vigil {
    voices: [Voice; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Voice {
    /// Packets, modulo 256.
    packets: u8,
    /// When its last sound came.
    sounded: Option<Mono>,
    /// Sound without an interruption, up to then.
    run_us: u64,
    /// How long the other one has talked since this one was last heard.
    waited_us: u64,
    /// Whether a packet has come since then.
    has_come: bool,
    missing: Option<Silence>,
}

impl Vigil {
    /// How a channel is missing, if that was noticed.
    #[must_use]
    pub fn missing(&self, channel: Channel) -> Option<Silence> {
        self.voice(channel).missing
    }

    /// Counts a packet of a channel. True if it is one that is looked at.
    pub fn is_next_sampled(&mut self, channel: Channel) -> bool {
        let (own, _) = self.voices_of(channel);
        own.packets = own.packets.wrapping_add(1);
        own.packets.is_multiple_of(SAMPLED)
    }

    /// Takes note of a packet of a channel that came `now` and is looked at: `sound` is how long it sounds, by
    /// [`sound`]. `is_awaited` says whether the other channel should be heard, and `patience` for how long it need not.
    pub fn hear(
        &mut self,
        now: Mono,
        channel: Channel,
        sound: Option<Duration>,
        is_awaited: bool,
        patience: Duration,
    ) -> Option<Noticed> {
        let (own, other) = self.voices_of(channel);
        own.has_come = true;
        let us = sound.map(micros)?.saturating_mul(u64::from(SAMPLED));
        let goes_on = own.sounded.is_some_and(|last| now.since(last) <= APART_MAX);
        own.run_us = if goes_on { own.run_us.saturating_add(us) } else { us };
        own.sounded = Some(now);
        if own.run_us < HEARD_US {
            return None;
        }
        own.waited_us = 0;
        own.has_come = false;
        if !is_awaited {
            other.waited_us = 0;
        } else {
            other.waited_us = other.waited_us.saturating_add(us);
            if other.missing.is_none() && other.waited_us >= micros(patience) {
                let silence = if other.has_come { Silence::Silent } else { Silence::Absent };
                other.missing = Some(silence);
                // An own return in the same moment is told of with the next packet.
                return Some(Noticed::Missing(channel.other(), silence));
            }
        }
        own.missing.take().map(|_| Noticed::Back(channel))
    }

    /// A channel's, and that of the other.
    fn voices_of(&mut self, channel: Channel) -> (&mut Voice, &mut Voice) {
        let [caller, ai] = &mut self.voices;
        match channel {
            Channel::Caller => (caller, ai),
            Channel::Ai => (ai, caller),
        }
    }

    fn voice(&self, channel: Channel) -> &Voice {
        let [caller, ai] = &self.voices;
        match channel {
            Channel::Caller => caller,
            Channel::Ai => ai,
        }
    }
}

/// How long a packet sounds; `None` where it is silent. `rtpmap` says what a payload type means.
#[must_use]
pub fn sound(packet: &Rtp<'_>, rtpmap: impl Fn(u8) -> Rtpmap) -> Option<Duration> {
    let map = rtpmap(packet.payload_type);
    if map.codec != Codec::Red {
        return of_payload(packet.payload, map);
    }
    let own = *red::blocks(packet.payload)?.last()?;
    of_payload(own.payload, rtpmap(own.payload_type))
}

fn of_payload(payload: &[u8], map: Rtpmap) -> Option<Duration> {
    // The lowest of the eight segments: in A-law even bits are inverted, in mu-law all.
    let all = |are_set: u8, inverted: u8| payload.iter().fold(are_set, |all, byte| all & (byte ^ inverted));
    let is_silent = match map.codec {
        Codec::Opus => return of_opus(payload),
        Codec::ComfortNoise | Codec::TelephoneEvent | Codec::Red => true,
        Codec::Pcmu => all(0x70, 0) == 0x70,
        Codec::Pcma => all(0x70, 0x2a) == 0x70,
        Codec::L16 => {
            let (samples, _) = payload.as_chunks::<2>();
            samples.iter().all(|sample| i16::from_be_bytes(*sample).unsigned_abs() < SILENT_BELOW)
        }
        Codec::G722 | Codec::Unknown => false,
    };
    let bytes = u64::try_from(payload.len()).ok().filter(|_| !is_silent)?;
    // 64 kb/s, as G.711 and G.722 have, is near enough for what is not known.
    let bytes_per_second = match map.codec {
        Codec::L16 => u64::from(map.clock_hz).saturating_mul(u64::from(map.channels)).saturating_mul(2),
        _ => 8000,
    };
    let us = bytes.saturating_mul(1_000_000).checked_div(bytes_per_second)?;
    (us > 0).then_some(Duration::from_micros(us))
}

fn of_opus(payload: &[u8]) -> Option<Duration> {
    let packet = parse(payload).ok()?;
    let shape = packet.shape();
    let is_long = payload.len() > SILENT_FRAME_BYTES.saturating_mul(usize::from(shape.frames));
    let is_sound = is_long && packet.is_speech().unwrap_or(true);
    is_sound.then(|| Duration::from_micros(u64::from(shape.samples()).saturating_mul(1000).div_euclid(48)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Channel::{Ai, Caller};

    const MINUTE: Duration = Duration::from_secs(60);
    const FRAME: Duration = Duration::from_millis(20);

    /// A call in which each channel sends a packet of 20 ms every 20 ms, or none.
    #[derive(Default)]
    struct Call {
        vigil: Vigil,
        now_ms: u64,
        noticed: Vec<(u64, Noticed)>,
    }

    #[derive(Clone, Copy)]
    enum Says {
        Nothing,
        Silence,
        Words,
    }

    impl Call {
        fn goes_on(&mut self, ms: u64, says: [Says; 2], is_awaited: bool) {
            for _ in 0..ms / 20 {
                self.now_ms += 20;
                for (channel, says) in Channel::BOTH.into_iter().zip(says) {
                    let sound = match says {
                        Nothing => continue,
                        Quiet => None,
                        Words => Some(FRAME),
                    };
                    if self.vigil.is_next_sampled(channel) {
                        let now = Mono(self.now_ms * 1000);
                        let noticed = self.vigil.hear(now, channel, sound, is_awaited, MINUTE);
                        self.noticed.extend(noticed.map(|noticed| (self.now_ms, noticed)));
                    }
                }
            }
        }

        /// What was noticed, to the nearest second: a packet that is looked at stands for 80 ms.
        fn noticed(&self) -> Vec<(u64, Noticed)> {
            self.noticed.iter().map(|(ms, noticed)| ((ms + 500) / 1000, *noticed)).collect()
        }
    }

    use Says::{Nothing, Silence as Quiet, Words};

    #[test]
    fn a_silent_channel_is_noticed_once_while_the_other_talks_and_again_when_it_is_back() {
        let mut call = Call::default();
        call.goes_on(5000, [Words, Words], true);
        call.goes_on(200_000, [Quiet, Words], true);
        assert_eq!(call.noticed(), [(65, Noticed::Missing(Caller, Silence::Silent))]);
        assert_eq!(call.vigil.missing(Caller), Some(Silence::Silent));
        call.goes_on(5000, [Words, Quiet], true);
        assert_eq!(call.noticed()[1..], [(205, Noticed::Back(Caller))]);
        assert_eq!(call.vigil.missing(Caller), None);
        call.goes_on(61_000, [Quiet, Words], true);
        assert_eq!(
            call.noticed()[2..],
            [(270, Noticed::Missing(Caller, Silence::Silent))],
            "another occurrence"
        );
    }

    #[test]
    fn a_channel_that_never_came_or_stopped_coming_is_absent() {
        let mut call = Call::default();
        call.goes_on(61_000, [Words, Nothing], true);
        assert_eq!(call.noticed(), [(60, Noticed::Missing(Ai, Silence::Absent))]);
        let mut call = Call::default();
        call.goes_on(5000, [Words, Words], true);
        call.goes_on(61_000, [Words, Nothing], true);
        assert_eq!(call.noticed(), [(65, Noticed::Missing(Ai, Silence::Absent))]);
    }

    #[test]
    fn turns_pauses_and_a_call_in_which_nobody_talks_are_no_alarm() {
        let mut call = Call::default();
        for _ in 0..20 {
            call.goes_on(50_000, [Words, Quiet], true);
            call.goes_on(400, [Quiet, Words], true);
            call.goes_on(300_000, [Quiet, Quiet], true);
            call.goes_on(50_000, [Quiet, Words], true);
            call.goes_on(400, [Words, Quiet], true);
            call.goes_on(300_000, [Nothing, Nothing], true);
        }
        assert!(call.noticed().is_empty(), "{:?}", call.noticed());
    }

    #[test]
    fn talk_counts_together_over_the_silences_between() {
        let mut call = Call::default();
        for _ in 0..7 {
            call.goes_on(10_000, [Nothing, Words], true);
            call.goes_on(10_000, [Nothing, Quiet], true);
        }
        // What made the first 200 ms of each ten seconds sure is not counted.
        assert_eq!(call.noticed(), [(121, Noticed::Missing(Caller, Silence::Absent))]);
    }

    #[test]
    fn a_channel_that_is_not_awaited_is_not_missed_and_its_time_begins_anew() {
        let mut call = Call::default();
        call.goes_on(50_000, [Words, Quiet], true);
        call.goes_on(300_000, [Words, Nothing], false);
        call.goes_on(59_000, [Words, Nothing], true);
        assert!(call.noticed().is_empty());
        call.goes_on(2000, [Words, Nothing], true);
        assert_eq!(call.noticed(), [(410, Noticed::Missing(Ai, Silence::Silent))]);
    }

    #[test]
    fn what_dtx_sends_now_and_then_and_a_click_are_no_talk() {
        let mut call = Call::default();
        for _ in 0..200 {
            call.goes_on(80, [Words, Words], true);
            call.goes_on(720, [Quiet, Words], true);
        }
        assert_eq!(call.noticed(), [(60, Noticed::Missing(Caller, Silence::Silent))]);
    }

    #[test]
    fn sound_is_told_by_looking_at_packets() {
        let map = |text: &str| Rtpmap::parse(text).unwrap();
        let ms = |ms: u64| Some(Duration::from_millis(ms));
        let opus = Rtpmap::default_for(111);
        for (payload, expected) in [
            (&[0xf8, 0xff, 0xfe][..], None),
            (&[0xf8], None),
            (&[], None),
            (&[0xf8, 1, 2, 3, 4, 5], ms(20)),
            // Code 1: two frames, and their six bytes are silence.
            (&[0xf9, 1, 2, 3, 4], None),
            (&[0xf9, 1, 2, 3, 4, 5, 6], ms(40)),
            // SILK of 20 and 60 ms: its first bits say whether somebody speaks.
            (&[0x48, 0x80, 2, 3, 4, 5], ms(20)),
            (&[0x48, 0x70, 2, 3, 4, 5], None),
            (&[0x58, 0x20, 2, 3, 4, 5], ms(60)),
        ] {
            assert_eq!(of_payload(payload, opus), expected, "{payload:x?}");
        }
        let loud = |quiet: u8, loud: u8| [vec![quiet; 159], vec![loud]].concat();
        for (text, quiet, loudest) in
            [("PCMU/8000", [0xff, 0x7f, 0xf0], 0x00), ("PCMA/8000", [0xd5, 0x55, 0xda], 0x2a)]
        {
            for quiet in quiet {
                assert_eq!(of_payload(&[quiet; 160], map(text)), None, "{text} {quiet:x}");
                assert_eq!(of_payload(&loud(quiet, loudest), map(text)), ms(20), "{text} {quiet:x}");
            }
        }
        assert_eq!(of_payload(&[0, 200, 0xff, 0x01], map("L16/8000")), None);
        assert_eq!(of_payload(&[[0, 1].repeat(159), vec![1, 0]].concat(), map("L16/8000")), ms(20));
        assert_eq!(of_payload(&[[0, 1].repeat(1919), vec![0x80, 0]].concat(), map("L16/48000/2")), ms(20));
        assert_eq!(of_payload(&[0; 160], map("G722/8000")), ms(20));
        assert_eq!(of_payload(&[1; 10], map("CN/8000")), None);
        assert_eq!(of_payload(&[1; 4], map("telephone-event/8000")), None);
        // A redundant packet sounds as what it carries itself, not as its copy.
        let red = |own: &[u8]| [&[0x80 | 111, 0x0f, 0, 4, 111, 0xf8, 1, 2, 3][..], own].concat();
        let rtpmap = |pt: u8| if pt == 63 { map("red/48000/2") } else { Rtpmap::default_for(pt) };
        for (own, expected) in [(&[0xf8, 1, 2, 3, 4][..], ms(20)), (&[0xf8, 0xff, 0xfe], None)] {
            let payload = red(own);
            let packet = Rtp { ssrc: 1, sequence: 4, timestamp: 0, payload_type: 63, payload: &payload };
            assert_eq!(sound(&packet, rtpmap), expected);
        }
    }

    proptest! {
        #[test]
        fn no_packet_sounds_longer_than_it_can(
            payload in prop::collection::vec(any::<u8>(), 0..2000), payload_type in 0u8..128,
        ) {
            let packet = Rtp { ssrc: 1, sequence: 4, timestamp: 0, payload_type, payload: &payload };
            let sound = sound(&packet, Rtpmap::default_for);
            prop_assert!(sound.is_none_or(|sound| sound <= Duration::from_millis(250)), "{sound:?}");
        }
    }
}

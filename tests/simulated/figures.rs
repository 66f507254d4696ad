//! How far a placement is from the truth, in figures.

use std::collections::HashSet;
use std::fmt;

use sidetape::time::Samples48k;
use sidetape::timeline::Placement;

use super::reports::Style;
use super::{Call, Channel, Packet, Role};

/// A neighbour that is off by more than this is heard as a click or as a gap.
const AUDIBLE_S: f64 = 0.005;
/// Time between packets that was not there.
const INSERTED_S: f64 = 0.02;
/// Packets this close to each other are one stretch of audio.
const CONTIGUOUS_S: f64 = 0.0015;
/// How much of a channel's end tells how far the channels are apart at last.
const END_S: f64 = 10.0;
/// An error that a listener notices as a wrong time of speech.
const FAR_S: f64 = 0.09;
/// How far from the moment of a flush a packet may be that was placed although it was not heard, or the reverse.
const FLUSH_TOLERANCE_S: f64 = 0.025;

/// A channel as it was placed: each packet with where its audio begins, in seconds since the call began.
pub(crate) struct Track<'c> {
    channel: &'c Channel,
    /// In the order of the truth.
    placed: Vec<(&'c Packet, f64)>,
}

impl<'c> Track<'c> {
    fn of(channel: &'c Channel, placed: impl Iterator<Item = (&'c Packet, f64)>) -> Self {
        let mut placed: Vec<_> = placed.filter(|(packet, _)| packet.role != Role::Cleared).collect();
        placed.sort_by(|a, b| a.0.truth_s.total_cmp(&b.0.truth_s));
        Self { channel, placed }
    }

    /// A channel by a placement of it.
    pub(crate) fn placed(channel: &'c Channel, placement: &Placement) -> Self {
        let of = |placed: &sidetape::timeline::Placed| {
            (&channel.packets[usize::try_from(placed.rx).unwrap()], seconds(placed.at))
        };
        Self::of(channel, placement.packets.iter().map(of))
    }

    /// A channel with each packet where it arrived: no placement at all.
    pub(crate) fn by_arrival(channel: &'c Channel) -> Self {
        let duplicates = channel.duplicates();
        let firsts = channel.packets.iter().zip(duplicates).filter(|(_, is_duplicate)| !is_duplicate);
        let audio = firsts.map(|(packet, _)| packet).filter(|packet| packet.role != Role::Beside);
        Self::of(channel, audio.map(|packet| (packet, packet.arrival_s - packet.length_s)))
    }

    /// How far nineteen of twenty packets are off at most, in milliseconds.
    pub(crate) fn p95_ms(&self) -> f64 {
        let mut errors_s: Vec<f64> = self.errors_s().map(f64::abs).collect();
        errors_s.sort_by(f64::total_cmp);
        errors_s.get(errors_s.len() * 95 / 100).map_or(0.0, |error_s| error_s * 1e3)
    }

    fn errors_s(&self) -> impl Iterator<Item = f64> {
        self.placed.iter().map(|(packet, at_s)| at_s - packet.truth_s)
    }

    /// How many packets of speech are audibly apart from the speech that they follow.
    fn cuts(&self) -> usize {
        let is_cut = |pair: &&[(&Packet, f64)]| {
            let [(before, before_s), (after, after_s)] = pair else { unreachable!("windows of two") };
            let true_step_s = after.truth_s - before.truth_s;
            let is_one_stretch = (true_step_s - before.length_s).abs() < CONTIGUOUS_S;
            let is_off = (after_s - before_s - true_step_s).abs() > AUDIBLE_S;
            is_one_stretch && is_off && before.is_speech && after.is_speech
        };
        self.placed.windows(2).filter(is_cut).count()
    }

    /// By how much packets are farther apart than they should be, where that is more than a packet, in milliseconds.
    pub(crate) fn inserted_ms(&self) -> f64 {
        let added = self.placed.windows(2).map(|pair| {
            let [(before, before_s), (after, after_s)] = pair else { unreachable!("windows of two") };
            after_s - before_s - (after.truth_s - before.truth_s)
        });
        added.filter(|added_s| *added_s > INSERTED_S).sum::<f64>() * 1e3
    }

    /// The median error of the channel's end.
    fn end_error_s(&self) -> Option<f64> {
        let end_s = self.placed.last()?.0.truth_s;
        let at_end = self.placed.iter().filter(|(packet, _)| packet.truth_s > end_s - END_S);
        let mut errors: Vec<f64> = at_end.map(|(packet, at_s)| at_s - packet.truth_s).collect();
        errors.sort_by(f64::total_cmp);
        Some(f64::midpoint(errors[(errors.len() - 1) / 2], errors[errors.len() / 2]))
    }

    /// What a recording must never do, whatever the network did.
    pub(crate) fn check(&self, placement: &Placement) {
        let packets = &self.channel.packets;
        let positions = placement.packets.iter().map(|placed| placed.at);
        assert!(positions.is_sorted(), "positions go back");
        assert!(!placement.is_uncertain, "no level places it");
        let mut identities = HashSet::new();
        for placed in &placement.packets {
            let packet = &packets[usize::try_from(placed.rx).unwrap()];
            assert_ne!(packet.role, Role::Beside, "placed what carries no audio: {packet:?}");
            assert!(identities.insert(packet.identity()), "placed twice: {packet:?}");
            let is_cleared = packet.role == Role::Cleared && !self.is_at_a_flush(packet);
            assert!(!is_cleared, "placed what nobody heard: {packet:?}");
        }
        for packet in packets.iter().filter(|packet| packet.role == Role::Heard) {
            let is_placed = identities.contains(&packet.identity()) || self.is_at_a_flush(packet);
            assert!(is_placed, "left out: {packet:?}");
        }
    }

    fn is_at_a_flush(&self, packet: &Packet) -> bool {
        self.channel.clears_s.iter().any(|clear_s| (packet.truth_s - clear_s).abs() < FLUSH_TOLERANCE_S)
    }
}

fn seconds(at: Samples48k) -> f64 {
    let at = i32::try_from(at.0).expect("a test's call is shorter than 12 hours");
    f64::from(at) / 48_000.0
}

/// The figures of a call, and equally the marks that a call has to keep within.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// The largest error of a packet.
    pub(crate) max_ms: f64,
    /// The same of the caller alone.
    pub(crate) caller_max_ms: f64,
    /// 95 of 100 packets are no further off.
    pub(crate) p95_ms: f64,
    /// How far the channels are apart at the end that were not in truth.
    pub(crate) between_channels_ms: f64,
    /// How much longer or shorter the call became.
    pub(crate) duration_ms: f64,
    /// Cuts in the middle of speech.
    pub(crate) cuts: f64,
    /// Packets that are far off.
    pub(crate) far: f64,
    /// All packets.
    pub(crate) packets: f64,
}

impl Figures {
    /// Marks that every call keeps.
    pub(crate) const ANY: Self = Self {
        max_ms: f64::INFINITY,
        caller_max_ms: f64::INFINITY,
        p95_ms: f64::INFINITY,
        between_channels_ms: f64::INFINITY,
        duration_ms: f64::INFINITY,
        cuts: f64::INFINITY,
        far: f64::INFINITY,
        packets: f64::INFINITY,
    };

    pub(crate) fn of(tracks: &[Track; 2]) -> Self {
        let [caller, ai] = tracks;
        let mut errors_s: Vec<f64> = tracks.iter().flat_map(Track::errors_s).map(f64::abs).collect();
        errors_s.sort_by(f64::total_cmp);
        let between_s = match (caller.end_error_s(), ai.end_error_s()) {
            (Some(caller_s), Some(ai_s)) => (caller_s - ai_s).abs(),
            _ => 0.0,
        };
        let placed_s = length_s(tracks, |(_, at_s)| *at_s);
        let true_s = length_s(tracks, |(packet, _)| packet.truth_s);
        let far = errors_s.iter().filter(|error_s| **error_s > FAR_S).count();
        Self {
            max_ms: errors_s.last().map_or(0.0, |error_s| error_s * 1e3),
            caller_max_ms: caller.errors_s().map(f64::abs).fold(0.0, f64::max) * 1e3,
            p95_ms: errors_s.get(errors_s.len() * 95 / 100).map_or(0.0, |error_s| error_s * 1e3),
            between_channels_ms: between_s * 1e3,
            duration_ms: (placed_s - true_s).abs() * 1e3,
            cuts: real(tracks.iter().map(Track::cuts).sum()),
            far: real(far),
            packets: real(errors_s.len()),
        }
    }

    /// The figures of a call as the program places it.
    pub(crate) fn of_placement(call: &Call) -> Self {
        Self::of(&call.channels().map(|channel| Track::placed(channel, &channel.place())))
    }

    /// The same, after the checks that no call may fail.
    pub(crate) fn of_checked_placement(call: &Call) -> Self {
        Self::of(&call.channels().map(|channel| {
            let placement = channel.place();
            let track = Track::placed(channel, &placement);
            track.check(&placement);
            track
        }))
    }

    /// The figures of a call as the program places it, with reports of this style.
    pub(crate) fn of_placement_with_reports(call: &Call, style: Style) -> Self {
        Self::of(&call.channels().map(|channel| {
            let placement = channel.place_with_reports(style);
            let track = Track::placed(channel, &placement);
            track.check(&placement);
            track
        }))
    }

    pub(crate) fn of_arrival(call: &Call) -> Self {
        Self::of(&call.channels().map(Track::by_arrival))
    }

    /// Whether no figure is beyond its mark.
    pub(crate) fn is_within(&self, marks: &Self) -> bool {
        self.each().into_iter().zip(marks.each()).all(|(figure, mark)| figure <= mark)
    }

    fn each(&self) -> [f64; 8] {
        [
            self.max_ms,
            self.caller_max_ms,
            self.p95_ms,
            self.between_channels_ms,
            self.duration_ms,
            self.cuts,
            self.far,
            self.packets,
        ]
    }

    /// Several calls in one: the worst of them, but the mean of what one odd call would hide (95 of 100, cuts).
    pub(crate) fn over(calls: &[Self]) -> Self {
        let worst = |figure: fn(&Self) -> f64| calls.iter().map(figure).fold(0.0, f64::max);
        let sum = |figure: fn(&Self) -> f64| calls.iter().map(figure).sum::<f64>();
        let count = real(calls.len());
        Self {
            max_ms: worst(|call| call.max_ms),
            caller_max_ms: worst(|call| call.caller_max_ms),
            p95_ms: sum(|call| call.p95_ms) / count,
            between_channels_ms: worst(|call| call.between_channels_ms),
            duration_ms: worst(|call| call.duration_ms),
            cuts: sum(|call| call.cuts) / count,
            far: sum(|call| call.far),
            packets: sum(|call| call.packets),
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_ms, p95_ms, between_channels_ms, duration_ms, cuts, .. } = self;
        write!(f, "{max_ms:9.1} {p95_ms:9.1} {between_channels_ms:9.1} {duration_ms:9.1} {cuts:8.1}")
    }
}

/// From the first beginning to the last end.
fn length_s(tracks: &[Track; 2], begins_s: impl Fn(&(&Packet, f64)) -> f64) -> f64 {
    let placed = || tracks.iter().flat_map(|track| &track.placed);
    let first_s = placed().map(&begins_s).min_by(f64::total_cmp);
    let last_s = placed().map(|placed| begins_s(placed) + placed.0.length_s).max_by(f64::total_cmp);
    first_s.zip(last_s).map_or(0.0, |(first_s, last_s)| last_s - first_s)
}

fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

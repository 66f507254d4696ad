//! A call on its timeline: both channels placed against each other, with marks and pauses where they belong.
//!
//! [`arrange`] takes a closed [`Ledger`] to what the mux needs: pieces with positions from the beginning of the
//! recording. The beginning is that of the first audio of either channel. Time that both channels spent in a PAUSE
//! of mode `cut` is taken out; a `cut` of one channel alone would shift it against the other, and is silence.
//!
//! What is told as paused is silent: where audio that was not paused lies in a pause, as that of a sender in bursts does, the
//! pause gives way.

mod holes;

use std::time::Duration;

use crate::frame::PauseMode;
use crate::id::{Channel, Scope};
use crate::ledger::{ChannelLedger, Fields, Ledger, PauseReason, format_of};
use crate::sound::{Audio, OPUS_DELAY_SAMPLES};
use crate::time::{Samples48k, Wall};
use crate::timeline::{self, Counts, Placed, Placement, Rx, Sender};
use holes::with_holes;
pub use holes::{HOLES_MAX, Hole, Minute, MoreHoles};

/// How far beyond the longest recording audio may still lie: jitter, stragglers, and a generous offset of the AI.
const SLACK: Duration = Duration::from_secs(120);

/// What a decoder hears before a stretch: the 80 ms that RFC 7845 section 4.6 wants, behind the longest packet. 200 ms.
const LEAD_SAMPLES: i64 = 9600;
/// The grid of the recording, 20 ms: a stretch begins on it too.
const GRID_SAMPLES: i64 = 960;

/// A call, arranged.
#[derive(Clone, Debug, Default)]
pub struct Arrangement {
    /// The wall time of the recording's first sample.
    pub start: Wall,
    /// The wall time of the end of the last audio.
    pub end: Wall,
    /// Caller and AI.
    pub channels: [ArrangedChannel; 2],
    /// The named moments, in order.
    pub marks: Vec<ArrangedMark>,
    /// What was not kept.
    pub paused: Vec<ArrangedPause>,
    pub(crate) cuts: Cuts,
}

impl Arrangement {
    /// Where a moment is, from the beginning of the recording. What lies before that is its beginning.
    #[must_use]
    pub fn position(&self, at: Wall) -> Samples48k {
        self.cuts.map(Samples48k::from_us(at.0.saturating_sub(self.start.0)).0.max(0))
    }

    /// Leaves only the packets needed to play from `from` to `to`, and lets the timeline begin with those that a
    /// decoder must have heard before. Returns how much of that there is. Everything but packets is as it was.
    pub fn keep_only(&mut self, from: Samples48k, to: Samples48k) -> Samples48k {
        let begin = ((from.0 - LEAD_SAMPLES) / GRID_SAMPLES * GRID_SAMPLES).max(0);
        for channel in &mut self.channels {
            let kept = |at: i64| channel.packets.partition_point(|packet| packet.at.0 < at);
            // Sound leaves a decoder later than it went into the encoder.
            let (first, last) = (kept(begin), kept(to.0 + OPUS_DELAY_SAMPLES));
            channel.packets = channel.packets[first..last.max(first)].to_vec();
            channel.sources = channel.sources[first..last.max(first)].to_vec();
            channel.packets.iter_mut().for_each(|packet| packet.at.0 -= begin);
        }
        Samples48k(from.0 - begin)
    }
}

/// One channel, arranged.
#[derive(Clone, Debug, Default)]
pub struct ArrangedChannel {
    /// The packets with audio, in order.
    pub packets: Vec<Audio>,
    /// Which packet of the ledger each of them is.
    pub sources: Vec<u32>,
    /// Time without audio that was not lost, up to the end of the conversation.
    pub silence: Samples48k,
    /// Lost packets that came as copies in later ones.
    pub recovered: u64,
    /// The stretches without audio, in order, the first [`HOLES_MAX`].
    pub holes: Vec<Hole>,
    /// Those behind them, together.
    pub more_holes: MoreHoles,
    /// What became of the others.
    pub counts: Counts,
    /// How fast the sender's clock runs, in parts per million.
    pub drift_ppm: f64,
    /// How far nineteen of twenty packets are off at most, as far as the evidence tells: microseconds.
    pub error_us: i64,
    /// The audio that was left out because another source spoke at the time.
    pub left_out: Samples48k,
    /// Whether some of it is placed by arrival alone, because nothing else could be right.
    pub is_uncertain: bool,
}

/// A named moment with its place in the recording.
#[derive(Clone, Debug, PartialEq)]
pub struct ArrangedMark {
    /// From the beginning of the recording.
    pub offset: Samples48k,
    /// The channel, if it is about one.
    pub channel: Option<Channel>,
    /// Its name and further fields.
    pub fields: Fields,
}

/// A stretch of a channel that was not kept. Of a stretch that was cut, both ends are one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrangedPause {
    /// The channel.
    pub channel: Channel,
    /// Where it begins.
    pub from: Samples48k,
    /// Where it ends.
    pub to: Samples48k,
    /// Why.
    pub reason: PauseReason,
}

/// Arranges a call. A call without audio has an arrangement without pieces. A packet that its timestamps put more than
/// `longest` behind the beginning is counted as stray: no sender can make a recording longer than that.
#[must_use]
pub fn arrange(ledger: &Ledger, ai_offset_ms: i64, longest: Duration) -> Arrangement {
    let origin = ledger.header.opened;
    let placements = Channel::BOTH.map(|channel| place(ledger, channel, origin, ai_offset_ms));
    let stretches = Channel::BOTH.map(|channel| {
        let (packets, lengths) = (&placements[channel.index()].packets, &ledger.channels[channel.index()].rx);
        give_way(&paused_stretches(ledger, channel, ai_offset_ms), packets, lengths, origin)
    });
    let begins = placements.iter().filter_map(|placement| placement.packets.first().map(|placed| placed.at));
    let begin = begins.min();
    let zero = begin.unwrap_or_default();
    let start = origin.plus_us(zero.to_us());
    let cuts = common_cuts(&stretches, start);
    let mut end = Samples48k(0);
    let last = zero.0.saturating_add(Samples48k::from_duration(longest + SLACK).0);
    let [caller, ai] = placements;
    let channels = [(Channel::Caller, caller), (Channel::Ai, ai)].map(|(channel, placement)| {
        let (kept, beyond) =
            placement.packets.split_at(placement.packets.partition_point(|p| p.at.0 <= last));
        let ChannelLedger { payloads, rx, .. } = &ledger.channels[channel.index()];
        let packets: Vec<Audio> = kept
            .iter()
            .map(|placed| {
                let payload = &payloads[timeline::index(placed.rx)];
                let rx = &rx[timeline::index(placed.rx)];
                let rtpmap = ledger.rtpmap_of(channel, payload);
                let format =
                    format_of(rtpmap, rx, payload).expect("only what has a format is audio to the timeline");
                let at = placed.at.0 - zero.0;
                end = end.max(Samples48k(at + i64::from(rx.samples)));
                let is_quiet = rx.is_speech == Some(false);
                let (at, samples) = (cuts.map(at), rx.samples);
                let (gap, missing, noise) = (placed.gap, placed.missing, payload.noise());
                Audio { at, samples, format, gap, missing, noise, is_quiet }
            })
            .collect();
        let sources: Vec<u32> = kept.iter().map(|placed: &Placed| placed.rx).collect();
        let mut counts = placement.counts;
        counts.stray += u64::try_from(beyond.len()).unwrap_or(0);
        let copies = sources.iter().filter(|rx| payloads[timeline::index(**rx)].is_copy).count();
        let recovered = u64::try_from(copies).unwrap_or(u64::MAX);
        // What came as a copy never came by itself.
        counts.lost += recovered;
        let (drift_ppm, error_us) = (placement.drift_ppm, placement.error_us);
        let (left_out, is_uncertain) = (placement.left_out, placement.is_uncertain);
        let measured = ArrangedChannel {
            counts,
            drift_ppm,
            error_us,
            recovered,
            left_out,
            is_uncertain,
            ..Default::default()
        };
        ArrangedChannel { packets, sources, ..measured }
    });
    let last_audio = cuts.map(end.0);
    let channels = channels.map(|channel| with_holes(channel, last_audio));
    let offset_of = |at: Wall| cuts.map(Samples48k::from_us(at.0.saturating_sub(start.0)).0.max(0));
    let end = if begin.is_some() { start.plus_us(end.to_us()) } else { ledger.last_frame };
    let marks = ledger.marks.iter().map(|mark| ArrangedMark {
        offset: offset_of(mark.when.at),
        channel: match mark.scope {
            Scope::Channel(channel) => Some(channel),
            Scope::Whole => None,
        },
        fields: mark.fields.clone(),
    });
    let paused = Channel::BOTH.into_iter().flat_map(|channel| {
        stretches[channel.index()]
            .iter()
            .map(move |stretch| (channel, stretch.from, stretch.to.unwrap_or(end), stretch.reason))
    });
    // What was not wanted before there was any audio takes nothing out of the recording.
    let has_begun = |to: Wall, reason| reason != PauseReason::NotWanted || begin.is_none() || to > start;
    let paused = paused.filter(|(_, _, to, reason)| has_begun(*to, *reason));
    let paused = paused.map(|(channel, from, to, reason)| ArrangedPause {
        channel,
        from: offset_of(from),
        to: offset_of(to.max(from)),
        reason,
    });
    let (marks, paused) = (marks.collect(), paused.collect());
    Arrangement { start, end, marks, paused, channels, cuts }
}

fn place(ledger: &Ledger, channel: Channel, origin: Wall, ai_offset_ms: i64) -> Placement {
    let ChannelLedger { rx, reports, .. } = &ledger.channels[channel.index()];
    match channel {
        Channel::Caller => timeline::place(rx, Sender::RealTime, origin, &[], reports),
        Channel::Ai => {
            let clears: Vec<Wall> = ledger.clears.iter().map(|clear| clear.at).collect();
            let mut placement = timeline::place(rx, Sender::Any, origin, &clears, reports);
            placement.packets.iter_mut().for_each(|placed| placed.at.0 += ai_offset_ms * 48);
            placement
        }
    }
}

/// Into so many a pause is told at most, where audio lies in it.
const PIECES_MAX: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: Wall,
    to: Option<Wall>,
    mode: PauseMode,
    reason: PauseReason,
}

/// The stretches in which a channel was paused, in order. The last one may have no end.
fn paused_stretches(ledger: &Ledger, channel: Channel, ai_offset_ms: i64) -> Vec<Stretch> {
    let offset_us = if channel == Channel::Ai { ai_offset_ms.saturating_mul(1000) } else { 0 };
    let spans = ledger.pauses[channel.index()].all().iter();
    let mut stretches: Vec<Stretch> = spans
        .map(|span| Stretch {
            from: span.from.at.plus_us(offset_us),
            to: span.to.map(|to| to.at.max(span.from.at).plus_us(offset_us)),
            mode: span.mode,
            reason: span.reason,
        })
        .collect();
    stretches.sort_by_key(|stretch| stretch.from);
    // Of one kind as one where they meet: however often somebody pauses the same time, it is looked at once.
    let mut merged: Vec<Stretch> = Vec::with_capacity(stretches.len());
    let mut last_of_kind: [Option<usize>; 4] = [None; 4];
    for stretch in stretches {
        let kind = usize::from(stretch.mode == PauseMode::Cut) * 2
            + usize::from(stretch.reason == PauseReason::NotWanted);
        let last = last_of_kind[kind].and_then(|at| merged.get_mut(at));
        match last.filter(|last| last.to.is_none_or(|to| stretch.from < to)) {
            Some(last) => last.to = last.to.zip(stretch.to).map(|(one, other)| one.max(other)),
            None => {
                last_of_kind[kind] = Some(merged.len());
                merged.push(stretch);
            }
        }
    }
    merged
}

/// Lets pauses give way to audio that lies in them although it was not paused: what was sent before and is heard later, what was
/// held up, the packets at their edges. What is told as paused is silent.
fn give_way(stretches: &[Stretch], packets: &[Placed], lengths: &[Rx], origin: Wall) -> Vec<Stretch> {
    let position = |at: Wall| Samples48k::from_us(at.0.saturating_sub(origin.0)).0;
    let wall = |at: i64| origin.plus_us(Samples48k(at).to_us());
    let span = |packet: &Placed| {
        let rx = &lengths[timeline::index(packet.rx)];
        (packet.at.0, packet.at.0 + i64::from(rx.samples))
    };
    let mut given = Vec::with_capacity(stretches.len());
    let mut first = 0;
    for stretch in stretches {
        let (from, to) = (position(stretch.from), stretch.to.map_or(i64::MAX, position));
        // Both are in order, so what lies before one pause lies before the next.
        first += packets[first..].iter().take_while(|packet| span(packet).1 <= from).count();
        let (mut reached, mut pieces) = (from, 0);
        let inside = packets[first..].iter().map(span).take_while(|(begin, _)| *begin < to);
        for (begin, end) in inside {
            if begin > reached && end > from && pieces < PIECES_MAX {
                let from = if reached == from { stretch.from } else { wall(reached) };
                given.push(Stretch { from, to: Some(wall(begin)), ..*stretch });
                pieces += 1;
            }
            reached = reached.max(end);
        }
        if reached < to && pieces < PIECES_MAX {
            let from = if reached == from { stretch.from } else { wall(reached) };
            given.push(Stretch { from, ..*stretch });
        } else if pieces == 0 {
            given.push(Stretch { to: Some(stretch.from), ..*stretch });
        }
    }
    given
}

/// The time taken out of a timeline: stretches in order that do not touch, each with what was taken out before it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts(Vec<Cut>);

#[derive(Clone, Copy, Debug)]
struct Cut {
    from: i64,
    to: i64,
    removed_before: i64,
}

impl Cuts {
    /// Brings a position to the timeline without the cuts.
    fn map(&self, at: i64) -> Samples48k {
        let last = self.0.partition_point(|cut| cut.from <= at).checked_sub(1).map(|last| self.0[last]);
        let removed = last.map_or(0, |cut| cut.removed_before + at.min(cut.to) - cut.from);
        Samples48k(at - removed)
    }
}

/// The stretches that both channels spent in a pause of mode `cut`. What is paused to the end is not among them: it has
/// nothing behind it that could move up.
fn common_cuts(stretches: &[Vec<Stretch>; 2], start: Wall) -> Cuts {
    let position = |at: Wall| Samples48k::from_us(at.0.saturating_sub(start.0)).0.max(0);
    let [caller, ai] = stretches.each_ref().map(|stretches| {
        let cut = stretches.iter().filter(|stretch| stretch.mode == PauseMode::Cut);
        let ends = cut.map(|cut| (position(cut.from), cut.to.map_or(i64::MAX, position)));
        let mut ends: Vec<(i64, i64)> = ends.filter(|(from, to)| to > from).collect();
        ends.sort_unstable();
        ends
    });
    let (mut cuts, mut removed_before, mut reached) = (Vec::new(), 0, 0);
    let (mut left, mut right) = (caller.into_iter().peekable(), ai.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let (from, to) = (a.0.max(b.0).max(reached), a.1.min(b.1));
        let is_left_first = a.1 <= b.1;
        if to > from && to < i64::MAX {
            cuts.push(Cut { from, to, removed_before });
            removed_before += to - from;
            reached = to;
        }
        if is_left_first {
            left.next()
        } else {
            right.next()
        };
    }
    Cuts(cuts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::spool::scan::Located;
    use crate::spool::{Header, Record, RecordKind};
    use crate::time::Mono;

    const LONGEST: Duration = Duration::from_secs(14_400);
    const OPENED: Wall = Wall(1_000_000_000_000);

    fn ledger() -> Ledger {
        Ledger::new(Header::derived(ConnectionId::new("c").unwrap(), OPENED, Mono(0), 1))
    }

    fn enter(ledger: &mut Ledger, kind: RecordKind, scope: Scope, at_ms: u64, body: &[u8]) {
        let record = Record { kind, scope, at: Mono(at_ms * 1000), gateway: None, body };
        ledger.record(&Located { record, body_offset: 0 });
    }

    /// 20 ms packets of a channel from `from_ms` on, each received when it has been spoken.
    fn talk(ledger: &mut Ledger, channel: Channel, from_ms: u64, count: u16, kind: RecordKind) {
        for n in 0..count {
            let at_ms = from_ms + u64::from(n) * 20;
            let sequence = u16::try_from(at_ms / 20).unwrap().to_be_bytes();
            let timestamp = u32::try_from(at_ms * 48).unwrap().to_be_bytes();
            let mut packet = vec![0x80, 111, sequence[0], sequence[1]];
            packet.extend_from_slice(&timestamp);
            packet.extend_from_slice(&[0, 0, 0, 1]);
            if kind == RecordKind::Tap(1) {
                packet.extend_from_slice(&[0x78, 1, 2]);
            }
            enter(ledger, kind, Scope::Channel(channel), at_ms + 20, &packet);
        }
    }

    fn ms(samples: Samples48k) -> i64 {
        samples.0 / 48
    }

    #[test]
    fn the_recording_begins_with_the_first_audio_of_either_channel() {
        let mut ledger = ledger();
        talk(&mut ledger, Channel::Ai, 500, 10, RecordKind::Tap(1));
        talk(&mut ledger, Channel::Caller, 2500, 5, RecordKind::Tap(1));
        enter(&mut ledger, RecordKind::Tap(8), Scope::Whole, 1500, br#"{"name":"answer"}"#);
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        assert_eq!(call.start, OPENED.plus_us(500_000));
        assert_eq!(ms(call.channels[0].packets[0].at), 2000);
        assert_eq!(ms(call.channels[1].packets[0].at), 0);
        assert_eq!(ms(call.marks[0].offset), 1000);
        assert_eq!(call.end, OPENED.plus_us(2_600_000));
        let shifted = arrange(&ledger, 250, LONGEST);
        assert_eq!(ms(shifted.channels[0].packets[0].at), 1750);
    }

    #[test]
    fn a_pause_is_silence_of_the_same_length_and_no_loss() {
        let mut ledger = ledger();
        talk(&mut ledger, Channel::Caller, 0, 10, RecordKind::Tap(1));
        enter(&mut ledger, RecordKind::Tap(6), Scope::Whole, 220, b"");
        talk(&mut ledger, Channel::Caller, 200, 10, RecordKind::Withheld);
        enter(&mut ledger, RecordKind::Tap(7), Scope::Whole, 420, b"");
        talk(&mut ledger, Channel::Caller, 400, 10, RecordKind::Tap(1));
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        assert_eq!(call.channels[0].counts.lost, 0);
        assert_eq!(ms(call.channels[0].packets[10].at), 400);
        assert_eq!((ms(call.paused[0].from), ms(call.paused[0].to)), (220, 400), "up to the next audio");
        assert_eq!(call.paused.len(), 2, "one for each channel");
    }

    #[test]
    fn a_loss_is_no_longer_than_the_packets_that_are_missing_and_the_rest_is_silence() {
        // A minute of silence, with comfort noise each 10 s of which one packet is lost.
        for lost_at in [None, Some(3_u64)] {
            let mut ledger = ledger();
            let mut sequence = 0_u16;
            let mut say = |at_ms: u64, is_noise: bool, is_lost: bool| {
                let payload_type = if is_noise { 13 } else { 0 };
                let mut packet = vec![0x80, payload_type];
                packet.extend_from_slice(&sequence.to_be_bytes());
                packet.extend_from_slice(&u32::try_from(at_ms * 8).unwrap().to_be_bytes());
                packet.extend_from_slice(&[0, 0, 0, 1]);
                packet.resize(12 + if is_noise { 1 } else { 160 }, 40);
                sequence += 1;
                if !is_lost {
                    let scope = Scope::Channel(Channel::Caller);
                    enter(&mut ledger, RecordKind::Tap(1), scope, at_ms + 20, &packet);
                }
            };
            (0..50).for_each(|n| say(n * 20, false, false));
            (0..6).for_each(|n| say(1000 + n * 10_000, true, lost_at == Some(n)));
            (0..50).for_each(|n| say(61_000 + n * 20, false, false));
            ledger.close(LONGEST);
            let call = arrange(&ledger, 0, LONGEST);
            let caller = &call.channels[0];
            let lost = i64::from(lost_at.is_some());
            assert_eq!(
                (caller.counts.lost, ms(caller.silence)),
                (u64::from(lost_at.is_some()), 60_000 - 20 * lost)
            );
            let told = caller.holes.iter().map(|hole| (hole.is_loss, ms(hole.from), ms(hole.to)));
            let told: Vec<_> = told.collect();
            let silence = (false, 1000 + 20 * lost, 61_000);
            let want = lost_at.map(|_| (true, 1000, 1020)).into_iter().chain([silence]);
            assert_eq!(told, want.collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_time_that_was_not_wanted_is_told_as_paused_and_no_loss_but_not_before_the_first_audio() {
        let mut ledger = ledger();
        let wanted = |ledger: &mut Ledger, at_ms, is_wanted: bool| {
            let body = format!(r#"{{"record":{is_wanted}}}"#);
            enter(ledger, RecordKind::Tap(3), Scope::Whole, at_ms, body.as_bytes());
        };
        wanted(&mut ledger, 0, false);
        wanted(&mut ledger, 500, true);
        talk(&mut ledger, Channel::Caller, 1000, 10, RecordKind::Tap(1));
        wanted(&mut ledger, 1210, false);
        wanted(&mut ledger, 1390, true);
        talk(&mut ledger, Channel::Caller, 1400, 10, RecordKind::Tap(1));
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        assert_eq!((call.channels[0].counts.lost, call.channels[0].packets.len()), (0, 20));
        assert_eq!(ms(call.channels[0].packets[10].at), 400);
        let told: Vec<_> = call.paused.iter().map(|paused| (ms(paused.from), ms(paused.to))).collect();
        assert_eq!(told, [(210, 390); 2], "one for each channel");
        assert!(call.channels[0].holes.is_empty(), "{:?}", call.channels[0].holes);
    }

    #[test]
    fn what_both_channels_cut_is_gone_from_the_timeline() {
        let mut ledger = ledger();
        talk(&mut ledger, Channel::Caller, 0, 10, RecordKind::Tap(1));
        enter(&mut ledger, RecordKind::Tap(6), Scope::Whole, 200, br#"{"mode":"cut"}"#);
        talk(&mut ledger, Channel::Caller, 200, 10, RecordKind::Withheld);
        enter(&mut ledger, RecordKind::Tap(7), Scope::Whole, 400, b"");
        enter(&mut ledger, RecordKind::Tap(8), Scope::Whole, 450, br#"{"name":"after"}"#);
        talk(&mut ledger, Channel::Caller, 400, 10, RecordKind::Tap(1));
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        assert_eq!(ms(call.channels[0].packets[10].at), 200);
        assert_eq!(ms(call.marks[0].offset), 250);
        assert_eq!((ms(call.paused[0].from), ms(call.paused[0].to)), (200, 200));
        assert_eq!(call.end, OPENED.plus_us(600_000));
    }

    #[test]
    fn what_is_told_as_paused_is_silent_and_gives_way_to_what_was_sent_before() {
        let mut ledger = ledger();
        talk(&mut ledger, Channel::Caller, 0, 100, RecordKind::Tap(1));
        // The AI sends 1.3 seconds at once, which it takes as long to say.
        for n in 0..65u8 {
            let timestamp = (u32::from(n) * 960).to_be_bytes();
            let mut packet = vec![0x80, 111, 0, n];
            packet.extend_from_slice(&timestamp);
            packet.extend_from_slice(&[0, 0, 0, 2, 0x78, 1, 2]);
            enter(&mut ledger, RecordKind::Tap(1), Scope::Channel(Channel::Ai), 20, &packet);
        }
        enter(&mut ledger, RecordKind::Tap(6), Scope::Channel(Channel::Ai), 1000, b"");
        enter(&mut ledger, RecordKind::Tap(7), Scope::Channel(Channel::Ai), 1500, b"");
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        let [paused] = call.paused[..] else { panic!("{:?}", call.paused) };
        let ends: Vec<_> =
            call.channels[1].packets.iter().map(|p| (p.at.0, p.at.0 + i64::from(p.samples))).collect();
        assert!(ends.iter().all(|(begin, end)| *end <= paused.from.0 || *begin >= paused.to.0));
        assert_eq!((ms(paused.from), ms(paused.to)), (1300, 1500));
        assert_eq!((ends.len(), call.channels[0].packets.len()), (65, 100), "nothing is lost");
    }

    #[test]
    fn cuts_add_up_and_those_of_one_channel_alone_do_not_count() {
        let wall = |ms: i64| OPENED.plus_us(ms * 1000);
        let (mode, reason) = (PauseMode::Cut, PauseReason::Paused);
        let cut = |from, to: Option<i64>| Stretch { from: wall(from), to: to.map(wall), mode, reason };
        let caller = vec![cut(100, Some(200)), cut(300, Some(500)), cut(900, None)];
        let ai = vec![cut(150, Some(400)), cut(450, Some(460)), cut(950, None)];
        let cuts = common_cuts(&[caller, ai], OPENED);
        let mapped = |ms: i64| cuts.map(ms * 48).0 / 48;
        assert_eq!(
            [0, 150, 175, 200, 300, 350, 400, 455, 500, 1000].map(mapped),
            [0, 150, 150, 150, 250, 250, 250, 300, 340, 840]
        );
    }

    #[test]
    fn no_timestamp_makes_a_recording_longer_than_allowed() {
        let mut ledger = ledger();
        talk(&mut ledger, Channel::Caller, 0, 10, RecordKind::Tap(1));
        // Another source, hours later.
        for n in 0..5u8 {
            let packet = [0x80, 111, 0, n, 0, 0, 0, n, 0, 0, 0, 2, 0x78, 1, 2];
            let record = Record {
                kind: RecordKind::Tap(1),
                scope: Scope::Channel(Channel::Caller),
                at: Mono(14_000_000_000),
                gateway: None,
                body: &packet,
            };
            ledger.record(&Located { record, body_offset: 0 });
        }
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, Duration::from_secs(3600));
        assert_eq!((call.channels[0].packets.len(), call.channels[0].counts.stray), (10, 5));
    }

    #[test]
    fn a_call_without_audio_is_an_arrangement_without_pieces() {
        let mut ledger = ledger();
        enter(&mut ledger, RecordKind::Tap(3), Scope::Whole, 5, b"{}");
        enter(&mut ledger, RecordKind::Tap(8), Scope::Whole, 5, br#"{"name":"rang"}"#);
        ledger.close(LONGEST);
        let call = arrange(&ledger, 0, LONGEST);
        assert_eq!(call.marks.len(), 1, "what was marked is told all the same");
        assert!(call.channels.iter().all(|channel| channel.packets.is_empty()));
        assert_eq!((call.start, call.end), (OPENED, OPENED.plus_us(5000)));
    }
}

//! The manifest: what a recording holds and how far to trust it, as JSON with the names of contract section 5.
//!
//! Beyond the contract it has, for each channel, `transcoded` (whether the channel was encoded), `error_ms` (how far
//! nineteen of twenty packets may be off), `holes` (where there is no audio), `stray`,
//! `overlapping` and `cleared` (packets left out, and why), `refused` and `encrypted` (what could be none), `more_holes`
//! (those that are not told one by one), and `part` where a long call goes on in another file.
//! The same spool gives the same manifest: nothing in it is about when or where it was made.

mod holes;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::connection::refused::{Reasons, may_have_been_audio};
use crate::id::{Channel, RecordingId};
use crate::ledger::{Ledger, PauseReason};
use crate::recording::{ArrangedChannel, ArrangedMark, Arrangement};
use crate::rtpmap::Codec;
use crate::spool::SealCause;
use crate::spool::scan::Tail;
use crate::time::Samples48k;
use crate::timeline::RxKind;
pub use holes::{Hole, Minute, MoreHoles};

/// How a connection ended. Each ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All is there.
    Ok,
    /// Something was lost or cut short.
    Degraded,
    /// Finished after a crash.
    Recovered,
    /// Closed by the sweep.
    Stale,
    /// No audio.
    Absent,
    /// Nobody wanted it kept.
    Declined,
    /// No recording could be made; the spool is kept.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Ok, Self::Degraded, Self::Recovered, Self::Stale, Self::Absent, Self::Declined, Self::Failed];

    /// The word for it in tags, logs and manifests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Recovered => "recovered",
            Self::Stale => "stale",
            Self::Absent => "absent",
            Self::Declined => "declined",
            Self::Failed => "failed",
        }
    }
}

/// A manifest.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are those of contract section 5")]
pub struct Manifest {
    pub schema: u32,
    pub recording_id: RecordingId,
    pub connection_id: String,
    pub conversation_id: Option<String>,
    pub outcome: Outcome,
    pub reasons: Vec<String>,
    pub started_at: String,
    pub ended_at: String,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "is_first")]
    pub part: u16,
    pub file: Option<File>,
    pub channels: Channels,
    pub marks: Vec<ToldMark>,
    pub paused: Vec<Paused>,
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub refused: Reasons,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    pub labels: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consent: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    pub meta: Map<String, Value>,
}

/// A mark in a manifest. Its fields become values only while they are written.
#[derive(Clone, Debug)]
pub struct ToldMark {
    mark: ArrangedMark,
    /// Of a call that nobody wants kept, no text is.
    is_name_only: bool,
}

impl Serialize for ToldMark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = self.mark.fields.to_map();
        fields.retain(|name, _| !self.is_name_only || name == "name");
        let channel = self.mark.channel.map_or(Value::Null, |channel| Value::from(channel.name()));
        fields.insert("channel".to_owned(), channel);
        fields.insert("offset_ms".to_owned(), Value::from(self.mark.offset.to_ms()));
        fields.serialize(serializer)
    }
}

/// The recording that a manifest stands beside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of contract section 5")]
pub struct File {
    pub key: String,
    pub bytes: u64,
    pub sha256: String,
    pub crc32c: String,
    pub format: &'static str,
}

/// Both channels' counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of contract section 5")]
pub struct Channels {
    pub caller: ChannelCounts,
    pub ai: ChannelCounts,
}

/// What was counted on one channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are those of contract section 5")]
pub struct ChannelCounts {
    pub codec: Option<String>,
    pub transcoded: bool,
    #[serde(skip)]
    pub is_anew: bool,
    pub ssrcs: Vec<u32>,
    pub packets: u64,
    pub bytes: u64,
    pub lost: u64,
    pub recovered: u64,
    pub duplicate: u64,
    pub reordered: u64,
    pub late: u64,
    pub socket_lost: u64,
    pub stray: u64,
    pub overlapping: u64,
    pub cleared: u64,
    #[serde(skip_serializing_if = "Reasons::is_empty")]
    pub refused: Reasons,
    #[serde(skip_serializing_if = "is_none")]
    pub encrypted: u64,
    pub silence_ms: u64,
    pub slips: u64,
    pub drift_ppm: f64,
    pub max_shift_ms: f64,
    pub error_ms: f64,
    pub first_packet_at: Option<String>,
    pub last_packet_at: Option<String>,
    pub holes: Vec<Hole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more_holes: Option<MoreHoles>,
}

/// A stretch that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are those of contract section 5")]
pub struct Paused {
    pub channel: Channel,
    pub from_ms: u64,
    pub to_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What the mux measured of one channel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Muxed {
    /// Lost packets that in-band FEC brought back.
    pub recovered: u64,
    /// The greatest distance between where a packet should be and where it is.
    pub largest_move: Samples48k,
    /// How often a frame was left out or put in to follow the sender's clock.
    pub slips: u64,
    /// Whether the channel was encoded.
    pub is_transcoded: bool,
    /// Whether it was encoded although it came as Opus and the format is `lossless`.
    pub is_anew: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_first(part: &u16) -> bool {
    *part == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// Makes the manifest of a call. It does not name a file yet: what that is called turns out when it is published.
#[must_use]
pub fn describe(
    ledger: &Ledger,
    tail: &Tail,
    call: &Arrangement,
    muxed: &[Muxed; 2],
    duration: Samples48k,
) -> Manifest {
    let [caller, ai] = Channel::BOTH.map(|channel| count(ledger, call, channel, muxed[channel.index()]));
    let channels = Channels { caller, ai };
    let (outcome, reasons) = judge(ledger, tail, call, &channels);
    let is_declined = outcome == Outcome::Declined;
    // A time that lies beyond the end is that of a clock that is ahead, or of what came behind the last audio.
    let within = |at: Samples48k| if duration.0 > 0 { at.min(duration) } else { at };
    let mark = |mark: &ArrangedMark| ToldMark {
        mark: ArrangedMark { offset: within(mark.offset), ..mark.clone() },
        is_name_only: is_declined,
    };
    let paused = call.paused.iter().map(|pause| Paused {
        channel: pause.channel,
        from_ms: within(pause.from).to_ms(),
        to_ms: within(pause.to).to_ms(),
        reason: (pause.reason == PauseReason::NotWanted).then_some("not_wanted"),
    });
    let meta = if is_declined { Map::new() } else { ledger.metadata.meta.clone() };
    Manifest {
        schema: 1,
        recording_id: ledger.header.recording,
        connection_id: ledger.header.connection.to_string(),
        conversation_id: ledger.metadata.conversation_id.clone(),
        outcome,
        reasons,
        started_at: call.start.to_rfc3339(),
        ended_at: call.end.to_rfc3339(),
        duration_ms: duration.to_ms(),
        part: ledger.header.part,
        file: None,
        channels,
        marks: call.marks.iter().map(mark).collect(),
        paused: paused.collect(),
        refused: ledger.refused.of_whole().clone(),
        tenant: ledger.metadata.tenant.clone(),
        labels: ledger.metadata.labels.clone(),
        consent: ledger.metadata.consent.clone(),
        traceparent: ledger.metadata.traceparent.clone(),
        meta,
    }
}

/// Decides the outcome of a call, and why.
#[must_use]
pub fn judge(
    ledger: &Ledger,
    tail: &Tail,
    call: &Arrangement,
    channels: &Channels,
) -> (Outcome, Vec<String>) {
    let mut reasons = Vec::new();
    let mut say = |is_so: bool, reason: &str| {
        if is_so {
            reasons.push(reason.to_owned());
        }
        is_so
    };
    let is_stale = say(ledger.seal == Some(SealCause::Stale), "stale");
    let is_crashed = say(ledger.restarts > 0 || ledger.seal.is_none(), "daemon_restarted");
    let is_crashed = say(ledger.seal == Some(SealCause::NotResumed), "gateway_did_not_resume") || is_crashed;
    let mut is_short = say(ledger.seal == Some(SealCause::Shutdown), "shutdown");
    say(ledger.seal == Some(SealCause::PartFull), "part_full");
    let is_damaged = tail.damaged_bytes > 0 || tail.missing_blocks > 0 || ledger.unreadable > 0;
    is_short |= say(is_damaged || ledger.lost_bytes > 0, "spool_damaged");
    is_short |= say(ledger.dropped > 0, "spool_overflow");
    is_short |= say(is_encrypted(ledger, channels), "encrypted_media");
    let is_ignored = ledger.is_gateway_ignored || ledger.doubts.has_ignored;
    is_short |= say(is_ignored, "gateway_clock_ignored");
    say(ledger.doubts.has_corrected, "gateway_clock_corrected");
    say(ledger.clock_steps > 0, "gateway_clock_stepped");
    say(ledger.more_marks > 0, "marks_full");
    let is_uncertain = call.channels.iter().any(|channel| channel.is_uncertain);
    is_short |= say(is_uncertain, "placement_uncertain");
    let is_misunderstood = say(!ledger.metadata.not_understood.is_empty(), "meta_not_understood");
    is_short |= is_misunderstood && ledger.metadata.has_unknown_meanings();
    say(!ledger.refused.of_whole().is_empty(), "frames_refused");
    let before: u64 = ledger.channels.iter().map(|channel| channel.noted.before).sum();
    let refused: u64 = Channel::BOTH.iter().map(|channel| ledger.refused.rtp(*channel)).sum();
    let received = channels.caller.packets + channels.ai.packets + before + refused;
    let is_counted = ledger.channels.iter().all(|channel| !channel.noted.is_uncounted);
    let is_missing = |sent: u64| is_counted && sent > received;
    is_short |= say(ledger.declared_together.is_some_and(is_missing), "socket_lost");
    for (channel, counts) in Channel::BOTH.into_iter().zip([&channels.caller, &channels.ai]) {
        let facts = [
            (is_absent(ledger, call, channel), "absent", true),
            (counts.lost > 0, "packets_lost", true),
            (counts.socket_lost > 0, "socket_lost", true),
            (!counts.refused.is_empty(), "frames_refused", may_have_been_audio(&counts.refused)),
            (counts.stray > 0, "stray_packets", true),
            (counts.overlapping > 0, "overlapping_sources", true),
            (ledger.channels[channel.index()].has_unusable, "packets_not_decodable", true),
            (counts.is_anew, "encoded_anew", false),
        ];
        for (is_so, reason, is_loss) in facts {
            is_short |= say(is_so, &format!("{channel}_{reason}")) && is_loss;
        }
    }
    let has_audio = call.channels.iter().any(|channel| !channel.packets.is_empty());
    let is_unwanted =
        !ledger.claims.is_recorded() || ledger.channels.iter().any(|channel| channel.noted.unrecorded > 0);
    let outcome = if !has_audio && is_unwanted {
        Outcome::Declined
    } else if !has_audio {
        Outcome::Absent
    } else if is_stale {
        Outcome::Stale
    } else if is_crashed {
        Outcome::Recovered
    } else if is_short {
        Outcome::Degraded
    } else {
        Outcome::Ok
    };
    (outcome, reasons)
}

/// Whether media came encrypted: it looks so, or a channel has nothing but the agreement on keys.
fn is_encrypted(ledger: &Ledger, channels: &Channels) -> bool {
    [&channels.caller, &channels.ai].into_iter().zip(Channel::BOTH).any(|(counts, channel)| {
        let has_keys_alone = counts.packets == 0 && ledger.refused.of(channel).contains_key("key_exchange");
        counts.encrypted > 0 || has_keys_alone
    })
}

/// Whether a channel never sent audio, in this part or before it, while the other one did.
fn is_absent(ledger: &Ledger, call: &Arrangement, channel: Channel) -> bool {
    let own = &ledger.channels[channel.index()];
    let has_sent = own.rx.iter().any(|rx| rx.kind != RxKind::Beside)
        || own.noted.before + own.noted.unrecorded > 0
        || own.noted.is_uncounted
        || !call.channels[channel.index()].packets.is_empty();
    !has_sent && !call.channels[channel.other().index()].packets.is_empty()
}

/// Counts one channel.
#[must_use]
pub fn count(ledger: &Ledger, call: &Arrangement, channel: Channel, muxed: Muxed) -> ChannelCounts {
    let received = &ledger.channels[channel.index()];
    let arranged = &call.channels[channel.index()];
    let counts = arranged.counts;
    let packets = received.packets + received.noted.unrecorded;
    let came = received.noted.before + packets + ledger.refused.rtp(channel);
    let declared = received.declared.filter(|_| !received.noted.is_uncounted);
    let names: Vec<&str> = received.codecs.iter().copied().map(Codec::name).collect();
    ChannelCounts {
        codec: (!names.is_empty()).then(|| names.join("+")),
        transcoded: muxed.is_transcoded,
        is_anew: muxed.is_anew,
        ssrcs: received.ssrcs.clone(),
        packets,
        bytes: received.bytes,
        lost: counts.lost,
        recovered: arranged.recovered + muxed.recovered,
        duplicate: counts.duplicate,
        reordered: counts.reordered,
        socket_lost: declared.map_or(0, |sent| sent.saturating_sub(came)),
        stray: counts.stray,
        overlapping: counts.overlapping,
        cleared: counts.cleared,
        refused: ledger.refused.of(channel).clone(),
        encrypted: received.encrypted,
        silence_ms: arranged.silence.to_ms(),
        slips: muxed.slips,
        drift_ppm: to_tenths(arranged.drift_ppm),
        max_shift_ms: as_ms(muxed.largest_move),
        error_ms: error_ms(arranged, muxed.largest_move),
        first_packet_at: received.first_last.map(|(first, _)| first.to_rfc3339()),
        last_packet_at: received.first_last.map(|(_, last)| last.to_rfc3339()),
        holes: arranged.holes.iter().map(Hole::of).collect(),
        more_holes: MoreHoles::of(arranged),
        ..ChannelCounts::default()
    }
}

/// The error of the placement and, at its worst, that of the format.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 microseconds")]
fn error_ms(arranged: &ArrangedChannel, largest_move: Samples48k) -> f64 {
    to_tenths((arranged.error_us + largest_move.to_us()) as f64 / 1000.0)
}

impl ChannelCounts {
    /// Enters what only the finished file could tell.
    pub fn enter(&mut self, muxed: &Muxed, arranged: &ArrangedChannel) {
        self.error_ms = error_ms(arranged, muxed.largest_move);
        self.recovered += muxed.recovered;
        self.max_shift_ms = as_ms(muxed.largest_move);
    }
}

/// Rounds to one decimal, which is more than a drift can be told by; never to a negative zero.
fn to_tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0 + 0.0
}

#[expect(clippy::cast_precision_loss, reason = "a shift is far below 2^52 microseconds")]
fn as_ms(samples: Samples48k) -> f64 {
    samples.to_us() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;
    use crate::ledger::Fields;
    use crate::spool::Header;
    use crate::time::{Mono, Wall};

    const WHOLE: Tail = Tail { valid_bytes: 0, damaged_bytes: 0, torn_bytes: 0, missing_blocks: 0 };

    fn ledger(seal: Option<SealCause>) -> Ledger {
        let header = Header::derived(ConnectionId::new("c").unwrap(), Wall(1), Mono(0), 1);
        let mut ledger = Ledger::new(header);
        ledger.seal = seal;
        ledger
    }

    fn call_with_audio() -> Arrangement {
        let configuration = crate::opus::packet::Configuration::CELT_FULL_BAND_20_MS;
        let shape = crate::opus::packet::Shape { configuration, frames: 1 };
        let piece = crate::sound::Audio {
            at: Samples48k(0),
            samples: 960,
            format: crate::sound::Format::Opus(shape),
            gap: crate::timeline::Gap::Start,
            missing: 0,
            noise: None,
            is_quiet: false,
        };
        let mut call = Arrangement::default();
        call.channels.iter_mut().for_each(|channel| channel.packets.push(piece));
        call
    }

    fn outcome(ledger: &Ledger, call: &Arrangement) -> (Outcome, Vec<String>) {
        let manifest = describe(ledger, &WHOLE, call, &Default::default(), Samples48k(960));
        (manifest.outcome, manifest.reasons)
    }

    #[test]
    fn every_end_has_exactly_one_outcome() {
        let call = call_with_audio();
        let of = |seal| outcome(&ledger(seal), &call).0;
        assert_eq!(of(Some(SealCause::Released)), Outcome::Ok);
        assert_eq!(of(Some(SealCause::PartFull)), Outcome::Ok);
        assert_eq!(of(Some(SealCause::Stale)), Outcome::Stale);
        assert_eq!(of(Some(SealCause::Shutdown)), Outcome::Degraded);
        assert_eq!(of(Some(SealCause::NotResumed)), Outcome::Recovered);
        assert_eq!(of(None), Outcome::Recovered);
        let mut resumed = ledger(Some(SealCause::Released));
        resumed.restarts = 1;
        assert_eq!(outcome(&resumed, &call).0, Outcome::Recovered);
        assert_eq!(outcome(&ledger(Some(SealCause::Stale)), &Arrangement::default()).0, Outcome::Absent);
    }

    #[test]
    fn what_is_uncertain_is_named_and_what_was_lost_with_its_channel() {
        let (mut call, mut ledger) = (call_with_audio(), ledger(Some(SealCause::Released)));
        call.channels[1].is_uncertain = true;
        assert_eq!(outcome(&ledger, &call), (Outcome::Degraded, vec!["placement_uncertain".to_owned()]));
        (call.channels[1].is_uncertain, call.channels[1].counts.lost) = (false, 3);
        ledger.channels[0].declared = Some(2);
        let (outcome, reasons) = outcome(&ledger, &call);
        assert_eq!(outcome, Outcome::Degraded);
        assert_eq!(reasons, ["caller_socket_lost", "ai_packets_lost"]);
    }

    #[test]
    fn a_side_that_never_sent_audio_is_named() {
        let (mut call, mut ledger) = (call_with_audio(), ledger(Some(SealCause::Released)));
        call.channels[1].packets.clear();
        assert_eq!(outcome(&ledger, &call), (Outcome::Degraded, vec!["ai_absent".to_owned()]));
        ledger.channels[1].noted.before = 5;
        assert_eq!(outcome(&ledger, &call).0, Outcome::Ok, "it has, in the part before");
        assert_eq!(outcome(&ledger, &Arrangement::default()), (Outcome::Absent, Vec::new()));
    }

    #[test]
    fn refused_frames_are_told_by_channel_and_count_as_received() {
        let (call, mut ledger) = (call_with_audio(), ledger(Some(SealCause::Released)));
        ledger.channels[0].declared = Some(3);
        ledger.refused.add(crate::id::Scope::Channel(Channel::Caller), "bad_rtp");
        ledger.refused.add(crate::id::Scope::Channel(Channel::Ai), "bad_rtcp");
        ledger.refused.add(crate::id::Scope::Whole, "bad_json");
        let manifest = describe(&ledger, &WHOLE, &call, &Default::default(), Samples48k(960));
        let expected = ["frames_refused", "caller_socket_lost", "caller_frames_refused", "ai_frames_refused"];
        assert_eq!(manifest.reasons, expected);
        assert_eq!(manifest.channels.caller.socket_lost, 2);
        let json = serde_json::to_value(&manifest).unwrap();
        assert_eq!(json["channels"]["caller"]["refused"], serde_json::json!({ "bad_rtp": 1 }));
        assert_eq!(json["refused"], serde_json::json!({ "bad_json": 1 }));
    }

    #[test]
    fn moments_beyond_the_end_are_told_at_the_end() {
        let mut call = call_with_audio();
        let fields = serde_json::json!({ "name": "late" }).as_object().unwrap().clone();
        let mark = |offset| ArrangedMark { offset, channel: None, fields: Fields::of(&fields) };
        call.marks = vec![mark(Samples48k(480)), mark(Samples48k(480_000_000))];
        let pause = crate::recording::ArrangedPause {
            channel: Channel::Ai,
            from: Samples48k(480),
            to: Samples48k(480_000_000),
            reason: PauseReason::Paused,
        };
        call.paused = vec![pause];
        let ledger = ledger(Some(SealCause::Released));
        let manifest = describe(&ledger, &WHOLE, &call, &Default::default(), Samples48k(960));
        let json = serde_json::to_value(&manifest).unwrap();
        let offsets = json["marks"].as_array().unwrap().iter().map(|mark| &mark["offset_ms"]);
        assert!(offsets.eq([&Value::from(10), &Value::from(20)]), "{json}");
        assert_eq!((&json["paused"][0]["from_ms"], &json["paused"][0]["to_ms"]), (&10.into(), &20.into()));
    }

    #[test]
    fn the_manifest_has_the_names_of_the_contract() {
        let call = call_with_audio();
        let ledger = ledger(Some(SealCause::Released));
        let manifest = describe(&ledger, &WHOLE, &call, &Default::default(), Samples48k(960));
        let json: Value = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
        for name in [
            "schema",
            "connection_id",
            "conversation_id",
            "outcome",
            "reasons",
            "started_at",
            "ended_at",
            "duration_ms",
            "file",
            "channels",
            "marks",
            "paused",
            "labels",
            "meta",
        ] {
            assert!(json.get(name).is_some(), "{name}");
        }
        for name in [
            "codec",
            "ssrcs",
            "packets",
            "bytes",
            "lost",
            "recovered",
            "duplicate",
            "reordered",
            "late",
            "socket_lost",
            "silence_ms",
            "slips",
            "drift_ppm",
            "max_shift_ms",
            "first_packet_at",
            "last_packet_at",
        ] {
            assert!(json["channels"]["caller"].get(name).is_some(), "{name}");
            assert!(json["channels"]["ai"].get(name).is_some(), "{name}");
        }
        assert_eq!(json["duration_ms"], 20);
    }
}

//! A connection with all that is known of it, and what is kept of a frame: the one place that says what may reach the spool.
//!
//! [`Call::enter`] takes a frame as it is received. [`Call::replay`] takes what the spool kept of one, and leads to the same
//! state, so that a restart goes on as if nothing had been. [`Call::to_state`] is that state as JSON, which begins each spool
//! file: no part and no restart can forget a pause that stands in a file before.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::claims::Claims;
use super::digits::{has_digits, tells_key_press};
use super::metadata::{Metadata, MetadataFull, asks_to_reopen, decides};
use super::pauses::Stamp;
use super::redaction::{Redacted, Redaction};
use super::refused::Refused;
use super::repeats::key_press_type;
use super::{Connection, Keep, Refusal, Rules, Step};
use crate::frame::Message;
use crate::id::{Channel, Scope};
use crate::packet::{self, HEADER_BYTES, parse_rtp};
use crate::time::{Mono, Wall};

/// A connection with all that is known of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its life.
    pub connection: Connection,
    /// What META has said.
    pub metadata: Metadata,
    /// What each channel's pauses keep out behind them.
    redactions: [Redaction; 2],
    counts: [Counts; 2],
    /// How many RTP frames the gateway has sent on both channels, as it says.
    declared_together: Option<u64>,
    /// Frames of this part that were refused.
    refused: Refused,
    /// The ports for plain RTP that it was given, of caller and AI. No frame can set them.
    pub ports: Option<[u16; 2]>,
}

/// How many RTP frames of a channel there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Received in the parts before this one.
    pub before: u64,
    /// Received in this part.
    pub received: u64,
    /// Those of them of which nothing is in the spool, because nobody wants the call to be kept.
    pub unrecorded: u64,
    /// Sent, as the gateway says.
    pub declared: Option<u64>,
    /// Whether some were received that nobody has counted: the daemon was killed while the call was not to be kept.
    #[serde(default)]
    pub is_uncounted: bool,
}

/// The state of a connection, as a spool file tells it. As JSON, with all times in microseconds since the Unix epoch:
///
/// ```json
/// {"claims":{
///    "references":[true,false],"holds":1,
///    "pauses":[
///      {"standing":{"from":5,"is_stamped":true,"mode":"silence","kept":null},
///       "closed":[{"from":1,"to":2,"ended":3}],"last":{"received":4,"gateway":5},"kept_until":5},
///      {"standing":null,"closed":[],"last":null,"kept_until":null}],
///    "unwanted":[
///      {"standing":null,"closed":[],"last":null,"kept_until":null},
///      {"standing":null,"closed":[],"last":null,"kept_until":null}],
///    "skew":0},
///  "metadata":{"conversation_id":"c","tenant":null,"labels":{},"meta":{},"consent":null,"traceparent":null,
///    "payload_types":[{"111":[{"from":1,"rtpmap":"opus/48000/2"}]},{}]},
///  "redactions":[
///    {"ended":5,"forgotten":0,"sources":[{"ssrc":1,"withheld":{"first":2,"last":3,"last_timestamp":4},
///      "event":null,"front":{"sequence":4,"timestamp":5,"own":6,"is_past":false}}]},
///    {"ended":null,"forgotten":0,"sources":[]}],
///  "counts":[
///    {"before":100,"received":20,"unrecorded":0,"declared":null},
///    {"before":0,"received":0,"unrecorded":0,"declared":7}],
///  "declared_together":null,
///  "refused":{"caller":{"bad_rtp":2},"ai":{},"whole":{}},
///  "ports":[20000,20002]}
/// ```
///
/// Lists of two are caller and AI. `pauses` are those of PAUSE, `unwanted` those of META `record`; `from`, `to`, `kept`
/// are by the packets' own time ([`super::pauses`]), and `skew` is what the gateway's clock is ahead. `redactions` are what is
/// behind pauses ([`super::redaction`]), of eight sources at most. Names that are not known are passed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// References, holds, pauses.
    pub claims: Claims,
    /// What META has said.
    pub metadata: Metadata,
    /// What each channel's pauses keep out behind them.
    pub redactions: [Redaction; 2],
    /// RTP frames by channel.
    pub counts: [Counts; 2],
    /// RTP frames that the gateway says it has sent on both channels.
    pub declared_together: Option<u64>,
    /// Frames that were refused.
    #[serde(default)]
    pub refused: Refused,
    /// Ports for plain RTP.
    pub ports: Option<[u16; 2]>,
}

/// What of a frame goes into the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The frame as it came.
    Whole,
    /// The frame with this body.
    Body(Vec<u8>),
    /// The header of its RTP packet, as WITHHELD.
    Withheld([u8; HEADER_BYTES]),
    /// Nothing, because nobody wants the call to be kept.
    Unrecorded,
    /// Nothing, and the frame is to be counted under this reason.
    Refused(Refusal),
    /// The frame asks a finished connection to open again.
    Reopen,
}

impl Call {
    /// Opens a connection with its first frame.
    #[must_use]
    pub fn open(now: Mono, at: Stamp, rules: Rules) -> Self {
        Self::of(Connection::open(now, at, rules))
    }

    fn of(connection: Connection) -> Self {
        let (redactions, counts) = Default::default();
        let metadata = Metadata::default();
        let refused = Refused::default();
        Self { connection, metadata, redactions, counts, declared_together: None, refused, ports: None }
    }

    /// What takes over when this one's recording is full.
    #[must_use]
    pub fn next_part(&self, now: Mono) -> Self {
        let counts = Channel::BOTH.map(|channel| {
            let counts = self.counts(channel);
            // Those that were refused came, too.
            let came = counts.received.saturating_add(self.refused.rtp(channel));
            Counts { before: counts.before.saturating_add(came), received: 0, unrecorded: 0, ..counts }
        });
        let refused = Refused::default();
        let (connection, metadata) = (self.connection.next_part(now), self.metadata.latest().counted());
        Self { connection, metadata, counts, refused, ..self.clone() }
    }

    /// What takes over when this one is finished and a frame opens it again: another recording, whose metadata and counts begin
    /// anew, while what was not to be kept is not until somebody says otherwise. Where it was closed for its silence alone, it
    /// goes on as another part does.
    #[must_use]
    pub fn opened_again(&self, now: Mono, message: &Message) -> Self {
        let is_asked = matches!(message, Message::Meta(object) if asks_to_reopen(object));
        if self.connection.has_fallen_silent() && !is_asked {
            return self.next_part(now);
        }
        Self { redactions: self.redactions.clone(), ..Self::of(self.connection.reopened(now)) }
    }

    /// Whether, when it is opened again, something is not to be kept that otherwise would be.
    #[must_use]
    pub fn is_kept_out(&self) -> bool {
        let claims = self.connection.claims();
        let is_unwanted = self.connection.rules().is_recorded && !claims.is_recorded();
        is_unwanted || Channel::BOTH.iter().any(|channel| claims.pause(*channel).is_some())
    }

    /// How long it is remembered behind its tombstone.
    #[must_use]
    pub fn remembered(&self) -> Duration {
        self.connection.remembered()
    }

    /// What is remembered of one that is over: what is not to be kept, and nothing that was said of it.
    #[must_use]
    pub fn to_remembered(&self) -> State {
        let (metadata, counts) = Default::default();
        let (claims, redactions) = (self.connection.claims().clone(), self.redactions.clone());
        State {
            claims,
            metadata,
            redactions,
            counts,
            declared_together: None,
            ports: None,
            refused: Refused::default(),
        }
    }

    /// One that is over, and whose frames are late until then; with what is remembered of it.
    #[must_use]
    pub fn ended(state: Option<State>, now: Mono, until: Mono, rules: Rules) -> Self {
        let mut call = Self::open(now, Stamp::default(), rules);
        if let Some(state) = state {
            call.replay_state(state);
        }
        call.connection.state = super::State::Sealed { until };
        call
    }

    /// Notes that another process had it until about this moment, which may have received what it did not keep.
    pub fn note_restart(&mut self, received: Wall) {
        self.connection.claims_mut().note_restart(received);
        let is_uncounted = !self.connection.claims().is_recorded();
        self.counts.iter_mut().for_each(|counts| counts.is_uncounted |= is_uncounted);
    }

    /// RTP frames of a channel.
    #[must_use]
    pub fn counts(&self, channel: Channel) -> Counts {
        self.counts[channel.index()]
    }

    /// Counts a frame that was refused. True if that is worth a note in the spool: each time that there are twice as many.
    pub fn refuse(&mut self, scope: Scope, reason: &'static str) -> bool {
        self.refused.add(scope, reason)
    }

    /// Frames of this part that were refused.
    #[must_use]
    pub fn refused(&self) -> &Refused {
        &self.refused
    }

    /// RTP frames of this part.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.counts.iter().map(|counts| counts.received).sum()
    }

    /// Its state, for a spool file.
    #[must_use]
    pub fn to_state(&self) -> Vec<u8> {
        let state = State {
            claims: self.connection.claims().clone(),
            metadata: self.metadata.clone(),
            redactions: self.redactions.clone(),
            counts: self.counts,
            declared_together: self.declared_together,
            refused: self.refused.clone(),
            ports: self.ports,
        };
        serde_json::to_vec(&state).expect("a state has only keys of text and numbers")
    }

    /// Whether a frame would keep out audio that is kept now.
    #[must_use]
    pub fn keeps_out_more(&self, scope: Scope, message: &Message) -> bool {
        let claims = self.connection.claims();
        match message {
            Message::Pause(_) => !claims.is_paused(scope),
            Message::Meta(object) => decides(object) == Some(false) && claims.is_recorded(),
            _ => false,
        }
    }

    /// Handles one valid frame, received `now`; `at` says when by the wall, and the gateway's stamp.
    ///
    /// # Errors
    /// [`MetadataFull`]; then the frame has changed nothing.
    pub fn enter(
        &mut self,
        now: Mono,
        at: Stamp,
        scope: Scope,
        message: &Message,
        body: &[u8],
    ) -> Result<(Step, Kept), MetadataFull> {
        if let Message::Meta(object) = message
            && self.connection.is_live()
            && let Err(full) = self.metadata.merge(at.received, scope, object)
        {
            // What there is no room for must not hide that nothing is to be kept.
            let is_recorded = decides(object).ok_or(full)?;
            let decision = Map::from_iter([("record".to_owned(), Value::Bool(is_recorded))]);
            let body = serde_json::to_vec(&decision).expect("keys are text");
            let mut step = self.step(now, at, scope, &Message::Meta(decision));
            step.is_cut = true;
            return Ok((step, Kept::Body(body)));
        }
        let step = self.step(now, at, scope, message);
        let kept = match step.keep {
            Keep::Whole => self.redact(at, scope, message, body),
            Keep::HeaderOnly => self.withhold(scope, body),
            Keep::NameOnly => Kept::Body(name_only(message)),
            Keep::Unrecorded => {
                if matches!(message, Message::Rtp) {
                    self.withhold(scope, body);
                }
                Kept::Unrecorded
            }
            Keep::Nothing(refusal) => return Ok((step, Kept::Refused(refusal))),
            Keep::Reopen => return Ok((step, Kept::Reopen)),
        };
        self.count(scope, message, kept == Kept::Unrecorded);
        Ok((step, kept))
    }

    /// Takes what the spool kept of a frame. What it says is merged as far as there is room.
    pub fn replay(&mut self, at: Stamp, scope: Scope, message: &Message, body: &[u8]) {
        if let Message::Meta(object) = message {
            // What would not fit was refused when it came.
            self.metadata.merge(at.received, scope, object).unwrap_or(());
        }
        // References, holds and pauses depend on the order of frames alone, so any steady time will do.
        let step = self.step(Mono(0), at, scope, message);
        self.count(scope, message, false);
        match (step.keep, message) {
            (Keep::HeaderOnly, _) => drop(self.withhold(scope, body)),
            (Keep::Whole, Message::Rtp) => self.note(at, scope, body, true),
            _ => {}
        }
    }

    /// Takes a packet of which the spool kept the header.
    pub fn replay_withheld(&mut self, at: Stamp, scope: Scope, header: &[u8]) {
        let claims = self.connection.claims_mut();
        claims.enter_withheld(at, scope);
        // Others came behind a pause.
        if claims.keeps_out_packet(at, scope) {
            self.withhold(scope, header);
        } else {
            self.note(at, scope, header, false);
        }
        self.count(scope, &Message::Rtp, false);
    }

    /// Takes what a spool file says of the whole state.
    pub fn replay_state(&mut self, state: State) {
        let State { claims, metadata, redactions, counts, declared_together, refused, ports } = state;
        self.connection.claims_mut().restore(claims);
        (self.redactions, self.counts, self.declared_together) = (redactions, counts, declared_together);
        (self.metadata, self.refused, self.ports) = (metadata.counted(), refused, ports);
    }

    /// What may be kept of a packet that lies in a time that is taken out, although it was kept; or of one that comes behind
    /// such packets. For whoever writes a spool file again.
    pub fn redact_again(&mut self, at: Stamp, scope: Scope, body: &[u8], is_taken_out: bool) -> Kept {
        if is_taken_out { self.withhold(scope, body) } else { self.redact(at, scope, &Message::Rtp, body) }
    }

    /// Notes that packets from now on are behind a time that is taken out, and that ended then. For the same.
    pub fn end_taken_out(&mut self, channel: Channel, ended: Wall) {
        self.redactions[channel.index()].end(ended);
    }

    /// Tells the connection of a frame, and notes where that ended a time of which nothing is kept.
    fn step(&mut self, now: Mono, at: Stamp, scope: Scope, message: &Message) -> Step {
        let is_kept_out =
            |connection: &Connection| Channel::BOTH.map(|channel| connection.claims().is_kept_out(channel));
        let before = is_kept_out(&self.connection);
        let step = self.connection.handle_frame(now, at, scope, message);
        let after = is_kept_out(&self.connection);
        for channel in Channel::BOTH {
            if before[channel.index()] && !after[channel.index()] {
                let ended = self.connection.claims().own_of(channel, at);
                self.redactions[channel.index()].end(ended);
            }
        }
        step
    }

    fn count(&mut self, scope: Scope, message: &Message, is_unrecorded: bool) {
        match (message, scope) {
            (Message::Rtp, Scope::Channel(channel)) => {
                let counts = &mut self.counts[channel.index()];
                counts.received = counts.received.saturating_add(1);
                counts.unrecorded = counts.unrecorded.saturating_add(is_unrecorded.into());
            }
            (Message::End { sent: Some(sent) }, Scope::Channel(channel)) => {
                self.counts[channel.index()].declared = Some(*sent);
            }
            (Message::End { sent: Some(sent) }, Scope::Whole) => self.declared_together = Some(*sent),
            _ => {}
        }
    }

    /// What of a frame that came outside a PAUSE may be kept.
    fn redact(&mut self, at: Stamp, scope: Scope, message: &Message, body: &[u8]) -> Kept {
        let (Message::Rtp, Scope::Channel(channel)) = (message, scope) else {
            return match message {
                Message::Mark(fields) if self.masks_digits() && tells_key_press(fields) => {
                    Kept::Body(name_only(message))
                }
                _ => Kept::Whole,
            };
        };
        let masks_digits = self.masks_digits();
        let metadata = &self.metadata;
        let said = |payload_type| metadata.said_rtpmap(channel, payload_type);
        let redacted = self.redactions[channel.index()].redact(at.own(), body, said);
        let rtpmap = |payload_type| metadata.rtpmap(channel, payload_type);
        let is_told = |payload_type| said(payload_type).is_some();
        match redacted {
            Redacted::HeaderOnly => self.header_of(scope, body),
            _ if masks_digits && has_digits(body, rtpmap, is_told) => self.header_of(scope, body),
            Redacted::Whole => Kept::Whole,
            Redacted::Body(body) => Kept::Body(body),
        }
    }

    /// Notes a packet of a time of which nothing is kept.
    fn withhold(&mut self, scope: Scope, body: &[u8]) -> Kept {
        if let (Scope::Channel(channel), Ok(packet)) = (scope, parse_rtp(body)) {
            let said = |payload_type| self.metadata.said_rtpmap(channel, payload_type);
            self.redactions[channel.index()].withhold(&packet, said);
        }
        self.header_of(scope, body)
    }

    /// The header of a packet of which no more is kept. It tells a key press also where copies came with that.
    fn header_of(&self, scope: Scope, body: &[u8]) -> Kept {
        let mut header = packet::header_only(body);
        if let (Scope::Channel(channel), Ok(packet)) = (scope, parse_rtp(body)) {
            let said = |payload_type| self.metadata.said_rtpmap(channel, payload_type);
            if let Some(payload_type) = key_press_type(&packet, &said) {
                header[1] = header[1] & 0x80 | payload_type;
            }
        }
        Kept::Withheld(header)
    }

    /// Notes a packet of which the spool has what may be kept, all or its header.
    fn note(&mut self, at: Stamp, scope: Scope, body: &[u8], is_whole: bool) {
        if let (Scope::Channel(channel), Ok(packet)) = (scope, parse_rtp(body)) {
            let said = |payload_type| self.metadata.said_rtpmap(channel, payload_type);
            self.redactions[channel.index()].note(at.own(), &packet, is_whole, said);
        }
    }

    fn masks_digits(&self) -> bool {
        self.connection.rules().masks_digits
    }
}

/// The body of a MARK with its name alone.
#[must_use]
pub fn name_only(message: &Message) -> Vec<u8> {
    let name = if let Message::Mark(fields) = message { fields.get("name") } else { None };
    let object = Map::from_iter(name.map(|name| ("name".to_owned(), name.clone())));
    serde_json::to_vec(&object).expect("a name is text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtpmap::Codec;

    fn rules(masks_digits: bool) -> Rules {
        Rules { max_duration: Duration::from_secs(60), ..Rules::for_reading(masks_digits) }
    }

    const CALLER: Scope = Scope::Channel(Channel::Caller);

    fn at(us: i64) -> Stamp {
        Stamp { received: Wall(us), gateway: Some(Wall(us)) }
    }

    fn meta(json: &str) -> Message {
        Message::Meta(serde_json::from_str(json).unwrap())
    }

    fn rtp(payload_type: u8, sequence: u8, payload: &[u8]) -> Vec<u8> {
        [&[0x80, payload_type, 0, sequence, 0, 0, 0, sequence, 0, 0, 0, 1][..], payload].concat()
    }

    fn enter(call: &mut Call, us: i64, message: &Message, body: &[u8]) -> Kept {
        call.enter(Mono(0), at(us), CALLER, message, body).unwrap().1
    }

    /// The JSON in the documentation of [`State`].
    fn documented() -> String {
        let source = include_str!("call.rs");
        let json = source.split("/// ```json\n").nth(1).unwrap().split("/// ```\n").next().unwrap();
        json.lines().map(|line| line.trim_start_matches("///")).collect()
    }

    #[test]
    fn a_state_reads_back_as_it_was_noted_and_passes_over_what_a_later_version_adds() {
        let state: State = serde_json::from_str(&documented()).unwrap();
        let mut call = Call::open(Mono(0), at(1), rules(false));
        call.replay_state(state.clone());
        let noted: State = serde_json::from_slice(&call.to_state()).unwrap();
        assert_eq!(noted, state);
        assert_eq!((call.ports, call.counts(Channel::Caller).before), (Some([20_000, 20_002]), 100));
        let later = documented().replace("\"holds\":1", "\"holds\":1,\"sealed\":{\"by\":[1]}");
        assert_eq!(serde_json::from_str::<State>(&later).unwrap(), state);
    }

    #[test]
    fn what_is_not_wanted_is_counted_and_not_kept_until_it_is() {
        let mut call = Call::open(Mono(0), at(1), Rules { is_recorded: false, ..rules(false) });
        let packet = rtp(111, 1, b"said");
        assert_eq!(enter(&mut call, 10, &Message::Rtp, &packet), Kept::Unrecorded);
        assert_eq!(enter(&mut call, 20, &Message::Resume, b""), Kept::Whole);
        assert_eq!(enter(&mut call, 30, &Message::Rtp, &packet), Kept::Unrecorded, "RESUME ends no refusal");
        enter(&mut call, 40, &meta(r#"{"record":true}"#), b"");
        assert_eq!(
            enter(&mut call, 50, &Message::Rtp, &packet),
            Kept::Withheld(packet::header_only(&packet))
        );
        assert_eq!(enter(&mut call, 60, &Message::Rtp, &rtp(0, 2, b"said")), Kept::Whole);
        let counts = call.counts(Channel::Caller);
        assert_eq!((counts.received, counts.unrecorded), (4, 2));
    }

    #[test]
    fn metadata_that_is_too_large_does_not_hide_that_nothing_is_wanted() {
        let mut call = Call::open(Mono(0), at(1), rules(false));
        let large = meta(&format!(r#"{{"record":false,"x":"{}"}}"#, "y".repeat(70_000)));
        assert_eq!(enter(&mut call, 10, &large, b"large"), Kept::Body(br#"{"record":false}"#.to_vec()));
        assert!(!call.connection.claims().is_recorded());
        let other = meta(&format!(r#"{{"x":"{}"}}"#, "y".repeat(70_000)));
        assert_eq!(call.enter(Mono(0), at(11), CALLER, &other, b""), Err(MetadataFull));
    }

    #[test]
    fn digits_are_masked_in_events_in_copies_of_them_and_in_marks() {
        let mut call = Call::open(Mono(0), at(1), rules(true));
        let digit = rtp(101, 1, &[5, 0, 0, 160]);
        assert_eq!(enter(&mut call, 10, &Message::Rtp, &digit), Kept::Withheld(packet::header_only(&digit)));
        enter(&mut call, 20, &meta(r#"{"payload_types":{"63":"red/8000"}}"#), b"");
        let copy = rtp(63, 2, &[0x80 | 101, 0, 0, 4, 101, 5, 0, 0, 160, 6, 0, 0, 160]);
        let key_press = Kept::Withheld(packet::header_only(&rtp(101, 2, b"")));
        assert_eq!(enter(&mut call, 30, &Message::Rtp, &copy), key_press);
        let mark = Message::Mark(serde_json::from_str(r#"{"name":"DTMF","digit":"5"}"#).unwrap());
        assert_eq!(enter(&mut call, 40, &mark, b"mark"), Kept::Body(br#"{"name":"DTMF"}"#.to_vec()));
        assert_eq!(enter(&mut call, 50, &Message::Rtp, &rtp(111, 3, b"said")), Kept::Whole);
    }

    #[test]
    fn what_looks_like_a_digit_is_masked_where_nobody_has_told_the_payload_type() {
        let digit = rtp(96, 1, &[5, 10, 0, 160]);
        let withheld = Kept::Withheld(packet::header_only(&digit));
        let mut call = Call::open(Mono(0), at(1), rules(true));
        assert_eq!(enter(&mut call, 10, &Message::Rtp, &digit), withheld);
        for payload in [&[5, 0x4a, 0, 160][..], &[17, 10, 0, 160], &[5, 10, 0], &[5, 10, 0, 160, 1]] {
            assert_eq!(enter(&mut call, 20, &Message::Rtp, &rtp(96, 2, payload)), Kept::Whole, "{payload:?}");
        }
        assert_eq!(enter(&mut call, 30, &Message::Rtp, &rtp(0, 3, &[5, 10, 0, 160])), Kept::Whole, "PCMU");
        enter(&mut call, 40, &meta(r#"{"payload_types":{"96":"opus/48000/2"}}"#), b"");
        assert_eq!(enter(&mut call, 50, &Message::Rtp, &digit), Kept::Whole, "it is told to be Opus");
        let mut kept = Call::open(Mono(0), at(1), rules(false));
        assert_eq!(enter(&mut kept, 10, &Message::Rtp, &digit), Kept::Whole, "nothing is masked");
    }

    #[test]
    fn a_call_that_was_closed_for_its_silence_goes_on_with_what_comes_and_one_that_was_ended_does_not() {
        let later = Mono(u64::MAX);
        let mut stale = Call::open(Mono(0), at(1), rules(false));
        stale.connection.handle_sweep(later);
        let mut lost = Call::open(Mono(0), at(1), rules(false));
        lost.connection = lost.connection.clone().resume(Mono(0), Duration::ZERO);
        lost.connection.handle_timeout(later);
        let late = Kept::Refused(Refusal::Late);
        for mut call in [stale, lost] {
            assert!(call.connection.has_fallen_silent() && !call.connection.is_live());
            assert_eq!(enter(&mut call, 10, &Message::End { sent: None }, b""), late);
            assert_eq!(enter(&mut call, 10, &Message::Rtp, &rtp(111, 1, b"said")), Kept::Reopen);
            assert_eq!(enter(&mut call, 10, &meta("{}"), b"{}"), Kept::Reopen);
        }
        let mut ended = Call::open(Mono(0), at(1), rules(false));
        ended.enter(Mono(0), at(5), Scope::Whole, &Message::End { sent: None }, b"").unwrap();
        ended.connection.handle_timeout(later);
        assert_eq!(enter(&mut ended, 10, &Message::Rtp, &rtp(111, 1, b"said")), late);
    }

    #[test]
    fn a_call_that_was_closed_for_its_silence_goes_on_as_another_part() {
        let mut call = Call::open(Mono(0), at(1), rules(false));
        enter(&mut call, 10, &meta(r#"{"tenant":"t","payload_types":{"96":"PCMU/8000"}}"#), b"");
        enter(&mut call, 20, &Message::Rtp, &rtp(96, 1, b"said"));
        call.connection.handle_sweep(Mono(u64::MAX));
        let next = call.opened_again(Mono(5), &Message::Rtp);
        assert_eq!((next.metadata.tenant.as_deref(), next.received()), (Some("t"), 0));
        assert_eq!(next.metadata.rtpmap(Channel::Caller, 96).codec, Codec::Pcmu);
        assert_eq!(next.counts(Channel::Caller).before, 1);
        assert!(next.connection.is_live() && !next.connection.has_fallen_silent());
        let asked = call.opened_again(Mono(5), &meta(r#"{"reopen":true}"#));
        assert_eq!(asked.metadata.tenant, None, "another recording was asked for");
    }

    #[test]
    fn an_opened_again_call_is_another_whose_pauses_stand() {
        let mut call = Call::open(Mono(0), at(1), rules(false));
        enter(&mut call, 10, &meta(r#"{"tenant":"t","record":false}"#), b"");
        enter(&mut call, 20, &Message::Pause(crate::frame::PauseMode::Cut), b"");
        let again = call.opened_again(Mono(5), &Message::Rtp);
        assert_eq!((again.metadata.tenant.as_deref(), again.received()), (None, 0));
        let claims = again.connection.claims();
        assert!(!claims.is_recorded() && claims.pause(Channel::Caller).is_some() && claims.is_referenced());
    }
}

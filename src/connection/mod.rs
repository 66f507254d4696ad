//! The life of one connection: a small state machine that is told the time and does nothing itself.
//!
//! ```text
//!   first RTP or META
//!         │                 last reference released            linger over
//!         ▼               ┌────────────────────────┐        ┌──────────────┐
//!       Open ─────────────┘                        ▼        │              ▼
//!         ▲  ◀──────────── HOLD ──────────────  Lingering ──┘           Sealed ── tombstone over ──▶ gone
//!         │                                                                ▲
//!         │ any frame                    stale, shutdown, too long ────────┤
//!     Resuming ──────────────────── nothing came in time ──────────────────┘
//! ```
//!
//! A connection opens with two references, one for each channel; END releases them, HOLD and RELEASE add and give
//! back further ones. [`Connection::handle_frame`] says what to keep of a frame, [`Connection::handle_timeout`]
//! what a deadline means; the shell does it. Invariants: a sealed connection keeps nothing; each way out of the
//! open states passes through exactly one [`End`].

pub mod call;
pub mod claims;
pub mod digits;
pub mod metadata;
pub mod pauses;
pub mod redaction;
pub mod refused;
mod repeats;
mod rules;
mod step;
mod units;
mod view;
pub mod vigil;

use std::time::Duration;

use crate::frame::Message;
use crate::id::{Channel, Scope};
use crate::time::Mono;
use claims::Claims;
use pauses::Stamp;
pub use rules::Rules;
pub use step::{Keep, Refusal, Step};
pub use view::View;
use vigil::{Noticed, Vigil};

/// How long the frames of a finished connection are recognised as late, and do not open it anew.
pub const TOMBSTONE: Duration = Duration::from_secs(60);

/// How long a pause is remembered of a connection that fell silent in it and was closed.
pub const REMEMBERED: Duration = Duration::from_secs(3600);

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its last reference was released.
    Released,
    /// No frame came for the retention time.
    Stale,
    /// The daemon was asked to stop.
    Shutdown,
    /// The daemon had been killed, and nothing came after the restart.
    NotResumed,
    /// The recording reached its greatest length; the call goes on as another part.
    PartFull,
}

/// What a deadline led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing is due; ask again then, if a time is given.
    Wait(Option<Mono>),
    /// Finalise the recording. A tombstone stays until the given time.
    Seal(End, Mono),
    /// Forget the connection.
    Retire,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Resuming { until: Mono },
    Lingering { until: Mono },
    Sealed { until: Mono },
}

/// One connection's references, holds, pauses and deadlines.
#[derive(Clone, Debug)]
pub struct Connection {
    rules: Rules,
    state: State,
    opened: Mono,
    /// How long the recording was already when `opened` began to count, after a restart.
    recorded: Duration,
    last_frame: Mono,
    claims: Claims,
    /// Whether another part has taken over.
    is_continued: bool,
    /// Whether it was closed for its silence alone.
    has_fallen_silent: bool,
    vigil: Vigil,
}

impl Connection {
    /// Opens a connection with its two references.
    #[must_use]
    pub fn open(now: Mono, received: Stamp, rules: Rules) -> Self {
        Self::with_claims(now, rules, Claims::new(received, rules.is_recorded))
    }

    /// Opens a connection of which something was said before.
    #[must_use]
    pub fn with_claims(now: Mono, rules: Rules, claims: Claims) -> Self {
        Self {
            rules,
            state: State::Open,
            opened: now,
            recorded: Duration::ZERO,
            last_frame: now,
            claims,
            is_continued: false,
            has_fallen_silent: false,
            vigil: Vigil::default(),
        }
    }

    /// The waiting times, and what else the operator has chosen.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What frames have said of it.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The same, to be changed by what a spool file says.
    pub fn claims_mut(&mut self) -> &mut Claims {
        &mut self.claims
    }

    /// The connection that takes over when a finished one is opened again.
    #[must_use]
    pub fn reopened(&self, now: Mono) -> Self {
        Self::with_claims(now, self.rules, self.claims.reopened())
    }

    /// Takes up a connection whose earlier frames have been handled again out of the spool, after a restart. It
    /// waits for its gateway to go on; if nothing was missing but the end, it is over at once. `recorded` is how long its
    /// recording is so far: what goes beyond the greatest length has no place in it.
    #[must_use]
    pub fn resume(mut self, now: Mono, recorded: Duration) -> Self {
        self.opened = now;
        self.recorded = recorded;
        self.last_frame = now;
        let wait = if self.is_referenced() { self.rules.resume } else { Duration::ZERO };
        self.state = State::Resuming { until: now.after(wait) };
        self
    }

    /// The connection that takes over when this one's recording is full: the same references, holds and pauses.
    #[must_use]
    pub fn next_part(&self, now: Mono) -> Self {
        let (state, recorded) = (State::Open, Duration::ZERO);
        let (last_frame, is_continued, has_fallen_silent) = (now, false, false);
        Self { state, opened: now, recorded, last_frame, is_continued, has_fallen_silent, ..self.clone() }
    }

    /// The next time at which [`Connection::handle_timeout`] may have something to say.
    #[must_use]
    pub fn poll_timeout(&self) -> Mono {
        match self.state {
            State::Open => self.opened.after(self.rules.max_duration.saturating_sub(self.recorded)),
            // Not sooner, even if the recording is full: nothing is done about that here, and whoever asked again at
            // that time would be sent back to it for ever.
            State::Resuming { until } | State::Lingering { until } | State::Sealed { until } => until,
        }
    }

    /// What can be seen of it.
    #[must_use]
    pub fn view(&self) -> View {
        let state = match self.state {
            State::Open => "open",
            State::Lingering { .. } => "lingering",
            State::Resuming { .. } => "resuming",
            State::Sealed { .. } => "ended",
        };
        let Claims { references, holds, .. } = self.claims;
        let pauses = Channel::BOTH.map(|channel| self.claims.pause(channel));
        let (is_recorded, last_frame) = (self.claims.is_recorded(), self.last_frame);
        let missing = Channel::BOTH.map(|channel| self.vigil.missing(channel));
        View { state, references, holds, pauses, is_recorded, missing, last_frame }
    }

    /// Counts a packet of a channel. True if it is to be listened to, one in some.
    pub fn is_next_sampled(&mut self, channel: Channel) -> bool {
        self.vigil.is_next_sampled(channel)
    }

    /// Handles what is heard in such a packet, as [`Vigil::hear`]. The other one is waited for while it has its
    /// reference and no pause.
    pub fn hear(
        &mut self,
        now: Mono,
        channel: Channel,
        sound: Option<Duration>,
        patience: Duration,
    ) -> Option<Noticed> {
        let other = channel.other();
        let is_awaited = self.claims.references[other.index()] && !self.claims.is_kept_out(other);
        self.vigil.hear(now, channel, sound, is_awaited, patience)
    }

    /// Whether it is over because another part takes over.
    #[must_use]
    pub fn is_continued(&self) -> bool {
        self.is_continued
    }

    /// Whether it is over because nothing came for too long. What comes later goes on with it.
    #[must_use]
    pub fn has_fallen_silent(&self) -> bool {
        self.has_fallen_silent
    }

    /// Whether frames are still kept.
    #[must_use]
    pub fn is_live(&self) -> bool {
        !matches!(self.state, State::Sealed { .. })
    }

    /// Whether a claim stands that a stream is still coming.
    #[must_use]
    pub fn is_referenced(&self) -> bool {
        self.claims.is_referenced()
    }

    /// Handles one valid frame about this connection, which was received `now`; `at` says when by the wall, and the
    /// gateway's stamp.
    pub fn handle_frame(&mut self, now: Mono, at: Stamp, scope: Scope, message: &Message) -> Step {
        let mut step = Step {
            keep: Keep::Whole,
            released: [false; 2],
            wake_at: None,
            takes_out: false,
            is_decision: false,
            keeps_out_more: false,
            is_cut: false,
        };
        if !self.is_live() {
            // It is only remembered for what is not to be kept, or it was closed for its silence, and goes on.
            let is_over = |until| now >= until || self.has_fallen_silent;
            let is_beginning = matches!(message, Message::Rtp | Message::Meta(_));
            let is_reopening = match self.state {
                State::Sealed { until } if is_beginning && is_over(until) => true,
                _ => matches!(message, Message::Meta(meta) if metadata::asks_to_reopen(meta)),
            };
            step.keep = if is_reopening { Keep::Reopen } else { Keep::Nothing(Refusal::Late) };
            return step;
        }
        self.last_frame = now;
        if let State::Resuming { .. } = self.state {
            self.state = State::Open;
            step.wake_at = Some(self.poll_timeout());
        }
        let claims = &mut self.claims;
        match message {
            Message::Rtp => step.keep = claims.enter_packet(at, scope),
            Message::Rtcp if !claims.is_recorded() => step.keep = Keep::Unrecorded,
            Message::Mark(_) => step.keep = claims.enter_mark(at, scope),
            Message::End { .. } => {
                for channel in scope.channels() {
                    step.released[channel.index()] = std::mem::take(&mut claims.references[channel.index()]);
                }
            }
            Message::Hold => claims.holds = claims.holds.saturating_add(1),
            Message::Release => match claims.holds.checked_sub(1) {
                Some(holds) => claims.holds = holds,
                None => step.keep = Keep::Nothing(Refusal::ReleaseWithoutHold),
            },
            Message::Pause(mode) => {
                step.keeps_out_more = !claims.is_paused(scope);
                claims.begin_pause(at, scope, *mode);
            }
            Message::Resume => drop(claims.end_pause(at, scope)),
            Message::Meta(object) => {
                if let Some(is_recorded) = metadata::decides(object) {
                    step.is_decision = claims.decide(at, is_recorded);
                    step.keeps_out_more = step.is_decision && !is_recorded;
                }
            }
            _ => {}
        }
        step.takes_out = claims.takes_out();
        match (self.is_referenced(), self.state) {
            (true, State::Lingering { .. }) => self.state = State::Open,
            (false, State::Open) => {
                let until = now.after(self.rules.linger);
                self.state = State::Lingering { until };
                step.wake_at = Some(until);
            }
            _ => {}
        }
        step
    }

    /// Closes the recording because it holds as much as one may; the call goes on as another part.
    pub fn fill(&mut self, now: Mono) -> Timeout {
        if self.is_live() { self.seal(now, End::PartFull) } else { Timeout::Wait(None) }
    }

    /// Handles the passing of a deadline; harmless at any other time.
    pub fn handle_timeout(&mut self, now: Mono) -> Timeout {
        match self.state {
            State::Sealed { until } if now >= until => match until.after(self.remembered()) {
                until if now < until => Timeout::Wait(Some(until)),
                _ => Timeout::Retire,
            },
            State::Lingering { until } if now >= until => self.seal(now, End::Released),
            State::Resuming { until } if now >= until => {
                let end = if self.is_referenced() { End::NotResumed } else { End::Released };
                self.seal(now, end)
            }
            State::Open if now >= self.poll_timeout() => {
                // A HOLD that is never given back makes no parts for ever.
                let (holds, retention) = (self.claims.holds, self.rules.retention);
                let nearly = self.rules.patience(holds).saturating_sub(retention).max(retention);
                let is_silent = holds > 0 && now.since(self.last_frame) >= nearly;
                self.seal(now, if is_silent { End::Stale } else { End::PartFull })
            }
            _ => Timeout::Wait(Some(self.poll_timeout())),
        }
    }

    /// Closes the connection if it is stale. The sweep asks each one.
    pub fn handle_sweep(&mut self, now: Mono) -> Timeout {
        let is_stale = self.is_live() && now.since(self.last_frame) >= self.rules.patience(self.claims.holds);
        if is_stale { self.seal(now, End::Stale) } else { Timeout::Wait(None) }
    }

    /// Closes the connection because the daemon stops.
    pub fn handle_shutdown(&mut self, now: Mono) -> Timeout {
        if !self.is_live() {
            return Timeout::Wait(None);
        }
        let end = if self.is_referenced() { End::Shutdown } else { End::Released };
        self.seal(now, end)
    }

    /// How long it is remembered behind its tombstone. Whoever falls silent in a pause, for longer than a call may, and then
    /// goes on without RESUME, is still paused.
    fn remembered(&self) -> Duration {
        let is_kept_out = Channel::BOTH.iter().any(|channel| self.claims.is_kept_out(*channel));
        if is_kept_out && self.is_referenced() { REMEMBERED } else { Duration::ZERO }
    }

    fn seal(&mut self, now: Mono, end: End) -> Timeout {
        let until = now.after(TOMBSTONE);
        self.is_continued = end == End::PartFull;
        self.has_fallen_silent = matches!(end, End::Stale | End::NotResumed);
        self.state = State::Sealed { until };
        Timeout::Seal(end, until)
    }
}

#[cfg(test)]
mod tests {
    use super::vigil::Silence;
    use super::*;
    use crate::frame::PauseMode;

    const CALLER: Scope = Scope::Channel(Channel::Caller);
    const AI: Scope = Scope::Channel(Channel::Ai);
    const END: Message = Message::End { sent: None };

    fn rules() -> Rules {
        Rules {
            linger: Duration::from_millis(500),
            retention: Duration::from_secs(1800),
            resume: Duration::from_secs(15),
            max_duration: Duration::from_secs(14_400),
            is_recorded: true,
            masks_digits: false,
        }
    }

    fn open() -> Connection {
        Connection::open(at(0), Stamp::default(), rules())
    }

    impl Connection {
        /// Handles a frame without a stamp.
        fn frame(&mut self, now: Mono, scope: Scope, message: &Message) -> Step {
            let received = crate::time::Wall(i64::try_from(now.0).unwrap());
            self.handle_frame(now, Stamp::received(received), scope, message)
        }
    }

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    #[test]
    fn a_call_ends_when_both_streams_have_ended_and_the_linger_is_over() {
        let mut call = open();
        assert_eq!(call.frame(at(10), CALLER, &END).released, [true, false]);
        assert_eq!(call.handle_timeout(at(99_999)), Timeout::Wait(Some(at(14_400_000))));
        let step = call.frame(at(1000), AI, &END);
        assert_eq!((step.released, step.wake_at), ([false, true], Some(at(1500))));
        assert_eq!(call.frame(at(1400), CALLER, &Message::Rtp).keep, Keep::Whole);
        assert_eq!(call.handle_timeout(at(1499)), Timeout::Wait(Some(at(1500))));
        assert_eq!(call.handle_timeout(at(1500)), Timeout::Seal(End::Released, at(61_500)));
        assert_eq!(call.frame(at(1501), CALLER, &Message::Rtp).keep, Keep::Nothing(Refusal::Late));
        assert_eq!(call.handle_timeout(at(61_500)), Timeout::Retire);
    }

    #[test]
    fn a_repeated_end_is_harmless() {
        let mut call = open();
        call.frame(at(1), CALLER, &END);
        assert_eq!(call.frame(at(2), CALLER, &END).released, [false, false]);
        assert!(call.is_referenced());
        assert_eq!(call.frame(at(3), Scope::Whole, &END).released, [false, true]);
        assert_eq!(call.frame(at(4), Scope::Whole, &END).wake_at, None, "the linger is not prolonged");
    }

    #[test]
    fn a_hold_keeps_the_recording_open_until_it_is_given_back() {
        let mut call = open();
        call.frame(at(1), Scope::Whole, &Message::Hold);
        assert_eq!(call.frame(at(2), Scope::Whole, &END).wake_at, None);
        let step = call.frame(at(3), Scope::Whole, &Message::Release);
        assert_eq!(step.wake_at, Some(at(503)));
        let step = call.frame(at(4), Scope::Whole, &Message::Release);
        assert_eq!(step.keep, Keep::Nothing(Refusal::ReleaseWithoutHold));
    }

    #[test]
    fn a_pause_is_remembered_of_a_call_that_fell_silent_in_it() {
        let mut call = open();
        call.frame(at(10), Scope::Whole, &Message::Pause(PauseMode::Silence));
        let until = at(1_800_010 + 60_000);
        assert_eq!(call.handle_sweep(at(1_800_010)), Timeout::Seal(End::Stale, until));
        assert_eq!(call.frame(at(1_800_020), CALLER, &END).keep, Keep::Nothing(Refusal::Late));
        let forgotten = until.after(REMEMBERED);
        assert_eq!(call.handle_timeout(until), Timeout::Wait(Some(forgotten)));
        assert_eq!(call.frame(until, CALLER, &Message::Rtp).keep, Keep::Reopen);
        let mut next = call.reopened(until);
        assert_eq!(next.frame(until, CALLER, &Message::Rtp).keep, Keep::HeaderOnly);
        assert_eq!(call.handle_timeout(forgotten), Timeout::Retire);
        next.frame(at(2_000_000), Scope::Whole, &END);
        assert!(matches!(next.handle_timeout(at(2_000_500)), Timeout::Seal(End::Released, _)));
        assert_eq!(next.handle_timeout(at(2_060_500)), Timeout::Retire, "it was ended");
    }

    #[test]
    fn a_hold_during_the_linger_reopens_the_call() {
        let mut call = open();
        call.frame(at(1), Scope::Whole, &END);
        call.frame(at(2), Scope::Whole, &Message::Hold);
        assert_eq!(call.handle_timeout(at(10_000)), Timeout::Wait(Some(at(14_400_000))));
    }

    #[test]
    fn a_call_that_still_sends_is_never_stale_however_long_it_is() {
        let mut call = open();
        for minute in 1..200 {
            call.frame(at(minute * 60_000), CALLER, &Message::Rtp);
            assert_eq!(call.handle_sweep(at(minute * 60_000 + 1)), Timeout::Wait(None));
        }
        let late = at(199 * 60_000 + 1_800_000);
        assert!(matches!(call.handle_sweep(late), Timeout::Seal(End::Stale, _)));
    }

    #[test]
    fn a_hold_keeps_a_silent_call_open_for_as_long_as_a_recording_may_be() {
        let mut call = open();
        let hour = 3_600_000;
        call.frame(at(1), Scope::Whole, &Message::Hold);
        assert_eq!(call.handle_sweep(at(3 * hour)), Timeout::Wait(None));
        let full = call.poll_timeout();
        assert!(matches!(call.handle_timeout(full), Timeout::Seal(End::Stale, _)), "and no part behind it");

        let mut call = open();
        call.frame(at(1), Scope::Whole, &Message::Hold);
        call.frame(at(3 * hour), CALLER, &Message::Rtp);
        assert!(matches!(call.handle_timeout(full), Timeout::Seal(End::PartFull, _)), "silent for an hour");
    }

    #[test]
    fn what_is_said_during_a_pause_is_kept_as_headers_only() {
        let mut call = open();
        call.frame(at(1), CALLER, &Message::Pause(PauseMode::Silence));
        assert_eq!(call.frame(at(2), CALLER, &Message::Rtp).keep, Keep::HeaderOnly);
        assert_eq!(call.frame(at(2), AI, &Message::Rtp).keep, Keep::Whole);
        call.frame(at(3), Scope::Whole, &Message::Resume);
        assert_eq!(call.frame(at(4), CALLER, &Message::Rtp).keep, Keep::Whole);
    }

    #[test]
    fn a_channel_that_has_ended_or_is_paused_is_not_missed() {
        let (patience, sound) = (Duration::from_secs(1), Some(Duration::from_millis(20)));
        let talk = |call: &mut Connection, from_ms: u64| {
            let mut packets = (0..100).map(|n| call.hear(at(from_ms + n * 80), Channel::Ai, sound, patience));
            packets.find_map(|noticed| noticed)
        };
        let mut call = open();
        call.frame(at(1), CALLER, &Message::Pause(PauseMode::Silence));
        assert_eq!(talk(&mut call, 0), None);
        call.frame(at(2), CALLER, &Message::Resume);
        assert_eq!(talk(&mut call, 8000), Some(Noticed::Missing(Channel::Caller, Silence::Absent)));
        assert_eq!(call.view().missing, [Some(Silence::Absent), None]);
        let mut call = open();
        call.frame(at(1), CALLER, &END);
        assert_eq!(talk(&mut call, 0), None);
    }

    #[test]
    fn a_finished_call_opens_again_only_when_asked() {
        let mut call = open();
        call.handle_shutdown(at(1));
        let meta = |json: &str| Message::Meta(serde_json::from_str(json).unwrap());
        assert_eq!(call.frame(at(2), CALLER, &meta("{}")).keep, Keep::Nothing(Refusal::Late));
        assert_eq!(call.frame(at(2), CALLER, &meta(r#"{"reopen":true}"#)).keep, Keep::Reopen);
    }

    #[test]
    fn after_a_restart_a_call_waits_for_its_gateway_and_goes_on() {
        let mut call = open().resume(at(100), Duration::ZERO);
        assert_eq!(call.poll_timeout(), at(15_100));
        call.frame(at(200), CALLER, &Message::Rtp);
        assert!(matches!(call.handle_timeout(at(15_100)), Timeout::Wait(_)));

        let mut call = open().resume(at(100), Duration::ZERO);
        assert!(matches!(call.handle_timeout(at(15_100)), Timeout::Seal(End::NotResumed, _)));
    }

    #[test]
    fn after_a_restart_a_call_that_lacked_only_its_end_is_over_at_once() {
        let mut call = open();
        call.frame(at(1), Scope::Whole, &END);
        let mut call = call.resume(at(5), Duration::ZERO);
        assert!(matches!(call.handle_timeout(at(5)), Timeout::Seal(End::Released, _)));
    }

    #[test]
    fn a_recording_that_is_full_goes_on_as_another_part_with_the_same_references() {
        let mut call = open();
        call.frame(at(1), CALLER, &END);
        call.frame(at(2), AI, &Message::Pause(PauseMode::Cut));
        assert!(matches!(call.handle_timeout(at(14_400_000)), Timeout::Seal(End::PartFull, _)));
        let mut next = call.next_part(at(14_400_000));
        assert_eq!(next.frame(at(14_400_001), AI, &Message::Rtp).keep, Keep::HeaderOnly);
        assert_eq!(next.frame(at(14_400_002), AI, &END).released, [false, true]);
        assert!(!next.is_referenced());
    }

    #[test]
    fn a_deadline_that_has_passed_is_never_asked_for_again() {
        let short = Rules { max_duration: Duration::from_secs(1), ..rules() };
        let mut lingering = Connection::open(at(0), Stamp::default(), short);
        lingering.frame(at(900), Scope::Whole, &END);
        assert_eq!(lingering.handle_timeout(at(1000)), Timeout::Wait(Some(at(1400))));
        let mut resuming = Connection::open(at(0), Stamp::default(), short).resume(at(100), Duration::ZERO);
        assert_eq!(resuming.handle_timeout(at(1100)), Timeout::Wait(Some(at(15_100))));
        assert!(matches!(resuming.handle_timeout(at(15_100)), Timeout::Seal(End::NotResumed, _)));
    }

    #[test]
    fn what_was_recorded_before_a_restart_counts_towards_the_greatest_length() {
        let recorded = Duration::from_secs(14_000);
        let mut call = open().resume(at(100), recorded);
        assert_eq!(call.frame(at(200), CALLER, &Message::Rtp).wake_at, Some(at(400_100)));
        assert!(matches!(call.handle_timeout(at(400_100)), Timeout::Seal(End::PartFull, _)));
        assert_eq!(call.next_part(at(400_100)).poll_timeout(), at(14_800_100), "the next part begins empty");
    }
}

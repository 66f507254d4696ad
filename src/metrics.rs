//! What the daemon counts: closed lists of reasons, each with a counter. Reading a counter never blocks a writer.
//!
//! Nothing is dropped silently: every refusal of a frame has a [`DropReason`], adds to its counter, and appears in
//! the log, at most once a second for each reason, and with its total in the lines of the sweep and of the stop.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection::Refusal;
use crate::frame::FrameError;
use crate::id::IdError;
use crate::manifest::Outcome;
use crate::packet::PacketError;
use crate::tap_key::Distrust;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal)*) => {
        /// Why a frame was not kept.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DropReason { $($(#[doc = $doc])+ $variant),* }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it in the log.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

reasons! {
    /// Fewer than 16 bytes.
    Short "short"
    /// Not a frame of this protocol.
    Magic "bad_magic"
    /// A protocol version other than 1.
    Version "bad_version"
    /// A kind that the protocol does not have.
    Kind "unknown_kind"
    /// A channel that the kind does not take.
    Channel "bad_channel"
    /// The frame ends inside its connection id.
    IdTruncated "id_truncated"
    /// The frame ends inside its trailer.
    TrailerTruncated "trailer_truncated"
    /// A connection id of 0 or more than 128 bytes.
    IdLength "bad_id_length"
    /// A connection id that is not UTF-8.
    IdNotUtf8 "id_not_utf8"
    /// A connection id with a control character.
    IdControl "id_control_character"
    /// Not signed with the key where a key is set.
    Unauthenticated "unauthenticated"
    /// Signed, and there before, or too old to tell.
    Replayed "replayed"
    /// Signed by a new sender whose counter is not within 30 s of the wall clock.
    KeyClock "key_clock"
    /// Signed by one sender more than can be remembered.
    TooManySenders "too_many_senders"
    /// A body that the kind does not take.
    Body "bad_body"
    /// A body that is no JSON object of the right form.
    Json "bad_json"
    /// A body that is no RTP packet.
    Rtp "bad_rtp"
    /// RTCP in a frame of kind RTP.
    RtcpAsRtp "rtcp_as_rtp"
    /// A body that is no compound RTCP packet.
    Rtcp "bad_rtcp"
    /// Metadata of one connection beyond 64 KiB.
    MetadataFull "metadata_full"
    /// A connection that no RTP or META has opened.
    UnknownConnection "unknown_connection"
    /// The recording was finalised before.
    Late "late"
    /// RELEASE without a HOLD.
    ReleaseWithoutHold "release_without_hold"
    /// As many connections as allowed are open.
    TooManyConnections "too_many_connections"
    /// The spool's disk is too full for a new connection.
    LowDisk "low_disk"
    /// The daemon is stopping.
    ShuttingDown "shutting_down"
    /// Recording is switched off.
    Disabled "disabled"
    /// The disk does not take what this connection sends.
    SpoolOverflow "spool_overflow"
    /// A new connection while the spool cannot be written.
    SpoolUnwritable "spool_unwritable"
    /// More frames beside RTP than a call can need.
    ControlFull "control_full"
    /// A bug: handling the frame panicked.
    InternalError "internal_error"
    /// A byte stream ended inside a frame.
    StreamTruncated "stream_truncated"
}

impl From<FrameError> for DropReason {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Short => Self::Short,
            FrameError::Magic => Self::Magic,
            FrameError::Version => Self::Version,
            FrameError::Kind => Self::Kind,
            FrameError::Channel => Self::Channel,
            FrameError::IdTruncated => Self::IdTruncated,
            FrameError::TrailerTruncated => Self::TrailerTruncated,
            FrameError::Id(IdError::Length) => Self::IdLength,
            FrameError::Id(IdError::NotUtf8) => Self::IdNotUtf8,
            FrameError::Id(IdError::Control) => Self::IdControl,
            FrameError::Body => Self::Body,
            FrameError::Json => Self::Json,
        }
    }
}

impl From<Distrust> for DropReason {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Unauthenticated => Self::Unauthenticated,
            Distrust::Replayed => Self::Replayed,
            Distrust::Clock => Self::KeyClock,
            Distrust::TooManySenders => Self::TooManySenders,
        }
    }
}

impl From<PacketError> for DropReason {
    fn from(error: PacketError) -> Self {
        match error {
            PacketError::Rtp => Self::Rtp,
            PacketError::RtcpAsRtp => Self::RtcpAsRtp,
            PacketError::Rtcp => Self::Rtcp,
        }
    }
}

impl From<Refusal> for DropReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Late => Self::Late,
            Refusal::ReleaseWithoutHold => Self::ReleaseWithoutHold,
        }
    }
}

/// The daemon's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Frames kept.
    pub frames: AtomicU64,
    /// Connections opened, not counting those found in the spool.
    pub opened: AtomicU64,
    /// Recordings published.
    pub published: AtomicU64,
    /// Attempts to publish that failed and will be made again.
    pub publish_retries: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    outcomes: [AtomicU64; 6],
}

impl Metrics {
    /// Adds one to a counter.
    pub fn add(counter: &AtomicU64) {
        // Relaxed: the counters are only read for show, and order nothing.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that was not kept.
    pub fn drop_frame(&self, reason: DropReason) {
        Self::add(&self.dropped[position(reason)]);
    }

    /// Counts the outcome of a connection.
    pub fn finish(&self, outcome: Outcome) {
        let at = match outcome {
            Outcome::Ok => 0,
            Outcome::Degraded => 1,
            Outcome::Recovered => 2,
            Outcome::Stale => 3,
            Outcome::Absent => 4,
            Outcome::Failed => 5,
        };
        Self::add(&self.outcomes[at]);
    }

    /// How many connections have come to an outcome.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.outcomes.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How many frames were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[position(reason)].load(Ordering::Relaxed)
    }

    /// The reasons for which frames were dropped, with their totals, as `reason=count`.
    #[must_use]
    pub fn dropped_summary(&self) -> String {
        let all = DropReason::ALL.iter().map(|reason| (reason.name(), self.dropped(*reason)));
        let some: Vec<String> =
            all.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}={count}")).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(" ") }
    }
}

fn position(reason: DropReason) -> usize {
    DropReason::ALL.iter().position(|other| *other == reason).expect("ALL holds every reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_are_told_by_reason() {
        let metrics = Metrics::default();
        assert_eq!(metrics.dropped_summary(), "none");
        metrics.drop_frame(DropReason::Late);
        metrics.drop_frame(DropReason::Late);
        metrics.drop_frame(DropReason::Rtp);
        assert_eq!(metrics.dropped_summary(), "bad_rtp=1 late=2");
    }
}

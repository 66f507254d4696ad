//! What the daemon counts: closed lists of words, each with a counter. Reading a counter never blocks a writer.
//!
//! Nothing is dropped silently: every refusal of a frame has a [`DropReason`], adds to its counter, and appears in
//! the log, at most once a second for each reason, and with its total in the lines of the sweep and of the stop.
//! [`exposition`] writes all of it down as Prometheus reads it. No label holds what a sender, a gateway or a store can choose.

pub mod exposition;
pub mod histogram;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connection::Refusal;
use crate::connection::vigil::Silence;
use crate::frame::FrameError;
use crate::id::{Channel, IdError};
use crate::manifest::{Manifest, Outcome};
use crate::packet::PacketError;
use crate::spool::name::{Aside, Made};
use crate::tap_key::Distrust;
use histogram::Histogram;

/// A closed list of words that a counter is split by.
pub trait Word: Copy + PartialEq + 'static {
    /// All words, in the order of their counters.
    const ALL: &[Self];

    /// The word itself, as the log and the metrics show it.
    fn word(self) -> &'static str;
}

impl Word for Outcome {
    const ALL: &[Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for Channel {
    const ALL: &[Self] = &Self::BOTH;

    fn word(self) -> &'static str {
        self.name()
    }
}

impl Word for Silence {
    const ALL: &[Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

macro_rules! words {
    ($(#[doc = $about:literal])+ $list:ident $($(#[doc = $doc:literal])+ $variant:ident $name:literal)*) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $list { $($(#[doc = $doc])+ $variant),* }

        impl $list {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word for it in the log and in the metrics.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        impl Word for $list {
            const ALL: &[Self] = Self::ALL;

            fn word(self) -> &'static str {
                self.name()
            }
        }
    };
}

words! {
    /// Why a frame was not kept.
    DropReason
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
    /// What agrees on keys, DTLS or ZRTP, in place of RTP: the audio behind it is encrypted.
    KeyExchange "key_exchange"
    /// Plain RTP of another sender than the one that has the port.
    OtherSource "other_source"
    /// RTCP of another sender than the one that has the port.
    OtherRtcp "other_rtcp"
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
    /// A new connection while the daemon only waits for the open ones to end.
    Draining "draining"
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
            PacketError::KeyExchange => Self::KeyExchange,
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

words! {
    /// Why an attempt to publish failed.
    RetryCause
    /// The spool's disk.
    Spool "spool"
    /// The recording could not be made this time.
    Render "render"
    /// The network or the store, for now.
    StoreUnavailable "store_unavailable"
    /// Credentials that may have expired.
    Expired "credentials_expired"
    /// No credentials, or wrong ones.
    Credentials "credentials"
    /// The credentials do not allow it.
    Permission "permission"
    /// No such bucket or container.
    Bucket "bucket"
    /// The clocks of this machine and of the store differ.
    Clock "clock"
    /// The store refuses the request as such.
    Refused "refused"
    /// Each name is taken.
    NoName "no_name"
    /// A bug.
    Internal "internal_error"
}

words! {
    /// How the upload of one object ended.
    Upload
    /// It is in the store.
    Created "created"
    /// It was there before.
    AlreadyThere "already_there"
    /// Its name belongs to something else; another one is tried.
    Taken "taken"
    /// The store did not confirm it.
    Failed "failed"
}

words! {
    /// Where packets of a call were lost.
    Loss
    /// Before the gateway: their numbers never came.
    Network "network"
    /// Between the gateway and the daemon, as the counts in END tell.
    Socket "socket"
}

words! {
    /// What a file in the spool directory is.
    SpoolState
    /// A call that goes on.
    Open "open"
    /// A call that is over, and not in the store yet.
    Unpublished "unpublished"
    /// In the backup storage, and not in the first one yet.
    Backup "backup"
    /// A recording on its way into the store, a note about that, or a file that is to take a spool file's place.
    Rendered "rendered"
    /// Published as far as it could be read, and kept.
    Damaged "damaged"
    /// No recording could be made of it, or it is no spool file.
    Failed "failed"
    /// Published, and kept for a version that knows its codec.
    Kept "kept"
}

impl From<Aside> for SpoolState {
    fn from(why: Aside) -> Self {
        match why {
            Aside::BackedUp => Self::Backup,
            Aside::Kept => Self::Kept,
            Aside::Damaged => Self::Damaged,
            Aside::Failed => Self::Failed,
        }
    }
}

impl From<Made> for SpoolState {
    fn from(made: Made) -> Self {
        match made {
            Made::Opus | Made::Left | Made::Right | Made::New => Self::Rendered,
            Made::Trying | Made::Alone | Made::Name => Self::Rendered,
        }
    }
}

/// Counters, one for each word of a list.
#[derive(Debug)]
pub struct Split<W> {
    counts: Box<[AtomicU64]>,
    words: PhantomData<W>,
}

impl<W: Word> Default for Split<W> {
    fn default() -> Self {
        Self { counts: W::ALL.iter().map(|_| AtomicU64::new(0)).collect(), words: PhantomData }
    }
}

impl<W: Word> Split<W> {
    /// Adds one.
    pub fn add(&self, word: W) {
        self.add_many(word, 1);
    }

    /// Adds many.
    pub fn add_many(&self, word: W, count: u64) {
        self.counts[position(word)].fetch_add(count, Ordering::Relaxed);
    }

    /// The count of one word.
    #[must_use]
    pub fn of(&self, word: W) -> u64 {
        self.counts[position(word)].load(Ordering::Relaxed)
    }

    /// The sum of all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The daemon's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Frames kept.
    pub frames: AtomicU64,
    /// Connections opened, not counting those found in the spool.
    pub opened: AtomicU64,
    /// Connections found open in the spool at the start.
    pub resumed: AtomicU64,
    /// Channels that were not heard while the other one talked: caller, ai.
    pub missing: [Split<Silence>; 2],
    /// Recordings that could not be made at an attempt.
    pub failed_renders: AtomicU64,
    /// How long making a recording took.
    pub render_time: Histogram,
    /// Uploads of objects, to either storage.
    pub uploads: Split<Upload>,
    /// Bytes of those that were created.
    pub uploaded_bytes: AtomicU64,
    /// How long each upload took, however it ended.
    pub upload_time: Histogram,
    /// Attempts to publish that failed and will be made again.
    pub publish_retries: Split<RetryCause>,
    /// For how long the first storage has taken nothing, in milliseconds; 0 if it works.
    pub storage_failing_ms: AtomicU64,
    /// How long the spool's disk lasts meanwhile; the greatest number if it does not fill.
    pub spool_lasts_ms: AtomicU64,
    /// Recordings published.
    pub published: AtomicU64,
    /// Recordings put into the backup storage.
    pub backed_up: AtomicU64,
    /// How long after a connection's end its recording was published.
    pub end_to_published: Histogram,
    /// RTP packets in finished recordings.
    pub packets: Split<Channel>,
    /// Packets that finished recordings lack.
    pub lost: [Split<Loss>; 2],
    /// Lost packets that were rebuilt.
    pub recovered: Split<Channel>,
    /// Length of finished recordings.
    pub recorded_ms: AtomicU64,
    dropped: Split<DropReason>,
    outcomes: Split<Outcome>,
}

/// What the spool's threads count.
#[derive(Debug, Default)]
pub struct SpoolFigures {
    /// Bytes written.
    pub written_bytes: AtomicU64,
    /// Writes that the disk refused.
    pub failed_writes: AtomicU64,
    /// Syncs that the disk refused.
    pub failed_syncs: AtomicU64,
    /// How long it took to write all that was there to be written.
    pub write_time: Histogram,
    /// How long it took to sync it.
    pub sync_time: Histogram,
}

impl Metrics {
    /// Adds one to a counter.
    pub fn add(counter: &AtomicU64) {
        // Relaxed: the counters are only read for show, and order nothing.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that was not kept.
    pub fn drop_frame(&self, reason: DropReason) {
        self.dropped.add(reason);
    }

    /// Counts the outcome of a connection.
    pub fn finish(&self, outcome: Outcome) {
        self.outcomes.add(outcome);
    }

    /// Counts what is in a recording that is published, and what is not.
    pub fn record(&self, manifest: &Manifest) {
        self.recorded_ms.fetch_add(manifest.duration_ms, Ordering::Relaxed);
        for (channel, counts) in
            Channel::BOTH.into_iter().zip([&manifest.channels.caller, &manifest.channels.ai])
        {
            self.packets.add_many(channel, counts.packets);
            self.recovered.add_many(channel, counts.recovered);
            self.lost[channel.index()]
                .add_many(Loss::Network, counts.lost.saturating_sub(counts.socket_lost));
            self.lost[channel.index()].add_many(Loss::Socket, counts.socket_lost);
        }
    }

    /// How many connections have come to an outcome.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.outcomes.total()
    }

    /// How many frames were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.of(reason)
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

fn position<W: Word>(word: W) -> usize {
    W::ALL.iter().position(|other| *other == word).expect("ALL holds every word")
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

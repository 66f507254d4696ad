//! What the manifest tells of the stretches without audio.

use serde::Serialize;

use crate::recording::{self, ArrangedChannel};

/// A stretch of a channel without audio: a loss of any length, or silence of a second and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the manifest's")]
pub struct Hole {
    pub lost: bool,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// The holes beyond those that are told one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the manifest's")]
pub struct MoreHoles {
    pub count: u64,
    pub lost_ms: u64,
    pub silence_ms: u64,
    pub minutes: Vec<Minute>,
}

/// How much of them is in one minute of the recording, and between where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the manifest's")]
pub struct Minute {
    pub from_ms: u64,
    pub to_ms: u64,
    pub lost_ms: u64,
    pub silence_ms: u64,
}

impl Hole {
    pub(super) fn of(hole: &recording::Hole) -> Self {
        Self { lost: hole.is_loss, from_ms: hole.from.to_ms(), to_ms: hole.to.to_ms() }
    }
}

impl MoreHoles {
    /// Those of a channel, if it has any.
    pub(super) fn of(channel: &ArrangedChannel) -> Option<Self> {
        let recording::MoreHoles { count, lost, silence, minutes } = &channel.more_holes;
        (*count > 0).then(|| Self {
            count: *count,
            lost_ms: lost.to_ms(),
            silence_ms: silence.to_ms(),
            minutes: minutes.iter().map(Minute::of).collect(),
        })
    }
}

impl Minute {
    fn of(minute: &recording::Minute) -> Self {
        Self {
            from_ms: minute.from.to_ms(),
            to_ms: minute.to.to_ms(),
            lost_ms: minute.lost.to_ms(),
            silence_ms: minute.silence.to_ms(),
        }
    }
}

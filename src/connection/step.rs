//! What one frame leads to: what is kept of it, and what has changed by it.

use crate::time::Mono;

/// What to keep of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    Whole,
    /// Only the RTP header: the channel is paused, and what was said must not be kept.
    HeaderOnly,
    /// Only that there was a mark of this name: what else it says must not be kept.
    NameOnly,
    /// Nothing, because nobody wants this call to be kept. It was received all the same.
    Unrecorded,
    /// Nothing, and the frame is to be counted under this reason.
    Nothing(Refusal),
    /// The frame asks a finished connection to open again: begin a new one with it.
    Reopen,
}

/// Why a valid frame was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It came after its recording was finalised.
    Late,
    /// RELEASE without a HOLD.
    ReleaseWithoutHold,
}

/// What one frame led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to keep.
    pub keep: Keep,
    /// The channels whose references this frame released: caller, ai.
    pub released: [bool; 2],
    /// A deadline that has come into being: call [`Connection::handle_timeout`](super::Connection::handle_timeout) then.
    pub wake_at: Option<Mono>,
    /// Whether something that was kept is to be taken out: [`Claims::taken_out`](super::claims::Claims::taken_out) says what.
    pub takes_out: bool,
    /// Whether META has said, and not as before, if the call is to be kept.
    pub is_decision: bool,
    /// Whether more is kept out now than before.
    pub keeps_out_more: bool,
    /// Whether a part of the frame found no room.
    pub is_cut: bool,
}

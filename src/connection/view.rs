//! What can be seen of a connection from outside.

use super::vigil::Silence;
use crate::frame::PauseMode;
use crate::time::Mono;

/// What can be seen of a connection from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The word for its state: `open`, `lingering`, `resuming` or `ended`.
    pub state: &'static str,
    /// Which channels' references stand: caller, ai.
    pub references: [bool; 2],
    /// Holds that have not been given back.
    pub holds: u32,
    /// The pauses of caller and ai.
    pub pauses: [Option<PauseMode>; 2],
    /// Whether audio is kept where there is no pause.
    pub is_recorded: bool,
    /// How caller and ai are not heard while the other one talks.
    pub missing: [Option<Silence>; 2],
    /// When its last frame came, or when it was taken up after a restart.
    pub last_frame: Mono,
}

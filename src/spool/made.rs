//! What stands beside a spool file and belongs to it, as the last word of a name says: what was made of it, and notes.

/// What is made of a spool file, beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// Its recording.
    Opus,
    /// The caller alone.
    Left,
    /// The AI alone.
    Right,
    /// The file that is to take its place. Never taken up; one that a crash left is removed at the next start.
    New,
    /// A note: it is being rendered, or was when a process died.
    Trying,
    /// The same of one over which a process had died before: it is rendered alone.
    Alone,
    /// A note of the number behind its name in a store.
    Name,
}

impl Made {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Opus, Self::Left, Self::Right, Self::New, Self::Trying, Self::Alone, Self::Name];
    /// Those that are rendered, to be published.
    pub const RENDERED: [Self; 3] = [Self::Opus, Self::Left, Self::Right];
    /// Those that say something about the file, and are of no use without it.
    pub const NOTES: [Self; 3] = [Self::Trying, Self::Alone, Self::Name];

    /// What a name ends in.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Opus => ".opus",
            Self::Left => ".left",
            Self::Right => ".right",
            Self::New => ".new",
            Self::Trying => ".trying",
            Self::Alone => ".alone",
            Self::Name => ".name",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|made| made.suffix().strip_prefix('.') == Some(word))
    }
}

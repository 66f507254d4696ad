//! Names of spool files: the one place that reads and writes them.
//!
//! A name is a stem, `.spool`, what state the file is in, and what was made of it beside it:
//!
//! | name | what it is |
//! | --- | --- |
//! | `TIME-ID-SUM-UUID.spool` | a connection's file, open or sealed, of which nothing is published: [`State::Pending`] |
//! | `….spool.backup`, `.kept`, `.damaged`, `.failed` | set aside, and why: [`Aside`] |
//! | `….spool.opus`, `.left`, `.right`, `.new` | made of a file in any state, behind that: [`Made`] |
//! | `….spool.trying`, `.alone`, `.name` | a note about one: [`Made`], too |
//!
//! | part of the stem | |
//! | --- | --- |
//! | TIME | when the connection was opened, UTC, as `20260102T030405.678901Z` |
//! | ID | the connection id, cut to 40 characters, with `_` for all but ASCII letters, digits, `-`, `_` and `.` |
//! | SUM | CRC-32C of the whole connection id, 8 hexadecimal digits |
//! | UUID | the recording's id. Versions before gave none |
//! | `-2`, `-3` … | at the end, where all that was taken |
//!
//! What is set aside gets a number, too, where its name is taken: `….spool.failed-2`. A change of state replaces the state.
//! Versions before added it instead: what they left, as `….spool.backup.damaged`, is read as the last of the two.
//!
//! A stem need not be one of ours (`letter.spool`), nor text: all bytes are read, in time linear in their number. An id may
//! look like anything; so a name is read from its end, where lengths tell the parts: a number has at most five
//! digits, a checksum eight, the last group of a UUID twelve.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::as_conversions, clippy::arithmetic_side_effects)
)]

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

pub use super::made::Made;
use crate::id::{ConnectionId, RecordingId};
use crate::time::Wall;

/// How much of an id a name shows. The whole id stands in the file's header.
const SHOWN_ID_CHARS: usize = 40;
/// `20260102T030405.678901Z`.
const TIME_CHARS: usize = 23;
const UUID_CHARS: usize = 36;
/// 9999-12-30T21:59:59.999999Z: beyond that the calendar's library does not go.
const LATEST: Wall = Wall(253_402_207_199_999_999);
/// What each spool file's name has behind its stem.
const ENDING: &[u8] = b".spool";
/// The longest stem of a name that this program makes. File systems take 255 bytes, of which the rest is for
/// `.spool.backup-4294967295.trying`.
const STEM_MAX_BYTES: usize = 223;
/// What is left of a longer one, before `~` and the checksum of the whole.
const STEM_CUT_BYTES: usize = 214;

/// The stem that this program gives to a connection's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolName {
    opened: Wall,
    shown_id: String,
    sum: u32,
    recording: Option<RecordingId>,
    number: NonZeroU16,
}

/// The name of a spool file, or of what was made of one beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName {
    stem: Vec<u8>,
    state: State,
    made: Option<Made>,
}

/// What a spool file waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its call to end, or to be published.
    Pending,
    /// It was set aside, as the first of its name, the second …
    Aside(Aside, NonZeroU32),
}

/// Why a spool file was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Its recording is in the backup storage, and to be brought back from there.
    BackedUp,
    /// Published, but with audio that this version cannot decode.
    Kept,
    /// Published as far as it could be read.
    Damaged,
    /// No recording could be made of it, or it is no spool file at all.
    Failed,
}

impl SpoolName {
    /// Names the file of a recording.
    #[must_use]
    pub fn new(connection: &ConnectionId, opened: Wall, recording: RecordingId) -> Self {
        let shown = connection.as_str().chars().map(|c| if is_shown(c) { c } else { '_' });
        Self {
            opened: opened.clamp(Wall(0), LATEST),
            shown_id: shown.take(SHOWN_ID_CHARS).collect(),
            sum: crc32c::crc32c(connection.as_str().as_bytes()),
            recording: Some(recording),
            number: NonZeroU16::MIN,
        }
    }

    /// The same with a number, which for all but the first is shown.
    #[must_use]
    pub fn numbered(&self, number: NonZeroU16) -> Self {
        Self { number, ..self.clone() }
    }

    /// Reads a stem. `None` where it is not one of this program's.
    #[must_use]
    pub fn parse(stem: &str) -> Option<Self> {
        let (time, rest) = stem.split_at_checked(TIME_CHARS)?;
        let opened = parse_time(time)?;
        let rest = rest.strip_prefix('-')?;
        let (rest, number) = split_number(rest).unwrap_or((rest, NonZeroU16::MIN));
        let (rest, recording) = split_recording(rest).map_or((rest, None), |(rest, id)| (rest, Some(id)));
        let (shown_id, sum) = rest.rsplit_once('-')?;
        let is_hex = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
        if sum.len() != 8 || !sum.chars().all(is_hex) {
            return None;
        }
        let sum = u32::from_str_radix(sum, 16).ok()?;
        if !(1..=SHOWN_ID_CHARS).contains(&shown_id.len()) || !shown_id.chars().all(is_shown) {
            return None;
        }
        Some(Self { opened, shown_id: shown_id.to_owned(), sum, recording, number })
    }

    /// When the connection was opened.
    #[must_use]
    pub fn opened(&self) -> Wall {
        self.opened
    }

    /// As much of the connection's id as a name shows: for most ids all.
    #[must_use]
    pub fn shown_id(&self) -> &str {
        &self.shown_id
    }

    /// CRC-32C of the whole connection id.
    #[must_use]
    pub fn sum(&self) -> u32 {
        self.sum
    }

    /// The recording's id. Versions before gave none.
    #[must_use]
    pub fn recording(&self) -> Option<RecordingId> {
        self.recording
    }
}

impl fmt::Display for SpoolName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { opened, shown_id, sum, recording, number } = self;
        write!(out, "{}-{shown_id}-{sum:08x}", time_text(*opened))?;
        if let Some(recording) = recording {
            write!(out, "-{recording}")?;
        }
        if number.get() > 1 { write!(out, "-{number}") } else { Ok(()) }
    }
}

impl FileName {
    /// The name of a file that has just been made, or that has a name of somebody else's.
    #[must_use]
    pub fn pending(stem: impl Into<Vec<u8>>) -> Self {
        Self { stem: stem.into(), state: State::Pending, made: None }
    }

    /// Reads the name of a file, without its directory. `None` where it is not that of a spool file or of what is made of one.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let at = name.windows(ENDING.len()).rposition(|window| window == ENDING)?;
        let (stem, rest) = name.split_at_checked(at)?;
        if stem.is_empty() || stem.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return None;
        }
        let mut words = str::from_utf8(rest.strip_prefix(ENDING)?).ok()?.split('.');
        // What stands before the first dot.
        if words.next() != Some("") {
            return None;
        }
        let (state, made) = match (words.next(), words.next(), words.next()) {
            (None, ..) => (State::Pending, None),
            (Some(word), None, _) => match Made::parse(word) {
                Some(made) => (State::Pending, Some(made)),
                None => (State::parse(word)?, None),
            },
            (Some(first), Some(second), None) => match (State::parse(first)?, Made::parse(second)) {
                (state, Some(made)) => (state, Some(made)),
                // As versions before named what was in the backup, and then turned out to be something else.
                (State::Aside(Aside::BackedUp, _), None) => {
                    let state = State::parse(second)?;
                    (Some(state).filter(|state| !state.is_backed_up())?, None)
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(Self { stem: stem.to_owned(), state, made })
    }

    /// The name itself.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut name = [&self.stem, ENDING].concat();
        if let State::Aside(why, number) = self.state {
            name.extend_from_slice(format!(".{}", why.name()).as_bytes());
            if number.get() > 1 {
                name.extend_from_slice(format!("-{number}").as_bytes());
            }
        }
        if let Some(made) = self.made {
            name.extend_from_slice(made.suffix().as_bytes());
        }
        name
    }

    /// What the stem tells, where it is one of this program's.
    #[must_use]
    pub fn spool_name(&self) -> Option<SpoolName> {
        SpoolName::parse(str::from_utf8(&self.stem).ok()?)
    }

    /// The state of the spool file that this is, or that it was made of.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// What was made of a spool file, if this is not the spool file itself.
    #[must_use]
    pub fn made(&self) -> Option<Made> {
        self.made
    }

    /// Whether it is a connection's file that is open, or to be published.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.made.is_none() && self.state == State::Pending
    }

    /// Whether it is a connection's file whose recording is in the backup storage.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.made.is_none() && self.state.is_backed_up()
    }

    /// What the file is called when it is set aside, whatever state it was in before: the `number`-th of that name.
    #[must_use]
    pub fn aside(&self, why: Aside, number: NonZeroU32) -> Self {
        Self { stem: fitting(&self.stem), state: State::Aside(why, number), made: None }
    }

    /// What the file was called before it was set aside.
    #[must_use]
    pub fn before(&self) -> Self {
        Self { stem: fitting(&self.stem), state: State::Pending, made: None }
    }

    /// What the file is called that this was made of, or that this is.
    #[must_use]
    pub fn file(&self) -> Self {
        Self { stem: self.stem.clone(), state: self.state, made: None }
    }

    /// What something is called that is made of the file.
    #[must_use]
    pub fn beside(&self, made: Made) -> Self {
        Self { stem: fitting(&self.stem), state: self.state, made: Some(made) }
    }
}

impl State {
    fn is_backed_up(self) -> bool {
        matches!(self, Self::Aside(Aside::BackedUp, _))
    }

    fn parse(word: &str) -> Option<Self> {
        let (word, number) = match word.split_once('-') {
            None => (word, NonZeroU32::MIN),
            Some((word, number)) => (word, parse_number(number)?),
        };
        let why = Aside::ALL.into_iter().find(|why| why.name() == word)?;
        Some(Self::Aside(why, number))
    }
}

impl Aside {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::BackedUp, Self::Kept, Self::Damaged, Self::Failed];

    /// The word for it in a name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BackedUp => "backup",
            Self::Kept => "kept",
            Self::Damaged => "damaged",
            Self::Failed => "failed",
        }
    }

    /// Whether nobody but a person does anything about it.
    #[must_use]
    pub fn waits_for_a_person(self) -> bool {
        self != Self::BackedUp
    }
}

/// What of an id stands in a name as it is.
fn is_shown(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A time as names have it. It sorts.
fn time_text(at: Wall) -> String {
    let (year, month, day, hour, minute, second) = at.civil();
    let micros = at.0.rem_euclid(1_000_000);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{micros:06}Z")
}

fn parse_time(text: &str) -> Option<Wall> {
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%.fZ", text).ok()?;
    let at = Wall(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_microsecond());
    // There is one way to write it.
    (time_text(at) == text).then_some(at)
}

/// A number that is shown: 2 or more, in one way.
fn parse_number(text: &str) -> Option<NonZeroU32> {
    let number: NonZeroU32 = text.parse().ok()?;
    (number.get() > 1 && number.to_string() == text).then_some(number)
}

fn split_number(text: &str) -> Option<(&str, NonZeroU16)> {
    let (rest, number) = text.rsplit_once('-')?;
    Some((rest, parse_number(number)?.try_into().ok()?))
}

fn split_recording(text: &str) -> Option<(&str, RecordingId)> {
    let (rest, id) = text.split_at_checked(text.len().checked_sub(UUID_CHARS)?)?;
    Some((rest.strip_suffix('-')?, RecordingId::parse(id)?))
}

/// Cuts a stem of somebody else's that leaves no room for a state. What is cut is told apart by a checksum of the whole.
fn fitting(stem: &[u8]) -> Vec<u8> {
    if stem.len() <= STEM_MAX_BYTES {
        return stem.to_owned();
    }
    // In front of a character, where it is text: some file systems take nothing else.
    let is_inside = |at: usize| stem.get(at).is_some_and(|byte| matches!(byte, 0x80..=0xbf));
    let end = (0..=STEM_CUT_BYTES).rev().take(4).find(|at| !is_inside(*at)).unwrap_or(STEM_CUT_BYTES);
    let cut = stem.get(..end).unwrap_or_default();
    [cut, format!("~{:08x}", crc32c::crc32c(stem)).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const OPENED: Wall = Wall(1_767_323_045_678_901);

    fn recording() -> RecordingId {
        RecordingId::draw(OPENED, [7; 10])
    }

    fn id(text: &str) -> ConnectionId {
        ConnectionId::new(text).unwrap()
    }

    fn file(name: &str) -> Option<FileName> {
        FileName::parse(name.as_bytes())
    }

    fn state(name: &str) -> Option<(State, Option<Made>)> {
        file(name).map(|name| (name.state, name.made))
    }

    fn aside(why: Aside, number: u32) -> State {
        State::Aside(why, NonZeroU32::new(number).unwrap())
    }

    #[test]
    fn a_name_shows_time_id_checksum_and_recording() {
        let name = SpoolName::new(&id("call-1.a"), OPENED, recording());
        let expected =
            format!("20260102T030405.678901Z-call-1.a-{:08x}-{}", crc32c::crc32c(b"call-1.a"), recording());
        assert_eq!(name.to_string(), expected);
        assert_eq!(name.numbered(NonZeroU16::new(3).unwrap()).to_string(), format!("{expected}-3"));
        let plain = SpoolName::new(&id("../../\u{e9} x/\u{1f600}"), OPENED, recording()).to_string();
        assert!(plain.starts_with("20260102T030405.678901Z-.._..___x__-") && plain.is_ascii(), "{plain}");
    }

    #[test]
    fn names_of_versions_before_are_read() {
        for (number, end) in [(1, ""), (2, "-2"), (65_535, "-65535")] {
            // An id may look like the parts behind it.
            for shown_id in ["call-1.a", "a-01234567", "a-01234567-2", "-", "a-2", &recording().to_string()] {
                let stem = format!("20260102T030405.678901Z-{shown_id}-0abcdef9{end}");
                let name = SpoolName::parse(&stem).unwrap();
                assert_eq!((name.opened, name.sum, name.recording), (OPENED, 0x0abc_def9, None), "{stem}");
                assert_eq!((name.shown_id(), name.number.get()), (shown_id, number), "{stem}");
                assert_eq!(name.to_string(), stem);
            }
        }
    }

    #[test]
    fn stems_of_others_are_not_taken_for_ours() {
        let ends = "0123456 0123456G 0123456F +1234567 01234567-1 01234567-02 01234567-65536";
        let ends = ends.split(' ').map(|end| format!("20260102T030405.678901Z-call-{end}"));
        let others = "letter notes-of-mine-today 20260102T030405.678901Z 20260102T030405.678901Z-call \
            20260102T030405.678901Z--01234567 20260102T030405.678901Z-c\u{e9}-01234567 \
            20260102T030405.678901Z-c/-01234567 20261302T030405.678901Z-call-01234567 \
            19600102T030405.678901Z-call-01234567 20260102T030405.67890Z--call-01234567 \
            20260102T030405,678901Z-call-01234567";
        let others = others.split_whitespace().map(str::to_owned);
        for stem in ends.chain(others).chain([String::new()]) {
            assert_eq!(SpoolName::parse(&stem), None, "{stem}");
        }
        let long = format!("20260102T030405.678901Z-{}-01234567", "x".repeat(41));
        assert_eq!(SpoolName::parse(&long), None);
    }

    #[test]
    fn each_state_has_one_name() {
        assert_eq!(state("x.spool"), Some((State::Pending, None)));
        assert_eq!(state("x.spool.new"), Some((State::Pending, Some(Made::New))));
        assert_eq!(state("x.spool.left"), Some((State::Pending, Some(Made::Left))));
        assert_eq!(state("x.spool.backup"), Some((aside(Aside::BackedUp, 1), None)));
        assert_eq!(state("x.spool.failed-12"), Some((aside(Aside::Failed, 12), None)));
        assert_eq!(state("x.spool.backup-2.opus"), Some((aside(Aside::BackedUp, 2), Some(Made::Opus))));
        assert_eq!(file("x.spool.kept.spool.kept").unwrap().stem, b"x.spool.kept");
        assert_eq!(FileName::parse(b"\xff\n.spool.kept").unwrap().stem, b"\xff\n");
        let foreign = "lock .spool .spool.kept spool x.spools x.spool. x.spool..kept x.spool.keptx x.spool.kept-1 \
            x.spool.kept-02 x.spool.kept-+2 x.spool.kept- x.spool.kept-4294967296 x.spool.kept.kept \
            x.spool.kept.backup x.spool.backup.backup x.spool.opus.left x.spool.opus-2 x.spool.backup.opus.left \
            x.spool-2 a/x.spool a\0.spool";
        for name in foreign.split_whitespace() {
            assert_eq!(file(name), None, "{name}");
        }
    }

    #[test]
    fn states_that_versions_before_put_one_behind_the_other_are_read_as_the_last() {
        for (name, expected) in [
            ("x.spool.backup.damaged", aside(Aside::Damaged, 1)),
            ("x.spool.backup.failed", aside(Aside::Failed, 1)),
            ("x.spool.backup.kept", aside(Aside::Kept, 1)),
            ("x.spool.backup.kept-2", aside(Aside::Kept, 2)),
            ("x.spool.backup-2.damaged-3", aside(Aside::Damaged, 3)),
        ] {
            assert_eq!(state(name), Some((expected, None)), "{name}");
        }
    }

    #[test]
    fn a_new_state_takes_the_place_of_the_old_one() {
        for before in ["x.spool", "x.spool.backup", "x.spool.backup-2", "x.spool.backup.kept"] {
            for why in Aside::ALL {
                let after = file(before).unwrap().aside(why, NonZeroU32::MIN).to_bytes();
                assert_eq!(after, format!("x.spool.{}", why.name()).as_bytes());
            }
        }
        let left = file("x.spool.backup-2").unwrap().beside(Made::Left);
        assert_eq!(left.to_bytes(), b"x.spool.backup-2.left", "not in the way of what is made of x.spool");
    }

    #[test]
    fn a_stem_without_room_for_a_state_is_cut() {
        let longest = NonZeroU32::MAX;
        for stem in ["x".repeat(249), "\u{20ac}".repeat(83), "\u{1f600}".repeat(62)] {
            let name = file(&format!("{stem}.spool")).unwrap();
            let made = name.aside(Aside::BackedUp, longest).beside(Made::Trying);
            assert!(made.to_bytes().len() <= 255);
            assert!(str::from_utf8(&made.to_bytes()).unwrap().starts_with(&stem[..192]));
            let other = file(&format!("{stem}y.spool")).unwrap();
            assert_ne!(other.beside(Made::Opus), name.beside(Made::Opus));
        }
        let made = FileName::pending([0xbf; 250]).beside(Made::Opus).to_bytes();
        assert!(made.starts_with(&[0xbf; 200]) && made.len() < 255);
    }

    fn any_state() -> impl Strategy<Value = State> {
        let why = (0..Aside::ALL.len()).prop_map(|at| Aside::ALL[at]);
        let number = prop_oneof![1..100u32, 1..=u32::MAX];
        let aside = (why, number).prop_map(|(why, number)| aside(why, number));
        prop_oneof![Just(State::Pending), aside]
    }

    /// Names that are nearly right are where a mistake would be.
    fn near_miss() -> impl Strategy<Value = Vec<u8>> {
        let words = ["20260102T030405.678901Z", "-", ".", ".spool", "backup", "damaged", "opus", "new", "2"];
        let others = ["01234567", "0192a0b4-7c1e-7d3f-8a2b-0123456789ab", "\u{e9}", "65536", "x", "\0", "/"];
        let word = prop::sample::select([&words[..], &others[..]].concat())
            .prop_map(|word| word.as_bytes().to_vec());
        vec(prop_oneof![9 => word, 1 => vec(any::<u8>(), 0..4)], 0..12).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn every_state_reads_back_as_it_was_written(
            stem in prop_oneof![vec(any::<u8>(), 1..240), near_miss()],
            state in any_state(),
            made in prop::option::of(prop::sample::select(&Made::ALL[..])),
        ) {
            let is_name = !stem.is_empty() && !stem.iter().any(|byte| matches!(byte, b'/' | 0));
            let name = FileName { stem, state, made };
            prop_assert_eq!(FileName::parse(&name.to_bytes()), is_name.then_some(name));
        }

        #[test]
        fn every_name_that_is_written_is_one_that_is_known(
            bytes in near_miss(), state in any_state(), number in 1..=u32::MAX,
        ) {
            let name = FileName::parse(&bytes).unwrap_or(FileName::pending("x"));
            let name = FileName { state, made: None, ..name };
            for why in Aside::ALL {
                let aside = name.aside(why, NonZeroU32::new(number).unwrap());
                prop_assert_eq!(FileName::parse(&aside.to_bytes()), Some(aside));
            }
            for made in Made::ALL {
                let beside = name.beside(made);
                prop_assert_eq!(FileName::parse(&beside.to_bytes()), Some(beside));
            }
        }

        #[test]
        fn every_connection_has_a_name_that_reads_back(
            text in "\\PC{1,32}|[-0-9a-f.]{1,128}",
            opened in any::<i64>(),
            random in any::<[u8; 10]>(),
            number in 1..=u16::MAX,
        ) {
            let connection = id(&text);
            let name = SpoolName::new(&connection, Wall(opened), RecordingId::draw(Wall(opened), random));
            let name = name.numbered(NonZeroU16::new(number).unwrap());
            let stem = name.to_string();
            prop_assert!(stem.len() <= 117, "{}", stem);
            prop_assert_eq!(SpoolName::parse(&stem), Some(name.clone()));
            let file = FileName::parse(format!("{stem}.spool").as_bytes()).unwrap();
            prop_assert_eq!(file.spool_name(), Some(name.clone()));
            let before = SpoolName { recording: None, ..name };
            prop_assert_eq!(SpoolName::parse(&before.to_string()), Some(before));
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop_oneof![vec(any::<u8>(), 0..300), near_miss()]) {
            if let Some(name) = FileName::parse(&bytes) {
                prop_assert_eq!(FileName::parse(&name.to_bytes()), Some(name.clone()));
                if let Some(stem) = name.spool_name() {
                    prop_assert_eq!(stem.to_string().into_bytes(), name.stem);
                }
            }
        }
    }
}

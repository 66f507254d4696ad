//! One channel on the grid: placed packets in, Opus frames with exact positions out.
//!
//! Positions here count units of 2.5 ms, of which every Opus duration is a multiple. Within a run, where packets
//! follow each other without a gap, frames stand back to back whatever the rounding of timestamps says. Behind a gap
//! the position is chosen anew: on the lattice of the frames before it, if they have the same configuration, so that
//! a gap is a whole number of frames; else on multiples of 20 ms (or of the frame's own size, if that is less). So a
//! position is off by at most 10 ms, and ordinary 20 ms frames of both channels always share their boundaries.
//! A run that goes on for long drifts away from the sender's clock; it is brought back by a *slip* of one frame, in
//! silence where there is any, before it is off by more than 15 ms.

use std::collections::VecDeque;

use crate::opus::packet::{Configuration, Shape, UNIT_SAMPLES};
use crate::sound::{Audio, Format};
use crate::time::Samples48k;
use crate::timeline::Gap;

/// 20 ms: the step of the grid for frames of at least that size.
pub const STEP_UNITS: i64 = 8;
/// The samples at 48 kHz in a unit.
pub const UNIT: i64 = 120;
/// 30 ms: how far a run may be moved to find a common grid, half of the longest frame. Beyond that the recording
/// would say that things were heard together that were not.
pub const MOVE_MAX_UNITS: i64 = 12;

/// 11 ms: more than half a step, so that a slip is not undone by the next one. 7 ms made 51,000 slips an hour.
const SLIP_QUIET_SAMPLES: i64 = 528;
/// 15 ms: the greatest error of a frame's place. At 100 ppm a slip may wait 40 s for silence until then.
const SLIP_SAMPLES: i64 = 720;
/// 2 s: clocks that drift need one slip in 40 s at most. Whatever needs more is no drift, and loses no frames to it.
const SLIP_EVERY_UNITS: i64 = 800;

/// What brings the grid back to the sender's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slip {
    None,
    /// 20 ms are put in: the sender's clock is slow.
    Insert,
    /// A frame is left out: the sender's clock is fast.
    Drop,
}

/// A placed packet of frames, as the mux takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where its audio should begin, from the beginning of the recording.
    pub at: Samples48k,
    /// Its frames.
    pub shape: Shape,
    /// What lies in front of it.
    pub gap: Gap,
    /// Whether nobody speaks in it, as far as is known: where a slip is not heard.
    pub is_quiet: bool,
}

impl Piece {
    /// An Opus packet as it was placed; nothing of other audio.
    #[must_use]
    pub fn of(packet: &Audio) -> Option<Self> {
        let Format::Opus(shape) = packet.format else { return None };
        Some(Self { at: packet.at, shape, gap: packet.gap, is_quiet: packet.is_quiet })
    }
}

/// One frame on the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atom {
    /// The first unit that it fills.
    pub start: i64,
    /// How many units it fills: 1 to 24.
    pub units: i64,
    /// Its configuration.
    pub configuration: Configuration,
    /// The piece that it came in: an index into the lane's pieces.
    pub piece: usize,
    /// Which frame of the piece it is.
    pub frame: u8,
    /// Whether a gap lies in front of it: then it may be moved.
    pub is_run_start: bool,
    /// What lies in front of it, where it is the start of a run.
    pub gap: Gap,
    /// How far the run that it starts has been moved, in units.
    pub moved: i64,
}

impl Atom {
    /// The first unit behind it.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.start + self.units
    }
}

/// A channel's frames in order, with a window of those that the planner looks at.
#[derive(Clone, Debug)]
pub struct Lane<'a> {
    pieces: &'a [Piece],
    next: usize,
    window: VecDeque<Atom>,
    /// Where the last frame brought to the grid ends, and its configuration.
    end: i64,
    configuration: Option<Configuration>,
    largest_move: i64,
    slips: u64,
    /// Where the last slip was.
    last_slip: i64,
    /// How far the run brought to the grid last was off its place at its beginning, in samples.
    run_error: i64,
}

impl<'a> Lane<'a> {
    /// Begins a lane with its pieces, in order.
    #[must_use]
    pub fn new(pieces: &'a [Piece]) -> Self {
        Self {
            pieces,
            next: 0,
            window: VecDeque::new(),
            end: 0,
            configuration: None,
            largest_move: 0,
            slips: 0,
            last_slip: 0,
            run_error: 0,
        }
    }

    /// Brings frames to the grid until one ends beyond `unit`, or none is left.
    pub fn fill_to(&mut self, unit: i64) {
        while self.end <= unit && self.next < self.pieces.len() {
            self.push_piece();
        }
    }

    /// The frames brought to the grid and not yet taken.
    #[must_use]
    pub fn window(&self) -> &VecDeque<Atom> {
        &self.window
    }

    /// Takes the first frame of the window.
    pub fn take(&mut self) -> Option<Atom> {
        self.window.pop_front()
    }

    /// The configuration of the channel's first frame, if it has any.
    #[must_use]
    pub fn first_configuration(&self) -> Option<Configuration> {
        self.pieces.first().map(|piece| piece.shape.configuration)
    }

    /// Whether every frame has been brought to the grid.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.next == self.pieces.len()
    }

    /// Where the last frame brought to the grid ends.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The greatest distance between where a packet should be and where it is, in samples.
    #[must_use]
    pub fn largest_move(&self) -> Samples48k {
        Samples48k(self.largest_move)
    }

    /// How often a frame was left out, or a frame's time put in, to follow the sender's clock.
    #[must_use]
    pub fn slips(&self) -> u64 {
        self.slips
    }

    /// A lane whose first run that begins at or behind `from` is moved by `units`, so that it does not begin before
    /// `from` nor before what stands in front of it. `None` where there is no such run, or no room, or where the
    /// run would be 30 ms from its place.
    #[must_use]
    pub fn with_moved_run(&self, from: i64, units: i64) -> Option<Self> {
        let first = self.window.iter().position(|atom| atom.is_run_start && atom.start >= from)?;
        let floor = first.checked_sub(1).map_or(from, |before| self.window[before].end().max(from));
        let (start, moved) = (self.window[first].start, self.window[first].moved + units);
        if start + units < floor || moved.abs() > MOVE_MAX_UNITS {
            return None;
        }
        let mut lane = self.clone();
        lane.window[first].moved = moved;
        let mut end = floor;
        let mut shift = units;
        for (at, atom) in lane.window.iter_mut().enumerate().skip(first) {
            if at > first && atom.is_run_start {
                // The next run stays where it is, unless this one now reaches into it.
                shift = (end - atom.start).max(0);
            }
            atom.start += shift;
            end = atom.end();
        }
        lane.end = end;
        lane.run_error -= shift * UNIT;
        let run = lane.window[first];
        lane.note_move(run.start * UNIT - lane.pieces[run.piece].at.0);
        Some(lane)
    }

    fn push_piece(&mut self) {
        let piece = self.pieces[self.next];
        let configuration = piece.shape.configuration;
        let frame_units = i64::from(configuration.frame_samples() / UNIT_SAMPLES);
        let is_behind_gap = self.is_behind_gap(&piece, frame_units);
        let slip = if is_behind_gap { Slip::None } else { self.slip_before(&piece, frame_units) };
        let is_run_start = is_behind_gap || slip == Slip::Insert;
        let start = match slip {
            _ if is_behind_gap => self.lattice_point(piece.at.0, configuration, frame_units),
            Slip::Insert => self.end + STEP_UNITS,
            Slip::None | Slip::Drop => self.end,
        };
        if is_behind_gap {
            self.run_error = piece.at.0 - start * UNIT;
        }
        let first = u8::from(slip == Slip::Drop);
        if slip != Slip::None {
            self.slips += 1;
            self.last_slip = start;
        }
        self.note_move(start * UNIT - piece.at.0 - i64::from(first) * frame_units * UNIT);
        for frame in first..piece.shape.frames {
            self.window.push_back(Atom {
                start: start + i64::from(frame - first) * frame_units,
                units: frame_units,
                configuration,
                piece: self.next,
                frame,
                is_run_start: is_run_start && frame == first,
                gap: piece.gap,
                moved: 0,
            });
        }
        self.end = start + i64::from(piece.shape.frames - first) * frame_units;
        self.configuration = Some(configuration);
        self.next += 1;
    }

    /// Whether the piece begins a run: it is the first, or at least half a frame (10 ms at most) lies before it.
    fn is_behind_gap(&self, piece: &Piece, frame_units: i64) -> bool {
        let Some(before) = self.next.checked_sub(1).map(|before| self.pieces[before]) else { return true };
        let ideal_gap = piece.at.0 - before.at.0 - i64::from(before.shape.samples());
        let is_gap = ideal_gap * 2 >= frame_units.min(STEP_UNITS) * UNIT;
        is_gap && piece.at.0 + UNIT / 2 >= self.end * UNIT
    }

    /// Whether the grid has fallen so far behind the sender's clock, or run ahead of it, that a frame must be put in
    /// or left out in front of the piece: in silence if there is any, in speech only when it cannot wait.
    fn slip_before(&self, piece: &Piece, frame_units: i64) -> Slip {
        let was_quiet = self.next.checked_sub(1).is_some_and(|before| self.pieces[before].is_quiet);
        let mut most = if piece.is_quiet || was_quiet { SLIP_QUIET_SAMPLES } else { SLIP_SAMPLES };
        let error = piece.at.0 - self.end * UNIT;
        // A run that was moved to find a common grid keeps its place: no frame is left out to undo that.
        let off = self.run_error.abs();
        if off > STEP_UNITS * UNIT / 2 {
            most += off;
        }
        // A long frame is left out only where that brings the grid nearer.
        let most_ahead = most.max(frame_units * UNIT * 11 / 20);
        if self.end - self.last_slip < SLIP_EVERY_UNITS {
            Slip::None
        } else if error > most {
            Slip::Insert
        } else if error < -most_ahead {
            Slip::Drop
        } else {
            Slip::None
        }
    }

    fn lattice_point(&self, at: i64, configuration: Configuration, frame_units: i64) -> i64 {
        let step = frame_units.min(STEP_UNITS);
        let is_same = self.configuration == Some(configuration);
        let base = if is_same && frame_units < STEP_UNITS { self.end } else { 0 };
        let nearest =
            |from: i64| base + (from - base * UNIT + step * UNIT / 2).div_euclid(step * UNIT) * step;
        let point = nearest(at);
        if point >= self.end { point } else { base + (self.end - base + step - 1).div_euclid(step) * step }
    }

    fn note_move(&mut self, samples: i64) {
        self.largest_move = self.largest_move.max(samples.abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at_tenth_ms: i64, number: u8, frames: u8, gap: Gap) -> Piece {
        let at = Samples48k::from_us(at_tenth_ms * 100);
        let shape = Shape { configuration: Configuration::of_toc(number << 3), frames };
        Piece { at, shape, gap, is_quiet: false }
    }

    fn starts(pieces: &[Piece]) -> Vec<i64> {
        let mut lane = Lane::new(pieces);
        lane.fill_to(i64::MAX);
        lane.window().iter().map(|atom| atom.start).collect()
    }

    #[test]
    fn a_run_starts_on_the_grid_and_its_frames_stand_back_to_back() {
        let pieces = [
            piece(270, 9, 1, Gap::Start),
            piece(474, 9, 1, Gap::None),
            piece(668, 9, 2, Gap::None),
            piece(1110, 9, 1, Gap::None),
        ];
        assert_eq!(starts(&pieces), [8, 16, 24, 32, 40]);
    }

    #[test]
    fn behind_a_gap_the_grid_is_chosen_anew() {
        let pieces = [piece(0, 9, 1, Gap::Start), piece(600, 9, 1, Gap::Loss), piece(1710, 9, 1, Gap::Pause)];
        assert_eq!(starts(&pieces), [0, 24, 72]);
    }

    #[test]
    fn short_frames_keep_their_own_lattice_over_a_loss() {
        // CELT, 2.5 ms; one packet lost.
        let pieces = [piece(0, 28, 3, Gap::Start), piece(100, 28, 1, Gap::Loss)];
        assert_eq!(starts(&pieces), [0, 1, 2, 4]);
    }

    #[test]
    fn long_frames_begin_on_any_step_of_20_ms() {
        let pieces = [piece(210, 11, 1, Gap::Start), piece(1610, 11, 1, Gap::Loss)];
        assert_eq!(starts(&pieces), [8, 64]);
    }

    /// An hour of 20 ms frames of a sender whose clock is off by so many ppm; every tenth second is quiet.
    fn an_hour(ppm: i64) -> Vec<Piece> {
        (0..180_000i64)
            .map(|n| {
                let at = Samples48k(n * 960 + n * 960 * ppm / 1_000_000);
                let is_quiet = n / 50 % 10 == 0;
                Piece { at, is_quiet, ..piece(0, 9, 1, if n == 0 { Gap::Start } else { Gap::None }) }
            })
            .collect()
    }

    #[test]
    fn drift_is_followed_by_slips_in_silence_and_never_exceeds_15_ms() {
        for (ppm, slips) in [(0, 0), (100, 18), (-100, 18), (200, 36), (-200, 36)] {
            let pieces = an_hour(ppm);
            let mut lane = Lane::new(&pieces);
            lane.fill_to(i64::MAX);
            assert!(lane.slips().abs_diff(slips) <= 1, "{ppm} ppm: {} slips", lane.slips());
            assert!(lane.largest_move().0 <= 720, "{ppm} ppm: {} samples", lane.largest_move().0);
            let used: Vec<usize> = lane.window().iter().map(|atom| atom.piece).collect();
            let left_out = (0..pieces.len()).filter(|at| used.binary_search(at).is_err());
            assert!(left_out.into_iter().all(|at| pieces[at].is_quiet || pieces[at - 1].is_quiet));
        }
    }

    #[test]
    fn a_packet_never_overlaps_the_one_before() {
        // Timestamps say 10 ms, the packets hold 20 ms.
        let pieces: Vec<_> = (0..5).map(|n| piece(n * 100, 9, 1, Gap::None)).collect();
        assert_eq!(starts(&pieces), [0, 8, 16, 24, 32]);
    }
}

//! Cells: the time cut into stretches that both channels can fill with one Opus packet each.
//!
//! An Ogg packet of the recording holds one Opus packet of each channel, both of the same length (RFC 7845
//! section 3). All frames of an Opus packet have one configuration, and 120 ms is its greatest length. So time may be
//! cut only where neither channel is inside a frame, and a cell must not hold two configurations of a channel, nor a
//! hole that is no whole number of its frames. [`Planner::next_cell`] takes the nearest cut on the 20 ms grid that
//! will do, else the nearest of all.
//!
//! Where none will do, a run of frames that begins there is moved by the smallest step that helps: frames are moved
//! only as runs, in silence. Where no run begins, the channels share no grid: [`NoCommonGrid`], and one of them must
//! be encoded anew.
//!
//! What fills the time without frames was measured on decoders:
//! - before a channel's first frame, zero-length frames: libopus stays as it was made, so that the first frame
//!   decodes as it would alone;
//! - in place of lost packets up to 100 ms, zero-length frames, which decoders conceal; silence beyond that;
//! - where the sender suppressed silence, zero-length frames: the decoder's comfort noise;
//! - in pauses and at the end, one zero-length frame, which softens the edge, and then silent CELT frames. A pause of
//!   zero-length frames would damage the next onset by some 20 dB.

use crate::opus::packet::{Configuration, Mode};
use crate::timeline::Gap;

use super::lane::{Atom, Lane, MOVE_MAX_UNITS, STEP_UNITS, UNIT};

/// The longest Opus packet, in units of 2.5 ms.
const CELL_MAX_UNITS: i64 = 48;
/// Lost packets are concealed this long; what a decoder makes up beyond it is noise. 100 ms.
const CONCEAL_UNITS: i64 = 40;

/// What one channel puts into one frame's place of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A received frame: its piece and its number within.
    Frame(usize, u8),
    /// A frame of no bytes: the decoder conceals.
    Empty,
    /// A silent CELT frame.
    Silence,
}

/// One channel's side of a cell: frames of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// The configuration of all frames.
    pub configuration: Configuration,
    /// The frames, which together are as long as the cell.
    pub slots: Vec<Slot>,
}

/// A stretch of the recording that becomes one Ogg packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its length in units of 2.5 ms: 1 to 48.
    pub units: i64,
    /// Caller and AI.
    pub sides: [Side; 2],
}

/// The two channels have frames here that no common cut separates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channels share no frame grid at {at_ms} ms")]
pub struct NoCommonGrid {
    /// Where, in the recording.
    pub at_ms: i64,
}

/// Walks along both lanes and cuts cells.
#[derive(Clone, Debug)]
pub struct Planner<'a> {
    lanes: [Lane<'a>; 2],
    holes: [Hole; 2],
    at: i64,
    /// The cell cut last: its room is used again.
    cell: Cell,
}

/// What a lane's time without frames is.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// Where it began: the end of the last frame.
    from: i64,
    /// The configuration of that frame, or of the first frame to come.
    configuration: Configuration,
    has_begun: bool,
}

impl<'a> Planner<'a> {
    /// Begins at the beginning of the recording.
    #[must_use]
    pub fn new(lanes: [Lane<'a>; 2]) -> Self {
        let holes = [0, 1].map(|lane: usize| Hole {
            from: 0,
            configuration: lanes[lane].first_configuration().unwrap_or(Configuration::CELT_FULL_BAND_20_MS),
            has_begun: false,
        });
        let side = || Side { configuration: Configuration::CELT_FULL_BAND_20_MS, slots: Vec::new() };
        Self { lanes, holes, at: 0, cell: Cell { units: 0, sides: [side(), side()] } }
    }

    /// How far cells have been cut, in units.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.at
    }

    /// Where the last frame of both channels ends, in units, once all have been brought to the grid.
    #[must_use]
    pub fn end(&self) -> Option<i64> {
        let [caller, ai] = &self.lanes;
        (caller.is_exhausted() && ai.is_exhausted()).then(|| caller.end().max(ai.end()))
    }

    /// The lanes, for what they measured.
    #[must_use]
    pub fn lanes(&self) -> &[Lane<'a>; 2] {
        &self.lanes
    }

    /// Cuts the next cell. There always is one: behind the last frame cells are silent.
    ///
    /// # Errors
    /// [`NoCommonGrid`] where no cut will do.
    pub fn next_cell(&mut self) -> Result<&Cell, NoCommonGrid> {
        let horizon = self.at + CELL_MAX_UNITS;
        self.lanes.iter_mut().for_each(|lane| lane.fill_to(horizon));
        let [caller, ai] = &self.lanes;
        let cut = match nearest_cut([caller, ai], self.at) {
            Some(cut) => cut,
            None => self.move_a_run().ok_or(NoCommonGrid { at_ms: self.at * 5 / 2 })?,
        };
        self.cell.units = cut - self.at;
        for lane in 0..2 {
            let mut slots = std::mem::take(&mut self.cell.sides[lane].slots);
            slots.clear();
            let configuration = self.take_side(lane, cut, &mut slots);
            self.cell.sides[lane] = Side { configuration, slots };
        }
        self.at = cut;
        Ok(&self.cell)
    }

    /// Moves the run that begins in the window of one of the lanes by the smallest step with which a cut is found.
    fn move_a_run(&mut self) -> Option<i64> {
        for distance in 1..=MOVE_MAX_UNITS {
            for units in [-distance, distance] {
                for lane in 0..2 {
                    let Some(mut moved) = self.lanes[lane].with_moved_run(self.at, units) else { continue };
                    moved.fill_to(self.at + CELL_MAX_UNITS);
                    if let Some(cut) = nearest_cut([&moved, &self.lanes[1 - lane]], self.at) {
                        self.lanes[lane] = moved;
                        return Some(cut);
                    }
                }
            }
        }
        None
    }

    /// Takes the lane's frames of a cell, with what fills the time between them, and returns their configuration.
    fn take_side(&mut self, lane: usize, cut: i64, slots: &mut Vec<Slot>) -> Configuration {
        let at = self.at;
        let first = self.lanes[lane].window().front().filter(|atom| atom.start < cut).copied();
        let Some(first) = first else {
            return self.fill_side(lane, cut, slots);
        };
        let configuration = first.configuration;
        let mut filled = at;
        while let Some(atom) = self.lanes[lane].window().front().filter(|atom| atom.start < cut).copied() {
            self.fill_hole(lane, filled, atom.start, atom, slots);
            slots.push(Slot::Frame(atom.piece, atom.frame));
            filled = atom.end();
            self.holes[lane] = Hole { from: filled, configuration, has_begun: true };
            self.lanes[lane].take();
        }
        let like_last = Atom { gap: self.gap_ahead(lane), ..first };
        self.fill_hole(lane, filled, cut, like_last, slots);
        configuration
    }

    /// Fills a cell in which the lane has no frame.
    fn fill_side(&mut self, lane: usize, cut: i64, slots: &mut Vec<Slot>) -> Configuration {
        let length = cut - self.at;
        let gap = self.gap_ahead(lane);
        let hole = self.holes[lane];
        let samples = u32::try_from(length * UNIT).expect("a cell is at most 120 ms long");
        let slot = filler(gap, self.at - hole.from, hole.has_begun);
        let configuration = match slot {
            Slot::Silence => Configuration::celt_dividing(samples),
            _ => hole.configuration.dividing(samples),
        };
        let count = samples / configuration.frame_samples();
        slots.extend((0..count).map(|_| slot));
        configuration
    }

    /// Fills a hole beside frames in their own configuration.
    fn fill_hole(&mut self, lane: usize, from: i64, to: i64, like: Atom, slots: &mut Vec<Slot>) {
        let gap = if self.holes[lane].has_begun { like.gap } else { Gap::Start };
        let mut at = from;
        while at < to {
            let wanted = filler(gap, at - self.holes[lane].from, self.holes[lane].has_begun);
            // Silence has a form of its own only in CELT; elsewhere a short hole is concealed.
            let is_celt = like.configuration.mode() == Mode::Celt;
            slots.push(if wanted == Slot::Silence && !is_celt { Slot::Empty } else { wanted });
            at += like.units;
        }
    }

    /// What the time up to the lane's next frame is.
    fn gap_ahead(&self, lane: usize) -> Gap {
        self.lanes[lane].window().front().map_or(Gap::Pause, |atom| atom.gap)
    }
}

/// What stands in a gap, `since` units behind the last frame.
fn filler(gap: Gap, since: i64, has_begun: bool) -> Slot {
    let concealed = match gap {
        _ if !has_begun => i64::MAX,
        Gap::Silence => i64::MAX,
        Gap::Loss | Gap::None => CONCEAL_UNITS,
        Gap::Pause | Gap::Start => STEP_UNITS,
    };
    if since < concealed { Slot::Empty } else { Slot::Silence }
}

/// The nearest cut behind `at`: on the 20 ms grid if there is one within 120 ms, else anywhere.
fn nearest_cut([caller, ai]: [&Lane<'_>; 2], at: i64) -> Option<i64> {
    let cuts = cuts(caller, at) & cuts(ai, at);
    let is_cut = |cut: &i64| cuts >> (cut - at) & 1 == 1;
    let mut on_grid = (1..=CELL_MAX_UNITS / STEP_UNITS).map(|step| (at / STEP_UNITS + step) * STEP_UNITS);
    on_grid.find(is_cut).or_else(|| (at + 1..=at + CELL_MAX_UNITS).find(is_cut))
}

/// Up to where the lane can fill the time from `at` on with one Opus packet: a bit for each unit behind it.
fn cuts(lane: &Lane<'_>, at: i64) -> u64 {
    let (mut cuts, mut filled) = (0u64, at);
    let mut configuration = None;
    let mut frame_units = 1;
    let last = at + CELL_MAX_UNITS;
    for atom in lane.window() {
        add_cuts(&mut cuts, at, (filled, atom.start.min(last)), frame_units);
        let is_alike = configuration.is_none_or(|other| other == atom.configuration);
        if atom.start >= last || !is_alike || (atom.start - filled) % atom.units != 0 {
            return cuts;
        }
        configuration = Some(atom.configuration);
        frame_units = i64::from(atom.configuration.frame_samples()) / UNIT;
        filled = atom.end();
    }
    add_cuts(&mut cuts, at, (filled, last), frame_units);
    cuts
}

/// Marks the cuts in a stretch without frames: those that whole frames of a filler reach.
fn add_cuts(cuts: &mut u64, at: i64, (filled, to): (i64, i64), frame_units: i64) {
    let mut cut = filled;
    while cut <= to {
        if cut > at {
            *cuts |= 1 << (cut - at);
        }
        cut += frame_units;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mux::lane::Piece;
    use crate::opus::packet::Shape;
    use crate::time::Samples48k;
    use proptest::prelude::*;

    const SILK_20: u8 = 9;
    const SILK_40: u8 = 10;
    const SILK_60: u8 = 11;
    const HYBRID_20: u8 = 15;
    const CELT_2_5: u8 = 28;

    fn run(at_ms: i64, number: u8, count: i64) -> Vec<Piece> {
        let shape = Shape { configuration: Configuration::of_toc(number << 3), frames: 1 };
        let piece = |n: i64| Piece {
            at: Samples48k(at_ms * 48 + n * i64::from(shape.samples())),
            shape,
            gap: if n == 0 { Gap::Pause } else { Gap::None },
            is_quiet: false,
        };
        (0..count).map(piece).collect()
    }

    /// Cuts cells until all frames are used; checks every invariant of a cell on the way.
    fn plan(caller: &[Piece], ai: &[Piece]) -> Result<Vec<Cell>, NoCommonGrid> {
        let mut planner = Planner::new([Lane::new(caller), Lane::new(ai)]);
        let mut cells = Vec::new();
        let mut seen = [Vec::new(), Vec::new()];
        while planner.end().is_none_or(|end| planner.position() < end) {
            let cell = planner.next_cell()?.clone();
            assert!((1..=48).contains(&cell.units));
            for (side, seen) in cell.sides.iter().zip(&mut seen) {
                let samples = side.configuration.frame_samples() * u32::try_from(side.slots.len()).unwrap();
                assert_eq!(i64::from(samples), cell.units * 120);
                seen.extend(side.slots.iter().filter_map(|slot| match slot {
                    Slot::Frame(piece, frame) => Some((*piece, *frame)),
                    _ => None,
                }));
            }
            cells.push(cell);
        }
        for (pieces, seen) in [caller, ai].into_iter().zip(seen) {
            let all = pieces.iter().enumerate();
            let expected: Vec<_> =
                all.flat_map(|(n, piece)| (0..piece.shape.frames).map(move |frame| (n, frame))).collect();
            assert_eq!(seen, expected, "every frame stands in a cell once, in order");
        }
        Ok(cells)
    }

    /// Whether the lane can fill the time between two cuts with one Opus packet.
    fn can_fill(lane: &Lane<'_>, at: i64, cut: i64) -> bool {
        let mut filled = at;
        let mut configuration = None;
        for atom in lane.window() {
            if atom.start >= cut {
                break;
            }
            let is_whole = atom.end() <= cut && (atom.start - filled) % atom.units == 0;
            if !is_whole || configuration.is_some_and(|other| other != atom.configuration) {
                return false;
            }
            configuration = Some(atom.configuration);
            filled = atom.end();
        }
        let frame_units = configuration.map_or(1, |c| i64::from(c.frame_samples()) / UNIT);
        (cut - filled) % frame_units == 0
    }

    fn lengths(cells: &[Cell]) -> Vec<i64> {
        cells.iter().map(|cell| cell.units * 5 / 2).collect()
    }

    #[test]
    fn ordinary_frames_share_cells_of_20_ms() {
        let cells = plan(&run(0, SILK_20, 4), &run(40, HYBRID_20, 3)).unwrap();
        assert_eq!(lengths(&cells), [20; 5]);
        assert_eq!(cells[0].sides[1].slots, [Slot::Empty], "nothing has been said yet");
        assert_eq!(cells[0].sides[1].configuration.number(), HYBRID_20);
        assert_eq!(cells[4].sides[0].slots, [Slot::Empty], "the edge is softened");
    }

    #[test]
    fn frames_of_60_ms_share_cells_with_three_of_20_ms() {
        let cells = plan(&run(20, SILK_60, 2), &run(0, HYBRID_20, 7)).unwrap();
        assert_eq!(lengths(&cells), [20, 60, 60]);
        assert_eq!(cells[1].sides[1].slots.len(), 3);
    }

    #[test]
    fn frames_of_40_and_60_ms_share_cells_of_120_ms() {
        let cells = plan(&run(0, SILK_40, 6), &run(0, SILK_60, 4)).unwrap();
        assert_eq!(lengths(&cells), [120, 120]);
    }

    #[test]
    fn long_frames_out_of_phase_are_moved_in_silence() {
        let caller = run(0, SILK_60, 10);
        let ai = run(140, SILK_60, 3);
        let mut planner = Planner::new([Lane::new(&caller), Lane::new(&ai)]);
        while planner.end().is_none_or(|end| planner.position() < end) {
            planner.next_cell().unwrap();
        }
        assert_eq!(planner.lanes()[1].largest_move(), Samples48k(20 * 48));
        plan(&caller, &ai).unwrap();
    }

    #[test]
    fn a_switch_inside_a_long_frame_leaves_no_common_grid() {
        let mut ai = run(0, SILK_20, 4);
        ai.extend(run(80, HYBRID_20, 4).into_iter().map(|piece| Piece { gap: Gap::None, ..piece }));
        let error = plan(&run(0, SILK_60, 5), &ai).unwrap_err();
        assert_eq!(error, NoCommonGrid { at_ms: 60 });
    }

    #[test]
    fn a_loss_is_concealed_for_100_ms_and_then_silent() {
        let mut caller = run(0, SILK_20, 1);
        caller.extend(run(220, SILK_20, 1).into_iter().map(|piece| Piece { gap: Gap::Loss, ..piece }));
        let cells = plan(&caller, &[]).unwrap();
        let slots: Vec<_> = cells.iter().map(|cell| cell.sides[0].slots[0]).collect();
        assert_eq!(slots[1..6], [Slot::Empty; 5]);
        assert_eq!(slots[6..11], [Slot::Silence; 5]);
        assert_eq!(cells[2].sides[0].configuration.number(), SILK_20);
        assert_eq!(cells[7].sides[0].configuration, Configuration::CELT_FULL_BAND_20_MS);
    }

    #[test]
    fn suppressed_silence_is_left_to_the_decoders_comfort_noise() {
        let mut caller = run(0, SILK_20, 1);
        caller.extend(run(1020, SILK_20, 1).into_iter().map(|piece| Piece { gap: Gap::Silence, ..piece }));
        let cells = plan(&caller, &[]).unwrap();
        assert!(cells[1..51].iter().all(|cell| cell.sides[0].slots == [Slot::Empty]));
    }

    #[test]
    fn the_shortest_frames_are_joined() {
        let cells = plan(&run(0, CELT_2_5, 16), &run(0, SILK_20, 2)).unwrap();
        assert_eq!(lengths(&cells), [20, 20]);
        assert_eq!(cells[0].sides[0].slots.len(), 8);
    }

    #[test]
    fn two_silent_channels_make_silent_cells() {
        let mut planner = Planner::new([Lane::new(&[]), Lane::new(&[])]);
        assert_eq!(planner.end(), Some(0));
        assert_eq!(planner.next_cell().unwrap().units, 8);
    }

    fn any_lane() -> impl Strategy<Value = Vec<Piece>> {
        let piece = (0u8..32, 1u8..4, prop_oneof![4 => Just(0i64), 1 => 0i64..400], 1i64..12);
        prop::collection::vec(piece, 0..12).prop_map(|runs| {
            let mut at = 0;
            let mut pieces = Vec::new();
            for (number, frames, pause_ms, count) in runs {
                let configuration = Configuration::of_toc(number << 3);
                let most = u8::try_from(5760 / configuration.frame_samples()).unwrap();
                let shape = Shape { configuration, frames: frames.min(most) };
                at += pause_ms * 48;
                for n in 0..count {
                    let gap = if n == 0 && pause_ms > 0 { Gap::Pause } else { Gap::None };
                    pieces.push(Piece { at: Samples48k(at), shape, gap, is_quiet: false });
                    at += i64::from(shape.samples());
                }
            }
            pieces
        })
    }

    proptest! {
        #[test]
        fn cuts_are_where_the_lane_can_be_filled(
            pieces in proptest::collection::vec((0i64..200, 0u8..32, 1u8..4), 0..12),
            at in 0i64..40,
        ) {
            let mut end = 0;
            let pieces: Vec<Piece> = pieces
                .into_iter()
                .map(|(behind, number, frames)| {
                    let shape = Shape { configuration: Configuration::of_toc(number << 3), frames };
                    let begin = end + if behind < 120 { 0 } else { behind * 48 };
                    let gap = if begin > end { Gap::Pause } else { Gap::None };
                    end = begin + i64::from(shape.samples());
                    Piece { at: Samples48k(begin), shape, gap, is_quiet: false }
                })
                .collect();
            let mut lane = Lane::new(&pieces);
            lane.fill_to(at + CELL_MAX_UNITS);
            while lane.window().front().is_some_and(|atom| atom.start < at) {
                lane.take();
            }
            let found = cuts(&lane, at);
            for cut in at + 1..=at + CELL_MAX_UNITS {
                prop_assert_eq!(found >> (cut - at) & 1 == 1, can_fill(&lane, at, cut), "at {}, cut {}", at, cut);
            }
        }

        #[test]
        fn any_two_channels_are_cut_into_cells_or_share_no_grid(caller in any_lane(), ai in any_lane()) {
            if let Err(no_grid) = plan(&caller, &ai) {
                prop_assert!(no_grid.at_ms >= 0 && !caller.is_empty() && !ai.is_empty());
            }
        }

        #[test]
        fn one_channel_alone_always_has_a_grid(caller in any_lane()) {
            prop_assert!(plan(&caller, &[]).is_ok());
        }
    }
}

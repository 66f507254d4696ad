//! Stretches of a channel where something is not as it should be: how they are drawn over its waveform.

use std::fmt::Write as _;

use super::{COLUMNS, Drawing, LANE_HEIGHT, LEFT, Lane, PLOT};
use crate::time::Samples48k;

/// A loss of 20 ms in an hour would be a hundredth of a pixel.
const BAND_MIN_WIDTH: f64 = 1.5;
const RAIL_HEIGHT: f64 = 6.0;

/// What a stretch of a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BandKind {
    /// Nothing was sent.
    Silence,
    /// It was not to be kept.
    Pause,
    /// It was sent and did not arrive.
    Loss,
    /// It was in the file, which is damaged.
    Damage,
}

/// A stretch of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Band {
    /// What it is.
    pub kind: BandKind,
    /// Where it begins.
    pub from: Samples48k,
    /// Where it ends.
    pub to: Samples48k,
}

/// So much of a kind somewhere in a stretch of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// What it is.
    pub kind: BandKind,
    /// Where the first of it may begin.
    pub from: Samples48k,
    /// Where the last of it may end.
    pub to: Samples48k,
    /// How much there is.
    pub length: Samples48k,
}

impl Spread {
    /// How much of the stretch it takes.
    #[expect(clippy::cast_precision_loss, reason = "a picture is not that precise")]
    fn share(&self) -> f64 {
        (self.length.0 as f64 / (self.to.0 - self.from.0).max(1) as f64).clamp(0.0, 1.0)
    }
}

impl Drawing {
    pub(super) fn bands(&mut self, lane: &Lane<'_>, kind: BandKind, top: f64) {
        let shares = self.shares(lane, kind);
        let (class, fill, opacities) = match kind {
            BandKind::Silence => ("silence", "#c3c9d3", [0.1, 0.25, 0.4, 0.5]),
            BandKind::Pause => ("pause", "url(#hatch)", [1.0; 4]),
            BandKind::Loss => ("loss", "#d90f24", [0.35, 0.5, 0.65, 0.8]),
            BandKind::Damage => ("damage", "#5e0a14", [0.9; 4]),
        };
        for (strength, opacity) in opacities.into_iter().enumerate() {
            let runs = runs(&shares, |share| strength_of(share) == Some(strength));
            self.boxes(class, fill, opacity, &runs, [top, LANE_HEIGHT]);
        }
        if kind == BandKind::Loss {
            let runs = runs(&shares, |share| share > 0.0);
            self.boxes("rail", fill, 1.0, &runs, [top + LANE_HEIGHT + 1.0, RAIL_HEIGHT]);
        }
        if kind == BandKind::Pause {
            for run in runs(&shares, |share| share > 0.0) {
                self.pause_label(run, top);
            }
        }
    }

    fn pause_label(&mut self, [from, width]: [f64; 2], top: f64) {
        if width >= 64.0 {
            let x = LEFT + from + width / 2.0;
            put!(
                self,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"56\" height=\"18\" rx=\"3\" fill=\"#fcfcfa\"/>\n",
                x - 28.0,
                top + 4.0
            );
            self.text(x, top + 17.0, "fill=\"#4b35a3\" text-anchor=\"middle\"", "paused", 56.0);
        }
    }

    /// The share of each pixel that bands of a kind take. One narrower than a pixel is not lost.
    fn shares(&self, lane: &Lane<'_>, kind: BandKind) -> Vec<f64> {
        let mut shares = vec![0.0f64; usize::try_from(COLUMNS).unwrap_or(0)];
        for band in lane.bands.iter().filter(|band| band.kind == kind) {
            self.add_share(&mut shares, [band.from, band.to], 1.0);
        }
        for spread in lane.spreads.iter().filter(|spread| spread.kind == kind && spread.length.0 > 0) {
            self.add_share(&mut shares, [spread.from, spread.to], spread.share());
        }
        shares
    }

    /// Adds a stretch of which so much is taken.
    fn add_share(&self, shares: &mut [f64], [from, to]: [Samples48k; 2], share: f64) {
        let from = self.x(from) - LEFT;
        let to = (self.x(to) - LEFT).max(from + 0.01);
        let mut at = from.floor().min(PLOT - 1.0);
        let mut column = pixel(at);
        while at + 1e-6 < to && column < shares.len() {
            shares[column] += (share * (to.min(at + 1.0) - from.max(at))).max(0.001);
            at += 1.0;
            column += 1;
        }
    }

    /// Boxes of one colour in one path. A run is where it begins and how wide it is.
    fn boxes(&mut self, class: &str, fill: &str, opacity: f64, runs: &[[f64; 2]], [top, height]: [f64; 2]) {
        if runs.is_empty() {
            return;
        }
        put!(self, "<path class=\"{class}\" fill=\"{fill}\" fill-opacity=\"{opacity}\" d=\"");
        for [from, width] in runs {
            let width = width.max(BAND_MIN_WIDTH);
            let from = (LEFT + from).min(LEFT + PLOT - width);
            put!(self, "M{from} {top}h{width}v{height}H{from}z");
        }
        put!(self, "\"/>\n");
    }
}

/// How strong a column is drawn of which so much is missing; not at all where nothing is.
fn strength_of(share: f64) -> Option<usize> {
    let above = [0.0, 0.1, 0.4, 0.8].iter().take_while(|least| share > **least).count();
    above.checked_sub(1)
}

/// The runs of pixels for which `is_in` holds: where each begins, and its width.
fn runs(shares: &[f64], is_in: impl Fn(f64) -> bool) -> Vec<[f64; 2]> {
    let mut runs: Vec<[f64; 2]> = Vec::new();
    let mut at = 0.0;
    for share in shares {
        if is_in(*share) {
            match runs.last_mut() {
                Some([from, width]) if *from + *width == at => *width += 1.0,
                _ => runs.push([at, 1.0]),
            }
        }
        at += 1.0;
    }
    runs
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the plot's width")]
fn pixel(at: f64) -> usize {
    at.max(0.0) as usize
}

//! The picture of a recording, as SVG: both channels' waveforms over time, and over them what is missing.
//!
//! It is made to be judged in a second: the verdict is a coloured word in the corner, losses are red and never
//! narrower than 1.5 px, and a red line under a lane repeats them at full strength where they are thin. The more of a
//! column is lost, the stronger the red, so that 20 ms lost in every second of an hour do not look like an hour lost.
//! The height of the waveform is the square root of the amplitude: quiet speech is seen, too.
//!
//! No scripts, no fonts, nothing from elsewhere; the same data gives the same bytes. Whatever stands in texts, the
//! result is well-formed XML. Size: two lanes of 1,500 columns are about 110 kB, and 300 kB is never reached.

/// Adds formatted text.
macro_rules! put {
    ($drawing:expr, $($arg:tt)*) => {
        write!($drawing.svg, $($arg)*).expect("writing to a string cannot fail")
    };
}

mod bands;
pub mod envelope;
mod text;

use std::fmt::Write as _;

use crate::time::Samples48k;
pub use bands::{Band, BandKind, Spread};
use envelope::{Column, Envelope};
pub use text::clock;
use text::{escape, shorten};

/// What the word in the corner says of the whole recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is there.
    Good,
    /// Something is missing, or strange.
    Warning,
    /// The file cannot be trusted.
    Bad,
    /// Nothing is known of what is missing.
    Unknown,
}

/// All that is in a picture.
#[derive(Clone, Debug)]
pub struct Picture<'a> {
    /// The colour of the verdict.
    pub tone: Tone,
    /// The verdict in a word or two.
    pub verdict: String,
    /// Whose call it is.
    pub title: String,
    /// When it was, how long, and why the verdict is what it is.
    pub subtitle: String,
    /// What somebody must not overlook.
    pub warnings: Vec<String>,
    /// How long it plays.
    pub duration: Samples48k,
    /// The channels from top to bottom.
    pub lanes: Vec<Lane<'a>>,
    /// The named moments, in order.
    pub marks: Vec<Mark>,
}

/// One channel.
#[derive(Clone, Debug)]
pub struct Lane<'a> {
    /// Which one.
    pub label: String,
    /// What is missing of it, if anything.
    pub missing: String,
    /// Its other counts, in a line.
    pub counts: String,
    /// How loud it is.
    pub envelope: &'a Envelope,
    /// Where something is not as it should be.
    pub bands: Vec<Band>,
    /// Where it is told no closer.
    pub spreads: Vec<Spread>,
}

/// A named moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When.
    pub at: Samples48k,
    /// What.
    pub name: String,
    /// The lane, if it is about one.
    pub lane: Option<usize>,
}

/// The width of the picture, of which the plot leaves 50 on each side.
const WIDTH: u32 = 1600;
const LEFT: f64 = 50.0;
/// One column of waveform for each pixel of the plot.
const COLUMNS: u32 = 1500;
const PLOT: f64 = 1500.0;
const LANE_HEIGHT: f64 = 150.0;
/// Where the marks' names stand, above the first lane.
const MARKS_TOP: f64 = 96.0;
const LANES_TOP: f64 = 166.0;
/// From the top of one lane to that of the next.
const LANE_STEP: f64 = 190.0;
/// More lines than this are no longer told apart; the legend says how many there are.
const MARKS_MAX: usize = 250;
const INK: &str = "#1b2430";
const FAINT_INK: &str = "#566173";
/// Of each lane: peaks, and the darker core.
const WAVES: [[&str; 2]; 2] = [["#7fa8dd", "#2a5ea8"], ["#7fc3a6", "#1d7253"]];

/// Draws the picture.
#[must_use]
pub fn draw(picture: &Picture<'_>) -> String {
    let bottom = lane_top(picture.lanes.len().saturating_sub(1)) + LANE_HEIGHT;
    let mut drawing = Drawing { svg: String::new(), span: picture.duration.0.max(1), bottom };
    drawing.open(bottom + 62.0);
    drawing.header(picture);
    drawing.axis(picture.duration, picture.lanes.len());
    for (index, lane) in picture.lanes.iter().enumerate() {
        drawing.lane(lane, index);
    }
    drawing.marks(picture);
    drawing.legend(picture);
    drawing.svg.push_str("</svg>\n");
    drawing.svg
}

/// Where a lane begins.
fn lane_top(lane: usize) -> f64 {
    LANES_TOP + LANE_STEP * f64::from(u32::try_from(lane).unwrap_or(0))
}

struct Drawing {
    svg: String,
    /// The whole length in samples, at least 1.
    span: i64,
    /// Where the last lane ends.
    bottom: f64,
}

impl Drawing {
    fn open(&mut self, height: f64) {
        put!(
            self,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"system-ui, 'DejaVu Sans', sans-serif\" \
             font-size=\"14\">\n<defs><pattern id=\"hatch\" width=\"8\" height=\"8\" \
             patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"8\" height=\"8\" \
             fill=\"#d9d2f5\"/><rect width=\"3\" height=\"8\" fill=\"#8a74d6\"/></pattern></defs>\n\
             <rect width=\"{WIDTH}\" height=\"{height:.0}\" fill=\"#fcfcfa\"/>\n"
        );
    }

    fn text(&mut self, x: f64, y: f64, style: &str, text: &str, room: f64) {
        // A character is about half as wide as it is high.
        let size = if style.contains("font-size=\"20\"") { 11.0 } else { 7.4 };
        let shown = escape(&shorten(text, room / size));
        put!(self, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{shown}</text>\n");
    }

    fn header(&mut self, picture: &Picture<'_>) {
        let fill = match picture.tone {
            Tone::Good => "#1f7a3d",
            Tone::Warning => "#b35900",
            Tone::Bad => "#b3121f",
            Tone::Unknown => "#5a6372",
        };
        let verdict = shorten(&picture.verdict, 40.0);
        let width = f64::from(u32::try_from(verdict.chars().count()).unwrap_or(0)) * 12.5 + 28.0;
        put!(
            self,
            "<rect x=\"{LEFT}\" y=\"16\" width=\"{width:.1}\" height=\"34\" rx=\"6\" fill=\"{fill}\"/>\n"
        );
        let style = "font-size=\"20\" font-weight=\"bold\" fill=\"#ffffff\" text-anchor=\"middle\"";
        self.text(LEFT + width / 2.0, 40.0, style, &verdict, 600.0);
        let style = format!("font-size=\"20\" font-weight=\"bold\" fill=\"{INK}\"");
        let x = LEFT + width + 16.0;
        self.text(x, 40.0, &style, &picture.title, LEFT + PLOT - x);
        self.text(LEFT, 70.0, &format!("fill=\"{INK}\""), &picture.subtitle, PLOT);
        if !picture.warnings.is_empty() {
            let warnings = format!("\u{26a0} {}", picture.warnings.join(" \u{b7} "));
            self.text(LEFT, 90.0, "fill=\"#b3121f\" font-weight=\"bold\"", &warnings, PLOT);
        }
    }

    /// Where a position stands.
    #[expect(clippy::cast_precision_loss, reason = "a picture is not that precise")]
    fn x(&self, at: Samples48k) -> f64 {
        LEFT + PLOT * (at.0.clamp(0, self.span) as f64 / self.span as f64)
    }

    fn axis(&mut self, duration: Samples48k, lanes: usize) {
        let step = tick_step(duration);
        let mut at = Samples48k(0);
        let mut ticks = Vec::new();
        while at <= duration {
            ticks.push((self.x(at), clock(at, false)));
            at = Samples48k(at.0.saturating_add(step));
        }
        let bottom = self.bottom;
        put!(self, "<path stroke=\"#c6ccd5\" fill=\"none\" d=\"");
        for (x, _) in &ticks {
            // Across each lane, and not through what is written between them.
            for lane in 0..lanes {
                put!(self, "M{x:.1} {}v{LANE_HEIGHT}", lane_top(lane));
            }
            put!(self, "M{x:.1} {bottom}v7");
        }
        put!(self, "\"/>\n");
        let style = format!("fill=\"{FAINT_INK}\" text-anchor=\"middle\"");
        for (x, text) in ticks {
            self.text(x, bottom + 22.0, &style, &text, 90.0);
        }
    }

    fn lane(&mut self, lane: &Lane<'_>, index: usize) {
        let top = lane_top(index);
        let [peaks, core] = WAVES[index % WAVES.len()];
        put!(self, "<g id=\"lane{index}\">\n");
        let style = format!("fill=\"{core}\" font-weight=\"bold\"");
        self.text(LEFT, top - 8.0, &style, &lane.label, 200.0);
        let mut x = LEFT + 130.0;
        if !lane.missing.is_empty() {
            self.text(x, top - 8.0, "fill=\"#b3121f\" font-weight=\"bold\"", &lane.missing, 700.0);
            x += f64::from(u32::try_from(lane.missing.chars().count()).unwrap_or(0)) * 8.6 + 16.0;
        }
        self.text(x, top - 8.0, &format!("fill=\"{INK}\""), &lane.counts, LEFT + PLOT - x);
        put!(
            self,
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{PLOT}\" height=\"{LANE_HEIGHT}\" fill=\"#eef1f5\" \
             fill-opacity=\"0.6\" stroke=\"#c6ccd5\"/>\n"
        );
        self.bands(lane, BandKind::Silence, top);
        self.bands(lane, BandKind::Pause, top);
        let samples = u64::try_from(self.span).unwrap_or(0);
        let columns = lane.envelope.columns(samples, COLUMNS);
        let middle = top + LANE_HEIGHT / 2.0;
        self.wave("peak", peaks, &columns, middle, |column| [column.low, column.high]);
        self.wave("rms", core, &columns, middle, |column| [-column.rms, column.rms]);
        self.bands(lane, BandKind::Loss, top);
        self.bands(lane, BandKind::Damage, top);
        put!(self, "</g>\n");
    }

    /// A closed path of one step a pixel: along the upper edge and back along the lower one.
    fn wave(
        &mut self,
        class: &str,
        fill: &str,
        columns: &[Column],
        middle: f64,
        edges: impl Fn(&Column) -> [f32; 2],
    ) {
        let y = |value: f32| {
            let height = f64::from(value.abs().min(1.0)).sqrt() * LANE_HEIGHT / 2.0;
            // A hair, so that silence is a line and not nothing.
            middle - f64::from(value.signum()) * height.max(0.4)
        };
        put!(self, "<path class=\"{class}\" fill=\"{fill}\" d=\"M{LEFT} {middle}");
        for column in columns {
            let [_, high] = edges(column);
            put!(self, "V{}h1", tenths(y(high.max(0.0))));
        }
        for column in columns.iter().rev() {
            let [low, _] = edges(column);
            put!(self, "V{}h-1", tenths(y(low.min(-0.0))));
        }
        put!(self, "Z\"/>\n");
    }

    fn marks(&mut self, picture: &Picture<'_>) {
        put!(self, "<g stroke=\"#a34a00\" stroke-width=\"1.5\">\n");
        let mut names = Vec::new();
        // The ends of the names in each row: a name that finds no room is left out, its line is not.
        let mut ends = [0.0f64; 3];
        let mut last = None;
        for mark in picture.marks.iter().take(MARKS_MAX) {
            let x = tenths(self.x(mark.at));
            let seen = Some((x, mark.name.as_str()));
            if last == seen {
                continue;
            }
            last = seen;
            let name = shorten(&mark.name, 28.0);
            let width = f64::from(u32::try_from(name.chars().count()).unwrap_or(0)) * 7.4 + 10.0;
            let is_late = x + width > LEFT + PLOT;
            let start = if is_late { x - width } else { x };
            let row = ends.iter().position(|end| *end <= start);
            let rows = [MARKS_TOP + 12.0, MARKS_TOP + 25.0, MARKS_TOP + 38.0];
            let name_top = row.map_or(LANES_TOP, |row| rows[row] - 10.0);
            let [top, bottom] = match mark.lane {
                Some(lane) => [lane_top(lane), lane_top(lane) + LANE_HEIGHT],
                None => [name_top, self.bottom],
            };
            put!(self, "<path class=\"mark\" d=\"M{x} {top}V{bottom}\"/>\n");
            if row.is_some() && top > name_top {
                put!(self, "<path class=\"lead\" stroke-opacity=\"0.35\" d=\"M{x} {name_top}V{top}\"/>\n");
            }
            if let Some(row) = row {
                ends[row] = start + width;
                let (x, anchor) = if is_late { (x - 4.0, "end") } else { (x + 4.0, "start") };
                let style = format!("font-size=\"13\" fill=\"#8a3c00\" text-anchor=\"{anchor}\"");
                names.push((x, rows[row], style, name));
            }
        }
        put!(self, "</g>\n");
        for (x, y, style, name) in names {
            self.text(x, y, &style, &name, 220.0);
        }
    }

    fn legend(&mut self, picture: &Picture<'_>) {
        let y = self.bottom + 46.0;
        let mut x = LEFT;
        let keys = [
            ("lost", "#d90f24"),
            ("silence of 1 s and more", "#c3c9d3"),
            ("paused, not kept", "url(#hatch)"),
            ("damaged file", "#5e0a14"),
            ("mark", "#a34a00"),
            ("peak", WAVES[0][0]),
            ("mean", WAVES[0][1]),
        ];
        for (name, fill) in keys {
            put!(
                self,
                "<rect x=\"{x:.0}\" y=\"{:.1}\" width=\"16\" height=\"12\" fill=\"{fill}\"/>\n",
                y - 11.0
            );
            self.text(x + 22.0, y, &format!("fill=\"{INK}\""), name, 400.0);
            x += 50.0 + f64::from(u32::try_from(name.len()).unwrap_or(0)) * 7.4;
        }
        let marks = picture.marks.len();
        let more = if marks > MARKS_MAX { format!("{MARKS_MAX} of {marks} marks; ") } else { String::new() };
        let scale = format!("{more}height: square root of the amplitude");
        let style = format!("fill=\"{FAINT_INK}\" text-anchor=\"end\"");
        self.text(LEFT + PLOT, y, &style, &scale, 600.0);
    }
}

/// Rounds to tenths: what is whole is then written without any.
fn tenths(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

/// The distance of ticks: the shortest round one that leaves room for the numbers.
fn tick_step(duration: Samples48k) -> i64 {
    let seconds = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200];
    let steps = seconds.map(|seconds: i64| seconds * 48_000);
    let fits = |step: &i64| duration.0 / step <= 16;
    steps.into_iter().find(fits).unwrap_or(duration.0 / 16 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 48_000;

    fn band(kind: BandKind, from_ms: i64, to_ms: i64) -> Band {
        Band { kind, from: Samples48k(from_ms * 48), to: Samples48k(to_ms * 48) }
    }

    fn picture(envelope: &Envelope, seconds: i64, bands: Vec<Band>) -> Picture<'_> {
        let lane = |bands| Lane {
            label: "caller (left)".to_owned(),
            missing: String::new(),
            counts: "150 packets".to_owned(),
            envelope,
            bands,
            spreads: Vec::new(),
        };
        Picture {
            tone: Tone::Good,
            verdict: "whole".to_owned(),
            title: "call".to_owned(),
            subtitle: "now".to_owned(),
            warnings: Vec::new(),
            duration: Samples48k(seconds * SECOND),
            lanes: vec![lane(bands), lane(Vec::new())],
            marks: Vec::new(),
        }
    }

    /// The boxes of a class: x and width.
    fn boxes(svg: &str, class: &str) -> Vec<[f64; 2]> {
        let paths = svg.split("<path ").filter(|path| path.starts_with(&format!("class=\"{class}\"")));
        let data = paths.map(|path| path.split(" d=\"").nth(1).unwrap().split('"').next().unwrap());
        let boxes = data.flat_map(|data| data.split('M').skip(1).collect::<Vec<_>>());
        let number = |text: &str| text.parse::<f64>().unwrap();
        boxes
            .map(|shape| {
                let (x, rest) = shape.split_once(' ').unwrap();
                let width = rest.split('h').nth(1).unwrap().split('v').next().unwrap();
                [number(x), number(width)]
            })
            .collect()
    }

    #[test]
    fn a_loss_of_20_ms_in_an_hour_is_seen_at_its_place() {
        let envelope = Envelope::default();
        let svg = draw(&picture(&envelope, 3600, vec![band(BandKind::Loss, 900_000, 900_020)]));
        for class in ["loss", "rail"] {
            let [[x, width]] = boxes(&svg, class)[..] else { panic!("one {class}") };
            assert!((x - 425.0).abs() <= 1.0 && width >= 1.5, "{class} at {x}, {width} wide");
        }
        assert!(boxes(&svg, "silence").is_empty());
        assert!(boxes(&draw(&picture(&envelope, 3600, Vec::new())), "loss").is_empty());
    }

    #[test]
    fn a_loss_at_the_very_end_or_beyond_it_stays_in_the_plot() {
        let envelope = Envelope::default();
        for (from, to) in [(9_980, 10_000), (10_000, 10_000), (50_000, 90_000)] {
            let svg = draw(&picture(&envelope, 10, vec![band(BandKind::Loss, from, to)]));
            let [[x, width]] = boxes(&svg, "loss")[..] else { panic!("one loss") };
            assert!(x + width <= LEFT + PLOT + 0.01 && x > 1500.0, "{x} {width}");
        }
    }

    #[test]
    fn many_thin_losses_are_weaker_than_one_long_one() {
        let envelope = Envelope::default();
        let thin = (0..3600).map(|second| band(BandKind::Loss, second * 1000, second * 1000 + 20));
        let opacities = |svg: &str| {
            let losses = svg.split("<path ").filter(|path| path.starts_with("class=\"loss\""));
            let opacity = |path: &str| path.split("fill-opacity=\"").nth(1).unwrap()[..4].to_owned();
            losses.map(opacity).collect::<Vec<_>>()
        };
        assert_eq!(opacities(&draw(&picture(&envelope, 3600, thin.collect()))), ["0.35"]);
        let long = vec![band(BandKind::Loss, 0, 3_600_000)];
        assert_eq!(opacities(&draw(&picture(&envelope, 3600, long))), ["0.8\""]);
    }

    #[test]
    fn what_is_told_by_the_minute_is_drawn_as_strong_as_it_is() {
        let envelope = Envelope::default();
        let mut picture = picture(&envelope, 3600, Vec::new());
        let minute = |kind, number: i64, seconds: i64| {
            let [from, to] = [number, number + 1].map(|minute| Samples48k(minute * 60 * SECOND));
            Spread { kind, from, to, length: Samples48k(seconds * SECOND) }
        };
        picture.lanes[0].spreads = vec![
            minute(BandKind::Loss, 30, 3),
            minute(BandKind::Loss, 31, 60),
            minute(BandKind::Silence, 32, 30),
            minute(BandKind::Silence, 31, 0),
        ];
        let svg = draw(&picture);
        assert_eq!(boxes(&svg, "loss"), [[800.0, 25.0], [825.0, 25.0]]);
        let loss: Vec<_> = svg.match_indices("class=\"loss\"").map(|(at, _)| &svg[at..at + 60]).collect();
        assert!(loss[0].contains("fill-opacity=\"0.35\"") && loss[1].contains("0.8"), "{loss:?}");
        assert_eq!(boxes(&svg, "rail"), [[800.0, 50.0]]);
        assert_eq!(boxes(&svg, "silence"), [[850.0, 25.0]]);
    }

    #[test]
    fn whatever_is_in_it_a_picture_is_no_larger_than_300_kb() {
        let mut envelope = Envelope::default();
        for at in 0..60 * SECOND {
            envelope.push(if at % 200 < 100 { 0.9 } else { -0.9 });
        }
        // Every kind in every other pixel, and more marks than anybody can read.
        let kinds = [BandKind::Loss, BandKind::Silence, BandKind::Pause, BandKind::Damage];
        let bands =
            (0..750).flat_map(|n| kinds.map(|kind| band(kind, n * 80, n * 80 + 40))).collect::<Vec<_>>();
        let mut picture = picture(&envelope, 60, bands.clone());
        picture.lanes[1].bands = bands;
        picture.title = "&".repeat(100_000);
        picture.marks = (0..20_000)
            .map(|n| Mark { at: Samples48k(n * 144), name: "<".repeat(300), lane: None })
            .collect();
        let svg = draw(&picture);
        assert!(svg.len() < 300_000, "{} bytes", svg.len());
        assert_eq!(svg, draw(&picture));
    }

    #[test]
    fn names_of_marks_do_not_overlap() {
        let envelope = Envelope::default();
        let mut picture = picture(&envelope, 60, Vec::new());
        picture.marks = (0..12)
            .map(|n| Mark { at: Samples48k(n * 4800), name: format!("mark {n}"), lane: None })
            .collect();
        let svg = draw(&picture);
        assert_eq!(svg.matches("class=\"mark\"").count(), 12, "each has its line");
        let named = svg.matches(">mark ").count();
        assert!((3..12).contains(&named), "{named} have their names");
    }

    #[test]
    fn ticks_are_round_and_few() {
        let steps =
            [3, 57, 600, 3600, 14_400].map(|seconds| tick_step(Samples48k(seconds * SECOND)) / SECOND);
        assert_eq!(steps, [1, 5, 60, 300, 900]);
        assert!(tick_step(Samples48k(i64::MAX)) > i64::MAX / 17);
        assert_eq!(tick_step(Samples48k(0)), SECOND);
    }
}

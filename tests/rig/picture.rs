//! The reader of pictures: whether they are well-formed, where their boxes are, and how high their waveforms.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::is_strict;

/// The plot: where it begins, how wide it is, and where the lanes are.
pub(crate) const LEFT: f64 = 50.0;
pub(crate) const PLOT: f64 = 1500.0;
const LANE_TOPS: [f64; 2] = [166.0, 356.0];
const LANE_HEIGHT: f64 = 150.0;

/// Reads a picture, which must be well-formed by the judgement of another program.
pub(crate) fn read_picture(path: &Path) -> String {
    let svg = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let script = "import sys, xml.dom.minidom as x; d = x.parse(sys.argv[1]); assert d.documentElement.tagName == 'svg'";
    match Command::new("python3").args(["-c", script]).arg(path).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => assert!(!is_strict(), "cannot ask python3: {error}"),
    }
    assert!(svg.len() < 300_000, "{} bytes", svg.len());
    assert!(!svg.contains("<script"));
    svg
}

/// The data of the paths of a class in a lane.
pub(crate) fn paths<'s>(svg: &'s str, lane: usize, class: &str) -> Vec<&'s str> {
    let lane = svg
        .split(&format!("<g id=\"lane{lane}\">"))
        .nth(1)
        .expect("a path as they are drawn")
        .split("</g>")
        .next()
        .expect("a path as they are drawn");
    let of_class = lane.split("<path ").filter(|path| path.starts_with(&format!("class=\"{class}\"")));
    of_class
        .map(|path| {
            path.split(" d=\"")
                .nth(1)
                .expect("a path as they are drawn")
                .split('"')
                .next()
                .expect("a path as they are drawn")
        })
        .collect()
}

/// The boxes of a class in a lane: from and to, in pixels of the plot.
pub(crate) fn boxes(svg: &str, lane: usize, class: &str) -> Vec<[f64; 2]> {
    let shapes = paths(svg, lane, class).into_iter().flat_map(|data| data.split('M').skip(1));
    let number = |text: &str| text.parse::<f64>().expect("a path as they are drawn");
    shapes
        .map(|shape| {
            let from = number(shape.split(' ').next().expect("a path as they are drawn")) - LEFT;
            let width = number(
                shape
                    .split('h')
                    .nth(1)
                    .expect("a path as they are drawn")
                    .split('v')
                    .next()
                    .expect("a path as they are drawn"),
            );
            [from, from + width]
        })
        .collect()
}

/// From where to where the boxes of a class reach: the first and the last pixel may be drawn weaker, on their own.
pub(crate) fn extent(svg: &str, lane: usize, class: &str) -> [f64; 2] {
    let boxes = boxes(svg, lane, class);
    let from = boxes.iter().map(|found| found[0]).fold(f64::MAX, f64::min);
    [from, boxes.iter().map(|found| found[1]).fold(0.0, f64::max)]
}

/// The upper edge of a waveform as amplitudes: for each step where it ends, in pixels of the plot, and how high it is.
pub(crate) fn edge(svg: &str, lane: usize, class: &str) -> Vec<(f64, f64)> {
    let data = paths(svg, lane, class)[0];
    let steps = data.split('V').skip(1).take_while(|step| !step.contains("h-"));
    let heights = steps.map(|step| {
        let y: f64 = step
            .strip_suffix("h1")
            .expect("a path as they are drawn")
            .parse()
            .expect("a path as they are drawn");
        (LANE_TOPS[lane] + LANE_HEIGHT / 2.0 - y) / (LANE_HEIGHT / 2.0)
    });
    let edge: Vec<(f64, f64)> =
        heights.enumerate().map(|(at, height)| (at as f64 + 1.0, height * height.abs())).collect();
    assert_eq!(edge.len() as f64, PLOT);
    edge
}

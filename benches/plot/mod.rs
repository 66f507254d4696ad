//! Pictures of how cost grows: SVG, both axes logarithmic, since cost that grows with its cause is then a straight line.

use std::path::Path;

use plotters::prelude::*;

const SIZE: (u32, u32) = (720, 440);
const FONT: (&str, i32) = ("sans-serif", 15);
/// Of dark blue and orange, which colour-blind people tell apart.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 78, 152), RGBColor(214, 96, 0)];

/// A line of a picture.
pub(crate) struct Line {
    /// What it is, with its unit.
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws up to two lines over one cause, and writes the picture.
pub(crate) fn draw(path: &Path, title: &str, cause: &str, lines: &[Line]) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (low_x, high_x) = range(all().map(|point| point.0));
    let (low_y, high_y) = range(all().map(|point| point.1));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&root)
        .caption(title, FONT)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((low_x..high_x).log_scale(), (low_y..high_y).log_scale())
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(cause)
        .light_line_style(WHITE)
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .label_style(FONT)
        .draw()
        .unwrap();
    for (line, colour) in lines.iter().zip(COLOURS) {
        let points = || line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))
            .unwrap()
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 4, colour.filled()))).unwrap();
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font(FONT)
        .draw()
        .unwrap();
    root.present().unwrap();
}

/// The powers of ten around all values.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    (10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()))
}

fn label(value: &f64) -> String {
    if *value >= 1000.0 { format!("{}k", value / 1000.0) } else { format!("{value}") }
}

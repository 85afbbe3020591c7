//! The plot of a side-by-side comparison: a chart for each figure, with a bar for each contestant.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{COLOURS, DrawResult, FONT, INK, Picture, save, text};
use crate::BenchError;
use crate::summary::Summary;

/// The runs of all contestants for one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct FigureChart {
    /// What the figure measures.
    pub title: String,
    /// The figure's unit, and whether more or less is better.
    pub unit: String,
    /// One bar for each contestant.
    pub bars: Vec<Bar>,
}

/// The runs of one contestant.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The contestant's name.
    pub name: String,
    /// Median and range of the contestant's runs.
    pub summary: Summary,
    /// Whether the contestant is this build.
    pub ours: bool,
}

/// Charts beside each other.
const COLUMNS: usize = 3;

// Lengths in pixels.
const WIDTH: u32 = 1280;
const TITLE: u32 = 64;
const CHART_TITLE: u32 = 44;
const ROW: u32 = 30;

/// Where bars begin and end in a chart.
const BARS: (i32, i32) = (132, 340);

/// Draws the charts under the lines `heading` and `subheading`, as SVG or PNG.
///
/// # Errors
/// When the file cannot be written, or its name ends neither in .svg nor in .png.
pub fn comparison(
    charts: &[FigureChart],
    heading: &str,
    subheading: &str,
    path: &Path,
) -> Result<(), BenchError> {
    let rows = charts.len().div_ceil(COLUMNS) as u32;
    let picture = Comparison {
        charts,
        heading,
        subheading,
    };
    save(
        &picture,
        path,
        (WIDTH, TITLE + rows * picture.chart_height() + 16),
    )
}

struct Comparison<'p> {
    charts: &'p [FigureChart],
    heading: &'p str,
    subheading: &'p str,
}

impl Comparison<'_> {
    fn chart_height(&self) -> u32 {
        let bars = self
            .charts
            .iter()
            .map(|chart| chart.bars.len())
            .max()
            .unwrap_or(1);
        CHART_TITLE + ROW * bars as u32 + 16
    }
}

impl Picture for Comparison<'_> {
    fn draw<B: DrawingBackend>(&self, surface: &DrawingArea<B, Shift>) -> DrawResult {
        let big = (FONT, 20).into_font().color(&INK);
        surface
            .draw_text(self.heading, &big, (24, 12))
            .map_err(text)?;
        let small = (FONT, 13).into_font().color(&INK);
        surface
            .draw_text(self.subheading, &small, (24, 40))
            .map_err(text)?;
        for (index, chart) in self.charts.iter().enumerate() {
            let x = (index % COLUMNS) as u32 * (WIDTH / COLUMNS as u32);
            let y = TITLE + (index / COLUMNS) as u32 * self.chart_height();
            draw_chart(chart, surface, (x.cast_signed(), y.cast_signed()))?;
        }
        Ok(())
    }
}

fn draw_chart<B: DrawingBackend>(
    chart: &FigureChart,
    surface: &DrawingArea<B, Shift>,
    (left, top): (i32, i32),
) -> DrawResult {
    let title = (FONT, 14).into_font().color(&INK);
    surface
        .draw_text(&chart.title, &title, (left + 24, top + 4))
        .map_err(text)?;
    let small = (FONT, 12).into_font().color(&INK);
    surface
        .draw_text(&chart.unit, &small, (left + 24, top + 23))
        .map_err(text)?;
    let highest = chart
        .bars
        .iter()
        .map(|bar| bar.summary.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(BARS.1 - BARS.0) / highest;
    let at = |value: f64| left + BARS.0 + (value * scale).round() as i32;
    let name_style = small.pos(Pos::new(HPos::Right, VPos::Center));
    let value_style = small.pos(Pos::new(HPos::Left, VPos::Center));
    let row = ROW.cast_signed();
    for (index, bar) in chart.bars.iter().enumerate() {
        let y = top + (CHART_TITLE + ROW * index as u32).cast_signed();
        let middle = y + row / 2;
        let colour = if bar.ours { COLOURS[0] } else { COLOURS[4] };
        let corners = [(at(0.0), y + 6), (at(bar.summary.median), y + row - 6)];
        surface
            .draw(&Rectangle::new(corners, colour.filled()))
            .map_err(text)?;
        for line in [
            vec![(at(bar.summary.min), middle), (at(bar.summary.max), middle)],
            vec![
                (at(bar.summary.min), middle - 5),
                (at(bar.summary.min), middle + 5),
            ],
            vec![
                (at(bar.summary.max), middle - 5),
                (at(bar.summary.max), middle + 5),
            ],
        ] {
            surface
                .draw(&PathElement::new(line, INK.stroke_width(1)))
                .map_err(text)?;
        }
        let position = (left + BARS.0 - 8, middle);
        surface
            .draw_text(&bar.name, &name_style, position)
            .map_err(text)?;
        let value = figure(bar.summary.median);
        surface
            .draw_text(&value, &value_style, (at(bar.summary.max) + 8, middle))
            .map_err(text)?;
    }
    Ok(())
}

/// Formats a number with three significant digits.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let bar = |name: &str, runs: &[f64]| Bar {
            name: name.into(),
            summary: Summary::of(runs).unwrap(),
            ours: name == "ikv-fabric",
        };
        let chart = FigureChart {
            title: "vhost – vhost, 64 B, split ring".into(),
            unit: "million frames/s, more is better".into(),
            bars: vec![
                bar("ikv-fabric", &[12.0, 13.0, 12.5]),
                bar("testpmd", &[11.0, 11.5, 10.0]),
            ],
        };
        for (name, start) in [("a.svg", &b"<svg"[..]), ("a.png", b"\x89PNG")] {
            let path = folder.path().join(name);
            comparison(
                &[chart.clone(), chart.clone()],
                "Side by side",
                "five runs",
                &path,
            )
            .unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(start));
        }
        let wrong = folder.path().join("a.gif");
        assert!(
            comparison(&[chart], "", "", &wrong)
                .unwrap_err()
                .to_string()
                .contains(".svg")
        );
    }
}

//! The picture of a side-by-side run: for each case a panel, in it a bar for each contestant.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{COLOURS, Drawn, FONT, INK, Picture, save, text};
use crate::BenchError;
use crate::spread::Spread;

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What was measured.
    pub title: String,
    /// What is better: the longer bar, or the shorter.
    pub unit: String,
    /// Contestants.
    pub bars: Vec<Bar>,
}

/// One contestant's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Its runs.
    pub spread: Spread,
    /// It is ours.
    pub ours: bool,
}

/// In pixels.
const COLUMNS: usize = 3;
const WIDTH: u32 = 1280;
const HEAD: u32 = 64;
const PANEL_HEAD: u32 = 44;
const ROW: u32 = 30;

/// Where bars begin and end in a panel.
const BARS: (i32, i32) = (132, 340);

/// Draws the panels; `heading` and `below` stand above them.
///
/// # Errors
/// When the file cannot be written, or its name ends neither in .svg nor in .png.
pub fn comparison(
    panels: &[Panel],
    heading: &str,
    below: &str,
    path: &Path,
) -> Result<(), BenchError> {
    let rows = panels.len().div_ceil(COLUMNS) as u32;
    let picture = Comparison {
        panels,
        heading,
        below,
    };
    save(
        &picture,
        path,
        (WIDTH, HEAD + rows * picture.panel_height() + 16),
    )
}

struct Comparison<'p> {
    panels: &'p [Panel],
    heading: &'p str,
    below: &'p str,
}

impl Comparison<'_> {
    fn panel_height(&self) -> u32 {
        let bars = self
            .panels
            .iter()
            .map(|panel| panel.bars.len())
            .max()
            .unwrap_or(1);
        PANEL_HEAD + ROW * bars as u32 + 16
    }
}

impl Picture for Comparison<'_> {
    fn draw<B: DrawingBackend>(&self, surface: &DrawingArea<B, Shift>) -> Drawn {
        let big = (FONT, 20).into_font().color(&INK);
        surface
            .draw_text(self.heading, &big, (24, 12))
            .map_err(text)?;
        let small = (FONT, 13).into_font().color(&INK);
        surface
            .draw_text(self.below, &small, (24, 40))
            .map_err(text)?;
        for (index, panel) in self.panels.iter().enumerate() {
            let x = (index % COLUMNS) as u32 * (WIDTH / COLUMNS as u32);
            let y = HEAD + (index / COLUMNS) as u32 * self.panel_height();
            draw_panel(panel, surface, (x.cast_signed(), y.cast_signed()))?;
        }
        Ok(())
    }
}

fn draw_panel<B: DrawingBackend>(
    panel: &Panel,
    surface: &DrawingArea<B, Shift>,
    (left, top): (i32, i32),
) -> Drawn {
    let title = (FONT, 14).into_font().color(&INK);
    surface
        .draw_text(&panel.title, &title, (left + 24, top + 4))
        .map_err(text)?;
    let small = (FONT, 12).into_font().color(&INK);
    surface
        .draw_text(&panel.unit, &small, (left + 24, top + 23))
        .map_err(text)?;
    let highest = panel
        .bars
        .iter()
        .map(|bar| bar.spread.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = f64::from(BARS.1 - BARS.0) / highest;
    let at = |value: f64| left + BARS.0 + (value * scale).round() as i32;
    let name_style = small.pos(Pos::new(HPos::Right, VPos::Center));
    let value_style = small.pos(Pos::new(HPos::Left, VPos::Center));
    let row = ROW.cast_signed();
    for (index, bar) in panel.bars.iter().enumerate() {
        let y = top + (PANEL_HEAD + ROW * index as u32).cast_signed();
        let middle = y + row / 2;
        let colour = if bar.ours { COLOURS[0] } else { COLOURS[4] };
        let corners = [(at(0.0), y + 6), (at(bar.spread.median), y + row - 6)];
        surface
            .draw(&Rectangle::new(corners, colour.filled()))
            .map_err(text)?;
        for line in [
            vec![(at(bar.spread.min), middle), (at(bar.spread.max), middle)],
            vec![
                (at(bar.spread.min), middle - 5),
                (at(bar.spread.min), middle + 5),
            ],
            vec![
                (at(bar.spread.max), middle - 5),
                (at(bar.spread.max), middle + 5),
            ],
        ] {
            surface
                .draw(&PathElement::new(line, INK.stroke_width(1)))
                .map_err(text)?;
        }
        let place = (left + BARS.0 - 8, middle);
        surface
            .draw_text(&bar.name, &name_style, place)
            .map_err(text)?;
        let value = figure(bar.spread.median);
        surface
            .draw_text(&value, &value_style, (at(bar.spread.max) + 8, middle))
            .map_err(text)?;
    }
    Ok(())
}

/// A number with three digits.
pub fn figure(value: f64) -> String {
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
            spread: Spread::of(runs).unwrap(),
            ours: name == "ikv-fabric",
        };
        let panel = Panel {
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
                &[panel.clone(), panel.clone()],
                "Side by side",
                "five runs",
                &path,
            )
            .unwrap();
            assert!(std::fs::read(&path).unwrap().starts_with(start));
        }
        let wrong = folder.path().join("a.gif");
        assert!(
            comparison(&[panel], "", "", &wrong)
                .unwrap_err()
                .to_string()
                .contains(".svg")
        );
    }
}

//! The plot of one measurement: throughput by frame size, and latency by frame size and load.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{COLOURS, DrawResult, FAINT, FONT, INK, Picture, save, text};
use crate::BenchError;
use crate::report::{LoadReport, SizeReport, count, time};

/// Width and height in pixels.
const SIZE: (u32, u32) = (1280, 620);

/// Height of the title in pixels.
const TITLE: u32 = 64;

/// Draws a report as SVG or PNG.
///
/// # Errors
/// When the file cannot be written, or its name ends neither in .svg nor in .png.
pub fn report(report: &LoadReport, path: &Path) -> Result<(), BenchError> {
    save(report, path, SIZE)
}

type Chart<'c, B, Y> = ChartContext<'c, B, Cartesian2d<RangedCoordf64, Y>>;

impl Picture for LoadReport {
    fn draw<B: DrawingBackend>(&self, surface: &DrawingArea<B, Shift>) -> DrawResult {
        let (title, rest) = surface.split_vertically(TITLE);
        let big = (FONT, 20).into_font().color(&INK);
        let heading = format!("{}: {} – {}", self.cable, self.ends[0], self.ends[1]);
        title.draw_text(&heading, &big, (24, 12)).map_err(text)?;
        let small = (FONT, 13).into_font().color(&INK);
        let below = format!("{} · {}", self.settings, self.machine);
        title.draw_text(&below, &small, (24, 40)).map_err(text)?;
        let sizes: Vec<_> = self
            .sizes
            .iter()
            .filter(|size| size.throughput.is_some())
            .collect();
        if sizes.is_empty() {
            return Err("there are no figures to draw".into());
        }
        let (left, right) = rest.split_horizontally(SIZE.0 / 2);
        throughput(&sizes, &left)?;
        if sizes.iter().any(|size| !size.latency.is_empty()) {
            latency(&sizes, &right)?;
        }
        Ok(())
    }
}

fn throughput<B: DrawingBackend>(
    sizes: &[&SizeReport],
    area: &DrawingArea<B, Shift>,
) -> DrawResult {
    let gbits = |rate: f64, size: usize| rate * size as f64 * 8.0 / 1e9;
    let highest = sizes
        .iter()
        .filter_map(|size| Some(size.throughput.as_ref()?.bits_per_second / 1e9))
        .fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .caption(
            "Throughput, in frames/s above the bars",
            (FONT, 15).into_font().color(&INK),
        )
        .build_cartesian_2d(0.0..sizes.len() as f64, 0.0..(highest * 1.15).max(1e-3))
        .map_err(text)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc("Gbit/s")
        .axis_style(FAINT)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()
        .map_err(text)?;
    for (column, size) in sizes.iter().enumerate() {
        let rates = [
            size.throughput
                .as_ref()
                .map(|found| found.frames_per_second),
            size.no_drop.as_ref().map(|found| found.frames_per_second),
        ];
        for (index, rate) in rates.into_iter().enumerate() {
            let Some(rate) = rate else { continue };
            let from = column as f64 + 0.12 + 0.39 * index as f64;
            let top = gbits(rate, size.size);
            let bar = Rectangle::new([(from, 0.0), (from + 0.37, top)], COLOURS[index].filled());
            chart.draw_series([bar]).map_err(text)?;
            write_at(
                &chart,
                (from + 0.185, top),
                (0, -4),
                VPos::Bottom,
                &count(rate),
            )?;
        }
        write_at(
            &chart,
            (column as f64 + 0.5, 0.0),
            (0, 18),
            VPos::Top,
            &format!("{} B", size.size),
        )?;
    }
    legend(
        area,
        &["as much as goes through", "highest rate without loss"],
    )
}

fn latency<B: DrawingBackend>(sizes: &[&SizeReport], area: &DrawingArea<B, Shift>) -> DrawResult {
    let all = || sizes.iter().flat_map(|size| &size.latency);
    let micros = |nanoseconds: u64| (nanoseconds as f64 / 1e3).max(0.01);
    let lowest = all()
        .map(|found| micros(found.p50))
        .fold(f64::MAX, f64::min);
    let highest = all().map(|found| micros(found.max)).fold(0.0, f64::max);
    let range = (lowest / 2.0..highest * 2.0).log_scale();
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .caption(
            "One-way latency: p50, p99, p99.9, max",
            (FONT, 15).into_font().color(&INK),
        )
        .build_cartesian_2d(0.0..sizes.len() as f64, range)
        .map_err(text)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .axis_style(FAINT)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .y_label_formatter(&|micros| time((micros * 1e3).round() as u64))
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()
        .map_err(text)?;
    let mut loads: Vec<&str> = Vec::new();
    for (column, size) in sizes.iter().enumerate() {
        let share = 0.8 / size.latency.len().max(1) as f64;
        for (index, found) in size.latency.iter().enumerate() {
            if !loads.contains(&found.load.as_str()) {
                loads.push(&found.load);
            }
            let colour = COLOURS[index % COLOURS.len()];
            let x = column as f64 + 0.1 + share * (index as f64 + 0.5);
            let marks = [found.p50, found.p99, found.p99_9, found.max].map(micros);
            let line = PathElement::new(vec![(x, marks[0]), (x, marks[3])], colour.stroke_width(2));
            chart.draw_series([line]).map_err(text)?;
            let points = marks.iter().zip([6, 5, 4, 3]);
            let points = points.map(|(y, radius)| Circle::new((x, *y), radius, colour.filled()));
            chart.draw_series(points).map_err(text)?;
            write_at(&chart, (x, marks[0]), (0, 10), VPos::Top, &time(found.p50))?;
        }
        let label = format!("{} B", size.size);
        write_at(
            &chart,
            (column as f64 + 0.5, lowest / 2.0),
            (0, 18),
            VPos::Top,
            &label,
        )?;
    }
    let loads: Vec<_> = loads.iter().map(|load| format!("at {load}")).collect();
    legend(area, &loads.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Writes a centred line near a point of the chart, `by` pixels away.
fn write_at<B, Y>(
    chart: &Chart<'_, B, Y>,
    point: (f64, f64),
    by: (i32, i32),
    side: VPos,
    line: &str,
) -> DrawResult
where
    B: DrawingBackend,
    Y: Ranged<ValueType = f64>,
{
    let (x, y) = chart.backend_coord(&point);
    let style = (FONT, 12)
        .into_font()
        .color(&INK)
        .pos(Pos::new(HPos::Center, side));
    let (left, top) = chart.plotting_area().get_base_pixel();
    let position = (x - left + by.0, y - top + by.1);
    chart
        .plotting_area()
        .strip_coord_spec()
        .draw(&Text::new(line.to_owned(), position, style))
        .map_err(text)
}

/// Writes the names of the colours along the lower edge of an area.
fn legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, names: &[&str]) -> DrawResult {
    let (_, height) = area.dim_in_pixel();
    let (mut x, y) = (84, height.cast_signed() - 22);
    let style = (FONT, 13).into_font().color(&INK);
    for (name, colour) in names.iter().zip(COLOURS.iter().cycle()) {
        area.draw(&Rectangle::new([(x, y), (x + 12, y + 12)], colour.filled()))
            .map_err(text)?;
        area.draw_text(name, &style, (x + 18, y - 1))
            .map_err(text)?;
        x += 42 + 8 * i32::try_from(name.chars().count()).unwrap_or(0);
    }
    Ok(())
}

//! Plots of results, as SVG or PNG. The program contains the font, as a server may have none.

mod comparison;
mod report;

use std::path::Path;
use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::BenchError;

pub(crate) use comparison::figure;
pub use comparison::{Bar, FigureChart, comparison};
pub use report::report;

/// The font's family. A viewer of an SVG substitutes its own font for this generic one.
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xd5, 0xda, 0xe0);

/// Colours that people with colour blindness can distinguish (Okabe and Ito).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x8c, 0x95, 0xa0),
];

/// Set once the plotting library knows the font.
static REGISTERED: OnceLock<()> = OnceLock::new();

/// The error as text, because the errors of SVG and PNG drawing have different types.
type DrawResult = Result<(), String>;

/// A plot that can be drawn as SVG and as PNG.
trait Picture {
    fn draw<B: DrawingBackend>(&self, surface: &DrawingArea<B, Shift>) -> DrawResult;
}

fn save(picture: &impl Picture, path: &Path, size: (u32, u32)) -> Result<(), BenchError> {
    let failed = |why: String| BenchError::Plot {
        path: path.display().to_string(),
        why,
    };
    REGISTERED.get_or_init(|| {
        // Registration fails only on bytes that are not a font.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let result = match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => draw_on(picture, &SVGBackend::new(path, size).into_drawing_area()),
        Some("png") => draw_on(picture, &BitMapBackend::new(path, size).into_drawing_area()),
        _ => Err("its name must end in .svg or .png".into()),
    };
    result.map_err(failed)
}

fn draw_on<B: DrawingBackend>(
    picture: &impl Picture,
    surface: &DrawingArea<B, Shift>,
) -> DrawResult {
    surface.fill(&WHITE).map_err(text)?;
    picture.draw(surface)?;
    surface.present().map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

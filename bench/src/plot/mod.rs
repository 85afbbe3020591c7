//! Pictures of results, as SVG or PNG. The font is inside this program: a server has none.

mod comparison;
mod report;

use std::path::Path;
use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::BenchError;

pub use comparison::{Bar, Panel, comparison, figure};
pub use report::report;

/// Name of the font, in SVG one that every viewer replaces by its own.
const FONT: &str = "sans-serif";

const INK: RGBColor = RGBColor(0x22, 0x2b, 0x36);
const FAINT: RGBColor = RGBColor(0xd5, 0xda, 0xe0);

/// Told apart by people with any kind of sight (Okabe and Ito).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x8c, 0x95, 0xa0),
];

/// The font is known to the library.
static REGISTERED: OnceLock<()> = OnceLock::new();

/// What went wrong while drawing, as text: the back ends have errors of different types.
type Drawn = Result<(), String>;

/// A picture that can be drawn on whatever surface.
trait Picture {
    fn draw<B: DrawingBackend>(&self, surface: &DrawingArea<B, Shift>) -> Drawn;
}

fn save(picture: &impl Picture, path: &Path, size: (u32, u32)) -> Result<(), BenchError> {
    let failed = |why: String| BenchError::Plot {
        path: path.display().to_string(),
        why,
    };
    REGISTERED.get_or_init(|| {
        // It fails on bytes that are no font; these are one.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
    });
    let drawn = match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => on(picture, &SVGBackend::new(path, size).into_drawing_area()),
        Some("png") => on(picture, &BitMapBackend::new(path, size).into_drawing_area()),
        _ => Err("its name must end in .svg or .png".into()),
    };
    drawn.map_err(failed)
}

fn on<B: DrawingBackend>(picture: &impl Picture, surface: &DrawingArea<B, Shift>) -> Drawn {
    surface.fill(&WHITE).map_err(text)?;
    picture.draw(surface)?;
    surface.present().map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

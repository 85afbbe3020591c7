//! This build against others that could carry the same frames: what `make bench` runs.
//!
//! Each contestant's run is a script of bench/peers, which prints `key=number` lines.
//! The contestants alternate, several rounds over, so that disturbances on the machine affect all
//! of them. The report contains the median and the range of each figure.

mod groups;
mod many_idle;
mod markdown;
mod runs;
mod tap_load;

pub use groups::{Group, Tools, groups};
pub use many_idle::measure_many_idle;
pub use markdown::{Versions, charts, markdown};
pub use runs::{Options, Outcome, Outcomes, run};
pub use tap_load::load_taps;

/// The name of this build among the contestants.
const OURS: &str = "ikv-fabric";

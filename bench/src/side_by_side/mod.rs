//! This build against others that could carry the same frames: what `make bench` runs.
//!
//! Contestants take turns within one run, several times over, so that whatever else the machine
//! does meets all of them. Each turn is a script of bench/peers that prints `key=number`; what is
//! reported is the median and how far the turns lie apart.

mod cases;
mod crowd;
mod markdown;
mod pump;
mod turns;

pub use cases::{Figure, Group, Job, Tools, Versus, groups};
pub use crowd::crowd;
pub use markdown::{Versions, markdown, panels};
pub use pump::pump;
pub use turns::{Options, Outcome, Outcomes, run};

/// What this build is called among the contestants.
pub const OURS: &str = "ikv-fabric";

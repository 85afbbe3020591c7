//! `ikv-fabric converge`: how fast the fabric finds another way when a cable is cut.

mod flow;
mod report;
mod sight;
mod table;
#[cfg(test)]
mod tests;

pub use flow::FlowReport;
pub use report::{Ended, Moment, Report};

//! How jitter is distributed: [`Distribution`].

use std::sync::Arc;

use super::settings::{ImpairError, range};

/// What a table's values are multiples of: this many to the deviation (`NETEM_DIST_SCALE`).
pub(super) const SCALE: i64 = 8192;
/// Most values of a table (`NETEM_DIST_MAX`).
pub const MAX_TABLE: usize = 16384;

/// How jitter is distributed around the delay.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Distribution {
    /// Anything within the jitter either way, each as likely.
    #[default]
    Uniform,
    /// Bell-shaped.
    Normal,
    /// Most frames a little early, a few very late.
    Pareto,
    /// A quarter [`Distribution::Normal`], three quarters [`Distribution::Pareto`].
    ParetoNormal,
    /// The inverse of a cumulative distribution in equal steps, in 1/8192 of the jitter: what
    /// a `.dist` file of iproute2 holds. 1..=[`MAX_TABLE`] values.
    Table(Arc<[i16]>),
}

impl Distribution {
    pub(super) fn check(&self, key: &'static str) -> Result<(), ImpairError> {
        match self {
            Distribution::Table(table) if table.is_empty() || table.len() > MAX_TABLE => {
                let bounds = format!("1..={MAX_TABLE} values long");
                Err(range(key, format!("of {} values", table.len()), bounds))
            }
            _ => Ok(()),
        }
    }

    /// How many deviations a value is from the mean at most.
    pub(super) fn reach(&self) -> u32 {
        match self {
            Distribution::Uniform => 1,
            _ => 4,
        }
    }
}

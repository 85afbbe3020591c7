//! Making another fabric of a running one.

use serde::{Deserialize, Serialize};

use model::config::Config;
use model::difference::{Difference, Refusal};

/// Asks for another configuration. It comes as a whole: the fabric reads no file for a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Everything that can be chosen; filters compiled, tables read.
    pub config: Config,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ApplyAnswer {
    /// Keys that cannot be changed while the fabric runs. Where there are some, nothing is done.
    pub refused: Vec<Refusal>,
    /// From what runs to what is wished for.
    pub difference: Difference,
    /// It was done.
    pub applied: bool,
    /// What the user should know of it.
    pub notes: Vec<String>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// User id, as the kernel knows it (`SO_PEERCRED`); none if it would not say.
    pub uid: Option<u32>,
}

//! Giving a running fabric another configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use model::config::{Config, Said};
use model::difference::{Difference, Refusal};

/// Asks for another configuration. It has all values in it: the fabric, which may run as root,
/// reads no file that a client names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The configuration, with filters compiled and tables read.
    pub config: Config,
    /// Which of its keys were said, so that the others stay as they run (see [`Config::over`]). `None`
    /// if the configuration counts as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
    /// Only answer what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What an `apply` has done, or would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyAnswer {
    /// Keys that cannot change while the fabric runs. If there are any, nothing was done.
    pub refused: Vec<Refusal>,
    /// What differs between the running configuration and the requested one.
    pub difference: Difference,
    /// Whether it was done.
    pub applied: bool,
    /// What the user should know about it.
    pub notes: Vec<String>,
}

/// The process at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its user id as the kernel knows it (`SO_PEERCRED`, unix(7)); `None` if that failed.
    pub uid: Option<u32>,
}

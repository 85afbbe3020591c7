//! What may change about a cable while it is in use: its state and its impairments. The API, the
//! `[[cable]]` tables of the configuration and scenarios all ask for changes in these terms.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::impairment::{ImpairKeys, KeysInJson};

/// The state of a cable, of both lanes together.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum CableState {
    /// Frames pass.
    Up,
    /// Cut: the ends lose carrier, no frame passes.
    Down,
    /// Carrier stays, frames vanish.
    Blackhole,
}

impl CableState {
    /// The name in JSON, on the command line and in the TOML file.
    pub fn name(self) -> &'static str {
        match self {
            CableState::Up => "up",
            CableState::Down => "down",
            CableState::Blackhole => "blackhole",
        }
    }
}

/// Asks for several changes at once: all of them take effect at the same instant, or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CableBatch {
    /// Applied in this order; of several changes to one cable the last wins.
    pub changes: Vec<CableChange>,
}

impl CableBatch {
    /// A batch of one change: the impairment of `cable`.
    pub fn of(cable: &str, set: ImpairmentChange) -> Self {
        let change = CableChange {
            cable: cable.into(),
            state: None,
            impair: Some(set),
        };
        CableBatch {
            changes: vec![change],
        }
    }
}

/// A change to one cable; parts that are left out stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CableChange {
    /// The cable, by its name, either end or an alias.
    pub cable: String,
    /// The new state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CableState>,
    /// The change to its impairments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impair: Option<ImpairmentChange>,
}

/// A change to the impairment of one lane or both. Keys that are left out keep their value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImpairmentChange {
    /// The port where the impaired frames enter, by name or alias. Default: both ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether to remove every key that was set before.
    pub clear: bool,
    /// The keys to set.
    #[schemars(with = "KeysInJson")]
    pub set: ImpairKeys,
}

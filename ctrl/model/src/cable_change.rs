//! What may change about a cable while it is in use: its state and its impairments. The API, the
//! `[[cable]]` tables of the configuration and scenarios all ask for changes in these terms.

use serde::{Deserialize, Serialize};

use crate::impairment::ImpairKeys;

/// State of a cable.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, clap::ValueEnum,
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
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            CableState::Up => "up",
            CableState::Down => "down",
            CableState::Blackhole => "blackhole",
        }
    }
}

/// Asks for several changes at once: all of them take effect at the same instant, or none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CableBatch {
    /// In this order, where they are of one cable.
    pub changes: Vec<CableChange>,
}

impl CableBatch {
    /// The impairment of one cable.
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

/// What is to become of one cable.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CableChange {
    /// By name or either end.
    pub cable: String,
    /// Its state, if that is to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CableState>,
    /// Its impairments, if those are to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impair: Option<ImpairmentChange>,
}

/// Asks for an impairment. Keys that are left out keep their value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImpairmentChange {
    /// The port whose frames are meant, by name or alias; both lanes without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Take away all that was set before.
    pub clear: bool,
    /// What to set.
    pub set: ImpairKeys,
}

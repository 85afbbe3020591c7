//! What can be done to a switch's power: by a command, over the API, by IPMI.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What can be done to a switch's power.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PowerAction {
    /// Start it.
    On,
    /// Pull the plug: its neighbours lose carrier. The guest loses nothing: its disks are read-only.
    Off,
    /// Press the reset button.
    Reset,
    /// Off, then on: a new QEMU.
    Cycle,
}

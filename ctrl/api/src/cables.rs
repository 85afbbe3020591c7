//! Cables: their counters, and what became of changes to them. The changes themselves are types
//! of [`model::cable_change`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use model::cable_change::CableState;
use model::impairment::{ImpairKeys, KeysInJson};

use crate::AccuracyReport;

/// One cable in `cables --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CableReport {
    /// Its own name: `iksb12`.
    pub name: String,
    /// The state that was last asked for.
    pub state: CableState,
    /// Why no frame passes whatever the state: a fault of the program closed it. Setting the state to
    /// `up` opens it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<String>,
    /// From the first end to the second, then back.
    pub lanes: [LaneReport; 2],
}

/// One direction of a cable. `frames_in = frames_out + held + all drops`, at every instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaneReport {
    /// The port where frames enter: `ikst12`.
    pub from: String,
    /// The port where they leave.
    pub to: String,
    /// Frames that entered, and copies that an impairment made of them.
    pub frames_in: u64,
    /// Bytes of these frames, without FCS.
    pub bytes_in: u64,
    /// Frames that left.
    pub frames_out: u64,
    /// Frames that an impairment holds back now.
    pub held: u64,
    /// Dropped frames by reason; a reason without any is left out.
    pub drops: BTreeMap<String, u64>,
    /// Copies that an impairment made; `frames_in` includes them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicated: u64,
    /// Frames in which an impairment flipped a bit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub corrupted: u64,
    /// Frames that an impairment has held back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delayed: u64,
    /// Frames that overtook others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reordered: u64,
    /// Frames that were marked as having met congestion (ECN) instead of being lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub marked: u64,
    /// How often the lane waited because it had used up its budget of a worker while others had frames.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub throttled: u64,
    /// The impairment, if the lane has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<KeysInJson>")]
    pub impairment: Option<ImpairKeys>,
    /// How close the impairment comes to what was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyReport>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Asks for a state of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CableStateRequest {
    /// The state to put it in.
    pub state: CableState,
}

/// The answer to a [`CableStateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CableChanged {
    /// The cable's own name.
    pub name: String,
    /// Its state now.
    pub state: CableState,
    /// Ends whose carrier could not be changed, and what follows from that.
    pub notes: Vec<String>,
}

/// The answer to a [`CableBatch`](model::cable_change::CableBatch): all its changes were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CableBatchDone {
    /// When they took effect, in ns since 1970-01-01 UTC.
    pub at_ns: u64,
    /// Ends whose carrier could not be changed, and what follows from that.
    pub notes: Vec<String>,
}

/// The impairment of a lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaneImpairment {
    /// The cable's own name.
    pub cable: String,
    /// The port where frames enter.
    pub from: String,
    /// The port where they leave.
    pub to: String,
    /// The keys that are set; empty if the lane is not impaired.
    #[schemars(with = "KeysInJson")]
    pub impairment: ImpairKeys,
}

//! The one API: HTTP and JSON on a unix socket. Every command that asks a running fabric
//! something is its client ([`Client`]); the server side ([`serve`]) knows the fabric only by
//! the [`Backend`] trait.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`] |
//! | `GET /v1/topology` | the schema of `topology --json` |
//! | `GET /v1/cables?name=…` | list of [`CableReport`]; `name` repeats, any name or alias |
//! | `PUT /v1/cables/NAME/state` with [`CableStateRequest`] | [`CableChanged`] |
//! | `PUT /v1/cables/NAME/impairment` with [`ImpairmentChange`] | both lanes' [`LaneImpairment`] |
//! | `GET /v1/impairments` | list of [`LaneImpairment`]: every lane that has one |
//! | `POST /v1/step` with [`CableBatch`] | [`CableBatchDone`]; all its changes have been made at once, or none |
//! | `POST /v1/apply` with [`ApplyRequest`] | [`ApplyAnswer`], once it is done; a client that goes away does not stop it |
//! | `GET /v1/places` | [`Positions`]: where servers plug in, and who is there |
//! | `GET /v1/vm-args/PLACE?nic=…` with the fields of [`PlugOptions`] | list of QEMU's arguments |
//! | `GET /v1/ssh` | [`SshAccess`] |
//! | `GET /v1/ipmi` | [`IpmiAccess`]: how the BMCs are reached, and what they do |
//! | `POST /v1/nodes/NODE/exec` with [`ExecRequest`] | [`ExecAnswer`] |
//! | `PUT /v1/nodes/NODE/power` with [`PowerRequest`] | [`NodeStatus`] |
//! | `GET /v1/nodes/NODE/console`, upgraded | the serial console's bytes, both ways |
//! | `POST /v1/capture` with [`CaptureRequest`], upgraded | frames: [`capture`] |
//! | `GET /v1/recorder` | [`RecorderStatus`] |
//! | `POST /v1/recorder/dump` with [`DumpRequest`], upgraded | frames: [`capture`] |
//! | `GET /v1/recorder/dumps/NAME`, upgraded | the same of a dump that was kept |
//! | `PUT /v1/recorder/triggers` with [`TriggersRequest`] | [`RecorderStatus`] |
//!
//! Whatever fails answers with a 4xx or 5xx status and [`Failure`]; only what is no HTTP at all,
//! or has a head of more than 128 KiB, is answered with a bare status, or by closing the connection.
//! There may be 128 clients at once, those of captures and consoles included. A request has 10 s
//! to come whole, and a body at most 2 MiB.

mod apply;
mod backend;
pub mod capture;
mod client;
mod error;
mod impair;
mod ipmi;
mod positions;
pub mod recorder;
pub mod routes;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use model::cable_change::CableState;
use model::impairment::ImpairKeys;

pub use apply::{ApplyAnswer, ApplyRequest, Peer};
pub use backend::{Backend, ConsoleStream, Recording};
pub use capture::{CaptureCount, CaptureInterface, CaptureRequest, CaptureStart};
pub use client::{Client, ClientError, default_socket, own_socket};
pub use error::ApiError;
pub use impair::{
    AccuracyReport, CableBatchDone, DelayReport, LaneImpairment, LossReport, RateReport,
};
pub use ipmi::{BmcReport, IpmiAccess};
pub use positions::{Position, Positions};
pub use recorder::{DumpRequest, RecorderStatus, Trigger, TriggersRequest};
pub use server::serve;

/// `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Every planned switch runs, has all its inter-switch sessions, and every loopback is
    /// reachable from `internet`.
    pub ready: bool,
    /// The switches, in the topology's order; none for a bare patch panel.
    pub nodes: Vec<NodeStatus>,
    /// Number of cables.
    pub cables: usize,
    /// Number of forwarding threads.
    pub workers: usize,
    /// What an `apply` that is under way does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying: Option<String>,
}

/// One switch in [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `leaf1`.
    pub name: String,
    /// `internet`, `spine` or `leaf`.
    pub role: String,
    /// What the VM does.
    pub state: NodeState,
    /// Its inter-switch sessions; those with servers never count.
    pub bgp: Sessions,
    /// What went wrong, where something did. Free of control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What a switch VM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Started; its guest agent has not answered yet.
    Booting,
    /// Its guest agent answers.
    Running,
    /// QEMU ended; it will be started again.
    Restarting,
    /// Switched off by `power off` or by the guest itself.
    Off,
    /// Given up.
    Failed,
}

impl NodeState {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Booting => "booting",
            NodeState::Running => "running",
            NodeState::Restarting => "restarting",
            NodeState::Off => "off",
            NodeState::Failed => "failed",
        }
    }
}

/// Established against expected BGP sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Established now.
    pub established: usize,
    /// Planned.
    pub expected: usize,
}

/// One cable in `cables --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CableReport {
    /// `iksb12`.
    pub name: String,
    /// What the operator made of it.
    pub state: CableState,
    /// From the first end to the second, then back.
    pub lanes: [LaneReport; 2],
}

/// One direction of a cable. `frames_in = frames_out + held + all drops`, at every instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// Port where frames enter: `ikst12`.
    pub from: String,
    /// Port where they leave.
    pub to: String,
    /// Frames that entered.
    pub frames_in: u64,
    /// Their bytes, without FCS.
    pub bytes_in: u64,
    /// Frames that left.
    pub frames_out: u64,
    /// Frames that wait.
    pub held: u64,
    /// Dropped frames by reason.
    pub drops: BTreeMap<String, u64>,
    /// Of the frames that entered: copies made by an impairment.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicated: u64,
    /// Frames of which a bit was flipped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub corrupted: u64,
    /// Frames that were made to wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub delayed: u64,
    /// Frames that overtook others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reordered: u64,
    /// Frames that were marked (ECN) instead of lost.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub marked: u64,
    /// What the lane does to frames on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impairment: Option<ImpairKeys>,
    /// How well it does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<AccuracyReport>,
}

/// What an impairment did is told of lanes that have or had one.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Asks for a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CableStateRequest {
    /// The state.
    pub state: CableState,
}

/// What became of [`CableStateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CableChanged {
    /// The cable's own name.
    pub name: String,
    /// Its state now.
    pub state: CableState,
    /// Ends that could not be told, and what follows from that.
    pub notes: Vec<String>,
}

/// Where `ssh` finds keys and names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshAccess {
    /// An ssh_config(5) with one `Host` for each switch.
    pub config: String,
}

/// A command for a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments; no shell in between.
    pub argv: Vec<String>,
    /// Base64 of its standard input.
    #[serde(default)]
    pub stdin: String,
}

/// What the command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecAnswer {
    /// Its exit status, or 128 + the signal that ended it, as shells say it.
    pub status: i32,
    /// Base64 of its standard output.
    pub stdout: String,
    /// Base64 of its standard error.
    pub stderr: String,
    /// The answer was longer than the agent or we allow.
    pub truncated: bool,
}

/// Asks for a power state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// What to do.
    pub action: PowerAction,
}

/// What can be done to a switch's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PowerAction {
    /// Start it.
    On,
    /// Pull the plug.
    Off,
    /// Press the reset button.
    Reset,
    /// Off, then on.
    Cycle,
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One clear sentence with the way out.
    pub error: String,
}

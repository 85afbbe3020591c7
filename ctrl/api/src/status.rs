//! The state of a fabric and its switches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `status --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// Whether every planned switch runs and has all its inter-switch sessions, and every
    /// loopback is reachable from `internet`, nothing of the fabric itself has stopped, and nothing
    /// that it made on the host is gone.
    pub ready: bool,
    /// What is wrong, a sentence for each: workers and tasks of the fabric that have stopped and what is
    /// in `host`, which make it not ready, what was put back on the host lately, cables that were closed after a fault of the program, and the parts of
    /// the QEMUs' jail that this host does not offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What another program took from the host of what the fabric made there, or put in its way, a
    /// sentence for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<String>,
    /// The switches, in the topology's order; empty for `patch`.
    pub nodes: Vec<NodeStatus>,
    /// Number of cables.
    pub cables: usize,
    /// Number of forwarding threads.
    pub workers: usize,
    /// Bytes of memory that frames held back by impairments may take, all together.
    #[serde(default)]
    pub hold_memory: u64,
    /// How much of it lanes have taken. A lane keeps what it took until its impairment is changed or cleared.
    #[serde(default)]
    pub hold_memory_taken: u64,
    /// What an `apply` does at this moment; `None` if none is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying: Option<String>,
}

/// One switch in [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// `leaf1`.
    pub name: String,
    /// `internet`, `spine` or `leaf`.
    pub role: String,
    /// The state of its VM.
    pub state: NodeState,
    /// Since when it is in this state, in ns since 1970-01-01 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ns: Option<u64>,
    /// Its BGP sessions with other switches; those with servers never count.
    pub bgp: Sessions,
    /// What went wrong; empty if nothing did. Free of control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The answer to a request to end the fabric: it has begun to take everything away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stopping {
    /// Its process, in its own pid namespace.
    pub pid: u32,
}

/// The state of a switch's VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// QEMU was started; the guest agent has not answered yet.
    Booting,
    /// The guest agent answers.
    Running,
    /// QEMU has ended and will be started again.
    Restarting,
    /// Switched off by `power off`, or by the guest itself.
    Off,
    /// QEMU has ended and will not be started again.
    Failed,
}

impl NodeState {
    /// The word that stands for it in JSON and in tables.
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

/// A switch's BGP sessions with other switches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    /// Sessions that are established now.
    pub established: usize,
    /// Sessions that the topology plans.
    pub expected: usize,
}

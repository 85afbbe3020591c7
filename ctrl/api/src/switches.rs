//! How switches are reached: commands, power, SSH, IPMI.

use model::power::PowerAction;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an SSH client needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SshAccess {
    /// Path of an ssh_config(5) with one `Host` for each switch.
    pub config: String,
}

/// A command for a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// Program and arguments; no shell interprets them.
    pub argv: Vec<String>,
    /// What it reads from standard input, in base64.
    #[serde(default)]
    pub stdin: String,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecAnswer {
    /// Its exit status, or 128 + the number of the signal that ended it, as in a shell.
    pub status: i32,
    /// What it wrote to standard output, in base64.
    pub stdout: String,
    /// What it wrote to standard error, in base64.
    pub stderr: String,
    /// Whether it wrote more than the guest agent or the fabric passes on.
    pub truncated: bool,
}

/// Asks for a change of a switch's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerRequest {
    /// Which change.
    pub action: PowerAction,
}

/// What an IPMI client needs. The password itself is in a file that only the owner can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpmiAccess {
    /// The user name to log in with.
    pub user: String,
    /// The file that contains the password.
    pub password_file: PathBuf,
    /// The host's address on the BMCs' network, with its prefix length.
    #[schemars(with = "String")]
    pub address: Ipv4Net,
    /// Where a VM that manages the switches plugs in: `ikipmi`.
    pub plug: String,
    /// In the order of the switches.
    pub bmcs: Vec<BmcReport>,
}

/// A switch's BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BmcReport {
    /// The switch's name.
    pub node: String,
    /// Its UDP port.
    pub port: u16,
    /// Addresses at which it listens.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it answers.
    pub running: bool,
    /// Why it does not answer; empty if it does. Free of control characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

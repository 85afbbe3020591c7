//! How a VM is to be plugged into the fabric.

use serde::{Deserialize, Serialize};

/// How a VM is to be plugged in; what is left out is as by default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlugOptions {
    /// By what.
    pub nic: PlugKind,
    /// Its QEMU will run under TCG; matters to vhost-user alone.
    pub tcg: bool,
    /// Its memory in MiB; matters to vhost-user alone.
    pub memory_mib: u32,
}

impl Default for PlugOptions {
    fn default() -> Self {
        PlugOptions {
            nic: PlugKind::Tap,
            tcg: false,
            memory_mib: 1024,
        }
    }
}

/// By what a VM is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PlugKind {
    /// By a tap that the fabric made and QEMU opens by name.
    Tap,
    /// By the vhost-user socket beside it: rings in the VM's memory, no kernel on the path.
    VhostUser,
}

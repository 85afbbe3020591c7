//! How a VM, a switch's or a user's, is plugged into the fabric.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for what plugs a VM in; keys that are left out have the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PlugOptions {
    /// How the VM's NICs are plugged in. Default: taps.
    pub nic: PlugKind,
    /// Whether its QEMU will run under TCG; matters to vhost-user alone. Default: false.
    pub tcg: bool,
    /// Its memory in MiB; matters to vhost-user alone. Default: 1024.
    pub memory_mib: u32,
    /// The program that will run the VM. Default: QEMU.
    pub vmm: Vmm,
}

/// A program that runs VMs, and takes their NICs in a form of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// QEMU by its command line.
    #[default]
    Qemu,
    /// A libvirt domain: elements of its XML.
    Libvirt,
    /// Cloud Hypervisor by its command line.
    CloudHypervisor,
}

impl Default for PlugOptions {
    fn default() -> Self {
        PlugOptions {
            nic: PlugKind::Tap,
            tcg: false,
            memory_mib: 1024,
            vmm: Vmm::Qemu,
        }
    }
}

impl PlugOptions {
    /// Whether it is neither the fabric's owner nor root who opens the NICs, so that only
    /// `host.plug_group` lets the VM in. libvirt opens taps as root, but its QEMU, which connects to the
    /// sockets, runs as a user of its own.
    pub fn needs_group(&self) -> bool {
        self.vmm == Vmm::Libvirt && self.nic == PlugKind::VhostUser
    }
}

/// How a NIC is joined to its cable.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum PlugKind {
    /// By a tap on the host, which QEMU opens by name and where tcpdump can look on.
    Tap,
    /// By a vhost-user socket: rings in the VM's memory, no kernel on the path.
    VhostUser,
}

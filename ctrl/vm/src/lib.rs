//! The switch VMs: QEMU processes, what they are told, and how they are asked.
//!
//! ```text
//!  VmSpec ──argv──> setpriv ─> QEMU (uid of its own, seccomp)      per VM one task: supervisor.rs
//!                     ▲ inherits: taps, disks, three listening sockets
//!  Launcher ──────────┘
//!       ├ monitor  qmp.rs      power, links, "the guest reset / powered off / opened its agent port"
//!       ├ console  console.rs  serial line: ring of 64 KiB, any number of attached clients
//!       ├ BMC      bmc_line.rs the line to a BMC, if there is one: crate::bmc
//!       └ agent    agent.rs    exec in the guest; bgp.rs reads FRR's sessions through it
//! ```
//!
//! A VM is given everything as open descriptors, so its uid needs no access to any path but the
//! kernel's and the initrd's contents (mode `o+r` on the two files; their folders may be closed).
//! Of its vhost-user sockets it is given the folder, for it must find them again.
//! The sockets are bound here, in a folder that the uid cannot write: a guest that has taken over
//! its QEMU cannot put something else in their place.
//!
//! Under TCG a VM is not booted but restored from the state of a template of its shape:
//! [`template`] has how, [`states`] where they are.
//!
//! Order of calls: [`accel::decide`] → [`Launcher::probe`] → [`keys::FabricKeys`] and
//! [`seed::write`] → [`Vm::start`] for each [`VmSpec`] → [`Vm::watch`] until running →
//! [`bgp::read`] → [`Vm::stop`] for all at once.
//!
//! A VM that runs can get NICs and lose them ([`Vm::plug`]), or have another make-up from its next
//! start on ([`Vm::respec`]).
//!
//! Everything that comes out of a guest is bounded in size, depth and time, and never shown raw.

pub mod accel;
pub mod agent;
pub mod bgp;
pub mod bmc;
mod bmc_line;
pub mod console;
pub mod image;
pub mod keys;
pub(crate) mod launch;
pub mod lifecycle;
mod line;
mod plug;
mod process;
pub mod qemu;
pub mod qmp;
pub mod seed;
pub mod spec;
pub mod ssh;
pub mod states;
pub(crate) mod stderr;
mod supervisor;
pub mod template;

pub use bmc_line::BmcLine;
pub use launch::{LaunchError, Launcher, OpenTap, strays};
pub use lifecycle::{PowerError, VmState};
pub use plug::{CannotPlug, PlugError};
pub use spec::{
    Display, Image, NIC_FOLDER, NicBackend, NicSpec, SpecError, VmSpec, nic_socket_name,
};
pub use supervisor::{Vm, VmStatus};

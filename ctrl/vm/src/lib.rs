//! The switch VMs: QEMU processes, the image they run, how they are controlled and asked.
//!
//! ```text
//!  VmSpec ──qemu.rs──> jail.rs ─> QEMU (uid of its own, seccomp)   one task for each VM: supervisor.rs
//!                       ▲ inherits: taps, disks, listening sockets
//!  Launcher ────────────┘
//!       ├ monitor  qmp.rs      power, links, "the guest reset / powered off / opened its agent port"
//!       ├ console  console.rs  serial line: ring of 64 KiB, any number of attached clients
//!       ├ BMC      bmc_line.rs the line to a BMC, if there is one: bmc/
//!       └ agent    agent.rs    exec in the guest; bgp.rs reads FRR's sessions through it
//! ```
//!
//! A VM inherits everything as open descriptors, so its uid needs no access to any path but to the
//! contents of kernel and initrd (mode `o+r` on the two files; their folders may be closed). Of its
//! vhost-user sockets it inherits the folder, because QEMU connects to them again and again. The fabric
//! binds the sockets, in a folder that the uid cannot write: a guest that has taken over its QEMU
//! cannot replace them.
//!
//! Under TCG a VM does not boot but is restored from the saved state of a template of its shape:
//! [`shape`] has what makes a shape, [`template`] how states are made, [`states`] where they are.
//!
//! Order of calls: [`accel::decide`] → [`image::ensure`] → [`Launcher::probe`] → [`keys::FabricKeys`]
//! and [`seed::write`] → [`Vm::start`] for each [`VmSpec`] → [`Vm::watch`] until running →
//! [`bgp::read`] → [`Vm::stop`] for all at once. A running VM can get NICs and lose them
//! ([`Vm::plug`]), or get another specification for its next start ([`Vm::respec`]).
//!
//! Everything that comes out of a guest is untrusted: bounded in size, depth and time, and escaped
//! before it is shown.
//!
//! This crate uses `model` (configuration, printable text), `host` (where programs are) and the taps
//! and namespaces of `dataplane`; `fabric` and the binary may use it.

pub mod accel;
pub mod agent;
pub mod bgp;
pub mod bmc;
mod bmc_line;
mod child;
pub mod console;
mod fingerprint;
mod handle;
pub mod image;
mod jail;
pub mod keys;
mod launch;
pub mod learned;
mod lifecycle;
mod line;
mod live;
mod plug;
mod process;
mod qemu;
mod qmp;
mod reports;
pub mod root_password;
pub mod seed;
pub mod shape;
pub mod spec;
pub mod ssh;
pub mod states;
mod stderr;
mod supervisor;
mod taps;
pub mod template;

pub use child::strays;
pub use handle::Vm;
pub use jail::Jail;
pub use launch::{LaunchError, Launcher};
pub use lifecycle::{PowerError, VmState};
pub use plug::{CannotPlug, PlugError};
pub use qmp::QmpError;
pub use spec::{
    Display, Image, NIC_FOLDER, NicBackend, NicSpec, SpecError, VmSpec, nic_socket_name,
};
pub use supervisor::VmStatus;
pub use taps::OpenTap;

//! Harness of the end-to-end tests: namespaces, fabrics, and machines that plug in.
//!
//! A [`Site`] is a machine in two namespaces, a [`Fabric`] the real program running on it, and a
//! [`Cli`] types commands there. A [`panel::PanelHost`] runs a patch panel without switches. A
//! [`Station`] (frames), an [`IpHost`] (smoltcp) or a [`ServerVm`] (QEMU) plugs in. A test waits
//! for an event with [`patience::until`], never for a fixed time.
//!
//! A test that needs what this machine lacks prints SKIP and the reason; under CI (`CI=true`) that
//! is a failure.

mod answer;
mod binary;
pub mod capturing;
mod cli;
mod debian_root;
pub mod dhcp;
mod diagnosis;
mod dice;
pub mod documents;
mod fabric;
mod flow;
mod host_plan;
pub mod host_state;
mod ip_host;
pub mod ipxe;
mod namespace_guest;
mod netns;
mod nic;
mod ordinary_user;
pub mod pace;
pub mod panel;
pub mod patience;
pub mod process;
mod pty;
pub mod raw_api;
mod report;
pub mod rights;
mod runtime;
mod server_vm;
mod site;
mod station;
mod super_frame;
mod testpmd;
mod vhost_wire;
mod vnc;
pub mod web_client;
mod wire;

pub use answer::Answer;
pub use binary::{executable_by_all, ikv_fabric};
pub use cli::Cli;
pub use debian_root::{DebianRoot, own_release, repository};
pub use dice::Dice;
pub use fabric::{Ended, Fabric};
pub use flow::{Flow, Passed, StopOnDrop, TwoWayFlow};
pub use host_plan::host_plan_input;
pub use host_state::HostState;
pub use ip_host::{IpHost, Lease};
pub use namespace_guest::NamespaceGuest;
pub use netns::{Netns, in_namespace, leave_namespace, run, shell};
pub use nic::{Nic, make_tap};
pub use ordinary_user::{OrdinaryUser, RootlessFabric};
pub use pty::Pty;
pub use report::{figure, say, skip};
pub use runtime::block_on;
pub use server_vm::{Plug, ServerNic, ServerVm};
pub use site::{HOST_OUTSIDE, LAN_BRIDGE, OUTSIDE, Site};
pub use station::Station;
pub use super_frame::SuperFrame;
pub use testpmd::Testpmd;
pub use vhost_wire::{Lane, VhostWire};
pub use vnc::VncViewer;
pub use wire::{Pair, Wire};

/// Whether this process may make namespaces and devices; prints SKIP if not.
///
/// # Panics
/// Under CI, where nothing may be skipped.
pub fn have_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root (run `sudo make test`)");
    }
    root
}

/// Builds the switch image if it is missing. `make setup` builds it beforehand; a fabric cannot
/// build it in a namespace without a network.
///
/// # Errors
/// The build's standard error.
pub fn ensure_image() -> Result<(), String> {
    let image = |verb| {
        std::process::Command::new(ikv_fabric())
            .args(["--json", "image", verb])
            .output()
    };
    let paths = image("path").map_err(|error| error.to_string())?;
    let answer: serde_json::Value = serde_json::from_slice(&paths.stdout).unwrap_or_default();
    if answer["built"] == true {
        return Ok(());
    }
    let built = image("build").map_err(|error| error.to_string())?;
    patience::ensure(built.status.success(), || {
        String::from_utf8_lossy(&built.stderr).into_owned()
    })
}

/// A program, and what to install where it is missing.
type Requirement = (&'static str, &'static str);

const HOST_PROGRAMS: [Requirement; 2] = [
    ("nft", "nft (apt-get install nftables)"),
    ("ip", "ip (apt-get install iproute2)"),
];

const VM_PROGRAMS: [Requirement; 2] = [
    (
        "qemu-system-x86_64",
        "QEMU (apt-get install qemu-system-x86)",
    ),
    ("ssh", "ssh (apt-get install openssh-client)"),
];

/// What this machine lacks to have its network changed by a fabric; `None` if nothing.
pub fn lacks_for_host() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("root (run `sudo make test`)");
    }
    missing(&HOST_PROGRAMS)
}

/// What this machine lacks to run switch VMs; `None` if nothing.
pub fn lacks_for_vms() -> Option<&'static str> {
    lacks_for_host().or_else(|| missing(&VM_PROGRAMS))
}

fn missing(programs: &[Requirement]) -> Option<&'static str> {
    let found = |program| host::program::find(program).is_some();
    let missing = programs.iter().find(|(program, _)| !found(program));
    missing.map(|(_, install)| *install)
}

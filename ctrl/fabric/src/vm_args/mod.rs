//! What plugs a VM into the fabric, as the program that runs the VM takes it.

mod cloud_hypervisor;
mod libvirt;
mod qemu;

use std::path::PathBuf;

use host::lock::StatePaths;
use model::mac::Mac;
use model::plugging::{PlugOptions, Vmm};
use model::topology::{Topology, UnknownName};

/// One NIC of a VM, with both ways to plug it in.
struct Nic {
    mac: Mac,
    /// The tap's name.
    tap: String,
    tap_queues: u16,
    /// The vhost-user socket beside the tap, on which the fabric listens.
    socket: PathBuf,
}

/// What plugs a VM in at `place` (`rack1:u3`, `rack1:u3:1`, `ikvm1-3-1` or `ipmi`): for QEMU and
/// Cloud Hypervisor the words of their command lines, for libvirt one string for each XML element.
/// `paths` are the fabric's files.
///
/// # Errors
/// [`UnknownName`] when the position does not exist or is not one for a server.
pub fn options(
    topology: &Topology,
    paths: &StatePaths,
    place: &str,
    options: &PlugOptions,
) -> Result<Vec<String>, UnknownName> {
    let nics = topology.server_nics(place)?.into_iter();
    let nics: Vec<_> = nics
        .map(|(end, mac)| Nic {
            mac,
            tap: end.tap.clone(),
            tap_queues: topology.host.tap_queues,
            socket: paths.vhost_socket(&end.tap),
        })
        .collect();
    Ok(match options.vmm {
        Vmm::Qemu => qemu::args(&nics, options),
        Vmm::Libvirt => libvirt::elements(&nics, options),
        Vmm::CloudHypervisor => cloud_hypervisor::args(&nics, options),
    })
}

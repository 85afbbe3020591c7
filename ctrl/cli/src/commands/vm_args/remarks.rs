//! What the printed options do not show by themselves. It goes to standard error, so that a script can
//! use standard output as it is.

use host::rootless::inside::Place;
use model::plugging::{PlugKind, PlugOptions, Vmm};

/// One sentence each. `group` is whether the fabric lets a group plug in.
pub(super) fn remarks(plug: &PlugOptions, place: &Place, group: bool) -> Vec<String> {
    match plug.nic {
        PlugKind::Tap => of_taps(plug.vmm, place),
        PlugKind::VhostUser => of_sockets(plug, group),
    }
}

fn of_taps(vmm: Vmm, place: &Place) -> Vec<String> {
    let mut lines = Vec::new();
    if vmm == Vmm::Libvirt {
        lines.push("the <interface> elements belong in the domain's <devices>".to_owned());
    }
    if !matches!(place, Place::Inside { .. }) {
        return lines;
    }
    let way = match vmm {
        Vmm::Qemu => "start QEMU by `ikv-fabric shell -- qemu-system-x86_64 …`",
        Vmm::CloudHypervisor => "start it by `ikv-fabric shell -- cloud-hypervisor …`",
        Vmm::Libvirt => "libvirt of the system does not enter it",
    };
    lines.push(format!(
        "the tap is in the fabric's network namespace: {way}; with --nic vhost-user the VM may run \
         outside"
    ));
    lines
}

fn of_sockets(plug: &PlugOptions, group: bool) -> Vec<String> {
    let mut lines = vec![match plug.vmm {
        Vmm::Qemu => format!(
            "size= is the VM's memory ({} MiB; --memory changes it); -m must have the same value or be \
             left out",
            plug.memory_mib
        ),
        Vmm::CloudHypervisor => format!(
            "size= is the VM's memory ({} MiB; --memory changes it): it replaces another --memory",
            plug.memory_mib
        ),
        Vmm::Libvirt => "<memoryBacking> belongs directly in <domain>, the <interface> elements in its \
                         <devices>; a <memoryBacking> that is there already takes <source> and <access>"
            .to_owned(),
    }];
    if plug.tcg {
        lines.push(match plug.vmm {
            Vmm::Libvirt => "<qemu:override> belongs at the end of <domain>, and needs libvirt 8.2: QEMU \
                             7.2 crashes with vhost-user and MSI-X under TCG; for a domain of type kvm \
                             leave it out (--accel kvm)"
                .to_owned(),
            _ => "vectors=0 because QEMU 7.2 crashes with vhost-user and MSI-X under TCG; under KVM \
                  leave it out (--accel kvm)"
                .to_owned(),
        });
    }
    if plug.needs_group() && !group {
        lines.push(
            "libvirt of the system runs QEMU as a user of its own, whom the sockets refuse: set \
             host.plug_group to that user's group (on Debian libvirt-qemu) and start the fabric anew"
                .to_owned(),
        );
    }
    lines
}

//! What a plan needs from the host and the machine.

use crate::owner::Person;
use host::plan::{HostLinkPlan, HostPlanInput, IpmiLinkPlan, TapForm, TapOpener, TapPlan};
use host::program::Program;
use host::rootless;
use model::difference::FabricPlan;
use model::topology::{EndBackend, MTU, Topology};
use vm::image;

/// Programs that every fabric starts, even without switches.
pub const FOR_PANEL: &[Program] = &[Program::of("nft", "nftables")];

/// Additional programs for switches.
pub const FOR_SWITCHES: &[Program] = &[
    Program::of("qemu-system-x86_64", "qemu-system-x86"),
    Program::of("setpriv", "util-linux"),
    Program::of("prlimit", "util-linux"),
    Program::of("unshare", "util-linux"),
    Program::of("ssh", "openssh-client"),
];

/// Additional programs for the switches' BMCs.
pub const FOR_IPMI: &[Program] = &[
    Program::of("ipmi_sim", "openipmi"),
    Program::of("prlimit", "util-linux"),
];

/// Additional programs that a fabric without root should have.
pub const FOR_ROOTLESS: &[Program] = rootless::PROGRAMS;

/// Additional programs for building the image.
pub const FOR_IMAGE: &[Program] = image::BUILD_PROGRAMS;

/// The programs that a fabric of this plan starts.
pub(super) fn programs(plan: &FabricPlan) -> Vec<Program> {
    let mut programs = FOR_PANEL.to_vec();
    if !plan.switches.is_empty() {
        programs.extend(FOR_SWITCHES);
        let image = image::WantedImage::new(&plan.config.image);
        if image.is_ok_and(|image| image.built().is_none()) {
            programs.extend(FOR_IMAGE);
        }
        if plan.config.ipmi.enabled {
            programs.extend(FOR_IPMI);
        }
    }
    programs
}

/// Memory of all running switches together, in MiB.
pub(super) fn memory_mib(plan: &FabricPlan) -> u64 {
    u64::from(image::switch_memory(&plan.config).mib()) * plan.switches.len() as u64
}

/// The plan's part for the host, as input for the host's steps.
pub(crate) fn host_input(plan: &FabricPlan, owner: &Person) -> HostPlanInput {
    let FabricPlan {
        topology, switches, ..
    } = plan;
    let host = &topology.host;
    HostPlanInput {
        taps: taps(plan),
        tap_form: TapForm {
            opener: match owner.plug_group {
                Some(gid) => TapOpener::Group(gid),
                None => TapOpener::User(owner.uid),
            },
            mtu: MTU.into(),
            multi_queue: host.tap_queues > 1,
        },
        host: Some(HostLinkPlan {
            name: host.name.clone(),
            mac: host.mac,
            mtu: MTU.into(),
            address: host.address,
            peer: host.peer,
            range: host.range,
            snat: host.snat,
            ipv6_forwarding: host.ipv6_forwarding,
            reach: host.reach.clone(),
        }),
        ipmi: topology.ipmi.as_ref().map(|ipmi| IpmiLinkPlan {
            name: ipmi.name.clone(),
            mac: ipmi.mac,
            mtu: MTU.into(),
            address: ipmi.address,
            ports: switches.iter().map(|switch| ipmi.port(switch)).collect(),
        }),
    }
}

/// The taps that VMs and other programs may open.
pub(crate) fn taps(plan: &FabricPlan) -> Vec<TapPlan> {
    let ends = plan.topology.ends();
    let backend = |owner| EndBackend::of(owner, &plan.switches, plan.config.vm.nic);
    ends.filter(|found| backend(found.end.owner).has_waiting_tap())
        .map(|found| TapPlan {
            name: found.end.tap.clone(),
            alias: found.end.alias.clone(),
        })
        .collect()
}

/// The host's link and route as one line for the user.
pub(crate) fn host_words(topology: &Topology) -> String {
    let host = &topology.host;
    format!(
        "{} {}, route to {} via {}",
        host.name, host.address, host.range, host.peer
    )
}

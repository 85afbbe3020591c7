//! What a topology needs of the host, and what would get in the way of it.

use super::ipmi::taken_ports;
use super::options::{BringUpError, Options};
use super::owner::{NoSuchUser, Person};
use crate::preflight::{
    self, FOR_IMAGE, FOR_IPMI, FOR_PANEL, FOR_SWITCHES, Finding, Needs, Severity,
};
use crate::progress::Progress;
use host::lock::StatePaths;
use host::plan::{HostLinkPlan, HostPlanInput, IpmiLinkPlan, TapPlan};
use model::config::Config;
use model::topology::EndBackend;
use model::topology::{MTU, Selection, Topology};
use vm::image;

/// Everything that would get in the way, before anything is touched.
pub(super) fn look_ahead(
    options: &Options,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(), BringUpError> {
    let findings = preflight(&options.config, &options.topology, &options.switches, paths)?;
    let (errors, rest): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    for found in rest
        .iter()
        .filter(|found| found.severity == Severity::Warning)
    {
        progress.note(&format!("  ! {}\n    {}", found.what, found.remedy));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(BringUpError::Preflight(errors))
    }
}

/// Everything that would get in the way of a fabric; reads only.
///
/// # Errors
/// When its owner is unknown.
pub fn preflight(
    config: &Config,
    topology: &Topology,
    switches: &Selection,
    paths: &StatePaths,
) -> Result<Vec<Finding>, NoSuchUser> {
    let owner = Person::find(config.owner.as_ref())?;
    let mut programs = FOR_PANEL.to_vec();
    let mut memory_mib = 0;
    if !switches.is_empty() {
        programs.extend(FOR_SWITCHES);
        memory_mib = u64::from(config.vm.memory.mib()) * switches.len() as u64;
        let image = image::WantedImage::new(&config.image);
        if image.is_ok_and(|image| image.built().is_none()) {
            programs.extend(FOR_IMAGE);
        }
        if config.ipmi.enabled {
            programs.extend(FOR_IPMI);
        }
    }
    let mut found = preflight::check(&Needs {
        paths,
        host: &host_input(config, topology, switches, &owner),
        programs: &programs,
        memory_mib,
    });
    found.extend(taken_ports(topology, switches));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(found)
}

/// What is planned for the host.
pub(super) fn host_input(
    config: &Config,
    topology: &Topology,
    switches: &Selection,
    owner: &Person,
) -> HostPlanInput {
    let host = &topology.host;
    HostPlanInput {
        taps: taps(config, topology, switches),
        tap_mtu: MTU.into(),
        tap_owner: Some(owner.uid),
        host: Some(HostLinkPlan {
            name: host.name.clone(),
            mac: host.mac,
            mtu: MTU.into(),
            address: host.address,
            peer: host.peer,
            range: host.range,
            snat: host.snat,
            ipv6_forwarding: host.ipv6_forwarding,
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

/// The taps that wait for somebody to open them.
pub(super) fn taps(config: &Config, topology: &Topology, switches: &Selection) -> Vec<TapPlan> {
    let ends = topology.ends();
    ends.filter(|found| EndBackend::of(found.end.owner, switches, config.vm.nic).has_waiting_tap())
        .map(|found| TapPlan {
            name: found.end.tap.clone(),
            alias: found.end.alias.clone(),
        })
        .collect()
}

/// The same in a few words, for people.
pub(super) fn host_words(topology: &Topology) -> String {
    let host = &topology.host;
    format!(
        "{} {}, route to {} via {}",
        host.name, host.address, host.range, host.peer
    )
}

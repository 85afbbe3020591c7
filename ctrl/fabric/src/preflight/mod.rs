//! Finds everything that would keep a fabric from coming up, all at once and before anything is
//! changed, each with its remedy. It only reads. For an ordinary user it checks what a fabric without
//! root needs, whose namespaces have no conflicts with the host's network.

mod files;
pub(crate) mod finding;
mod machine;
pub(crate) mod needs;
mod network;
mod rootless;

use std::fs::{self, File};
use std::path::Path;

use dataplane::seccomp;

use crate::options::BringUpError;
use crate::owner::{NoSuchAccount, Person};
use crate::progress::Progress;
use crate::switches::bmcs::taken_ports;
use crate::switches::displays;
use crate::{descriptors, rights};
pub use finding::{Finding, Severity};
use host::lock::StatePaths;
use host::plan::HostPlanInput;
use host::program::{self, Program};
use model::difference::FabricPlan;
pub use needs::{FOR_IMAGE, FOR_IPMI, FOR_PANEL, FOR_ROOTLESS, FOR_SWITCHES};

/// Checks before anything is changed. Shows warnings.
///
/// # Errors
/// All findings that keep the fabric from coming up, at once.
pub(crate) fn refuse_obstacles(
    plan: &FabricPlan,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(), BringUpError> {
    let mut found = obstacles(plan, paths)?;
    sort(&mut found);
    let (errors, rest): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    let warnings = rest.iter();
    for found in warnings.filter(|found| found.severity == Severity::Warning) {
        progress.note(&format!("  ! {}\n    {}", found.what, found.remedy));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(BringUpError::Preflight(errors))
    }
}

/// Checks everything that a fabric of this plan needs. Returns the most severe findings first.
/// `paths` are the files beside its socket.
///
/// # Errors
/// When the host does not know the fabric's owner.
pub fn check(plan: &FabricPlan, paths: &StatePaths) -> Result<Vec<Finding>, NoSuchAccount> {
    let mut found = obstacles(plan, paths)?;
    // Only root can start a program as another user.
    if needs::memory_mib(plan) > 0 && rustix::process::geteuid().is_root() {
        found.extend(machine::jail(vm::Jail::find().missing()));
    }
    sort(&mut found);
    Ok(found)
}

/// Everything on which it depends whether a fabric of this plan comes up: the one list of `check` and
/// [`refuse_obstacles`]. A condition under which a later stage of `run` fails belongs here, too. Not the
/// jail of QEMUs: `run` says what it lacks when it starts them.
fn obstacles(plan: &FabricPlan, paths: &StatePaths) -> Result<Vec<Finding>, NoSuchAccount> {
    let owner = Person::of(&plan.config)?;
    let host = needs::host_input(plan, &owner);
    let mut found = check_needs(
        &needs::programs(plan),
        needs::memory_mib(plan),
        paths,
        &host,
    );
    found.extend(machine::plug_group(&owner));
    found.extend(files::untrusted_keys(&plan.config));
    found.extend(machine::jail(rights::stay_roots(&plan.config).as_slice()));
    found.extend(taken_ports(&plan.topology, &plan.switches));
    found.extend(displays::taken_ports(plan));
    found.extend(machine::image(plan));
    found.extend(machine::accelerator(plan));
    found.extend(descriptors::obstacle(plan.topology.cables.len()));
    found.push(machine::hold_memory(plan.config.impair.memory));
    Ok(found)
}

fn sort(findings: &mut [Finding]) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
}

fn check_needs(
    programs: &[Program],
    memory_mib: u64,
    paths: &StatePaths,
    host: &HostPlanInput,
) -> Vec<Finding> {
    let is_there = |name: &str| program::find(name).is_some();
    let mut found = Vec::from_iter(machine::packages(programs, is_there));
    found.extend(check_machine(memory_mib));
    found.extend(check_host(paths, host));
    sort(&mut found);
    found
}

/// Checks rights, devices and memory. `memory_mib` is that of all switches together; 0 without
/// switches.
fn check_machine(memory_mib: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let user = !rustix::process::geteuid().is_root();
    if user {
        found.extend(rootless::needs());
    }
    found.extend(machine::jail(seccomp::missing().as_slice()));
    found.extend(machine::tun_device(Path::new("/dev/net/tun"), user));
    if memory_mib > 0 {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        found.push(machine::acceleration(&cpus, kvm.map(drop)));
        let memory = fs::read_to_string("/proc/meminfo").ok();
        let free = memory.and_then(|text| machine::available_mib(&text));
        found.extend(free.and_then(|free| machine::memory(memory_mib, free)));
    }
    found
}

/// Checks for other fabrics, files in the way, and conflicts with the host's network.
fn check_host(paths: &StatePaths, host: &HostPlanInput) -> Vec<Finding> {
    let own = std::process::id();
    let mut found = Vec::new();
    let untrusted = files::untrusted(paths);
    if untrusted.is_none() {
        found.extend(files::other_fabric(paths, own));
        found.extend(files::in_the_way(paths, &host.taps, own));
    }
    found.extend(untrusted);
    if rustix::process::geteuid().is_root() {
        let left = files::left_behind(paths);
        found.extend(network::network(host, left.as_ref()));
        found.extend(network::rules(host, left.as_ref()));
        found.extend(network::reach(host));
    }
    found
}

#[cfg(test)]
mod tests;

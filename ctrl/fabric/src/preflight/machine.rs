//! What the machine must provide: programs, rights, devices, memory.

use std::fs::File;
use std::io;
use std::path::Path;

use super::finding::{Finding, Severity};
use crate::owner::Person;
use dataplane::quarter_of_ram;
use host::program::Program;
use model::difference::FabricPlan;
use model::impairment::Bytes;
use vm::accel::{self, Facts};
use vm::image::WantedImage;

pub(super) fn packages(programs: &[Program], present: impl Fn(&str) -> bool) -> Option<Finding> {
    let missing: Vec<&Program> = programs.iter().filter(|p| !present(p.name)).collect();
    if missing.is_empty() {
        return None;
    }
    let mut names: Vec<&str> = Vec::new();
    for program in &missing {
        if !names.contains(&program.name) {
            names.push(program.name);
        }
    }
    let packages: Vec<&str> = missing.iter().map(|p| p.package).collect();
    Some(Finding::new(
        Severity::Error,
        format!("not installed: {}", names.join(", ")),
        host::packages::install(&packages),
    ))
}

/// A group may plug VMs in, and the owner is not in it.
pub(super) fn plug_group(owner: &Person) -> Option<Finding> {
    (!owner.may_open_taps()).then(|| {
        Finding::new(
            Severity::Warning,
            format!(
                "the owner (user {}) is not in the group of host.plug_group, and the kernel opens its taps \
                 for members alone (the vhost-user sockets still open)",
                owner.uid
            ),
            "add the owner: `usermod -aG GROUP USER`, and log in anew",
        )
    })
}

/// `missing`: the parts of a QEMU's jail that cannot be had here.
pub(super) fn jail(missing: &[String]) -> impl Iterator<Item = Finding> {
    let found = |what: &String| {
        let remedy = "SECURITY.md says what that part keeps from whom; the rest of the jail holds";
        Finding::new(Severity::Warning, what, remedy)
    };
    missing.iter().map(found)
}

/// `own`: the fabric's own process opens the device as this user.
pub(super) fn tun_device(device: &Path, own: bool) -> Option<Finding> {
    match File::options().read(true).write(true).open(device) {
        Ok(_) => None,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied && own => Some(Finding::new(
            Severity::Error,
            format!(
                "{} cannot be opened by this user: a fabric without root makes its taps there",
                device.display()
            ),
            format!("sudo chmod 0666 {}", device.display()),
        )),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Some(Finding::new(
            Severity::Warning,
            format!(
                "{} cannot be opened by this user, so no VM of theirs can plug in",
                device.display()
            ),
            format!("chmod 0666 {}", device.display()),
        )),
        // ENXIO and ENODEV: the device node exists but its driver is not loaded.
        Err(e) => Some(Finding::new(
            Severity::Error,
            format!("{}: {e}", device.display()),
            "modprobe tun",
        )),
    }
}

pub(super) fn acceleration(cpuinfo: &str, kvm: io::Result<()>) -> Finding {
    let virtual_cpu = cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        });
    let why = match (virtual_cpu, kvm) {
        (true, Ok(())) => {
            return Finding::new(Severity::Note, "switches run under KVM", "");
        }
        (true, Err(e)) => {
            return Finding::new(
                Severity::Warning,
                format!("switches run under TCG, several times slower: /dev/kvm: {e}"),
                "modprobe kvm_intel || modprobe kvm_amd; or run as root",
            );
        }
        (false, _) => "the CPU shows neither vmx nor svm",
    };
    Finding::new(
        Severity::Note,
        format!("switches run under TCG, slower than KVM: {why}"),
        "",
    )
}

/// Why the image of the switches can be neither used nor built. The programs that a build needs are in
/// `needs`.
pub(super) fn image(plan: &FabricPlan) -> Option<Finding> {
    if plan.switches.is_empty() {
        return None;
    }
    let image = WantedImage::new(&plan.config.image);
    let error = image.and_then(|image| image.has_room()).err()?;
    Some(Finding::new(Severity::Error, error.to_string(), ""))
}

/// Why the switches cannot run under the accelerator that is configured.
pub(super) fn accelerator(plan: &FabricPlan) -> Option<Finding> {
    if plan.switches.is_empty() {
        return None;
    }
    let error = accel::decide(plan.config.vm.accel, &Facts::read()).err()?;
    Some(Finding::new(Severity::Error, error.to_string(), ""))
}

pub(super) fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim()
        .strip_suffix("kB")?
        .trim()
        .parse::<u64>()
        .ok()
        .map(|kib| kib / 1024)
}

/// How much memory frames may take that impairments hold back.
pub(super) fn hold_memory(chosen: Option<Bytes>) -> Finding {
    let (bytes, why) = match chosen {
        Some(Bytes(bytes)) => (bytes, "impair.memory"),
        None => (
            quarter_of_ram(),
            "a quarter of the RAM, without impair.memory",
        ),
    };
    let mib = bytes >> 20;
    let what = format!("frames that impairments hold back may take {mib} MiB of memory: {why}");
    Finding::new(Severity::Note, what, "")
}

pub(super) fn memory(needed: u64, available: u64) -> Option<Finding> {
    (needed > available).then(|| {
        Finding::new(
            Severity::Warning,
            format!("the switches may use {needed} MiB of memory, {available} MiB are free"),
            "--set vm.memory=… with less, or fewer switches",
        )
    })
}

//! KVM or TCG: which one works on this host, and why.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use host::rootless;
use model::config::AccelChoice;

/// The device of KVM.
pub const KVM: &str = "/dev/kvm";

/// How guest code is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// By the CPU.
    Kvm {
        /// Group that QEMU's own uid needs to open the device; `None` where everybody may.
        group: Option<u32>,
    },
    /// By translation: works everywhere, ten and more times slower.
    Tcg,
}

impl Accel {
    /// `kvm` or `tcg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The option, after a comma, that a `virtio-net-pci` device on a vhost-user netdev needs. QEMU 7.2
    /// crashes in `vhost_net_start` when the guest uses MSI-X under TCG. Without vectors the guest uses
    /// the INTx line.
    pub fn vhost_user_vectors(self) -> &'static str {
        match self {
            Self::Kvm { .. } => "",
            Self::Tcg => ",vectors=0",
        }
    }
}

/// An accelerator and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The chosen accelerator.
    pub accel: Accel,
    /// The reason, as a clause without a full stop.
    pub reason: String,
}

/// The configuration asks for KVM, which does not work on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accel = \"kvm\", but {reason}; use accel = \"auto\" or \"tcg\"")]
pub struct AccelError {
    /// What is missing, with its remedy if there is one.
    pub reason: String,
}

/// What the host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The CPU advertises `vmx` or `svm`.
    pub virtualization: bool,
    /// Mode and group of /dev/kvm once it has been opened read-write, or why it was not.
    pub device: Result<(u32, u32), String>,
}

impl Facts {
    /// Looks at /proc/cpuinfo and /dev/kvm.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            virtualization: advertises(&cpuinfo),
            device: open(Path::new(KVM)),
        }
    }
}

/// Whether every user may open KVM's device, by its mode.
pub fn is_open_to_all() -> bool {
    fs::metadata(KVM).is_ok_and(|meta| meta.mode() & 0o006 == 0o006)
}

fn advertises(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .flat_map(str::split_whitespace)
        .any(|flag| flag == "vmx" || flag == "svm")
}

fn open(path: &Path) -> Result<(u32, u32), String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|device| device.metadata())
        .map(|meta| match rootless::entered() {
            // Where not everybody may open it, QEMU runs as the user who just has.
            Some(_) => (meta.mode() | 0o006, meta.gid()),
            None => (meta.mode(), meta.gid()),
        })
        .map_err(|error| error.to_string())
}

/// Chooses KVM only where the CPU advertises it, /dev/kvm opens, and QEMU's unprivileged uid can
/// open it too. /dev/kvm alone proves nothing: on a machine without `vmx` and `svm` it may open,
/// and even create a VM, but no guest boots in it.
///
/// # Errors
/// When `wanted` is [`AccelChoice::Kvm`] and KVM does not work.
pub fn decide(wanted: AccelChoice, facts: &Facts) -> Result<Decision, AccelError> {
    if wanted == AccelChoice::Tcg {
        return Ok(Decision {
            accel: Accel::Tcg,
            reason: "accel = \"tcg\" is configured".into(),
        });
    }
    match (usable(facts), wanted) {
        (Ok(accel), _) => Ok(Decision {
            accel,
            reason: format!("the CPU has it and {KVM} opens"),
        }),
        (Err(reason), AccelChoice::Kvm) => Err(AccelError { reason }),
        (Err(reason), _) => Ok(Decision {
            accel: Accel::Tcg,
            reason,
        }),
    }
}

fn usable(facts: &Facts) -> Result<Accel, String> {
    if !facts.virtualization {
        return Err("the CPU advertises neither vmx nor svm".into());
    }
    let (mode, gid) = facts
        .device
        .as_ref()
        .map_err(|error| format!("{KVM} does not open: {error}"))?;
    match (mode & 0o006 == 0o006, mode & 0o060 == 0o060) {
        (true, _) => Ok(Accel::Kvm { group: None }),
        (false, true) => Ok(Accel::Kvm { group: Some(*gid) }),
        (false, false) => Err(format!(
            "only root may open {KVM}, and QEMU does not run as root: chgrp kvm {KVM} && chmod 660 {KVM}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(virtualization: bool, device: Result<(u32, u32), &str>) -> Facts {
        Facts {
            virtualization,
            device: device.map_err(Into::into),
        }
    }

    #[test]
    fn finds_the_flag_as_a_word_of_its_own() {
        assert!(advertises("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(advertises("flags : fpu svm\n"));
        assert!(!advertises(
            "flags : fpu vmxnet svm_lock\nvmx flags : vnmi\nmodel name : svm\n"
        ));
    }

    #[test]
    fn kvm_needs_the_cpu_the_device_and_access_for_the_child() {
        let group = |facts: &Facts| decide(AccelChoice::Auto, facts).unwrap().accel;
        assert_eq!(
            group(&facts(true, Ok((0o20660, 107)))),
            Accel::Kvm { group: Some(107) }
        );
        assert_eq!(
            group(&facts(true, Ok((0o20666, 107)))),
            Accel::Kvm { group: None }
        );
        for (no, why) in [
            (facts(false, Ok((0o20666, 0))), "neither vmx nor svm"),
            (
                facts(true, Err("No such file or directory (os error 2)")),
                "No such file",
            ),
            (facts(true, Ok((0o20600, 0))), "chmod 660 /dev/kvm"),
        ] {
            let decision = decide(AccelChoice::Auto, &no).unwrap();
            assert_eq!(decision.accel, Accel::Tcg);
            assert!(decision.reason.contains(why), "{}", decision.reason);
            let error = decide(AccelChoice::Kvm, &no).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("\"tcg\""), "{error}");
        }
    }

    #[test]
    fn tcg_can_be_forced() {
        let good = facts(true, Ok((0o20666, 0)));
        assert_eq!(decide(AccelChoice::Tcg, &good).unwrap().accel, Accel::Tcg);
    }
}

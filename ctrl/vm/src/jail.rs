//! What holds a QEMU besides its own uid and seccomp: an empty network namespace, limits of resources
//! and a cgroup. See [`Jail`].

use std::process::{Command, Stdio};

use host::cgroup::{Cgroup, Cgroups};
use host::rootless;
use model::printable;
use rustix::process::{Resource, geteuid, getrlimit};

use crate::child::{SETPRIV, identity};
use crate::spec::VmSpec;

/// Limits resources (util-linux).
pub(crate) const PRLIMIT: &str = "prlimit";

/// Puts a program into new namespaces (util-linux).
const UNSHARE: &str = "unshare";

/// Descriptors that a QEMU may have open: with 232 NICs under KVM it has 2,000.
const DESCRIPTORS: u64 = 4096;

/// Threads that a QEMU may have: one for each vCPU, 64 for its disks, and a few more.
const TASKS: u32 = 256;

/// Memory that a QEMU may take besides its guest's, in MiB: 128 for translated code, the same for its
/// tables, and what it reads its disks and saved state through.
const OVERHEAD_MIB: u64 = 768;

/// As [`OVERHEAD_MIB`], for each NIC.
const NIC_MIB: u64 = 4;

/// A uid for the trial of the chain of programs; no file belongs to it.
const NOBODY: u32 = 65_534;

/// Which parts of the jail can be had on this host.
#[derive(Debug, Clone)]
pub struct Jail {
    namespace: bool,
    cgroups: Option<Cgroups>,
    missing: Vec<String>,
}

impl Jail {
    /// Tries it out. It blocks for some ms, and changes nothing.
    pub fn find() -> Self {
        let namespace = try_namespace();
        let cgroups = Cgroups::find();
        let missing = [
            namespace
                .as_ref()
                .err()
                .map(|reason| format!("QEMUs stay in the fabric's network namespace: {reason}")),
            cgroups.as_ref().err().map(|reason| {
                format!("QEMUs get no cgroup that limits their memory and tasks: {reason}")
            }),
        ];
        Self {
            namespace: namespace.is_ok(),
            cgroups: cgroups.ok(),
            missing: missing.into_iter().flatten().collect(),
        }
    }

    /// The parts that cannot be had here, a sentence for each.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The programs that start one another, up to the arguments of the last, which becomes QEMU.
    ///
    /// An ordinary user may have a network namespace only within a user namespace, and neither does a
    /// fabric that has come up keep the right to make one without. So first comes the uid, then the
    /// namespaces, in which the program has all rights for a moment, then their loss. The
    /// parent-death signal is set last, as a change of uid clears it.
    ///
    /// `identity`: setpriv's options for its uid, gid and groups.
    pub(crate) fn chain(&self, spec: &VmSpec, identity: &[String]) -> Vec<String> {
        let mut chain = limits(spec);
        chain.extend(self.become_user(identity));
        chain
    }

    fn become_user(&self, identity: &[String]) -> Vec<String> {
        let mut chain = vec![SETPRIV];
        chain.extend(identity.iter().map(String::as_str));
        chain.extend(["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]);
        if self.namespace {
            chain.extend(["--", UNSHARE, "--user", "--net", "--keep-caps"]);
            chain.extend(["--", SETPRIV, "--bounding-set=-all", "--inh-caps=-all"]);
        }
        chain.extend(["--pdeathsig", "KILL", "--"]);
        chain.into_iter().map(Into::into).collect()
    }

    /// Puts a QEMU that has just been started into its cgroup.
    pub(crate) fn confine(&self, spec: &VmSpec, pid: Option<u32>) -> Option<Cgroup> {
        let memory = memory_mib(spec) << 20;
        match self
            .cgroups
            .as_ref()?
            .confine(&spec.name, pid?, memory, TASKS)
        {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::warn!(vm = spec.name, %error, "QEMU runs without a cgroup");
                None
            }
        }
    }
}

/// The most memory of a QEMU, in MiB.
fn memory_mib(spec: &VmSpec) -> u64 {
    u64::from(spec.memory_mib) + OVERHEAD_MIB + NIC_MIB * spec.nics.len() as u64
}

/// prlimit with QEMU's limits, none above the fabric's own.
fn limits(spec: &VmSpec) -> Vec<String> {
    // A QEMU writes its guest's saved state, and its guest's memory may be a file.
    let file = memory_mib(spec) << 20;
    let mut limits = vec![
        ("core", Resource::Core, 0),
        ("nofile", Resource::Nofile, DESCRIPTORS),
        ("fsize", Resource::Fsize, file),
    ];
    if spec.uid != geteuid().as_raw() {
        limits.push(("nproc", Resource::Nproc, TASKS.into()));
    }
    let mut chain = vec![PRLIMIT.to_owned()];
    for (name, resource, most) in limits {
        let limit = getrlimit(resource)
            .maximum
            .map_or(most, |own| own.min(most));
        chain.push(format!("--{name}={limit}"));
    }
    chain.push("--".into());
    chain
}

/// Whether a program can have a network namespace of its own.
///
/// # Errors
/// Why not, in words.
fn try_namespace() -> Result<(), String> {
    let jail = Jail {
        namespace: true,
        cgroups: None,
        missing: Vec::new(),
    };
    // In namespaces of a user there may be no other uid: then QEMU has the user's.
    let uid = rootless::entered().map_or(NOBODY, |_| 0);
    let chain = jail.become_user(&identity(uid, None));
    let tried = Command::new(&chain[0])
        .args(&chain[1..])
        .arg("true")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", chain[0]))?;
    if tried.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&tried.stderr);
    let words = words.lines().next().unwrap_or("it does not work here");
    Err(printable::tail(words.as_bytes(), 200))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;

    #[test]
    fn rights_end_after_the_namespaces_and_before_qemu() {
        let mut jail = Jail {
            namespace: true,
            cgroups: None,
            missing: Vec::new(),
        };
        let chain = |jail: &Jail| jail.become_user(&identity(70_003, None)).join(" ");
        assert_eq!(
            chain(&jail),
            "setpriv --reuid 70003 --regid 70003 --clear-groups --no-new-privs --bounding-set=-all \
             --inh-caps=-all -- unshare --user --net --keep-caps -- setpriv --bounding-set=-all \
             --inh-caps=-all --pdeathsig KILL --"
        );
        jail.namespace = false;
        assert_eq!(
            chain(&jail),
            "setpriv --reuid 70003 --regid 70003 --clear-groups --no-new-privs --bounding-set=-all \
             --inh-caps=-all --pdeathsig KILL --"
        );
    }

    #[test]
    fn files_may_be_as_large_as_the_guests_memory() {
        let spec = example(2);
        let text = limits(&spec).join(" ");
        assert!(text.starts_with("prlimit --core=0 --nofile="), "{text}");
        assert!(memory_mib(&spec) >= u64::from(spec.memory_mib) + OVERHEAD_MIB);
    }
}

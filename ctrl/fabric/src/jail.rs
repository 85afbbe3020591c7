//! As whom the programs run that guests could break out into: QEMU and the BMCs.
//!
//! Root gives each of them a uid of its own. Without root there are such uids only where the user has
//! subordinate ones; otherwise these programs run as the user.

use std::sync::OnceLock;

use host::rootless::{self, Rootless};
use model::config::{AccelChoice, Config};
use vm::accel::{Facts, KVM};

/// The first uids of switches and of BMCs in a namespace with subordinate ids.
const VMS: u32 = 1;
const BMCS: u32 = 2049;

/// How many ids that takes.
const ENOUGH: u32 = 4097;

/// Why programs run as the user. `None`: each has a uid of its own.
type AsUser = Option<String>;

/// The uid and gid of a switch's QEMU.
pub(crate) fn vm_uid(config: &Config, switch: usize) -> u32 {
    uid(config, config.vm.uid_of(switch), VMS + switch as u32)
}

/// The uid and gid of a switch's BMC.
pub(crate) fn bmc_uid(config: &Config, switch: usize) -> u32 {
    uid(config, config.ipmi.uid_of(switch), BMCS + switch as u32)
}

fn uid(config: &Config, of_root: u32, here: u32) -> u32 {
    match rootless::entered() {
        None => of_root,
        Some(rootless) if as_user(rootless, config.vm.accel).is_some() => 0,
        Some(_) => here,
    }
}

/// What this fabric's jail lacks, as a line for the user. `None` if it lacks nothing.
pub(crate) fn lacks(config: &Config) -> Option<String> {
    let why = as_user(rootless::entered()?, config.vm.accel).as_ref()?;
    Some(format!(
        "QEMU runs as you, in its seccomp sandbox: a guest that breaks out of both can do what you \
         can. A uid of its own for each is not to be had: {why}"
    ))
}

/// Decided once: a fabric's programs must not change their uid while it runs.
fn as_user(rootless: &Rootless, accel: AccelChoice) -> &'static AsUser {
    static DECIDED: OnceLock<AsUser> = OnceLock::new();
    DECIDED.get_or_init(|| {
        let facts = Facts::read();
        let kvm = accel != AccelChoice::Tcg && facts.virtualization && facts.device.is_ok();
        decide(
            rootless.ids(),
            rootless.why_one_id(),
            kvm && !vm::accel::is_open_to_all(),
        )
    })
}

/// `kvm_by_right`: the switches run under KVM, whose device this user may open, but not everybody.
fn decide(ids: u32, why_one_id: &str, kvm_by_right: bool) -> AsUser {
    if ids < ENOUGH {
        return Some(match why_one_id {
            "" => format!("this user has {ids} ids, and it takes {ENOUGH}"),
            why => why.to_owned(),
        });
    }
    kvm_by_right.then(|| format!("{KVM} is open to you, but not to other uids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_their_own_uids_where_there_are_enough_and_they_open_what_they_need() {
        assert_eq!(decide(65_537, "", false), None);
        assert_eq!(decide(1, "no newuidmap", false).unwrap(), "no newuidmap");
        assert!(decide(100, "", false).unwrap().contains("100 ids"));
        assert!(decide(65_537, "", true).unwrap().contains("/dev/kvm"));
    }

    #[test]
    fn root_gives_the_configured_uids() {
        let config = Config::default();
        assert_eq!(vm_uid(&config, 2), config.vm.uid + 2);
        assert_eq!(bmc_uid(&config, 0), config.ipmi.uid);
        assert_eq!(lacks(&config), None);
    }
}

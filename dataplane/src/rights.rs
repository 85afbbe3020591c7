//! Gives up the special rights of root: [`keep`], [`leave_root`].
//!
//! Rights belong to threads. A new thread has those of the thread that started it.

use std::io;

use rustix::process::{Gid, Uid};
pub use rustix::thread::CapabilitySet;
use rustix::thread::{
    CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Gives up every capability but `kept` (capabilities(7)), for the calling thread and for the
/// threads and programs that it will start: not even a program with a setuid bit gets one back. A
/// capability that the thread did not have before is not gained.
///
/// # Errors
/// When the kernel refuses, as a seccomp filter may make it.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    shrink(kept, || Ok(()))
}

/// Gives up every capability and becomes another user, for the calling thread and for those that it will
/// start: root's files are then closed to them, too. A uid that nobody else has keeps other
/// processes from sending them signals.
///
/// # Errors
/// As [`keep`]; when the thread may not change its user.
pub fn leave_root(uid: u32) -> io::Result<()> {
    shrink(CapabilitySet::empty(), || {
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        Ok(set_thread_res_uid(user, user, user)?)
    })
}

/// As [`keep`]; `with_rights` runs while the thread still has them.
fn shrink(kept: CapabilitySet, with_rights: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    set_no_new_privs(true)?;
    let sets = capabilities(None)?;
    // Fails on kernels before 4.3, which have no ambient set to clear.
    let _ = clear_ambient_capability_set();
    // Without this capability the bounding set cannot be made smaller. That does no harm: only a
    // program that gains rights would draw on the set, and `no_new_privs` rules that out.
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            // An error: the kernel has no capability of this number.
            let held = capability_is_in_bounding_set(capability).unwrap_or(false);
            if held && !kept.contains(capability) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    with_rights()?;
    // Fewer than before, if it has become another user.
    let sets = capabilities(None)?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: sets.effective & kept,
            permitted: sets.permitted & kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The value of one line of the kernel's status of this thread.
    fn reported(key: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn what_is_given_up_is_gone_for_this_thread_and_its_children_alone() {
        let before = reported("CapEff:");
        let kept = CapabilitySet::KILL | CapabilitySet::NET_RAW;
        let thread = std::thread::spawn(move || {
            let had = capabilities(None).unwrap();
            keep(kept).unwrap();
            let has = capabilities(None).unwrap();
            assert_eq!(has.effective, had.effective & kept);
            assert_eq!(has.permitted, had.permitted & kept);
            let child = std::thread::spawn(|| capabilities(None).unwrap());
            assert_eq!(child.join().unwrap(), has);
            assert_eq!(reported("NoNewPrivs:"), "1");
            if had.effective.contains(CapabilitySet::SETPCAP) {
                let bounding = u64::from_str_radix(&reported("CapBnd:"), 16).unwrap();
                assert_eq!(bounding & !kept.bits(), 0);
            }
            keep(CapabilitySet::empty()).unwrap();
            keep(kept).unwrap();
            assert!(capabilities(None).unwrap().permitted.is_empty());
        });
        thread.join().unwrap();
        assert_eq!(reported("CapEff:"), before);
    }
}

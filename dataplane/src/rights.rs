//! The special rights of root, given up: [`keep`].
//!
//! Rights belong to threads. One that is started has those of the thread that started it.

use std::io;

pub use rustix::thread::CapabilitySet;
use rustix::thread::{
    CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// Gives up every capability but these (capabilities(7)), for the calling thread, for the threads
/// and for the programs that it will start: no program gives any of them back, not even one
/// with a setuid bit. A thread that has none keeps none.
///
/// # Errors
/// When the kernel refuses, as a seccomp filter may make it.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let sets = capabilities(None)?;
    // A kernel before 4.3 knows no ambient set, and so has nothing in it.
    let _ = clear_ambient_capability_set();
    // Without this one the bounding set cannot be made smaller. It does not matter then: only a
    // program with more rights than its parent would draw on it, and there is none any more.
    if sets.effective.contains(CapabilitySet::SETPCAP) {
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            // An error: the kernel knows no more capabilities.
            let held = capability_is_in_bounding_set(capability).unwrap_or(false);
            if held && !kept.contains(capability) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
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

    /// A line of the kernel's account of this thread.
    fn told(key: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn what_is_given_up_is_gone_for_this_thread_and_its_children_alone() {
        let before = told("CapEff:");
        let kept = CapabilitySet::KILL | CapabilitySet::NET_RAW;
        let thread = std::thread::spawn(move || {
            let had = capabilities(None).unwrap();
            keep(kept).unwrap();
            let has = capabilities(None).unwrap();
            assert_eq!(has.effective, had.effective & kept);
            assert_eq!(has.permitted, had.permitted & kept);
            let child = std::thread::spawn(|| capabilities(None).unwrap());
            assert_eq!(child.join().unwrap(), has);
            assert_eq!(told("NoNewPrivs:"), "1");
            if had.effective.contains(CapabilitySet::SETPCAP) {
                let bounding = u64::from_str_radix(&told("CapBnd:"), 16).unwrap();
                assert_eq!(bounding & !kept.bits(), 0);
            }
            keep(CapabilitySet::empty()).unwrap();
            keep(kept).unwrap();
            assert!(capabilities(None).unwrap().permitted.is_empty());
        });
        thread.join().unwrap();
        assert_eq!(told("CapEff:"), before);
    }
}

//! A process's capabilities, as the kernel reports them.

use std::fs;

use dataplane::rights::CapabilitySet;

use crate::patience::{SOON, until};

/// Name, permitted, effective and bounding capabilities of each thread, whether its programs
/// may gain more, its mode of seccomp, and its uid. Threads that end meanwhile are left out.
fn threads(pid: u32) -> Vec<(String, [u64; 3], bool, [String; 2])> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let of = |folder: std::path::PathBuf| {
        let status = fs::read_to_string(folder.join("status")).ok()?;
        let field = |key: &str| {
            let mut lines = status.lines();
            let line = lines
                .find_map(|line| line.strip_prefix(key))
                .expect("a running process");
            line.trim().to_owned()
        };
        let sets = ["CapPrm:", "CapEff:", "CapBnd:"];
        let sets = sets.map(|key| u64::from_str_radix(&field(key), 16).expect("a running process"));
        let may_gain = field("NoNewPrivs:") == "0";
        let filtered_uid = [field("Seccomp:"), field("Uid:")];
        Some((field("Name:"), sets, may_gain, filtered_uid))
    };
    tasks.flatten().filter_map(|task| of(task.path())).collect()
}

/// Asserts that the first thread has the capabilities `kept` and the other threads have none, and that
/// each has a filter of system calls. `uid` is that of the threads that touch frames.
///
/// # Panics
/// With the name of a thread for which this does not become so: one that has just begun has a moment
/// to give up what it inherited.
pub fn assert_rights(pid: u32, kept: CapabilitySet, uid: u32) {
    until("the rights of the threads", SOON, || rights(pid, kept, uid));
}

/// Fails with the threads that are not as [`assert_rights`] wants them.
fn rights(pid: u32, kept: CapabilitySet, uid: u32) -> Result<(), String> {
    let threads = threads(pid);
    assert!(threads.len() >= 3, "{threads:?}");
    let wrong = threads
        .iter()
        .filter(|(name, sets, may_gain, [seccomp, uids])| {
            let expected = if name == "ikv-fabric" { kept.bits() } else { 0 };
            let frames = name.starts_with("worker") || name == "vhost-sockets";
            let uid = if frames { uid } else { 0 }.to_string();
            let is_uid = uids.split_whitespace().all(|one| one == uid);
            *sets != [expected; 3] || *may_gain || seccomp != "2" || !is_uid
        });
    let wrong: Vec<_> = wrong.collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("{wrong:?}"))
    }
}

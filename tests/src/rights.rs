//! A process's capabilities, as the kernel reports them.

use std::fs;

use dataplane::rights::CapabilitySet;

/// Name, permitted, effective and bounding capabilities of each thread, whether its programs
/// may gain more, and its mode of seccomp.
fn threads(pid: u32) -> Vec<(String, [u64; 3], bool, String)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let of = |folder: std::path::PathBuf| {
        let status = fs::read_to_string(folder.join("status")).expect("a running process");
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
        (field("Name:"), sets, may_gain, field("Seccomp:"))
    };
    tasks
        .map(|task| of(task.expect("a running process").path()))
        .collect()
}

/// Asserts that the first thread has the capabilities `kept` and the other threads have none, and that
/// each has a filter of system calls.
///
/// # Panics
/// With the name of a thread for which this is not so.
pub fn assert_rights(pid: u32, kept: CapabilitySet) {
    let threads = threads(pid);
    assert!(threads.len() >= 3, "{threads:?}");
    for (name, sets, may_gain, seccomp) in threads {
        let expected = if name == "ikv-fabric" { kept.bits() } else { 0 };
        assert_eq!(sets, [expected; 3], "{name}");
        assert!(!may_gain, "{name}");
        assert_eq!(seccomp, "2", "{name}");
    }
}

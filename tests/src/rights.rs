//! Which of root's rights a process has, as the kernel tells.

use std::fs;

use dataplane::rights::CapabilitySet;

/// Name, permitted, effective and bounding capabilities of each thread, and whether programs
/// that it starts may gain more.
fn threads(pid: u32) -> Vec<(String, [u64; 3], bool)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
    let of = |folder: std::path::PathBuf| {
        let status = fs::read_to_string(folder.join("status")).expect("a process of ours");
        let field = |key: &str| {
            let mut lines = status.lines();
            let line = lines
                .find_map(|line| line.strip_prefix(key))
                .expect("a process of ours");
            line.trim().to_owned()
        };
        let sets = ["CapPrm:", "CapEff:", "CapBnd:"];
        let sets = sets.map(|key| u64::from_str_radix(&field(key), 16).expect("a process of ours"));
        (field("Name:"), sets, field("NoNewPrivs:") == "0")
    };
    tasks
        .map(|task| of(task.expect("a process of ours").path()))
        .collect()
}

/// The first thread keeps `kept`, the others nothing.
///
/// # Panics
/// If it is otherwise.
pub fn assert_rights(pid: u32, kept: CapabilitySet) {
    let threads = threads(pid);
    assert!(threads.len() >= 3, "{threads:?}");
    for (name, sets, may_gain) in threads {
        let expected = if name == "ikv-fabric" { kept.bits() } else { 0 };
        assert_eq!(sets, [expected; 3], "{name}");
        assert!(!may_gain, "{name}");
    }
}

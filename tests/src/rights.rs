//! A process's capabilities, as the kernel reports them.

use std::fs;

use dataplane::rights::CapabilitySet;

/// Name, permitted, effective and bounding capabilities of each thread, whether its programs
/// may gain more, its mode of seccomp, and its uid.
fn threads(pid: u32) -> Vec<(String, [u64; 3], bool, [String; 2])> {
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
        let filtered_uid = [field("Seccomp:"), field("Uid:")];
        (field("Name:"), sets, may_gain, filtered_uid)
    };
    tasks
        .map(|task| of(task.expect("a running process").path()))
        .collect()
}

/// Asserts that the first thread has the capabilities `kept` and the other threads have none, and that
/// each has a filter of system calls. `uid` is that of the threads that touch frames.
///
/// # Panics
/// With the name of a thread for which this is not so.
pub fn assert_rights(pid: u32, kept: CapabilitySet, uid: u32) {
    let expected_uid = [uid.to_string(), "0".to_owned()];
    let threads = threads(pid);
    assert!(threads.len() >= 3, "{threads:?}");
    for (name, sets, may_gain, [seccomp, uid]) in threads {
        let expected = if name == "ikv-fabric" { kept.bits() } else { 0 };
        assert_eq!(sets, [expected; 3], "{name}");
        assert!(!may_gain, "{name}");
        assert_eq!(seccomp, "2", "{name}");
        let frames = name.starts_with("worker") || name == "vhost-sockets";
        let expected = &expected_uid[usize::from(!frames)];
        assert!(
            uid.split_whitespace().all(|uid| uid == expected),
            "{name}: {uid}"
        );
    }
}

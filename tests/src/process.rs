//! The resources of a process.

use std::fs;

/// A process's resident memory, present and peak, in KiB.
///
/// # Panics
/// When the process does not exist.
pub fn resident_kib(pid: u32) -> [u64; 2] {
    status_kib(pid, ["VmRSS:", "VmHWM:"])
}

/// A process's own resident memory in KiB, without the pages that others share with it: those of a
/// guest are the guest's.
///
/// # Panics
/// When the process does not exist.
pub fn own_kib(pid: u32) -> u64 {
    let [own] = status_kib(pid, ["RssAnon:"]);
    own
}

fn status_kib<const N: usize>(pid: u32, keys: [&str; N]) -> [u64; N] {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    keys.map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse().ok())
            .expect("proc_pid_status(5)")
    })
}

/// The number of a process's open descriptors.
///
/// # Panics
/// When the process does not exist.
pub fn descriptors(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process that runs");
    open.count()
}

/// The number of a process's threads.
///
/// # Panics
/// When the process does not exist.
pub fn threads(pid: u32) -> usize {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process that runs");
    tasks.count()
}

/// Whether a process runs. A zombie has ended, though its parent has not waited for it yet.
pub fn is_alive(pid: u32) -> bool {
    // The state stands behind the name, which may have any characters (proc_pid_stat(5)).
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

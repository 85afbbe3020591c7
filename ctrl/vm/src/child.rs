//! How children of a fabric are recognised, so that a later fabric can end those that a killed one left.

use std::fs;
use std::io;
use std::path::Path;

/// Drops rights and sets the parent-death signal before it becomes the program (util-linux).
pub(crate) const SETPRIV: &str = "setpriv";

/// Environment variable of every QEMU and BMC of a fabric, with its folder as the value. [`strays`]
/// finds them by it.
pub(crate) const MARK: &str = "IKV_FABRIC_VM";

/// Pids of children (or of the setpriv that becomes one) whose folder is below `root`. A fabric that
/// is killed in the moment of a start can leave one behind, before the parent-death signal is set:
/// `clean` and the next `run` end those.
///
/// # Errors
/// When /proc cannot be read.
pub fn strays(root: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes come and go, and this one may not inspect those of other users.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok()?.split_once('='))
            .any(|(key, value)| key == MARK && Path::new(value).starts_with(root));
        if ours {
            pids.push(pid);
        }
    }
    Ok(pids)
}

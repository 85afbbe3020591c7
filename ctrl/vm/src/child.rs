//! How children of a fabric are recognised, so that a later fabric can end those that a killed one left.

use std::fs;
use std::io;
use std::path::Path;

/// Drops rights and sets the parent-death signal before it becomes the program (util-linux).
pub(crate) const SETPRIV: &str = "setpriv";

/// setpriv's options for a child with this uid and gid, and with this group beside it. A child of uid 0,
/// the user's own in a namespace without other uids, keeps the user's groups: there they cannot be
/// dropped, and one of them may be what opens /dev/kvm.
pub(crate) fn identity(uid: u32, group: Option<u32>) -> Vec<String> {
    let number = uid.to_string();
    let mut options = vec!["--reuid".into(), number.clone(), "--regid".into(), number];
    match group {
        _ if uid == 0 => options.push("--keep-groups".into()),
        Some(gid) => options.extend(["--groups".into(), gid.to_string()]),
        None => options.push("--clear-groups".into()),
    }
    options
}

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

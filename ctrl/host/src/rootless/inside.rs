//! How other programs of the user get into the namespaces of a running fabric.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use rustix::process::geteuid;

use crate::lock::{Lock, StatePaths};

/// Where the fabric of a socket is, as seen from this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// No fabric runs on this socket.
    Nowhere,
    /// In this process's user namespace, or this process is in the fabric's.
    Here,
    /// In namespaces of its own, which this user may enter.
    Inside {
        /// The fabric's process id.
        pid: u32,
    },
    /// In namespaces that another user may be in.
    Foreign {
        /// That user.
        uid: u32,
    },
}

/// Finds the fabric that listens at `socket`.
pub fn place(socket: &Path) -> Place {
    let holder = Lock::holder(&StatePaths::beside(socket));
    let Some(pid) = holder.and_then(|pid| pid.parse::<u32>().ok()) else {
        return Place::Nowhere;
    };
    let process = format!("/proc/{pid}");
    let Ok(meta) = fs::metadata(&process) else {
        return Place::Nowhere;
    };
    let namespace = |process: &str| fs::metadata(format!("{process}/ns/user"));
    match (namespace(&process), namespace("/proc/self")) {
        (Ok(there), Ok(here)) if there.ino() == here.ino() => Place::Here,
        // The lock file is its owner's, who could name any process in it: root enters none for them.
        (Ok(_), Ok(_)) if meta.uid() == geteuid().as_raw() => Place::Inside { pid },
        (Err(error), _) if error.kind() != io::ErrorKind::PermissionDenied => Place::Nowhere,
        _ => Place::Foreign { uid: meta.uid() },
    }
}

/// A command that starts `program` in the namespaces of the process `pid`, with its root's rights
/// there (util-linux).
pub fn enter(pid: u32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.args(["--preserve-credentials", "--user", "--net", "--target"]);
    command.args([&pid.to_string(), "--", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fabric_of_this_namespace_is_here_and_none_is_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("control.sock");
        assert_eq!(place(&socket), Place::Nowhere);
        let lock = Lock::acquire(&StatePaths::beside(&socket)).unwrap();
        assert_eq!(place(&socket), Place::Here);
        lock.release().unwrap();
    }
}

//! Where a fabric listens by default.

use std::path::PathBuf;

/// The socket of root's fabric.
const OF_ROOT: &str = "/run/ikv-fabric/control.sock";

/// The socket of the fabric that a command means if none is named: [`own_socket`], or that of
/// root's fabric if only this one exists.
pub fn default_socket() -> PathBuf {
    let (own, of_root) = (own_socket(), PathBuf::from(OF_ROOT));
    if own.exists() || !of_root.exists() {
        own
    } else {
        of_root
    }
}

/// Where a fabric of this user listens by default: in /run/ikv-fabric for root, otherwise in
/// ikv-fabric below $XDG_RUNTIME_DIR.
pub fn own_socket() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !rustix::process::geteuid().is_root() => {
            PathBuf::from(folder).join("ikv-fabric/control.sock")
        }
        _ => OF_ROOT.into(),
    }
}

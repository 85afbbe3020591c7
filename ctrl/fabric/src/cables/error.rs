//! Why cables could not be plugged in or changed: [`CablesError`].

use std::io;
use std::path::PathBuf;

use dataplane::{PanelError, PortError};

/// Why cables could not be plugged in or changed.
#[derive(Debug, thiserror::Error)]
pub enum CablesError {
    /// A port could not be opened.
    #[error("cable {cable}: {source}")]
    Port {
        /// The cable's name, such as `iksb12`.
        cable: String,
        /// Why the port could not be opened.
        source: PortError,
    },
    /// A worker refused, or does not answer.
    #[error(transparent)]
    Panel(#[from] PanelError),
    /// The socket of a vhost-user front end could not be made.
    #[error("cannot listen at {}: {source}", .path.display())]
    Socket {
        /// The path where the socket should be.
        path: PathBuf,
        /// The error that the system returned.
        source: io::Error,
    },
    /// The hard limit of open files is too low.
    #[error("{needed} open files may be needed, and {allowed} are allowed: `ulimit -Hn {needed}`")]
    Descriptors {
        /// Files that may be open at the same time.
        needed: u64,
        /// The hard limit of open files (RLIMIT_NOFILE).
        allowed: u64,
    },
    /// The kernel does not let this process drop capabilities or system calls.
    #[error("the rights of root and unneeded system calls cannot be given up: {0}")]
    Rights(io::Error),
    /// A second descriptor of a tap, for its carrier, could not be made.
    #[error("the carrier of a tap cannot be held: {0}")]
    Carrier(io::Error),
    /// The flight recorder refused its configuration.
    #[error("the flight recorder cannot be started: {0}")]
    Recorder(String),
    /// The thread that serves the vhost-user sockets could not be started.
    #[error("the vhost-user sockets cannot be served: {0}")]
    VhostUserSockets(io::Error),
}

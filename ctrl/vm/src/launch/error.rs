//! Why a VM could not be started.

use std::io;
use std::path::PathBuf;

use crate::spec::SpecError;
use host::packages;

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No QEMU could run the specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A program could not be started, as a rule because it is not installed.
    #[error("{program} cannot be run: {error}; `{}`", packages::install(&[package]))]
    Program {
        /// The program's name.
        program: &'static str,
        /// Debian's package with the program.
        package: &'static str,
        /// The system's reason.
        error: io::Error,
    },
    /// QEMU is installed, but does not start even an empty machine.
    #[error(
        "qemu-system-x86_64 does not work here: {0}; if it is damaged, `{again}` repairs it",
        again = packages::reinstall("qemu-system-x86")
    )]
    Probe(String),
    /// A file of the image, the seed, or a socket could not be opened.
    #[error("{vm}: {path}: {error}")]
    File {
        /// The node's name.
        vm: String,
        /// The file's path.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// QEMU's uid may not read a file.
    #[error("{vm}: QEMU (uid {uid}) may not read {path}: chmod o+r {path}")]
    Unreadable {
        /// The node's name.
        vm: String,
        /// The file's path.
        path: PathBuf,
        /// QEMU's uid.
        uid: u32,
    },
    /// A tap could not be opened.
    #[error("{vm}: tap {name}: {error}")]
    Tap {
        /// The node's name.
        vm: String,
        /// The tap's name.
        name: String,
        /// The system's reason.
        error: io::Error,
    },
}

impl LaunchError {
    /// The program is not installed, or cannot be executed.
    pub(super) fn program(program: &'static str, package: &'static str, error: io::Error) -> Self {
        Self::Program {
            program,
            package,
            error,
        }
    }
}

//! What can be wrong with changes to the host as a whole.

use std::path::PathBuf;

use crate::error::HostError;
use crate::journal::JournalError;

/// Why the host could not be changed, or not be changed back.
#[derive(Debug, thiserror::Error)]
pub enum HostChangeError {
    /// A step failed. The steps before it were undone, but for `left`.
    #[error("cannot {step}: {source}{}", leftovers(left))]
    Step {
        /// What the step does, as a phrase that follows "cannot".
        step: String,
        /// The change that failed and the system's reason.
        source: HostError,
        /// What could not be undone, a phrase each. Empty when the host is as before.
        left: Vec<String>,
    },
    /// The journal could not be written or read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something could not be undone (a phrase each) and is still in the journal.
    #[error("could not undo everything: {}; `ikv-fabric clean` tries again", .0.join("; "))]
    Undo(Vec<String>),
    /// The journal describes another network namespace, so it must be undone there.
    #[error(
        "fabric {pid} left things in another network namespace; `nsenter --net={} ikv-fabric clean --socket {}` takes them away",
        netns.display(), socket.display()
    )]
    OtherNamespace {
        /// Process id of the fabric that left the journal; it has ended.
        pid: u32,
        /// A path for `nsenter --net=`.
        netns: PathBuf,
        /// The API socket beside which the journal stands.
        socket: PathBuf,
    },
    /// The fabric that wrote the journal (its pid) still runs, although its lock file is gone.
    #[error("fabric {0} is still running; end it with `kill {0}` first")]
    StillRunning(u32),
}

fn leftovers(left: &[String]) -> String {
    if left.is_empty() {
        String::new()
    } else {
        format!(" (and could not undo everything: {})", left.join("; "))
    }
}

//! Why the panel could not do what it was told: [`PanelError`].

use std::io;

use crate::impair::ImpairError;

/// Why the panel could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// A worker could not be started.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// Counted from 0.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// No worker has this cable.
    #[error("the cable is not in the panel")]
    NoSuchCable,
    /// The worker refused, most likely for lack of descriptors.
    #[error("worker {worker} cannot take the cable: {source}")]
    Refused {
        /// Counted from 0.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// [`Panel::stop`](crate::Panel::stop) was called.
    #[error("the panel has been stopped")]
    Stopped,
    /// A worker does not answer.
    #[error("worker {0} does not answer: end the fabric with SIGTERM and report this")]
    Silent(usize),
    /// An impairment that cannot be.
    #[error(transparent)]
    Impairment(#[from] ImpairError),
    /// There is not so much memory for frames that wait.
    #[error(
        "there is no memory for {bytes} bytes of frames that wait: set a lower limit, delay or rate"
    )]
    NoMemory {
        /// As many as the impairment may hold.
        bytes: u64,
    },
    /// A lane has as many captures as it can have.
    #[error("too many captures of this cable run already: end one of them")]
    TooManyCaptures,
}

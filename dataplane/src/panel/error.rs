//! Why a command failed: [`PanelError`].

use std::fmt;
use std::io;

use crate::impair::ImpairError;

/// Why the panel, or its vhost-user sockets, did not carry a command out.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// A worker could not be started.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// Counted from 0.
        worker: usize,
        /// The kernel's reason.
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
        /// The kernel's reason.
        source: io::Error,
    },
    /// A vhost-user socket cannot be watched, most likely for lack of descriptors.
    #[error("the vhost-user socket cannot be watched: {0}")]
    Socket(io::Error),
    /// [`Panel::stop`](crate::Panel::stop) or
    /// [`VhostUserSockets::stop`](crate::vhost_sockets::VhostUserSockets::stop) was called.
    #[error("the panel has been stopped")]
    Stopped,
    /// A thread must be stuck: it does not answer, or its queue of unread commands is full.
    #[error("{0} does not answer: end the fabric with SIGTERM and report this")]
    Silent(Answerer),
    /// An impairment whose keys contradict each other or exceed a limit.
    #[error(transparent)]
    Impairment(#[from] ImpairError),
    /// The memory that an impairment may need could not be reserved.
    #[error(
        "there is no memory for {bytes} bytes of frames that wait: set a lower limit, delay or rate"
    )]
    NoMemory {
        /// Frames that wait may take this much.
        bytes: u64,
    },
    /// A lane has as many captures as it can have.
    #[error("too many captures of this cable run already: end one of them")]
    TooManyCaptures,
}

/// The thread that a command was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answerer {
    /// A worker, counted from 0.
    Worker(usize),
    /// The thread that serves the vhost-user sockets.
    VhostUserSockets,
}

impl fmt::Display for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answerer::Worker(number) => write!(f, "worker {number}"),
            Answerer::VhostUserSockets => f.write_str("the thread of the vhost-user sockets"),
        }
    }
}

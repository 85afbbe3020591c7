//! Why a request has no answer: [`ClientError`].

use std::path::PathBuf;

/// Why a client's request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No fabric listens at this socket.
    #[error("no fabric answers at {}: start one with `ikv-fabric run`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// The kernel does not let this user connect to this socket.
    #[error("the socket {} belongs to another user: run this as that user or root, or set the key `owner` of the fabric", .0.display())]
    NotAllowed(PathBuf),
    /// Neither root nor this user serves this socket.
    #[error(
        "the program that listens at {} runs as user {uid}, and could answer anything: run this as \
         that user, or name another --socket",
        .socket.display()
    )]
    Foreign {
        /// Which socket.
        socket: PathBuf,
        /// The user id of the server.
        uid: u32,
    },
    /// The fabric ended in mid-answer, or answered with something that is not of this version.
    #[error("the fabric at {} does not answer: {reason}; `ikv-fabric status` shows whether it still runs", .socket.display())]
    Broken {
        /// Which fabric.
        socket: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The fabric refused the request; its sentence names the way out.
    #[error("{0}")]
    Refused(String),
}

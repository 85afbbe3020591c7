//! What `ikv-fabric bench` runs: load for a cable, and what comes of it.
//!
//! # How a measurement goes
//!
//! ```text
//!   Plan ─> measure ─ for each size ─> Stage: two Endpoints, one at each end of the cable
//!             │                          flood: a window of frames, as fast as they arrive
//!             │                          paced: a Schedule of frames, each at its time
//!           Report <─ Counts, histogram ── Tally: each frame's Stamp, looked at on arrival
//! ```
//!
//! An [`Endpoint`](endpoint::Endpoint) is a tap, a network device, or a [`Guest`](guest::Guest):
//! the virtio-net driver of the crate `guest` on a vhost-user socket. One thread sends and receives in turn,
//! so times of both ends come from one clock.
//!
//! Every frame carries a number and the time at which it was due ([`pattern`]). What was lost,
//! reordered, duplicated or damaged is in every result ([`tally`]). Latency counts from when a
//! frame was *due*, not from when it was sent: a sender that had to wait hides nothing
//! ([`schedule`]).

pub mod bed;
pub mod clock;
pub mod endpoint;
pub mod machine;
pub mod measure;
pub mod pattern;
pub mod plot;
pub mod report;
pub mod schedule;
pub mod search;
pub mod side_by_side;
pub mod spread;
pub mod tally;
pub mod trial;

use std::io;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An end cannot be had.
    #[error("cannot open {end}: {source}")]
    Open {
        /// As it is written.
        end: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// No cable of our own.
    #[error("cannot make a cable in this process: {0}")]
    Fresh(String),
    /// A guest could not plug in.
    #[error("cannot plug into {end}: {source}")]
    Guest {
        /// As it is written.
        end: String,
        /// Why.
        source: guest::GuestError,
    },
    /// A guest stopped.
    #[error("{0}")]
    Driver(#[from] guest::GuestError),
    /// A device failed.
    #[error("an end of the cable failed: {0}; is the device still there, and up?")]
    Device(#[source] io::Error),
    /// The device does not take frames so long.
    #[error("frames of {0} bytes are too long for the device; `ip link set … mtu {mtu}` makes room", mtu = .0 - 14)]
    TooLong(usize),
    /// Nothing comes out of the cable.
    #[error("no frame of {0} bytes arrives")]
    Silent(usize),
    /// By the user.
    #[error("interrupted")]
    Interrupted,
    /// A plot cannot be drawn.
    #[error("cannot draw {path}: {why}")]
    Plot {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

//! What `ikv-fabric bench` runs: it loads a cable with frames and measures what arrives.
//!
//! # What is in it
//!
//! | module | content |
//! |---|---|
//! | [`testbed`] | the two ends of the cable to measure, and a fresh cable in this process |
//! | [`measure`] | a whole measurement: throughput, highest rate without loss, latency |
//! | `generator` | one run: frames through the cable for a fixed time |
//! | `endpoint` | one end of the cable: a tap, a network device, or a [`Guest`](guest::Guest) |
//! | [`pattern`], `sequence` | the content of test frames, and the check of those that arrive |
//! | `schedule`, `search` | when frames are due; which rate to try next (RFC 2544). Pure |
//! | [`report`], [`plot`] | results as a table, JSON, SVG and PNG |
//! | [`side_by_side`] | `make bench`: this build against others |
//!
//! # What may use it
//!
//! `ikv-fabric bench`, the program `side-by-side` and tests. It depends on the dataplane and on
//! the crate `guest`, and contains no `unsafe`.
//!
//! # How a measurement goes
//!
//! ```text
//!   LoadPlan ─> measure ─ for each size ─> LoadGenerator: two Endpoints, one at each end of the cable
//!                  │                         flood: a window of frames, as fast as they arrive
//!                  │                         paced: a Schedule of frames, each at its time
//!   LoadReport <───┴── FrameCounts, histogram ── SequenceTracker: checks each frame's Stamp
//! ```
//!
//! One thread sends and receives in turn, so the times of both ends come from one clock. A *run*
//! is what RFC 2544 calls a trial; the option `--trial` and the JSON key `trials` use that name.
//!
//! Every frame carries a number and the time at which it was due ([`pattern`]). Every result
//! therefore includes the frames that were lost, reordered, duplicated or damaged. Latency counts
//! from the time at which a frame was *due*, not from when it was sent: a sender that had to wait
//! hides nothing.

pub mod cpu_time;
mod endpoint;
mod generator;
pub mod machine;
pub mod measure;
pub mod pattern;
pub mod plot;
pub mod report;
mod schedule;
mod search;
mod sequence;
pub mod side_by_side;
mod summary;
pub mod testbed;

use std::io;

pub use endpoint::{CableEnd, Endpoint, FrameSink};
pub use sequence::SequenceTracker;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An end of the cable is missing, in use, or not this user's to open.
    #[error("cannot open {end}: {source}")]
    Open {
        /// The end, as the user writes it.
        end: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel refused a device, socket or thread for a fresh cable.
    #[error("cannot make a cable in this process: {0}")]
    FreshCable(String),
    /// A guest could not plug in.
    #[error("cannot plug into {end}: {source}")]
    Guest {
        /// The end, as the user writes it.
        end: String,
        /// The guest's error.
        source: guest::GuestError,
    },
    /// A guest that was plugged in failed.
    #[error("{0}")]
    Driver(#[from] guest::GuestError),
    /// A tap or network device failed.
    #[error("an end of the cable failed: {0}; is the device still there, and up?")]
    Device(#[from] io::Error),
    /// The device refuses frames of this many bytes.
    #[error("frames of {0} bytes are too long for the device; `ip link set … mtu {mtu}` makes room", mtu = .0 - 14)]
    TooLong(usize),
    /// No frame of this many bytes arrived within 3 s.
    #[error("no frame of {0} bytes arrives")]
    Silent(usize),
    /// The user stopped the measurement.
    #[error("interrupted")]
    Interrupted,
    /// A plot cannot be drawn.
    #[error("cannot draw {path}: {why}")]
    Plot {
        /// The file.
        path: String,
        /// The plotting library's error.
        why: String,
    },
}

//! Hostile front ends on real sockets, and a watched cable that they must not affect.
//!
//! Everything runs in this process, which measures its own memory and descriptors, and one worker
//! owns all cables. Whatever a front end or its guest does, nothing crashes, the port stops with a
//! sentence that names the broken rule, and the watched cable loses no frame.
#![allow(missing_docs, clippy::unwrap_used)]

mod eventfds;
mod messages;
mod races;
mod raw;
mod rules;
mod testbed;
mod timing;

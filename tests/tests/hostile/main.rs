//! Front ends that mean harm, on real sockets, beside a cable that must not notice.
//!
//! Everything is in this process, so that it can look at its own memory and descriptors; all
//! cables belong to one worker. Whatever a front end or its guest does: no crash, the port is
//! stopped with a sentence that names the rule, and the cable beside it loses no frame.
#![allow(missing_docs, clippy::unwrap_used)]

mod bay;
mod eyes;
mod messages;
mod raw;
mod rules;
mod timing;

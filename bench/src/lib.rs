//! What `ikv-fabric bench` runs.

pub mod guest;

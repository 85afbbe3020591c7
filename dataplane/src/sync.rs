//! What threads share, from `std`; under `cfg(loom)` from loom, which tries every order and
//! every stale value that a weakly ordered machine allows. CONTRIBUTING says how to run it.
//!
//! loom remembers of each atomic only who used it last. A thread that reads one and then
//! writes it hides from loom whoever read it before: so in a model the thread that begins
//! (the main one) must be the one that reads before it writes, else one order alone is tried.

#[cfg(not(loom))]
pub(crate) use std::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU64, Ordering, fence},
};

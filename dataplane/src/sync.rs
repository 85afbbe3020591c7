//! Atomics and fences from `std`; under `cfg(loom)` from loom, which tries every order and
//! every stale value that a weakly ordered machine allows. CONTRIBUTING says how to run it.
//!
//! loom remembers of each atomic only which thread used it last. A thread that reads one and then
//! writes it hides from loom the threads that read it before. So in a model the main thread, which
//! begins, must be the one that reads before it writes: otherwise loom tries a single order.

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

//! The system calls and ioctls that no safe crate offers, each behind a safe function. The
//! only module of this crate that may hold `unsafe`.
#![allow(unsafe_code)]

pub(crate) mod checksum;
pub(crate) mod guarded_memory;
pub mod netns;
pub mod packet;
pub(crate) mod pool;
pub mod tap;

//! The system calls and ioctls that no safe crate offers, each behind a safe function. The
//! only module of this crate that may hold `unsafe`.
#![allow(unsafe_code)]

pub mod netns;
pub mod packet;
pub mod tap;

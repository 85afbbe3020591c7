//! The system calls and ioctls that no safe crate offers, each behind a safe function.
//!
//! Together with `port/vhost_user` and `ring` the only place where `unsafe` is allowed.
#![allow(unsafe_code)]

pub mod tap;

//! How a fabric comes up.

pub mod vm;

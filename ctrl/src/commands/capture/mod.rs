//! Stub until branch capture is merged.
pub mod filter;

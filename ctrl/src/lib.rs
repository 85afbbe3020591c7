//! How a fabric comes up.

pub mod apply;
pub mod host;
pub mod journal;
pub mod lock;
pub mod plan;
pub mod preflight;

//! The running whole.

mod cables;

pub use cables::{Cables, CablesError};

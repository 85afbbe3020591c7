//! Impairments of a lane. Stub until branch impair is merged.
#![allow(dead_code, missing_docs)]

mod distribution;
mod settings;

pub use distribution::{Distribution, MAX_TABLE};
pub use settings::{
    Chance, ImpairError, Impairment, Limit, Loss, MAX_CELL, MAX_CELL_OVERHEAD, MAX_OVERHEAD,
    MAX_TIME, Rate, Slot, SlotWait,
};

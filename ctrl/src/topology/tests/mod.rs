//! The model against ikvswitch, and in other shapes.

mod bad;
mod default;

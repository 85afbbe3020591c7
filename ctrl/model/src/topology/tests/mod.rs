//! The model against ikvswitch, in other shapes, and refused.

mod bad;
mod default;
mod ipmi;
mod own_cables;
mod shapes;

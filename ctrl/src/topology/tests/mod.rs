//! The model against ikvswitch, in other shapes, and refused.

mod bad;
mod default;
mod routes;
mod shapes;

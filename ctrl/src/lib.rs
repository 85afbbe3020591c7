//! How a fabric comes up.

pub mod api;
pub mod commands;

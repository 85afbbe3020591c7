//! How a fabric comes up.

pub mod api;
pub mod commands;
pub mod config;
pub mod topology;

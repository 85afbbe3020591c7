//! How a fabric comes up.

pub mod api;
pub mod apply;
pub mod commands;
pub mod config;
pub mod fabric;
pub mod host;
pub mod image;
pub mod journal;
pub mod lock;
pub mod plan;
pub mod preflight;
pub mod progress;
pub mod topology;
pub mod vm;

//! How a fabric comes up.
//!
//! TOML file -> [`config::Config`] -> [`topology::Topology`], both pure.

pub mod config;
pub mod topology;

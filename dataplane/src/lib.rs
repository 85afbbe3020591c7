//! Ports, lanes and workers.

pub mod sys;

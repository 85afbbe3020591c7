//! Ports, lanes and workers.

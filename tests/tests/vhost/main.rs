//! DPDK's and QEMU's front ends on vhost-user cables.
#![allow(missing_docs, clippy::unwrap_used)]

mod qemu;
mod virtio_user;

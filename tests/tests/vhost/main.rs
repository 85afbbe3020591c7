//! Front ends on vhost-user cables: DPDK's and QEMU's, and some that mean harm.
#![allow(missing_docs, clippy::unwrap_used)]

mod qemu;
mod virtio_user;

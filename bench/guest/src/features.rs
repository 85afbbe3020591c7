//! Feature bits of virtio-net (virtio 1.2, 5.1.3) under the dataplane's names, and sets of them.

pub use dataplane::port::vhost_user::features::INDIRECT_DESC;
use dataplane::port::vhost_user::features::{
    CSUM, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6, HOST_ECN,
    HOST_TSO4, HOST_TSO6, HOST_USO,
};
pub(crate) use dataplane::port::vhost_user::features::{
    EVENT_IDX, IN_ORDER, MQ, MRG_RXBUF, PROTOCOL_FEATURES, RING_PACKED, VERSION_1,
};

/// All offloads, in both directions.
pub const OFFLOADS: u64 = CSUM
    | GUEST_CSUM
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | GUEST_USO4
    | GUEST_USO6
    | HOST_USO;

/// The offloads that TCP over IPv4 needs for frames of up to 64 KiB, in both directions.
pub const TSO4: u64 = CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4;

//! Feature bits of virtio-net that a driver may agree on: the dataplane's own names for them, and
//! sets of them.

pub use dataplane::port::vhost_user::features::{
    CSUM, EVENT_IDX, GUEST_CSUM, GUEST_ECN, GUEST_TSO4, GUEST_TSO6, GUEST_USO4, GUEST_USO6,
    HOST_ECN, HOST_TSO4, HOST_TSO6, HOST_USO, IN_ORDER, INDIRECT_DESC, MQ, MRG_RXBUF,
    PROTOCOL_FEATURES, RING_PACKED, STATUS, VERSION_1,
};

/// Every offload, both ways.
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

/// What frames of TCP over IPv4 up to 64 KiB need, both ways.
pub const TSO4: u64 = CSUM | GUEST_CSUM | GUEST_TSO4 | HOST_TSO4;

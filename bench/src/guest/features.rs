//! Feature bits of virtio-net (virtio 1.2, 5.1.3 and 6) as a driver knows them.

/// It may leave checksums to the device.
pub const CSUM: u64 = 1 << 0;
/// It takes frames whose checksum is not complete.
pub const GUEST_CSUM: u64 = 1 << 1;
/// It takes TCP super-frames over IPv4.
pub const GUEST_TSO4: u64 = 1 << 7;
/// It takes TCP super-frames over IPv6.
pub const GUEST_TSO6: u64 = 1 << 8;
/// It takes TCP super-frames with ECN's CWR.
pub const GUEST_ECN: u64 = 1 << 9;
/// It may send TCP super-frames over IPv4.
pub const HOST_TSO4: u64 = 1 << 11;
/// It may send TCP super-frames over IPv6.
pub const HOST_TSO6: u64 = 1 << 12;
/// It may send TCP super-frames with ECN's CWR.
pub const HOST_ECN: u64 = 1 << 13;
/// A received frame may lie in several buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// The device tells whether the link is up.
pub const STATUS: u64 = 1 << 16;
/// More than one pair of queues.
pub const MQ: u64 = 1 << 22;
/// Descriptors may point to tables of descriptors.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Notifications are asked for by position.
pub const EVENT_IDX: u64 = 1 << 29;
/// vhost-user's own: there are protocol features. Never told to the guest.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// virtio 1.0 and later.
pub const VERSION_1: u64 = 1 << 32;
/// Packed rings.
pub const RING_PACKED: u64 = 1 << 34;
/// The device uses buffers in the order in which they were made available.
pub const IN_ORDER: u64 = 1 << 35;
/// It takes UDP super-frames over IPv4.
pub const GUEST_USO4: u64 = 1 << 54;
/// It takes UDP super-frames over IPv6.
pub const GUEST_USO6: u64 = 1 << 55;
/// It may send UDP super-frames.
pub const HOST_USO: u64 = 1 << 56;

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

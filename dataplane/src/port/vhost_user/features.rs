//! The feature bits of virtio-net over vhost-user, and what follows from those that a driver
//! accepted (virtio 1.2, 5.1.3 and 6; the vhost-user specification).

use crate::frame::Offloads;

/// VIRTIO_NET_F_CSUM: we take frames with unfinished checksums.
pub const CSUM: u64 = 1 << 0;
/// VIRTIO_NET_F_GUEST_CSUM: the guest takes them.
pub const GUEST_CSUM: u64 = 1 << 1;
/// VIRTIO_NET_F_MTU: the device advertises an MTU.
pub const MTU: u64 = 1 << 3;
/// VIRTIO_NET_F_GUEST_TSO4.
pub const GUEST_TSO4: u64 = 1 << 7;
/// VIRTIO_NET_F_GUEST_TSO6.
pub const GUEST_TSO6: u64 = 1 << 8;
/// VIRTIO_NET_F_GUEST_ECN.
pub const GUEST_ECN: u64 = 1 << 9;
/// VIRTIO_NET_F_HOST_TSO4.
pub const HOST_TSO4: u64 = 1 << 11;
/// VIRTIO_NET_F_HOST_TSO6.
pub const HOST_TSO6: u64 = 1 << 12;
/// VIRTIO_NET_F_HOST_ECN.
pub const HOST_ECN: u64 = 1 << 13;
/// VIRTIO_NET_F_MRG_RXBUF: a frame may be spread over several receive buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// VIRTIO_NET_F_STATUS: the front end reports to the guest whether the link is up.
pub const STATUS: u64 = 1 << 16;
/// VIRTIO_NET_F_CTRL_VQ: the front end has a control queue.
pub const CTRL_VQ: u64 = 1 << 17;
/// VIRTIO_NET_F_CTRL_RX.
pub const CTRL_RX: u64 = 1 << 18;
/// VIRTIO_NET_F_GUEST_ANNOUNCE.
pub const GUEST_ANNOUNCE: u64 = 1 << 21;
/// VIRTIO_NET_F_MQ: more than one pair of queues.
pub const MQ: u64 = 1 << 22;
/// VIRTIO_F_ANY_LAYOUT: header and frame may share a descriptor.
pub const ANY_LAYOUT: u64 = 1 << 27;
/// VIRTIO_F_INDIRECT_DESC.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
pub const EVENT_IDX: u64 = 1 << 29;
/// VHOST_USER_F_PROTOCOL_FEATURES.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_RING_PACKED.
pub const RING_PACKED: u64 = 1 << 34;
/// VIRTIO_F_IN_ORDER: buffers come back in the order in which they were given. They always
/// do here; a driver that knows saves work, and so do we.
pub const IN_ORDER: u64 = 1 << 35;
/// VIRTIO_NET_F_GUEST_USO4.
pub const GUEST_USO4: u64 = 1 << 54;
/// VIRTIO_NET_F_GUEST_USO6.
pub const GUEST_USO6: u64 = 1 << 55;
/// VIRTIO_NET_F_HOST_USO.
pub const HOST_USO: u64 = 1 << 56;

/// The features that every port offers. They do not depend on the cable's other end: features are
/// fixed when a front end connects, and the other end may come later or change. The lane does the
/// work that the other end does not take. [`MTU`] is added where one is configured.
pub const OFFERED: u64 = CSUM
    | GUEST_CSUM
    | GUEST_TSO4
    | GUEST_TSO6
    | GUEST_ECN
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | MRG_RXBUF
    | STATUS
    | CTRL_VQ
    | CTRL_RX
    | GUEST_ANNOUNCE
    | MQ
    | ANY_LAYOUT
    | INDIRECT_DESC
    | EVENT_IDX
    | PROTOCOL_FEATURES
    | VERSION_1
    | RING_PACKED
    | IN_ORDER
    | GUEST_USO4
    | GUEST_USO6
    | HOST_USO;

/// Bytes of the virtio-net header in front of each frame (virtio 1.2, 5.1.6.1): `num_buffers`
/// is there in modern devices and with mergeable buffers.
pub(super) fn header_len(features: u64) -> usize {
    if features & (VERSION_1 | MRG_RXBUF) == 0 {
        10
    } else {
        12
    }
}

/// The offloads of frames that the guest takes as they are.
pub(super) fn taken_by_guest(features: u64) -> Offloads {
    offloads(
        features,
        GUEST_CSUM,
        [GUEST_TSO4, GUEST_TSO6, GUEST_ECN],
        GUEST_USO4 | GUEST_USO6,
    )
}

/// The offloads that the guest may leave to us.
pub(super) fn granted_to_guest(features: u64) -> Offloads {
    offloads(features, CSUM, [HOST_TSO4, HOST_TSO6, HOST_ECN], HOST_USO)
}

fn offloads(features: u64, csum: u64, [tso4, tso6, ecn]: [u64; 3], uso: u64) -> Offloads {
    if features & csum == 0 {
        return Offloads::NONE; // all others need it (virtio 1.2, 5.1.3.1)
    }
    let with = |bits: u64, offload| {
        if features & bits == bits {
            offload
        } else {
            Offloads::NONE
        }
    };
    Offloads::CSUM
        | with(tso4, Offloads::TSO4)
        | with(tso6, Offloads::TSO6)
        | with(ecn, Offloads::ECN)
        | with(uso, Offloads::USO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_need_checksums() {
        assert_eq!(taken_by_guest(GUEST_TSO4 | GUEST_ECN), Offloads::NONE);
        assert_eq!(
            taken_by_guest(GUEST_CSUM | GUEST_TSO4 | GUEST_USO4),
            Offloads::CSUM | Offloads::TSO4
        );
        assert_eq!(granted_to_guest(OFFERED), Offloads::ALL);
        assert_eq!(taken_by_guest(OFFERED), Offloads::ALL);
    }

    #[test]
    fn the_header_is_short_only_on_old_devices() {
        assert_eq!(header_len(CSUM), 10);
        assert_eq!(header_len(MRG_RXBUF), 12);
        assert_eq!(header_len(VERSION_1), 12);
    }
}

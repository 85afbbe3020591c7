//! What a sender may leave to the receiver of a frame: [`Offloads`].

use std::fmt;
use std::ops::BitOr;

/// A set of offloads: what a frame needs its receiver to have agreed to, or what a receiver
/// agreed to take.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads(pub(crate) u8);

impl Offloads {
    /// Only frames as they are on the wire.
    pub const NONE: Offloads = Offloads(0);
    /// Checksums left to the receiver.
    pub const CSUM: Offloads = Offloads(1);
    /// TCP super-frames over IPv4.
    pub const TSO4: Offloads = Offloads(1 << 1);
    /// TCP super-frames over IPv6.
    pub const TSO6: Offloads = Offloads(1 << 2);
    /// TCP super-frames whose first wire frame alone carries CWR (RFC 3168). Has no meaning
    /// without one of the two above.
    pub const ECN: Offloads = Offloads(1 << 3);
    /// UDP super-frames over IPv4 and IPv6, cut into datagrams. virtio's older UFO, which cuts into IP
    /// fragments, is not supported.
    pub const USO: Offloads = Offloads(1 << 4);
    /// Everything above.
    pub const ALL: Offloads = Offloads(0x1f);
    /// Super-frames that are not what their virtio-net header says they are: in a tunnel, or behind a tag that
    /// Linux does not know. No receiver takes them; only the lanes cut them right.
    pub(crate) const NESTED: Offloads = Offloads(1 << 6);
    /// An offload that no receiver takes.
    pub(crate) const UNKNOWN: Offloads = Offloads(1 << 7);

    /// Whether every offload of `other` is in this set.
    #[inline]
    #[must_use]
    pub fn contains(self, other: Offloads) -> bool {
        other.0 & !self.0 == 0
    }

    /// This set without the offloads of `other`.
    #[must_use]
    pub fn without(self, other: Offloads) -> Offloads {
        Offloads(self.0 & !other.0)
    }
}

impl BitOr for Offloads {
    type Output = Offloads;

    #[inline]
    fn bitor(self, other: Offloads) -> Offloads {
        Offloads(self.0 | other.0)
    }
}

impl fmt::Debug for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Offloads::CSUM, "CSUM"),
            (Offloads::TSO4, "TSO4"),
            (Offloads::TSO6, "TSO6"),
            (Offloads::ECN, "ECN"),
            (Offloads::USO, "USO"),
            (Offloads::NESTED, "NESTED"),
            (Offloads::UNKNOWN, "UNKNOWN"),
        ];
        let present = names.iter().filter(|(bit, _)| self.contains(*bit));
        f.debug_set()
            .entries(present.map(|(_, name)| name))
            .finish()
    }
}

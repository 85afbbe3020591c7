//! What a sender may leave to others: unfinished checksums, and super-frames that are to be
//! cut into wire frames ([`Offloads`]); and doing it for a receiver that does not (`cut.rs`), or
//! for copies of frames ([`Segmenter`]).

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod checksum;
mod copies;
mod cut;
mod headers;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::BitOr;

pub use copies::{Segmenter, finish_checksum, pieces};
pub(crate) use cut::Cut;

/// A set of offloads: what a frame needs its receiver to have agreed to, or what a receiver
/// agreed to take.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads(u8);

impl Offloads {
    /// Frames as they are on the wire.
    pub const NONE: Offloads = Offloads(0);
    /// Checksums left to the receiver.
    pub const CSUM: Offloads = Offloads(1);
    /// TCP super-frames over IPv4.
    pub const TSO4: Offloads = Offloads(1 << 1);
    /// TCP super-frames over IPv6.
    pub const TSO6: Offloads = Offloads(1 << 2);
    /// TCP super-frames whose first wire frame alone carries CWR (RFC 3168). Means nothing
    /// without one of the two above.
    pub const ECN: Offloads = Offloads(1 << 3);
    /// UDP super-frames over IPv4 and IPv6, cut into datagrams (not into IP fragments, which
    /// virtio's older UFO means: nobody takes those).
    pub const USO: Offloads = Offloads(1 << 4);
    /// Everything above.
    pub const ALL: Offloads = Offloads(0x1f);
    /// What nobody takes.
    pub(crate) const UNKNOWN: Offloads = Offloads(1 << 7);

    /// Whether all of `other` is in it.
    #[inline]
    #[must_use]
    pub fn contains(self, other: Offloads) -> bool {
        other.0 & !self.0 == 0
    }

    /// What is in it without `other`.
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
            (Offloads::UNKNOWN, "UNKNOWN"),
        ];
        let present = names.iter().filter(|(bit, _)| self.contains(*bit));
        f.debug_set()
            .entries(present.map(|(_, name)| name))
            .finish()
    }
}

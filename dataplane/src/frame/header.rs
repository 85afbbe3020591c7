//! The header that goes with every frame: [`VnetHeader`].

use std::fmt;

use super::{Offloads, VLAN_TAG};
use crate::sys::VNET_HEADER_LEN;

/// A virtio-net header without `num_buffers` (virtio 1.2, 5.1.6): what the kernel puts in
/// front of frames on taps with IFF_VNET_HDR and packet sockets with PACKET_VNET_HDR. It
/// says which checksum and segmentation work the sender left to the receiver.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader(pub [u8; VnetHeader::LEN]);

impl VnetHeader {
    /// Its size in bytes, as the kernel reads and writes it.
    pub const LEN: usize = VNET_HEADER_LEN;

    /// Whether neither checksum nor segmentation is left to the receiver.
    pub fn is_plain(&self) -> bool {
        self.needs() == Offloads::NONE
    }

    /// VIRTIO_NET_HDR_GSO_…: 0 for a frame as it would be on the wire.
    pub fn gso_type(&self) -> u8 {
        self.0[1]
    }

    /// The header with the offsets that count from the frame's start moved by one VLAN tag, which is
    /// put back into the frame in front of what they point to. `None` when an offset cannot be
    /// that large.
    pub(crate) fn shifted_for_vlan_tag(mut self) -> Option<Self> {
        if self.gso_type() != 0 {
            self.add(2, VLAN_TAG as u16)?; // hdr_len
        }
        if self.0[0] & Self::NEEDS_CSUM != 0 {
            self.add(6, VLAN_TAG as u16)?; // csum_start
        }
        Some(self)
    }

    /// Whether the checksum that is to be finished, if there is one, lies in a frame of `frame_len` bytes.
    #[inline]
    pub(crate) fn checksum_is_inside(&self, frame_len: usize) -> bool {
        self.0[0] & Self::NEEDS_CSUM == 0 || self.checksum_end() <= frame_len
    }

    /// Where the checksum that is to be finished ends.
    #[inline]
    pub(crate) fn checksum_end(&self) -> usize {
        usize::from(self.checksum_start()) + usize::from(self.checksum_offset()) + 2
    }

    /// The offloads that a receiver must have agreed to in order to take the frame as it is. An
    /// unknown kind of super-frame needs one that no receiver agrees to.
    #[inline]
    pub(crate) fn needs(&self) -> Offloads {
        if self.0[0] & Self::NEEDS_CSUM == 0 && self.0[1] == 0 {
            return Offloads::NONE;
        }
        let checksum = if self.0[0] & Self::NEEDS_CSUM == 0 {
            Offloads::NONE
        } else {
            Offloads::CSUM
        };
        let ecn = if self.0[1] & Self::GSO_ECN == 0 {
            Offloads::NONE
        } else {
            Offloads::ECN
        };
        let cut = match self.0[1] & !Self::GSO_ECN {
            Self::GSO_NONE => Offloads::NONE,
            Self::GSO_TCP4 => Offloads::TSO4,
            Self::GSO_TCP6 => Offloads::TSO6,
            Self::GSO_UDP => Offloads::USO,
            _ => Offloads::UNKNOWN,
        };
        checksum | ecn | cut
    }

    /// Bytes of all headers in front of the payload, as a hint (`hdr_len`).
    pub(crate) fn header_len(&self) -> u16 {
        self.field(2)
    }

    /// Bytes of payload in each wire frame of a super-frame (`gso_size`).
    pub(crate) fn segment_size(&self) -> u16 {
        self.field(4)
    }

    /// Where the checksum that is to be finished begins to count (`csum_start`).
    pub(crate) fn checksum_start(&self) -> u16 {
        self.field(6)
    }

    /// Where it goes, counted from there (`csum_offset`).
    pub(crate) fn checksum_offset(&self) -> u16 {
        self.field(8)
    }

    /// Checks a header that an untrusted guest wrote, and clears the flags that have no meaning in
    /// this direction. `None` when it contradicts itself or the frame of `frame_len` bytes behind it,
    /// or asks for an offload that is not in `agreed` (virtio 1.2, 5.1.6.2).
    #[inline]
    pub(crate) fn checked(mut self, frame_len: usize, agreed: Offloads) -> Option<Self> {
        if self.0[0] & Self::NEEDS_CSUM == 0 && self.0[1] == 0 {
            return Some(Self::default());
        }
        self.0[0] &= Self::NEEDS_CSUM;
        let needs = self.needs();
        let whole = self.gso_type() == 0;
        if whole {
            self.0[2..6].fill(0);
        }
        // A super-frame's checksums can only be made when it is cut.
        let may_pass = agreed.contains(needs)
            && needs.contains(Offloads::CSUM)
            && self.checksum_is_inside(frame_len)
            && (whole || (self.segment_size() > 0 && needs != Offloads::CSUM | Offloads::ECN));
        may_pass.then_some(self)
    }

    /// The header of a piece that was cut from the super-frame; an unfinished checksum stays so.
    #[inline]
    pub(crate) fn without_segmentation(mut self) -> Self {
        self.0[1..6].fill(0);
        self
    }

    /// Without the flags that only a device may set: not every driver accepts them.
    #[inline]
    pub(crate) fn for_guest(mut self) -> Self {
        self.0[0] &= Self::NEEDS_CSUM;
        self
    }

    const NEEDS_CSUM: u8 = 1;
    const GSO_NONE: u8 = 0;
    const GSO_TCP4: u8 = 1;
    const GSO_TCP6: u8 = 4;
    const GSO_UDP: u8 = 5;
    const GSO_ECN: u8 = 0x80;

    fn field(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn add(&mut self, at: usize, bytes: u16) -> Option<()> {
        let field = self.field(at).checked_add(bytes)?;
        self.0[at..at + 2].copy_from_slice(&field.to_le_bytes());
        Some(())
    }
}

impl fmt::Debug for VnetHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VnetHeader")
            .field("flags", &self.0[0])
            .field("gso_type", &self.gso_type())
            .field("hdr_len", &self.header_len())
            .field("gso_size", &self.segment_size())
            .field("csum_start", &self.checksum_start())
            .field("csum_offset", &self.checksum_offset())
            .finish()
    }
}

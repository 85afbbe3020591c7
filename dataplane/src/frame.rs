//! Frames as they lie in a worker's memory: [`Burst`] and [`VnetHeader`].

use std::fmt;

/// Frames handled in one go, at most.
pub const MAX_BURST: usize = 64;

/// Longest frame that a port takes in, in bytes without FCS: a 64 KiB
/// super-frame's IP packet, an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_536 + 14 + 2 * VLAN_TAG;

/// Shortest frame that is one at all: an Ethernet header.
pub const MIN_FRAME: usize = 14;

/// Bytes of one 802.1Q tag.
pub(crate) const VLAN_TAG: usize = 4;

/// Free bytes in front of a received frame: room to put back a VLAN tag that the kernel
/// took out, without moving more than the two addresses.
const HEADROOM: usize = 16;

/// Distance between two frames of a burst. Whole cache lines, so that frames share none.
const STRIDE: usize = (HEADROOM + MAX_FRAME).next_multiple_of(64);

/// A virtio-net header without `num_buffers` (virtio 1.2, 5.1.6): what the kernel puts in
/// front of frames on taps with IFF_VNET_HDR and packet sockets with PACKET_VNET_HDR. It
/// tells which checksum and segmentation work the sender left for others to do.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader(pub [u8; VnetHeader::LEN]);

impl VnetHeader {
    /// Bytes on the way from and to the kernel.
    pub const LEN: usize = 10;

    /// Neither a checksum nor a segmentation is left to do.
    pub fn is_plain(&self) -> bool {
        self.0[0] & Self::NEEDS_CSUM == 0 && self.gso_type() == 0
    }

    /// VIRTIO_NET_HDR_GSO_…: 0 for a frame as it would be on the wire.
    pub fn gso_type(&self) -> u8 {
        self.0[1]
    }

    /// Moves the offsets that count from the frame's start by one VLAN tag, put back into
    /// the frame in front of what they point to.
    pub(crate) fn shift_for_vlan_tag(&mut self) {
        if self.gso_type() != 0 {
            self.add(2, VLAN_TAG as u16); // hdr_len
        }
        if self.0[0] & Self::NEEDS_CSUM != 0 {
            self.add(6, VLAN_TAG as u16); // csum_start
        }
    }

    const NEEDS_CSUM: u8 = 1;

    fn add(&mut self, at: usize, bytes: u16) {
        let field = u16::from_ne_bytes([self.0[at], self.0[at + 1]]);
        self.0[at..at + 2].copy_from_slice(&field.wrapping_add(bytes).to_ne_bytes());
    }
}

impl fmt::Debug for VnetHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |at: usize| u16::from_ne_bytes([self.0[at], self.0[at + 1]]);
        f.debug_struct("VnetHeader")
            .field("flags", &self.0[0])
            .field("gso_type", &self.gso_type())
            .field("hdr_len", &field(2))
            .field("gso_size", &field(4))
            .field("csum_start", &field(6))
            .field("csum_offset", &field(8))
            .finish()
    }
}

#[derive(Clone, Copy, Default)]
struct Slot {
    header: VnetHeader,
    /// Which stride of the memory the frame lies in. Over all slots a permutation, so
    /// that no two frames share memory.
    place: u16,
    start: u32,
    len: u32,
}

/// Up to [`MAX_BURST`] frames and the memory that they lie in. A worker has one and reuses
/// it for ever: receiving overwrites what was sent before.
///
/// Pages are touched only as frames need them, so a burst of small frames costs 64 pages
/// of real memory, not the 4 MiB that it reserves.
pub struct Burst {
    memory: Box<[u8]>,
    slots: [Slot; MAX_BURST],
    len: usize,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Burst {
            memory: vec![0; STRIDE * MAX_BURST].into_boxed_slice(),
            slots: std::array::from_fn(|place| Slot {
                place: place as u16,
                ..Slot::default()
            }),
            len: 0,
        }
    }

    /// Frames in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frame in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all frames together, without virtio-net headers.
    pub fn bytes(&self) -> u64 {
        self.slots[..self.len]
            .iter()
            .map(|slot| u64::from(slot.len))
            .sum()
    }

    /// The frame at `index`, from the destination address on, and its header.
    pub fn frame(&self, index: usize) -> (&VnetHeader, &[u8]) {
        let slot = &self.slots[..self.len][index];
        let at = slot.place as usize * STRIDE + slot.start as usize;
        (&slot.header, &self.memory[at..at + slot.len as usize])
    }

    /// All frames, first to last.
    pub fn frames(&self) -> impl Iterator<Item = (&VnetHeader, &[u8])> {
        (0..self.len).map(|index| self.frame(index))
    }

    /// Forgets the frames.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Where the frame `ahead` places behind the last one may be received to: its header,
    /// and [`MAX_FRAME`] bytes. `None` where the burst ends.
    pub(crate) fn vacant(&mut self, ahead: usize) -> Option<(&mut VnetHeader, &mut [u8])> {
        let slot = self.slots.get_mut(self.len + ahead)?;
        let at = slot.place as usize * STRIDE + HEADROOM;
        Some((&mut slot.header, &mut self.memory[at..at + MAX_FRAME]))
    }

    /// Takes in the frame of `len` bytes that was received to the vacant place `ahead`.
    /// The places left out in between stay vacant and go behind it.
    pub(crate) fn take_in(&mut self, ahead: usize, len: usize, vlan: Option<VlanTag>) {
        debug_assert!(len <= MAX_FRAME);
        self.slots.swap(self.len, self.len + ahead);
        let slot = &mut self.slots[self.len];
        slot.start = HEADROOM as u32;
        slot.len = len as u32;
        if let Some(tag) = vlan {
            let frame = &mut self.memory[slot.place as usize * STRIDE..][..STRIDE];
            let start = HEADROOM - VLAN_TAG;
            frame.copy_within(HEADROOM..HEADROOM + 12, start);
            frame[start + 12..start + 14].copy_from_slice(&tag.tpid.to_be_bytes());
            frame[start + 14..start + 16].copy_from_slice(&tag.tci.to_be_bytes());
            slot.start = start as u32;
            slot.len += VLAN_TAG as u32;
            slot.header.shift_for_vlan_tag();
        }
        self.len += 1;
    }

    /// Appends a copy of a frame. `false` when the burst is full or the frame too long.
    pub(crate) fn push(&mut self, header: VnetHeader, frame: &[u8]) -> bool {
        let Some((place, memory)) = self.vacant(0) else {
            return false;
        };
        let Some(memory) = memory.get_mut(..frame.len()) else {
            return false;
        };
        memory.copy_from_slice(frame);
        *place = header;
        self.take_in(0, frame.len(), None);
        true
    }
}

/// An 802.1Q tag that the kernel stripped into metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VlanTag {
    pub(crate) tpid: u16,
    pub(crate) tci: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stripped_vlan_tag_goes_back_behind_the_addresses() {
        let mut burst = Burst::new();
        let bare: Vec<u8> = (0..60).collect();
        let (header, memory) = burst.vacant(0).unwrap();
        memory[..60].copy_from_slice(&bare);
        header.0 = [1, 1, 54, 0, 0, 0, 34, 0, 16, 0]; // NEEDS_CSUM, TCPv4
        burst.take_in(
            0,
            60,
            Some(VlanTag {
                tpid: 0x8100,
                tci: 0x200a,
            }),
        );

        let (header, frame) = burst.frame(0);
        assert_eq!(frame.len(), 64);
        assert_eq!(frame[..12], bare[..12]);
        assert_eq!(frame[12..16], [0x81, 0x00, 0x20, 0x0a]);
        assert_eq!(frame[16..], bare[12..]);
        assert_eq!(u16::from_ne_bytes([header.0[2], header.0[3]]), 58);
        assert_eq!(u16::from_ne_bytes([header.0[6], header.0[7]]), 38);
    }

    #[test]
    fn plain_headers_have_no_offsets_to_shift() {
        let mut header = VnetHeader::default();
        header.shift_for_vlan_tag();
        assert_eq!(header, VnetHeader::default());
        assert!(header.is_plain());
    }

    #[test]
    fn a_place_left_out_closes_up_and_stays_usable() {
        let mut burst = Burst::new();
        for (ahead, byte) in [(0, 1), (1, 2), (2, 3)] {
            burst.vacant(ahead).unwrap().1[..60].fill(byte);
        }
        burst.take_in(0, 60, None);
        burst.take_in(1, 60, None); // the one in the middle was no good
        assert_eq!(
            burst
                .frames()
                .map(|(_, frame)| frame[0])
                .collect::<Vec<_>>(),
            [1, 3]
        );
        while burst.push(VnetHeader::default(), &[9; 60]) {}
        assert_eq!(
            burst
                .frames()
                .map(|(_, frame)| frame[0])
                .take(3)
                .collect::<Vec<_>>(),
            [1, 3, 9]
        );
    }

    #[test]
    fn a_full_burst_takes_no_more() {
        let mut burst = Burst::new();
        for _ in 0..MAX_BURST {
            assert!(burst.push(VnetHeader::default(), &[0; 60]));
        }
        assert!(!burst.push(VnetHeader::default(), &[0; 60]));
        assert_eq!((burst.len(), burst.bytes()), (64, 64 * 60));
        burst.clear();
        assert!(!burst.push(VnetHeader::default(), &vec![0; MAX_FRAME + 1]));
        assert!(burst.push(VnetHeader::default(), &vec![0; MAX_FRAME]));
    }
}

//! Frames as a worker handles them: [`Burst`] and [`VnetHeader`].

use std::fmt;

use crate::capture::{FrameBytes, copy_in_steps};
use crate::offload::Offloads;
use crate::sync::AtomicU64;
use crate::sys::pool::{Pool, Segment};

/// Frames handled in one go, at most.
pub const MAX_BURST: usize = 64;

/// Longest frame that a port takes in, in bytes without FCS: a 64 KiB
/// super-frame's IP packet, an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_536 + 14 + 2 * VLAN_TAG;

/// Shortest frame that is one at all: an Ethernet header.
pub const MIN_FRAME: usize = 14;

/// Segments of one frame, at most: what one writev(2) takes (UIO_MAXIOV), less one for the
/// virtio-net header. A guest's chain of 1024 descriptors has a header too.
pub(crate) const MAX_FRAME_SEGMENTS: usize = 1023;

/// Segments of all frames of a burst, at most; the burst ends early when fewer are left than
/// one frame may need.
const MAX_SEGMENTS: usize = 2 * MAX_FRAME_SEGMENTS;

/// Bytes of one 802.1Q tag.
pub(crate) const VLAN_TAG: usize = 4;

/// Free bytes in front of a received frame: room to put back a VLAN tag that the kernel
/// took out, without moving more than the two addresses.
const HEADROOM: usize = 16;

/// Frames begin at so many different distances from the beginning of a page: else all of a burst
/// would compete for the same few sets of the cache.
const COLOURS: usize = 60;

/// Bytes of memory for one frame: whole pages, so that it can change its owner.
const STRIDE: usize = (HEADROOM + MAX_FRAME + COLOURS * 64).next_multiple_of(4096);

/// Where the frame in a stride begins.
fn frame_start(stride: &Pool) -> usize {
    HEADROOM + stride.address() / 4096 % COLOURS * 64
}

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
        self.needs() == Offloads::NONE
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

    /// What a receiver must have agreed to for taking the frame as it is. An unknown kind
    /// of super-frame needs what nobody agrees to.
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

    /// The header as it may be handed on, from one that a guest or a stranger wrote: flags
    /// that mean nothing on this way are taken out. `None` when it contradicts itself or
    /// the frame of `frame_len` bytes behind it, or asks for an offload that is not in
    /// `agreed` (virtio 1.2, 5.1.6.2).
    #[inline]
    pub(crate) fn checked(mut self, frame_len: usize, agreed: Offloads) -> Option<Self> {
        if self.0[0] & Self::NEEDS_CSUM == 0 && self.0[1] == 0 {
            return Some(Self::default());
        }
        self.0[0] &= Self::NEEDS_CSUM;
        let needs = self.needs();
        let sum_at = usize::from(self.checksum_start()) + usize::from(self.checksum_offset());
        let sum_inside = sum_at + 2 <= frame_len;
        let whole = self.gso_type() == 0;
        if whole {
            self.0[2..6].fill(0);
        }
        // A super-frame's checksums can only be made when it is cut.
        let may_pass = agreed.contains(needs)
            && needs.contains(Offloads::CSUM)
            && sum_inside
            && (whole || (self.segment_size() > 0 && needs != Offloads::CSUM | Offloads::ECN));
        may_pass.then_some(self)
    }

    /// For a frame that is no super-frame any more; whether its checksum is unfinished stays.
    #[inline]
    pub(crate) fn without_segmentation(mut self) -> Self {
        self.0[1..6].fill(0);
        self
    }

    /// Without the flags that only devices may set, which not every driver knows.
    #[inline]
    pub(crate) fn for_guest(mut self) -> Self {
        self.0[0] &= Self::NEEDS_CSUM;
        self
    }

    /// For the kernel to read from.
    pub(crate) fn io_vector(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.0.as_ptr().cast_mut().cast(),
            iov_len: Self::LEN,
        }
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

    fn add(&mut self, at: usize, bytes: u16) {
        let field = self.field(at);
        self.0[at..at + 2].copy_from_slice(&field.wrapping_add(bytes).to_le_bytes());
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

/// One frame of a burst.
#[derive(Clone, Copy, Default)]
struct FrameRef {
    header: VnetHeader,
    len: u32,
    /// Its segments.
    first: u16,
    count: u16,
}

/// Up to [`MAX_BURST`] frames: where each lies, and memory for those that lie nowhere else.
/// A worker has one and reuses it for ever: receiving overwrites what was sent before.
///
/// Frames from a vhost-user port stay in the guest's memory; what comes from the kernel is
/// read into the burst's own. Pages of that are touched only as frames need them, so a burst
/// of small frames costs 64 pages of real memory, not the 4 MiB that it reserves.
pub struct Burst {
    /// For each index the memory that the frame there may use.
    strides: Vec<Pool>,
    frames: [FrameRef; MAX_BURST],
    len: usize,
    segments: Box<[Segment]>,
    segments_len: usize,
    bytes: u64,
    needs: Offloads,
    /// Which queue of a port with several it came from.
    queue: usize,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.frames[..self.len].iter();
        f.debug_list()
            .entries(frames.map(|frame| (frame.len, frame.header)))
            .finish()
    }
}

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Burst {
            strides: (0..MAX_BURST).map(|_| Pool::new(STRIDE)).collect(),
            frames: [FrameRef::default(); MAX_BURST],
            len: 0,
            segments: vec![Segment::EMPTY; MAX_SEGMENTS].into_boxed_slice(),
            segments_len: 0,
            bytes: 0,
            needs: Offloads::NONE,
            queue: 0,
        }
    }

    /// Frames in it.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no frame in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one more frame of any kind fits.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.len < MAX_BURST && MAX_SEGMENTS - self.segments_len >= MAX_FRAME_SEGMENTS
    }

    /// Bytes of all frames together, without virtio-net headers.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a receiver must have agreed to for taking all of it as it is.
    #[inline]
    pub(crate) fn needs(&self) -> Offloads {
        self.needs
    }

    /// The virtio-net header of the frame at `index`.
    #[inline]
    pub fn header(&self, index: usize) -> &VnetHeader {
        &self.frames[..self.len][index].header
    }

    /// Bytes of the frame at `index`.
    #[inline]
    pub fn frame_len(&self, index: usize) -> usize {
        self.frames[..self.len][index].len as usize
    }

    /// Where the frame at `index` lies, from the destination address on.
    #[inline]
    pub(crate) fn segments(&self, index: usize) -> &[Segment] {
        let frame = &self.frames[..self.len][index];
        &self.segments[frame.first as usize..][..frame.count as usize]
    }

    /// Copies the beginning of the frame at `index` out, as much as fits; returns how much.
    pub fn copy_out(&self, index: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments(index) {
            done += segment.copy_to(&mut to[done..]);
        }
        done
    }

    /// The frame at `index`, copied.
    pub fn to_vec(&self, index: usize) -> Vec<u8> {
        let mut frame = vec![0; self.frame_len(index)];
        self.copy_out(index, &mut frame);
        frame
    }

    /// Forgets the frames.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments_len = 0;
        self.bytes = 0;
        self.needs = Offloads::NONE;
        self.queue = 0;
    }

    /// Which queue of its port the burst came from, counted from 0.
    #[inline]
    pub(crate) fn queue(&self) -> usize {
        self.queue
    }

    #[inline]
    pub(crate) fn set_queue(&mut self, queue: usize) {
        self.queue = queue;
    }

    /// Where the frame `ahead` places behind the last one may be received to: its header,
    /// and [`MAX_FRAME`] bytes. `None` where the burst ends.
    pub(crate) fn vacant(&mut self, ahead: usize) -> Option<(&mut VnetHeader, &mut [u8])> {
        let index = self.len + ahead;
        let stride = self.strides.get_mut(index)?;
        let memory = stride.piece(frame_start(stride), MAX_FRAME);
        Some((&mut self.frames[index].header, memory))
    }

    /// Takes in the frame of `len` bytes that was received to the vacant place `ahead`.
    /// The places left out in between stay vacant and go behind it.
    pub(crate) fn take_in(&mut self, ahead: usize, len: usize, vlan: Option<VlanTag>) {
        debug_assert!(len <= MAX_FRAME);
        self.strides.swap(self.len, self.len + ahead);
        let mut header = self.frames[self.len + ahead].header;
        let stride = &mut self.strides[self.len];
        let (mut start, mut len) = (frame_start(stride), len);
        if let Some(tag) = vlan {
            let frame = stride.piece(0, STRIDE);
            let received = start;
            start -= VLAN_TAG;
            len += VLAN_TAG;
            frame.copy_within(received..received + 12, start);
            frame[start + 12..start + 14].copy_from_slice(&tag.tpid.to_be_bytes());
            frame[start + 14..start + 16].copy_from_slice(&tag.tci.to_be_bytes());
            header.shift_for_vlan_tag();
        }
        let segment = stride.segment(start, len);
        self.add_segment(segment);
        self.add_frame(header, len);
    }

    /// Memory for the frame that is to be added next: [`MAX_FRAME`] bytes that
    /// [`Burst::own_segment`] makes segments of.
    ///
    /// # Panics
    /// When the burst is full.
    pub(crate) fn own_memory(&mut self) -> &mut [u8] {
        let stride = &mut self.strides[self.len];
        stride.piece(frame_start(stride), MAX_FRAME)
    }

    /// A piece of [`Burst::own_memory`].
    pub(crate) fn own_segment(&self, at: usize, len: usize) -> Segment {
        debug_assert!(at + len <= MAX_FRAME);
        let stride = &self.strides[self.len];
        stride.segment(frame_start(stride) + at, len)
    }

    /// Adds a segment to the frame that is to be added next.
    ///
    /// # Panics
    /// When there have been too many: ask [`Burst::has_room`] before a frame, and give it
    /// no more than [`MAX_FRAME_SEGMENTS`].
    #[inline]
    pub(crate) fn add_segment(&mut self, segment: Segment) {
        self.segments[self.segments_len] = segment;
        self.segments_len += 1;
    }

    /// Adds the frame made of the segments that were added since the last one, `len` bytes
    /// together.
    ///
    /// # Panics
    /// When the burst is full.
    #[inline]
    pub(crate) fn add_frame(&mut self, header: VnetHeader, len: usize) {
        let first = match self.len {
            0 => 0,
            last => self.frames[last - 1].first + self.frames[last - 1].count,
        };
        self.needs = self.needs | header.needs();
        self.bytes += len as u64;
        self.frames[self.len] = FrameRef {
            header,
            len: len as u32,
            first,
            count: self.segments_len as u16 - first,
        };
        self.len += 1;
    }

    /// Appends a frame of another burst; it stays where it lies.
    ///
    /// # Panics
    /// When there is no room.
    pub(crate) fn push_again(&mut self, other: &Burst, index: usize) {
        for segment in other.segments(index) {
            self.add_segment(*segment);
        }
        self.add_frame(*other.header(index), other.frame_len(index));
    }

    /// Memory as one frame of a burst has it.
    ///
    /// # Errors
    /// When there is none left.
    pub(crate) fn new_stride() -> std::io::Result<Pool> {
        Pool::try_new(STRIDE)
    }

    /// Takes the frame at `index` with its memory, and puts a spare one in place; returns also
    /// where in it the frame begins. Gives the spare one back when the frame lies elsewhere. The
    /// frame's segments stay valid for as long as the memory is.
    pub(crate) fn exchange(&mut self, index: usize, spare: Pool) -> Result<(Pool, usize), Pool> {
        let at = match self.segments(index) {
            [segment] => self.strides[index].offset_of(segment),
            _ => None,
        };
        match at {
            Some(at) => Ok((std::mem::replace(&mut self.strides[index], spare), at)),
            None => Err(spare),
        }
    }

    /// Takes the last frame back out.
    pub(crate) fn pop(&mut self) {
        let Some(last) = self.len.checked_sub(1) else {
            return;
        };
        self.bytes -= u64::from(self.frames[last].len);
        self.len = last;
        self.abandon_frame();
    }

    /// The frame at `index`, to be read from.
    #[inline]
    pub(crate) fn frame(&self, index: usize) -> BurstFrame<'_> {
        BurstFrame {
            segments: self.segments(index),
            len: self.frame_len(index),
        }
    }

    /// Takes back the segments that were added since the last frame.
    pub(crate) fn abandon_frame(&mut self) {
        self.segments_len = match self.len {
            0 => 0,
            last => (self.frames[last - 1].first + self.frames[last - 1].count) as usize,
        };
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

/// One frame of a burst, to be read from.
pub(crate) struct BurstFrame<'a> {
    segments: &'a [Segment],
    len: usize,
}

impl FrameBytes for BurstFrame<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        let (mut skip, mut done) = (at, 0);
        for segment in self.segments {
            if skip >= segment.len() {
                skip -= segment.len();
                continue;
            }
            if done == to.len() {
                break;
            }
            let part = segment.part(skip, segment.len() - skip);
            skip = 0;
            done += part.copy_to(&mut to[done..]);
        }
        done
    }

    /// Most frames are one segment: straight from there.
    #[inline]
    fn copy_words(&self, to: &[AtomicU64]) {
        match self.segments {
            [segment] => segment.copy_to_words(to),
            _ => copy_in_steps(self, to),
        }
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

        let (header, frame) = (burst.header(0), burst.to_vec(0));
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
            (0..burst.len())
                .map(|index| burst.to_vec(index)[0])
                .collect::<Vec<_>>(),
            [1, 3]
        );
        while burst.push(VnetHeader::default(), &[9; 60]) {}
        assert_eq!(
            (0..3)
                .map(|index| burst.to_vec(index)[0])
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

//! Frames as a worker handles them: [`Burst`], [`VnetHeader`] and [`Offloads`].

mod bytes;
mod header;
mod offloads;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::offload;
use crate::stats::DropReason;
use crate::sync::AtomicU64;
use crate::sys::MAX_VECTORS;
use crate::sys::packet::VlanTag;
use crate::sys::pool::{Pool, Segment};
use crate::work::Work;

pub(crate) use bytes::FrameBytes;
use bytes::copy_in_steps;
pub use header::VnetHeader;
pub use offloads::Offloads;

/// Most frames in one [`Burst`].
pub const MAX_BURST: usize = 64;

/// Longest frame, in bytes without FCS: a 64 KiB super-frame's IP packet, an Ethernet header and
/// two VLAN tags. Every port takes in frames up to this length and counts longer ones as too
/// long, so that nothing behind a port (lanes, holds, captures, their readers) meets one. It counts
/// with all tags in the frame, also the one that the kernel hands over beside it.
pub const MAX_FRAME: usize = 65_536 + 14 + 2 * VLAN_TAG;

/// Shortest frame, in bytes: an Ethernet header.
pub const MIN_FRAME: usize = 14;

/// Segments of one frame, at most: what one writev(2) takes, less one for the virtio-net header. A
/// guest's chain of 1024 descriptors has a header too.
pub(crate) const MAX_FRAME_SEGMENTS: usize = MAX_VECTORS - 1;

/// Segments of all frames of a burst, at most; the burst ends early when fewer are left than
/// one frame may need.
const MAX_SEGMENTS: usize = 2 * MAX_FRAME_SEGMENTS;

/// Bytes of one 802.1Q tag.
pub(crate) const VLAN_TAG: usize = 4;

/// Free bytes in front of a received frame: room to put back a VLAN tag that the kernel
/// took out, without moving more than the two addresses.
const HEADROOM: usize = 16;

/// The number of different offsets, 64 bytes apart, at which frames begin in their page (cache
/// colouring). At one offset, all frames of a burst would compete for the same few cache sets.
const COLOURS: usize = 60;

/// Bytes of memory for one frame: whole pages, so that it can change its owner.
const STRIDE: usize = (HEADROOM + OFFERED + COLOURS * 64).next_multiple_of(4096);

/// Bytes of memory that are offered for a frame: a tap cuts what does not fit and does not say so, and
/// one byte more than the longest frame shows it.
pub(crate) const OFFERED: usize = MAX_FRAME + 1;

/// Whether a port may take in a frame of `len` bytes.
///
/// # Errors
/// The reason why the frame is dropped.
#[inline]
pub(crate) fn check_length(len: usize) -> Result<(), DropReason> {
    match len {
        0..MIN_FRAME => Err(DropReason::Malformed),
        MIN_FRAME..=MAX_FRAME => Ok(()),
        _ => Err(DropReason::TooLong),
    }
}

/// Where the frame begins in its memory.
fn frame_start(stride: &Pool) -> usize {
    HEADROOM + stride.address() / 4096 % COLOURS * 64
}

/// One frame of a burst.
#[derive(Clone, Copy, Default)]
struct FrameRef {
    header: VnetHeader,
    len: u32,
    /// Its segments.
    first: u16,
    count: u16,
    needs: Offloads,
}

/// Up to [`MAX_BURST`] frames: where each lies, and memory for those that do not lie in a guest.
/// A worker reuses its bursts: receiving overwrites what was sent before.
///
/// Frames from a vhost-user port stay in the guest's memory; what comes from the kernel is
/// read into the burst's own. Pages of that are touched only as frames need them, so a burst
/// of small frames costs 64 pages of real memory, not the 4 MiB that it reserves.
pub struct Burst {
    /// By index in the burst: the memory that the frame there may use.
    strides: Vec<Pool>,
    frames: [FrameRef; MAX_BURST],
    len: usize,
    segments: Box<[Segment]>,
    segments_len: usize,
    bytes: u64,
    /// The work of cutting its super-frames, if the receiver takes none whole.
    cutting: u64,
    needs: Offloads,
    /// Which queue of its port the burst came from.
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
            cutting: 0,
            needs: Offloads::NONE,
            queue: 0,
        }
    }

    /// The number of frames.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no frame.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether one more frame of any kind fits, and the burst is not yet the work of a whole turn.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.len < MAX_BURST
            && MAX_SEGMENTS - self.segments_len >= MAX_FRAME_SEGMENTS
            && !self.is_whole_turn()
    }

    /// Whether it is as much work as one lane may have of a worker at a time ([`Work::TURN`]).
    #[inline]
    pub(crate) fn is_whole_turn(&self) -> bool {
        self.bytes + self.cutting >= Work::TURN.0
    }

    /// How many frames like these are the work of one turn.
    pub(crate) fn frames_a_turn(&self) -> usize {
        let work = (self.bytes + self.cutting).max(1);
        usize::try_from(self.len as u64 * Work::TURN.0 / work).unwrap_or(MAX_BURST)
    }

    /// Bytes of all frames together, without virtio-net headers.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offloads that a receiver must have agreed to in order to take all frames as they are.
    #[inline]
    pub(crate) fn needs(&self) -> Offloads {
        self.needs
    }

    /// As [`Burst::needs`], for the frame at `index`.
    #[inline]
    pub(crate) fn frame_needs(&self, index: usize) -> Offloads {
        self.frames[..self.len][index].needs
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

    /// Copies the beginning of the frame at `index` to `to`, as many bytes as fit; returns how many.
    pub fn copy_out(&self, index: usize, to: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments(index) {
            done += segment.copy_to(&mut to[done..]);
        }
        done
    }

    /// A copy of the frame at `index`.
    pub fn to_vec(&self, index: usize) -> Vec<u8> {
        let mut frame = vec![0; self.frame_len(index)];
        self.copy_out(index, &mut frame);
        frame
    }

    /// Removes all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments_len = 0;
        self.bytes = 0;
        self.cutting = 0;
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
    /// and [`OFFERED`] bytes. `None` behind the burst's end.
    pub(crate) fn vacant(&mut self, ahead: usize) -> Option<(&mut VnetHeader, &mut [u8])> {
        let index = self.len + ahead;
        let stride = self.strides.get_mut(index)?;
        let memory = stride.piece(frame_start(stride), OFFERED);
        Some((&mut self.frames[index].header, memory))
    }

    /// Where the next frames may be received to, in order: for each its header, and [`OFFERED`]
    /// bytes.
    pub(crate) fn vacant_frames(&mut self) -> impl Iterator<Item = (&mut VnetHeader, &mut [u8])> {
        let frames = self.frames[self.len..].iter_mut();
        let strides = self.strides[self.len..].iter_mut();
        frames.zip(strides).map(|(frame, stride)| {
            let memory = stride.piece(frame_start(stride), OFFERED);
            (&mut frame.header, memory)
        })
    }

    /// Takes in the frame of `len` bytes that was received to the vacant place `ahead`, with the tag
    /// that the kernel took out of it. The places left out in between stay vacant and go behind it.
    ///
    /// # Errors
    /// The reason why the frame is dropped; its place stays vacant. With its tag it must be
    /// [`MIN_FRAME`] to [`MAX_FRAME`] bytes long, and a checksum that is to be finished inside it.
    pub(crate) fn take_in(
        &mut self,
        ahead: usize,
        len: usize,
        vlan: Option<VlanTag>,
    ) -> Result<(), DropReason> {
        let tagged = len.saturating_add(vlan.map_or(0, |_| VLAN_TAG));
        check_length(len)?;
        check_length(tagged)?;
        let received = self.frames[self.len + ahead].header;
        let header = match vlan {
            Some(_) => received.shifted_for_vlan_tag(),
            None => Some(received),
        };
        let header = header
            .filter(|header| header.checksum_is_inside(tagged))
            .ok_or(DropReason::Malformed)?;
        self.strides.swap(self.len, self.len + ahead);
        let stride = &mut self.strides[self.len];
        let mut start = frame_start(stride);
        if let Some(tag) = vlan {
            let frame = stride.piece(0, STRIDE);
            let received = start;
            start -= VLAN_TAG;
            frame.copy_within(received..received + 12, start);
            frame[start + 12..start + 14].copy_from_slice(&tag.tpid.to_be_bytes());
            frame[start + 14..start + 16].copy_from_slice(&tag.tci.to_be_bytes());
        }
        let segment = stride.segment(start, tagged);
        self.add_segment(segment);
        self.add_frame(header, tagged);
        Ok(())
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
        let mut needs = header.needs();
        self.bytes += len as u64;
        if header.gso_type() != 0 {
            let pieces = len / usize::from(header.segment_size()).max(1);
            self.cutting += pieces as u64 * Work::PIECE;
            if offload::is_nested(&self.segments[first as usize..self.segments_len], &header) {
                needs = needs | Offloads::NESTED;
            }
        }
        self.needs = self.needs | needs;
        self.frames[self.len] = FrameRef {
            header,
            len: len as u32,
            first,
            count: self.segments_len as u16 - first,
            needs,
        };
        self.len += 1;
    }

    /// Appends a frame of another burst; it stays where it lies.
    ///
    /// # Panics
    /// When it does not fit: ask [`Burst::has_room`] first.
    pub(crate) fn push_again(&mut self, other: &Burst, index: usize) {
        for segment in other.segments(index) {
            self.add_segment(*segment);
        }
        self.add_frame(*other.header(index), other.frame_len(index));
    }

    /// Memory for one frame, as [`Burst::exchange`] takes it.
    ///
    /// # Errors
    /// When the system is out of memory.
    pub(crate) fn new_stride() -> std::io::Result<Pool> {
        Pool::try_new(STRIDE)
    }

    /// Whether the frame at `index` lies in the burst's own memory.
    pub(crate) fn is_own(&self, index: usize) -> bool {
        match self.segments(index) {
            [segment] => self.strides[index].offset_of(segment).is_some(),
            _ => false,
        }
    }

    /// Bytes of memory that [`Burst::exchange`] takes and gives.
    pub(crate) const STRIDE_BYTES: u64 = STRIDE as u64;

    /// Takes the memory of the frame at `index`, and puts `spare` in its place. Returns the memory and
    /// where in it the frame begins, or `spare` when the frame does not lie in the burst's own
    /// memory. The frame's segments stay valid for as long as that memory lives.
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

    /// Removes the last frame.
    pub(crate) fn pop(&mut self) {
        let Some(last) = self.len.checked_sub(1) else {
            return;
        };
        self.bytes -= u64::from(self.frames[last].len);
        self.len = last;
        self.abandon_frame();
    }

    /// The bytes of the frame at `index`.
    #[inline]
    pub(crate) fn frame(&self, index: usize) -> BurstFrame<'_> {
        BurstFrame {
            segments: self.segments(index),
            len: self.frame_len(index),
        }
    }

    /// Removes the segments that were added since the last frame.
    pub(crate) fn abandon_frame(&mut self) {
        self.segments_len = match self.len {
            0 => 0,
            last => (self.frames[last - 1].first + self.frames[last - 1].count) as usize,
        };
    }

    /// Appends a copy of a frame. `false` when the burst is full, or the frame is not one that a port
    /// may take in.
    pub(crate) fn push(&mut self, header: VnetHeader, frame: &[u8]) -> bool {
        let Some((place, memory)) = self.vacant(0) else {
            return false;
        };
        let Some(memory) = memory.get_mut(..frame.len()) else {
            return false;
        };
        memory.copy_from_slice(frame);
        *place = header;
        self.take_in(0, frame.len(), None).is_ok()
    }
}

/// The bytes of one frame of a burst.
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

    /// Most frames are one segment, and are copied without a detour over the stack.
    #[inline]
    fn copy_words(&self, to: &[AtomicU64]) {
        match self.segments {
            [segment] => segment.copy_to_words(to),
            _ => copy_in_steps(self, to),
        }
    }
}

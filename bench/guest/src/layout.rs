//! The positions of a queue's rings and buffers in the guest's memory. Pure.

use crate::{Ring, Shape};

/// Bytes of the virtio-net header in front of each frame, `num_buffers` included (virtio 1.2,
/// 5.1.6).
pub const HEADER: usize = 12;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes of one descriptor, in a split ring and in a packed ring.
pub const DESCRIPTOR: usize = 16;

/// Where everything that belongs to one queue lies: offsets in [`crate::Memory`], in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLayout {
    /// Whether the ring is split or packed.
    pub ring: Ring,
    /// Number of the ring's entries, 2 to 32768.
    pub size: u16,
    /// Descriptor table of a split ring, or the packed ring.
    pub descriptors: usize,
    /// Available ring of a split ring, or the driver's event suppression of a packed one.
    pub driver: usize,
    /// Used ring of a split ring, or the device's event suppression of a packed one.
    pub device: usize,
    /// Tables of indirect descriptors, one for each slot.
    pub tables: usize,
    /// Buffer of slot 0.
    pub(crate) buffers: usize,
    /// Distance from one slot's buffer to the next.
    pub(crate) stride: usize,
    /// Longest frame that fits into a buffer, in bytes without header.
    pub capacity: usize,
    /// The descriptors that a buffer takes.
    pub shape: Shape,
    /// Number of slots. Each slot has one buffer.
    pub slots: u16,
    /// The first byte after the last buffer.
    pub(crate) end: usize,
}

impl QueueLayout {
    /// Lays out one queue from offset `at` on, for frames of up to `capacity` bytes.
    pub fn new(at: usize, ring: Ring, size: u16, shape: Shape, capacity: usize) -> QueueLayout {
        let entries = size as usize;
        let (driver_len, device_len) = match ring {
            Ring::Split => (6 + 2 * entries, 6 + 8 * entries),
            Ring::Packed => (4, 4),
        };
        let descriptors = at.next_multiple_of(LINE);
        let driver = (descriptors + DESCRIPTOR * entries).next_multiple_of(LINE);
        let device = (driver + driver_len).next_multiple_of(LINE);
        let tables = (device + device_len).next_multiple_of(LINE);
        let slots = size / shape.ring_entries();
        let table_len = match shape {
            Shape::Indirect(count) => DESCRIPTOR * count as usize,
            Shape::Single | Shape::Chained(_) => 0,
        };
        let buffers = (tables + table_len * slots as usize).next_multiple_of(LINE);
        // With an even number of lines, small frames would all fall into a few sets of the cache.
        let lines = (LINE + capacity).div_ceil(LINE) | 1;
        let stride = lines * LINE;
        QueueLayout {
            ring,
            size,
            descriptors,
            driver,
            device,
            tables,
            buffers,
            stride,
            capacity,
            shape,
            slots,
            end: buffers + stride * slots as usize,
        }
    }

    /// Where the slot's virtio-net header lies. The frame follows without a gap and begins on a
    /// cache line.
    pub fn header(&self, slot: u16) -> usize {
        self.buffers + self.stride * slot as usize + LINE - HEADER
    }

    /// Where the slot's frame begins, after the header.
    pub fn frame(&self, slot: u16) -> usize {
        self.header(slot) + HEADER
    }

    /// Where the slot's table of indirect descriptors lies.
    pub fn table(&self, slot: u16) -> usize {
        self.tables + DESCRIPTOR * self.shape.pieces() as usize * slot as usize
    }

    /// How the slot's descriptors divide a frame of `len` bytes: offset and length of each piece.
    /// The header is a piece of its own unless the buffer has only one descriptor.
    pub(crate) fn pieces(
        &self,
        slot: u16,
        len: usize,
    ) -> impl Iterator<Item = (usize, u32)> + use<> {
        let count = self.shape.pieces() as usize;
        let header = self.header(slot);
        let each = len.div_ceil((count - 1).max(1));
        (0..count).map(move |index| match index {
            0 if count == 1 => (header, (HEADER + len) as u32),
            0 => (header, HEADER as u32),
            _ => {
                let from = ((index - 1) * each).min(len);
                (header + HEADER + from, (len - from).min(each) as u32)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_frames_begin_on_lines() {
        for ring in [Ring::Split, Ring::Packed] {
            for shape in [Shape::Single, Shape::Chained(4), Shape::Indirect(3)] {
                let layout = QueueLayout::new(100, ring, 256, shape, 1518);
                assert!(layout.descriptors >= 100);
                assert!(layout.descriptors + 256 * DESCRIPTOR <= layout.driver);
                assert!(layout.driver < layout.device && layout.device < layout.tables);
                let last = layout.slots - 1;
                let table_end = layout.table(last) + DESCRIPTOR * shape.pieces() as usize;
                assert!(
                    shape.ring_entries() > 1
                        || shape == Shape::Single
                        || table_end <= layout.buffers
                );
                assert_eq!(layout.frame(1) % LINE, 0);
                assert_eq!(layout.stride / LINE % 2, 1);
                assert!(layout.frame(last) + layout.capacity <= layout.end);
            }
        }
    }

    #[test]
    fn pieces_cover_header_and_frame() {
        for (shape, len) in [
            (Shape::Single, 60),
            (Shape::Chained(4), 61),
            (Shape::Indirect(2), 14),
        ] {
            let layout = QueueLayout::new(0, Ring::Split, 64, shape, 1518);
            let mut next = layout.header(3);
            let mut count = 0;
            for (at, bytes) in layout.pieces(3, len) {
                assert_eq!(at, next);
                assert!(bytes > 0);
                next = at + bytes as usize;
                count += 1;
            }
            assert_eq!((next, count), (layout.frame(3) + len, shape.pieces()));
        }
    }
}

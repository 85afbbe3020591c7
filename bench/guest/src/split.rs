//! The driver side of a split ring (virtio 1.2, 2.7).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::layout::{DESCRIPTOR, QueueLayout};
use crate::queue::{QueueFeatures, Used};
use crate::{BackEndFault, Memory, Shape};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// The driver side of one split ring. It writes a slot's descriptors again only when the frame's
/// length changes.
#[derive(Debug)]
pub(super) struct Split {
    memory: Arc<Memory>,
    layout: QueueLayout,
    negotiated: QueueFeatures,
    /// The frame length in each slot's descriptors.
    lengths: Vec<u32>,
    /// Next entry of the available ring.
    next: u16,
    /// The available index that the device sees.
    published: u16,
    /// Next entry of the used ring.
    seen: u16,
    /// The used index as last read.
    filled: u16,
    /// The position at which the device is to interrupt; far behind while the driver polls.
    event: u16,
}

impl Split {
    pub(super) fn new(
        memory: Arc<Memory>,
        layout: QueueLayout,
        negotiated: QueueFeatures,
    ) -> Split {
        let mut ring = Split {
            memory,
            layout,
            negotiated,
            lengths: vec![0; layout.slots as usize],
            next: 0,
            published: 0,
            seen: 0,
            filled: 0,
            event: 0,
        };
        ring.memory
            .write(layout.driver, &vec![0; 6 + 2 * layout.size as usize]);
        ring.memory
            .write(layout.device, &vec![0; 6 + 8 * layout.size as usize]);
        for slot in 0..layout.slots {
            ring.describe(slot, layout.capacity as u32);
        }
        ring.interrupts(false);
        ring
    }

    /// Makes a slot available, with a frame of `len` bytes or with space for one.
    #[inline]
    pub(super) fn offer(&mut self, slot: u16, len: u32) {
        if self.lengths[slot as usize] != len {
            self.describe(slot, len);
        }
        let head = slot * self.layout.shape.ring_entries();
        let entry = self.layout.driver + 4 + 2 * (self.next & (self.layout.size - 1)) as usize;
        self.memory.u16(entry).store(head.to_le(), Relaxed);
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the device all slots offered since the last call. Returns whether it wants a kick.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        self.memory
            .u16(self.layout.driver + 2)
            .store(self.next.to_le(), Release);
        let before = std::mem::replace(&mut self.published, self.next);
        // The driver must not read what the device wants before the device can see the entries:
        // the device asks for a kick and then looks once more (virtio 1.2, 2.7.13.4.1).
        fence(SeqCst);
        if self.negotiated.event_idx {
            let at = self.layout.device + 4 + 8 * self.layout.size as usize;
            let event = u16::from_le(self.memory.u16(at).load(Relaxed));
            needs_event(event, self.next, before)
        } else {
            u16::from_le(self.memory.u16(self.layout.device).load(Relaxed)) & 1 == 0
        }
    }

    /// The next buffer that the device has used.
    #[inline]
    pub(super) fn used(&mut self) -> Result<Option<Used>, BackEndFault> {
        if self.seen == self.filled {
            self.filled = u16::from_le(self.memory.u16(self.layout.device + 2).load(Acquire));
            if self.seen == self.filled {
                return Ok(None);
            }
            if self.filled.wrapping_sub(self.seen) > self.published.wrapping_sub(self.seen) {
                return Err(BackEndFault::UsedIndex);
            }
            if self.negotiated.event_idx && self.seen.wrapping_sub(self.event) > 0x4000 {
                self.interrupts(false);
            }
        }
        let position = self.seen & (self.layout.size - 1);
        let entry = self.layout.device + 4 + 8 * position as usize;
        self.seen = self.seen.wrapping_add(1);
        let per_slot = self.layout.shape.ring_entries();
        if self.negotiated.in_order && !self.negotiated.writable {
            // The device may write a single entry for a whole batch (virtio 1.2, 2.7.9), so the
            // other entries contain nothing valid.
            let slot = self.seen.wrapping_sub(1) % self.layout.slots;
            return Ok(Some(Used { slot, written: 0 }));
        }
        let id = u32::from_le(self.memory.u32(entry).load(Relaxed));
        let written = u32::from_le(self.memory.u32(entry + 4).load(Relaxed));
        let slot = id / u32::from(per_slot);
        if slot >= u32::from(self.layout.slots) || !id.is_multiple_of(u32::from(per_slot)) {
            return Err(BackEndFault::UnknownId(id));
        }
        Ok(Some(Used {
            slot: slot as u16,
            written,
        }))
    }

    /// Whether [`Split::used`] would return a buffer.
    pub(super) fn has_used(&self) -> bool {
        self.seen != u16::from_le(self.memory.u16(self.layout.device + 2).load(Acquire))
    }

    /// Asks the device for an interrupt at the next used buffer, or for none.
    pub(super) fn interrupts(&mut self, wanted: bool) {
        if self.negotiated.event_idx {
            self.event = if wanted {
                self.seen
            } else {
                self.seen.wrapping_sub(1)
            };
            let at = self.layout.driver + 4 + 2 * self.layout.size as usize;
            self.memory.u16(at).store(self.event.to_le(), Relaxed);
        } else {
            self.memory
                .u16(self.layout.driver)
                .store(u16::from(!wanted).to_le(), Relaxed);
        }
        // The driver looks once more afterwards, when the device can see the request.
        fence(SeqCst);
    }

    /// Writes a slot's descriptors for a frame of `len` bytes.
    #[cold]
    fn describe(&mut self, slot: u16, len: u32) {
        self.lengths[slot as usize] = len;
        let layout = self.layout;
        let write = if self.negotiated.writable { WRITE } else { 0 };
        let head = slot * layout.shape.ring_entries();
        let (table, first) = if let Shape::Indirect(count) = layout.shape {
            let bytes = u32::from(count) * DESCRIPTOR as u32;
            let address = self.memory.guest_address(layout.table(slot));
            self.descriptor(layout.descriptors, head, address, bytes, INDIRECT, 0);
            (layout.table(slot), 0)
        } else {
            (layout.descriptors, head)
        };
        let last = layout.shape.pieces() - 1;
        for (index, (at, bytes)) in (0..).zip(layout.pieces(slot, len as usize)) {
            let (flags, next) = if index == last {
                (write, 0)
            } else {
                (write | NEXT, first + index + 1)
            };
            let address = self.memory.guest_address(at);
            self.descriptor(table, first + index, address, bytes, flags, next);
        }
    }

    fn descriptor(&self, table: usize, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = table + DESCRIPTOR * index as usize;
        let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.memory.u64(at).store(address.to_le(), Relaxed);
        self.memory.u64(at + 8).store(rest.to_le(), Relaxed);
    }
}

/// Whether the move from `before` to `now` passes the position `event` that the other side asked
/// for (virtio 1.2, 2.7.7.1).
pub(super) fn needs_event(event: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

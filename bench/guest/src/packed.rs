//! The driver side of a packed ring (virtio 1.2, 2.8).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::layout::{DESCRIPTOR, QueueLayout};
use crate::queue::{QueueFeatures, Used};
use crate::split::needs_event;
use crate::{BackEndFault, Memory, Shape};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

// Flags of event suppression: notify always, never, or at a position.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT_POSITION: u16 = 2;

/// A position in the ring, with the wrap counter.
#[derive(Debug, Clone, Copy)]
struct RingPosition {
    index: u16,
    wrap: bool,
}

impl RingPosition {
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    /// The flags that make a descriptor available at this position.
    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }
}

/// The driver side of one packed ring.
#[derive(Debug)]
pub(super) struct Packed {
    memory: Arc<Memory>,
    layout: QueueLayout,
    negotiated: QueueFeatures,
    /// Where the next buffer is offered.
    next: RingPosition,
    /// Ring entries offered since the last [`Packed::publish`].
    unpublished: u16,
    /// Where the next used buffer is expected.
    seen: RingPosition,
    /// With IN_ORDER, the last slot of the batch that the device is giving back.
    batch: Option<u16>,
    /// With IN_ORDER, the next slot that the device gives back.
    oldest: u16,
}

impl Packed {
    pub(super) fn new(
        memory: Arc<Memory>,
        layout: QueueLayout,
        negotiated: QueueFeatures,
    ) -> Packed {
        let start = RingPosition {
            index: 0,
            wrap: true,
        };
        memory.write(
            layout.descriptors,
            &vec![0; DESCRIPTOR * layout.size as usize],
        );
        memory.write(layout.device, &[0; 4]);
        let mut ring = Packed {
            memory,
            layout,
            negotiated,
            next: start,
            unpublished: 0,
            seen: start,
            batch: None,
            oldest: 0,
        };
        if let Shape::Indirect(_) = layout.shape {
            for slot in 0..layout.slots {
                ring.describe(slot, layout.capacity);
            }
        }
        ring.interrupts(false);
        ring
    }

    /// Makes a slot available, with a frame of `len` bytes or with space for one.
    #[inline]
    pub(super) fn offer(&mut self, slot: u16, len: u32) {
        let layout = self.layout;
        let write = if self.negotiated.writable { WRITE } else { 0 };
        match layout.shape {
            Shape::Single => {
                let address = self.memory.guest_address(layout.header(slot));
                let bytes = len + crate::layout::HEADER as u32;
                self.put(self.next, address, bytes, slot, write);
            }
            Shape::Indirect(count) => {
                self.describe(slot, len as usize);
                let address = self.memory.guest_address(layout.table(slot));
                let bytes = u32::from(count) * DESCRIPTOR as u32;
                self.put(self.next, address, bytes, slot, INDIRECT);
            }
            Shape::Chained(count) => {
                let mut head = None;
                let mut position = self.next;
                for (index, (at, bytes)) in (1..).zip(layout.pieces(slot, len as usize)) {
                    let flags = if index == count { write } else { write | NEXT };
                    let address = self.memory.guest_address(at);
                    if head.is_none() {
                        head = Some((address, bytes, flags));
                    } else {
                        self.put(position, address, bytes, slot, flags);
                    }
                    position.advance(1, layout.size);
                }
                // The head is written last: it makes the whole chain available.
                if let Some((address, bytes, flags)) = head {
                    self.put(self.next, address, bytes, slot, flags);
                }
            }
        }
        self.next.advance(layout.shape.ring_entries(), layout.size);
        self.unpublished += layout.shape.ring_entries();
    }

    /// Ends a series of offers. Returns whether the device wants a kick.
    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let offered = std::mem::take(&mut self.unpublished);
        if offered == 0 {
            return false;
        }
        // As in a split ring, the device must see the descriptors before the driver reads what
        // the device wants: it asks for a kick and then looks once more.
        fence(SeqCst);
        let event = u32::from_le(self.memory.u32(self.layout.device).load(Relaxed));
        let (position, flags) = (event as u16, (event >> 16) as u16);
        match flags & 3 {
            ENABLE => true,
            AT_POSITION if self.negotiated.event_idx => {
                let mut wanted = position & 0x7fff;
                // Of the previous lap: count from that lap's start.
                if (position >> 15 != 0) != self.next.wrap {
                    wanted = wanted.wrapping_sub(self.layout.size);
                }
                needs_event(
                    wanted,
                    self.next.index,
                    self.next.index.wrapping_sub(offered),
                )
            }
            _ => false,
        }
    }

    /// Whether [`Packed::used`] would return a buffer.
    pub(super) fn has_used(&self) -> bool {
        self.batch.is_some() || self.flags_at_seen().0
    }

    /// Whether the device has used the next position, and the descriptor's second word.
    #[inline]
    fn flags_at_seen(&self) -> (bool, u64) {
        let at = self.layout.descriptors + DESCRIPTOR * self.seen.index as usize + 8;
        let word = u64::from_le(self.memory.u64(at).load(Acquire));
        let flags = (word >> 48) as u16;
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        (avail == used && used == self.seen.wrap, word)
    }

    /// The next buffer that the device has used.
    #[inline]
    pub(super) fn used(&mut self) -> Result<Option<Used>, BackEndFault> {
        let Some(last) = self.batch else {
            let (was_used, word) = self.flags_at_seen();
            if !was_used {
                return Ok(None);
            }
            let (id, written) = ((word >> 32) as u16, word as u32);
            if id >= self.layout.slots {
                return Err(BackEndFault::UnknownId(u32::from(id)));
            }
            if self.negotiated.in_order && id != self.oldest {
                if self.negotiated.writable {
                    return Err(BackEndFault::OutOfOrder);
                }
                // The device may report only the last buffer of a batch.
                self.batch = Some(id);
                return self.used();
            }
            return Ok(Some(self.advance_used(id, written)));
        };
        if self.oldest == last {
            self.batch = None;
        }
        Ok(Some(self.advance_used(self.oldest, 0)))
    }

    #[inline]
    fn advance_used(&mut self, slot: u16, written: u32) -> Used {
        self.seen
            .advance(self.layout.shape.ring_entries(), self.layout.size);
        if self.negotiated.in_order {
            self.oldest = if slot + 1 == self.layout.slots {
                0
            } else {
                slot + 1
            };
        }
        Used { slot, written }
    }

    /// Asks the device for an interrupt at the next used buffer, or for none.
    pub(super) fn interrupts(&mut self, wanted: bool) {
        let event = match (wanted, self.negotiated.event_idx) {
            (false, _) => u32::from(DISABLE) << 16,
            (true, false) => u32::from(ENABLE) << 16,
            (true, true) => {
                let position = self.seen.index | u16::from(self.seen.wrap) << 15;
                u32::from(AT_POSITION) << 16 | u32::from(position)
            }
        };
        self.memory
            .u32(self.layout.driver)
            .store(event.to_le(), Relaxed);
        // The driver looks once more afterwards, when the device can see the request.
        fence(SeqCst);
    }

    /// Writes a slot's table of indirect descriptors.
    fn describe(&self, slot: u16, len: usize) {
        let write = if self.negotiated.writable { WRITE } else { 0 };
        let mut at = self.layout.table(slot);
        for (piece, bytes) in self.layout.pieces(slot, len) {
            let address = self.memory.guest_address(piece);
            self.memory.u64(at).store(address.to_le(), Relaxed);
            let rest = u64::from(bytes) | u64::from(write) << 48;
            self.memory.u64(at + 8).store(rest.to_le(), Relaxed);
            at += DESCRIPTOR;
        }
    }

    /// Writes a descriptor; its second word, with the flags, makes it visible.
    #[inline]
    fn put(&self, position: RingPosition, address: u64, len: u32, id: u16, flags: u16) {
        let at = self.layout.descriptors + DESCRIPTOR * position.index as usize;
        let flags = flags | position.available();
        let rest = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        self.memory.u64(at).store(address.to_le(), Relaxed);
        self.memory.u64(at + 8).store(rest.to_le(), Release);
    }
}

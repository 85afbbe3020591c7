//! The driver's side of a packed ring (virtio 1.2, 2.8).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::layout::{DESCRIPTOR, QueueLayout};
use crate::queue::{Rules, Used};
use crate::split::needs_event;
use crate::{BackEndFault, Memory, Shape};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Event suppression: always, never, at a position.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT: u16 = 2;

/// A place in the ring, and the lap's parity.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: u16,
    wrap: bool,
}

impl Place {
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }

    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Packed {
    memory: Arc<Memory>,
    layout: QueueLayout,
    rules: Rules,
    next: Place,
    told: u16,
    seen: Place,
    /// In order: the last slot of the batch that is being given back, and the next of it.
    batch: Option<u16>,
    oldest: u16,
}

impl Packed {
    pub(super) fn new(memory: Arc<Memory>, layout: QueueLayout, rules: Rules) -> Packed {
        let start = Place {
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
            rules,
            next: start,
            told: 0,
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

    #[inline]
    pub(super) fn offer(&mut self, slot: u16, len: u32) {
        let layout = self.layout;
        let write = if self.rules.writable { WRITE } else { 0 };
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
                let mut place = self.next;
                for (index, (at, bytes)) in (1..).zip(layout.pieces(slot, len as usize)) {
                    let flags = if index == count { write } else { write | NEXT };
                    let address = self.memory.guest_address(at);
                    if head.is_none() {
                        head = Some((address, bytes, flags));
                    } else {
                        self.put(place, address, bytes, slot, flags);
                    }
                    place.advance(1, layout.size);
                }
                // The first one last: with it the device may take all of them.
                if let Some((address, bytes, flags)) = head {
                    self.put(self.next, address, bytes, slot, flags);
                }
            }
        }
        self.next.advance(layout.shape.in_ring(), layout.size);
        self.told += layout.shape.in_ring();
    }

    #[inline]
    pub(super) fn publish(&mut self) -> bool {
        let offered = std::mem::take(&mut self.told);
        if offered == 0 {
            return false;
        }
        // As in a split ring: first visible, then look what the device wants.
        fence(SeqCst);
        let event = u32::from_le(self.memory.u32(self.layout.device).load(Relaxed));
        let (place, flags) = (event as u16, (event >> 16) as u16);
        match flags & 3 {
            ENABLE => true,
            AT if self.rules.event_idx => {
                let mut wanted = place & 0x7fff;
                if (place >> 15 != 0) != self.next.wrap {
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

    pub(super) fn has_used(&self) -> bool {
        self.batch.is_some() || self.flags_at_seen().0
    }

    /// Whether the next place was used, and the word that says so.
    #[inline]
    fn flags_at_seen(&self) -> (bool, u64) {
        let at = self.layout.descriptors + DESCRIPTOR * self.seen.index as usize + 8;
        let word = u64::from_le(self.memory.u64(at).load(Acquire));
        let flags = (word >> 48) as u16;
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        (avail == used && used == self.seen.wrap, word)
    }

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
            if self.rules.in_order && id != self.oldest {
                if self.rules.writable {
                    return Err(BackEndFault::OutOfOrder);
                }
                self.batch = Some(id);
                return self.used();
            }
            return Ok(Some(self.done(id, written)));
        };
        if self.oldest == last {
            self.batch = None;
        }
        Ok(Some(self.done(self.oldest, 0)))
    }

    #[inline]
    fn done(&mut self, slot: u16, written: u32) -> Used {
        self.seen
            .advance(self.layout.shape.in_ring(), self.layout.size);
        if self.rules.in_order {
            self.oldest = if slot + 1 == self.layout.slots {
                0
            } else {
                slot + 1
            };
        }
        Used { slot, written }
    }

    pub(super) fn interrupts(&mut self, wanted: bool) {
        let event = match (wanted, self.rules.event_idx) {
            (false, _) => u32::from(DISABLE) << 16,
            (true, false) => u32::from(ENABLE) << 16,
            (true, true) => {
                let place = self.seen.index | u16::from(self.seen.wrap) << 15;
                u32::from(AT) << 16 | u32::from(place)
            }
        };
        self.memory
            .u32(self.layout.driver)
            .store(event.to_le(), Relaxed);
        fence(SeqCst);
    }

    /// Writes a slot's table of indirect descriptors.
    fn describe(&self, slot: u16, len: usize) {
        let write = if self.rules.writable { WRITE } else { 0 };
        let mut at = self.layout.table(slot);
        for (place, bytes) in self.layout.pieces(slot, len) {
            let address = self.memory.guest_address(place);
            self.memory.u64(at).store(address.to_le(), Relaxed);
            let rest = u64::from(bytes) | u64::from(write) << 48;
            self.memory.u64(at + 8).store(rest.to_le(), Relaxed);
            at += DESCRIPTOR;
        }
    }

    #[inline]
    fn put(&self, place: Place, address: u64, len: u32, id: u16, flags: u16) {
        let at = self.layout.descriptors + DESCRIPTOR * place.index as usize;
        let flags = flags | place.available();
        let rest = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        self.memory.u64(at).store(address.to_le(), Relaxed);
        self.memory.u64(at + 8).store(rest.to_le(), Release);
    }
}

//! Writes ring entries that a driver must not write: [`Raw`].

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use guest::{DESCRIPTOR, Guest, Memory, QueueLayout, Ring};

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 1 << 7;

/// One descriptor. In a split ring `number` is the next descriptor's, in a packed ring the buffer's
/// id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) number: u16,
}

/// One queue of a guest as bytes. Its rings must be empty, and the driver must never use them.
pub(crate) struct Raw {
    pub(crate) memory: Arc<Memory>,
    pub(crate) layout: QueueLayout,
}

impl Raw {
    pub(crate) fn of(guest: &mut Guest, queue: usize) -> Self {
        let layout = *guest.queue(queue).layout();
        Raw {
            memory: guest.memory().clone(),
            layout,
        }
    }

    /// The guest's address of a slot's buffer.
    pub(crate) fn buffer(&self, slot: u16) -> u64 {
        self.memory.guest_address(self.layout.header(slot))
    }

    /// Writes entry `index` of the table at offset `table` of the memory.
    pub(crate) fn put(&self, table: usize, index: u16, descriptor: Descriptor) {
        let Descriptor {
            address,
            len,
            flags,
            number,
        } = descriptor;
        let (third, fourth) = match self.layout.ring {
            Ring::Split => (flags, number),
            Ring::Packed => (number, flags),
        };
        let rest = u64::from(len) | u64::from(third) << 32 | u64::from(fourth) << 48;
        let at = table + DESCRIPTOR * index as usize;
        self.memory.u64(at).store(address.to_le(), Relaxed);
        self.memory.u64(at + 8).store(rest.to_le(), Release);
    }

    /// Writes the chain to the ring's first entries and makes it available.
    pub(crate) fn offer(&self, chain: &[Descriptor]) {
        let packed = self.layout.ring == Ring::Packed;
        // The first entry is written last: it makes the whole chain available.
        for (index, descriptor) in chain.iter().enumerate().rev() {
            let turn = if packed { AVAILABLE } else { 0 };
            let flags = descriptor.flags | turn;
            self.put(
                self.layout.descriptors,
                index as u16,
                Descriptor {
                    flags,
                    ..*descriptor
                },
            );
        }
        if !packed {
            self.make_available(&[0], 1);
        }
    }

    /// Split: writes entries of the available ring, and its index.
    pub(crate) fn make_available(&self, heads: &[u16], index: u16) {
        for (position, head) in heads.iter().enumerate() {
            let at = self.layout.driver + 4 + 2 * position;
            self.memory.u16(at).store(head.to_le(), Relaxed);
        }
        self.memory
            .u16(self.layout.driver + 2)
            .store(index.to_le(), Release);
    }
}

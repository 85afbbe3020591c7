//! Descriptors, as both kinds of ring have them, and the pieces of memory that a chain of descriptors
//! names ([`ScatterList`]).
#![allow(unsafe_code)]

use super::copy::GuestBuffer;
use super::fault::Rule;
use super::memory::GuestMemory;

/// VIRTQ_DESC_F_NEXT: the chain goes on.
pub(super) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes to the buffer; without it, it reads.
pub(super) const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT: the buffer holds a table of descriptors.
pub(super) const INDIRECT: u16 = 4;

/// Bytes of one descriptor, in a ring and in an indirect table.
pub(super) const DESCRIPTOR: u32 = 16;

/// Most descriptors of one chain that are followed: as many as the largest queue in use has, and more
/// than any frame needs.
pub(super) const LONGEST_CHAIN: usize = 1024;

/// A copy of one descriptor. In memory the last two fields are swapped between the kinds of ring.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    /// Split ring: the number of the next descriptor. Packed ring: the buffer id.
    pub(super) number: u16,
}

/// The kind of a ring, and so of its indirect tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Virtio 1.2, 2.7.
    Split,
    /// Virtio 1.2, 2.8.
    Packed,
}

/// The direction of a queue's buffers, as the device sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Of the guest's transmit queue.
    Read,
    /// Of the guest's receive queue.
    Write,
}

/// The pieces of memory that one or more chains name, as host addresses. Its queue reuses it.
pub(super) struct ScatterList {
    buffers: Box<[GuestBuffer; LONGEST_CHAIN]>,
    len: usize,
    bytes: u64,
}

// SAFETY: the buffers are addresses; only their queue follows them, while it holds the memory
// that they are in.
unsafe impl Send for ScatterList {}

impl Default for ScatterList {
    fn default() -> Self {
        ScatterList {
            buffers: Box::new([GuestBuffer::NONE; LONGEST_CHAIN]),
            len: 0,
            bytes: 0,
        }
    }
}

impl ScatterList {
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.bytes = 0;
    }

    pub(super) fn buffers(&self) -> &[GuestBuffer] {
        &self.buffers[..self.len]
    }

    /// Bytes of all pieces together.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds the buffer that a descriptor names. A buffer to be sent may be marked as one to write to:
    /// DPDK 22.11's driver leaves the mark on the first entry of its packed tables, and DPDK's back
    /// ends do not look. A device should not read such a buffer, but must not write to others (virtio
    /// 1.2, 2.7.5.1).
    pub(super) fn add(
        &mut self,
        memory: &GuestMemory,
        descriptor: &Descriptor,
        direction: Direction,
    ) -> Result<(), Rule> {
        if direction == Direction::Write && descriptor.flags & WRITE == 0 {
            return Err(Rule::WrongDirection);
        }
        let Descriptor {
            mut address,
            mut len,
            ..
        } = *descriptor;
        if len == 0 {
            // Counted as any other: a chain of empty buffers must end, too.
            return self.push(GuestBuffer::NONE);
        }
        while len > 0 {
            let outside = Rule::OutsideMemory { address, len };
            let (start, piece) = memory.at(address, len).ok_or(outside)?;
            self.push(GuestBuffer { start, len: piece })?;
            self.bytes += u64::from(piece);
            address = address.wrapping_add(u64::from(piece));
            len -= piece;
        }
        Ok(())
    }

    fn push(&mut self, piece: GuestBuffer) -> Result<(), Rule> {
        let buffer = self.buffers.get_mut(self.len).ok_or(Rule::EndlessChain {
            limit: LONGEST_CHAIN,
        })?;
        *buffer = piece;
        self.len += 1;
        Ok(())
    }

    /// Adds what a table of indirect descriptors names.
    pub(super) fn add_table(
        &mut self,
        memory: &GuestMemory,
        table: &Descriptor,
        direction: Direction,
        kind: Kind,
    ) -> Result<(), Rule> {
        let bad = Rule::BadIndirectTable { len: table.len };
        if table.len == 0 || !table.len.is_multiple_of(DESCRIPTOR) || table.flags & NEXT != 0 {
            return Err(bad);
        }
        let entries = table.len / DESCRIPTOR;
        let mut next = Some(0);
        for _ in 0..LONGEST_CHAIN {
            let Some(entry) = next.filter(|entry| *entry < entries) else {
                // `None`: the chain has ended. Otherwise an index beyond the table's end.
                return if next.is_none() { Ok(()) } else { Err(bad) };
            };
            let at = table.address.wrapping_add(u64::from(entry * DESCRIPTOR));
            let descriptor = read(memory, at, kind)?;
            if descriptor.flags & INDIRECT != 0 {
                return Err(bad);
            }
            self.add(memory, &descriptor, direction)?;
            next = match kind {
                Kind::Split => {
                    (descriptor.flags & NEXT != 0).then_some(u32::from(descriptor.number))
                }
                // A packed table is used in order, to its end.
                Kind::Packed => Some(entry + 1).filter(|next| *next < entries),
            };
        }
        if next.is_none() {
            return Ok(());
        }
        Err(Rule::EndlessChain {
            limit: LONGEST_CHAIN,
        })
    }
}

/// Reads a descriptor at any guest address, once.
fn read(memory: &GuestMemory, address: u64, kind: Kind) -> Result<Descriptor, Rule> {
    let outside = Rule::OutsideMemory {
        address,
        len: DESCRIPTOR,
    };
    let (start, DESCRIPTOR) = memory.at(address, DESCRIPTOR).ok_or(outside)? else {
        return Err(outside);
    };
    // SAFETY: 16 bytes at `start` are mapped. The guest may be writing to them: the
    // mixture that is read may be anything, and only this copy is used.
    let raw = unsafe { start.cast::<[u64; 2]>().read_unaligned() };
    Ok(Descriptor::from_raw(raw, kind))
}

impl Descriptor {
    /// From the two halves of a descriptor in memory.
    #[inline(always)]
    pub(super) fn from_raw(raw: [u64; 2], kind: Kind) -> Self {
        let rest = u64::from_le(raw[1]);
        let (third, fourth) = ((rest >> 32) as u16, (rest >> 48) as u16);
        let (flags, number) = match kind {
            Kind::Split => (third, fourth),
            Kind::Packed => (fourth, third),
        };
        Descriptor {
            address: u64::from_le(raw[0]),
            len: rest as u32,
            flags,
            number,
        }
    }
}

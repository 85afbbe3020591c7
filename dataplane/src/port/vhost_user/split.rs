//! A queue on a split ring (virtio 1.2, 2.7), seen from the device: [`Split`].
//!
//! ```text
//!   driver writes:  descriptor table    available ring (flags, index, heads, used_event)
//!   device writes:                      used ring (flags, index, (head, length)…, avail_event)
//! ```
//! All buffers of a burst are taken before the first is given back, and given back by one
//! store of the used index.
#![allow(unsafe_code)]

use super::copy::{self, GuestBuffer, prefetch_to_read, prefetch_to_write};
use super::descriptor::{Direction, INDIRECT, Kind, LONGEST_CHAIN, NEXT, ScatterList, WRITE};
use super::fault::Rule;
use super::gather::Gather;
use super::handshake::publish_then_look;
use super::split_ring::{NO_SIGNAL, SplitRing, needs_event};
use super::take::{take_scattered, take_whole};
use super::{Context, VringBase};
use crate::frame::{Burst, MAX_BURST};
use crate::stats::{DropReason, Losses};

/// Most receive buffers that one frame may be spread over: a 64 KiB super-frame in 64-byte buffers,
/// the smallest that drivers use.
const MAX_BUFFERS: usize = LONGEST_CHAIN;

/// A split queue while it runs.
pub(super) struct Split {
    ring: SplitRing,
    /// The next available entry to take. Chains are given back one for one and in order: so
    /// it is also the used index when none is taken.
    next: u16,
    /// The driver's index, as last read.
    known: u16,
    /// Where the front end said that the device goes on; `None` once a buffer was given back or taken,
    /// when `next` is certain. See [`Split::find_place`].
    base: Option<u16>,
    /// The used index when the driver's wish to be notified was last read.
    signalled: u16,
    event_index: bool,
    in_order: bool,
    gather: Gather,
    /// Heads of the chains that are taken and not yet given back.
    heads: [u16; MAX_BURST],
    /// The memory of those chains that are a single piece.
    buffers: [GuestBuffer; MAX_BURST],
    taken: u16,
    scatter: ScatterList,
}

impl Split {
    /// Begins where [`Split::find_place`] says.
    pub(super) fn new(ring: SplitRing, base: VringBase, event_index: bool, in_order: bool) -> Self {
        let base = base.0 as u16;
        Split {
            ring,
            next: base,
            known: base,
            base: Some(base),
            signalled: base,
            event_index,
            in_order,
            gather: Gather::default(),
            heads: [0; MAX_BURST],
            buffers: [GuestBuffer::NONE; MAX_BURST],
            taken: 0,
            scatter: ScatterList::default(),
        }
    }

    /// The next available entry: where another device goes on.
    pub(super) fn retire(&mut self) -> VringBase {
        self.find_place();
        VringBase(u32::from(self.next))
    }

    /// Until the first buffer is used, finds out where the device goes on: at the used index, so that
    /// buffers that another device took and did not give back are taken again. Front ends that
    /// connect again may give a base of 0, or the available index. The used index is not kept from
    /// the set-up: a driver may clear its ring after that, and what was there before it, such as the
    /// ring of the firmware, must not count. If the driver cannot have got as far as that index says,
    /// the base is right.
    #[inline(always)]
    fn find_place(&mut self) {
        if let Some(base) = self.base {
            self.next = self.begins_at(base);
            self.known = self.next;
            self.signalled = self.next;
        }
    }

    #[cold]
    fn begins_at(&self, base: u16) -> u16 {
        let (available, used) = (self.ring.available_index(), self.ring.used_index());
        let fits = |index| available.wrapping_sub(index) <= self.ring.size;
        if !fits(used) && fits(base) {
            base
        } else {
            used
        }
    }

    /// Entries that the driver made available and that are not taken.
    #[inline(always)]
    fn waiting(&self) -> u16 {
        self.known.wrapping_sub(self.next)
    }

    #[inline(always)]
    fn look(&mut self) -> Result<u16, Rule> {
        self.known = self.ring.available_index();
        let ahead = self.waiting();
        let size = self.ring.size;
        if ahead > size {
            return Err(Rule::IndexJump { ahead, size });
        }
        Ok(ahead)
    }

    /// Takes frames from a transmit queue, without copying them. `true` when more may wait.
    pub(super) fn receive(
        &mut self,
        context: &Context<'_>,
        burst: &mut Burst,
        drops: &mut Losses,
    ) -> Result<bool, Rule> {
        self.find_place();
        let mut waiting = self.waiting();
        if waiting == 0 {
            waiting = self.look()?;
        }
        if waiting < Gather::ENOUGH && self.gather.lets_grow() {
            self.known = self.next; // so that the next poll reads the index again
            return Ok(true);
        }
        self.gather.took(waiting);
        if waiting == 0 {
            return Ok(false);
        }
        self.base = None;
        let count = (waiting as usize).min(MAX_BURST);
        for ahead in 0..count {
            let head = self
                .ring
                .available_entry(self.next.wrapping_add(ahead as u16));
            let descriptor = self.ring.descriptor(self.checked(head)?);
            let buffer = context.single_buffer(&descriptor, 0);
            prefetch_to_read(buffer.start);
            prefetch_to_read(buffer.start.wrapping_add(64));
            self.heads[ahead] = head;
            self.buffers[ahead] = buffer;
        }
        for ahead in 0..count {
            if !burst.has_room() {
                break;
            }
            let GuestBuffer { start, len } = self.buffers[ahead];
            if len > 0 {
                // SAFETY: `len` bytes are mapped there, and stay the device's until released.
                unsafe { take_whole(start, len, context, burst, drops) };
            } else {
                self.scatter.clear();
                self.follow(self.heads[ahead], Direction::Read, context)?;
                // SAFETY: the pieces are mapped, and stay the device's until released.
                unsafe { take_scattered(&self.scatter, context, burst, drops) };
            }
            self.taken += 1;
        }
        self.next = self.next.wrapping_add(self.taken);
        Ok(true)
    }

    /// Gives back the chains that [`Split::receive`] took. Returns whether the driver wants to be
    /// notified.
    pub(super) fn release(&mut self) -> bool {
        let count = std::mem::take(&mut self.taken);
        if count == 0 {
            return false;
        }
        // An in-order driver reads one entry for all of a batch (virtio 1.2, 2.7.9).
        let first = if self.in_order { count - 1 } else { 0 };
        let base = self.next.wrapping_sub(count);
        for index in first..count {
            let at = base.wrapping_add(index);
            self.ring.set_used(at, self.heads[index as usize], 0);
        }
        self.publish()
    }

    /// Copies frames into the buffers of a receive queue. Returns whether the driver wants to be
    /// notified.
    pub(super) fn send(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
        drops: &mut Losses,
    ) -> Result<bool, Rule> {
        self.find_place();
        let before = self.next;
        let result = self.write_frames(context, burst, from, drops);
        let call = self.next != before && self.publish();
        result.map(|()| call)
    }

    fn write_frames(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
        drops: &mut Losses,
    ) -> Result<(), Rule> {
        let mut index = from;
        if (self.waiting() as usize) < burst.len() - from {
            self.look()?;
        }
        while index < burst.len() {
            index += self.write_single(context, burst, index)?;
            if index == burst.len() {
                break;
            }
            match self.write_scattered(context, burst, index)? {
                Ok(()) => {}
                Err(reason) => drops.lose(index, reason),
            }
            index += 1;
        }
        Ok(())
    }

    /// Writes frames from `from` on for as long as each fits into one buffer; returns how many.
    #[inline(always)]
    fn write_single(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
    ) -> Result<usize, Rule> {
        let most = (burst.len() - from).min(self.waiting() as usize);
        let mut fit = 0;
        while fit < most {
            let head = self
                .ring
                .available_entry(self.next.wrapping_add(fit as u16));
            let descriptor = self.ring.descriptor(self.checked(head)?);
            let needed = (context.header_len + burst.frame_len(from + fit)) as u32;
            let buffer = context.single_buffer(&descriptor, WRITE);
            if buffer.len < needed {
                break;
            }
            prefetch_to_write(buffer.start);
            prefetch_to_write(buffer.start.wrapping_add(64));
            self.heads[fit] = head;
            self.buffers[fit] = buffer;
            fit += 1;
        }
        for ahead in 0..fit {
            let index = from + ahead;
            // SAFETY: header and frame fit into the buffer, as checked above.
            unsafe {
                copy::write_whole(self.buffers[ahead].start, context.header_len, burst, index);
            }
            let written = context.header_len + burst.frame_len(index);
            let at = self.next.wrapping_add(ahead as u16);
            self.ring.set_used(at, self.heads[ahead], written as u32);
        }
        self.next = self.next.wrapping_add(fit as u16);
        Ok(fit)
    }

    /// See [`Queue::lend`](super::queue::Queue::lend).
    pub(super) fn lend(
        &mut self,
        context: &Context<'_>,
        buffers: &mut [GuestBuffer; MAX_BURST],
    ) -> Result<usize, Rule> {
        self.find_place();
        if (self.waiting() as usize) < MAX_BURST {
            self.look()?;
        }
        let most = (self.waiting() as usize).min(MAX_BURST);
        for (ahead, buffer_slot) in buffers[..most].iter_mut().enumerate() {
            let head = self
                .ring
                .available_entry(self.next.wrapping_add(ahead as u16));
            let descriptor = self.ring.descriptor(self.checked(head)?);
            let buffer = context.single_buffer(&descriptor, WRITE);
            if buffer.len as usize <= context.header_len {
                return Ok(ahead);
            }
            self.heads[ahead] = head;
            *buffer_slot = buffer;
        }
        Ok(most)
    }

    /// See [`Queue::settle`](super::queue::Queue::settle).
    pub(super) fn settle(&mut self, lens: &[u32]) -> bool {
        for (ahead, len) in lens.iter().enumerate() {
            let at = self.next.wrapping_add(ahead as u16);
            self.ring.set_used(at, self.heads[ahead], *len);
        }
        self.next = self.next.wrapping_add(lens.len() as u16);
        self.publish()
    }

    /// Writes one frame into as many pieces of memory and, with mergeable buffers, as many buffers as
    /// it needs.
    fn write_scattered(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        index: usize,
    ) -> Result<Result<(), DropReason>, Rule> {
        let needed = (context.header_len + burst.frame_len(index)) as u64;
        let mut lens = [0u32; MAX_BUFFERS];
        let mut num_buffers = 0u16;
        self.scatter.clear();
        while self.scatter.bytes() < needed {
            if num_buffers > 0 && (!context.mergeable || num_buffers as usize == MAX_BUFFERS) {
                return Ok(Err(DropReason::TooLong));
            }
            if self.waiting() <= num_buffers && self.look()? <= num_buffers {
                return Ok(Err(DropReason::ReceiverFull));
            }
            let before = self.scatter.bytes();
            let head = self
                .ring
                .available_entry(self.next.wrapping_add(num_buffers));
            self.follow(self.checked(head)?, Direction::Write, context)?;
            let gained = self.scatter.bytes() - before;
            lens[num_buffers as usize] = gained.min(needed - before) as u32;
            num_buffers += 1;
        }
        let buffers = self.scatter.buffers();
        // SAFETY: the buffers are mapped, and the guest's to be written to.
        unsafe { copy::write_scattered(buffers, context.header_len, num_buffers, burst, index) };
        for (ahead, len) in lens[..num_buffers as usize].iter().enumerate() {
            let at = self.next.wrapping_add(ahead as u16);
            self.ring.set_used(at, self.ring.available_entry(at), *len);
        }
        self.next = self.next.wrapping_add(num_buffers);
        Ok(Ok(()))
    }

    #[inline(always)]
    fn checked(&self, number: u16) -> Result<u16, Rule> {
        let size = self.ring.size;
        if number < size {
            Ok(number)
        } else {
            Err(Rule::NoSuchDescriptor { number, size })
        }
    }

    /// Collects the pieces of the chain that begins at `head`.
    fn follow(
        &mut self,
        head: u16,
        direction: Direction,
        context: &Context<'_>,
    ) -> Result<(), Rule> {
        let mut number = head;
        for _ in 0..self.ring.size {
            let descriptor = self.ring.descriptor(self.checked(number)?);
            if descriptor.flags & INDIRECT != 0 {
                return self
                    .scatter
                    .add_table(context.memory, &descriptor, direction, Kind::Split);
            }
            self.scatter.add(context.memory, &descriptor, direction)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            number = descriptor.number;
        }
        Err(Rule::EndlessChain {
            limit: self.ring.size as usize,
        })
    }

    /// Makes the used ring visible to the driver. Returns whether the driver wants to be notified of
    /// the buffers given back since this was last asked.
    #[inline(always)]
    fn publish(&mut self) -> bool {
        self.base = None;
        let (ring, next) = (&self.ring, self.next);
        let publish = || ring.publish_used(next);
        if !self.event_index {
            return publish_then_look(publish, || ring.available_flags() & NO_SIGNAL == 0);
        }
        let before = std::mem::replace(&mut self.signalled, next);
        publish_then_look(publish, || needs_event(ring.used_event(), next, before))
    }

    /// Whether the driver may sleep although buffers were given back: by a device that was killed
    /// before it interrupted the driver.
    pub(super) fn may_have_missed_call(&self) -> bool {
        let wants = self.event_index || self.ring.available_flags() & NO_SIGNAL == 0;
        wants && self.ring.used_index() != 0
    }

    /// Asks for kicks. `true` when a buffer became available before that took effect.
    pub(super) fn arm(&mut self) -> bool {
        self.gather.forget();
        self.find_place();
        let (ring, next) = (&self.ring, self.next);
        let ask = || {
            if self.event_index {
                ring.set_available_event(next);
            } else {
                ring.set_used_flags(0);
            }
        };
        // An index that jumps too far is found by the next receive.
        publish_then_look(ask, || ring.available_index() != next)
    }

    /// Asks for no kicks.
    pub(super) fn disarm(&mut self) {
        self.find_place();
        if self.event_index {
            // As far away as possible: the driver's index gets there after 65,535 buffers, and
            // then the driver sends one kick that is not needed.
            self.ring.set_available_event(self.next.wrapping_sub(1));
        } else {
            self.ring.set_used_flags(NO_SIGNAL);
        }
    }
}

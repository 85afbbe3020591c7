//! A queue on a packed ring (virtio 1.2, 2.8), seen from the device: [`Packed`].
//!
//! One ring of descriptors serves both sides. Two bits of each descriptor say which side owns it, by
//! whether they agree with a counter that flips at every turn of the ring. Buffers are given back
//! several at a time, and become visible to the driver by one store: that of the flags of the first.
//!
//! A device that is killed in the midst leaves such a group given back in part, or its note of its place
//! in front of it. The next one passes over what was given back.
#![allow(unsafe_code)]

use super::copy::{self, GuestBuffer, prefetch_to_read, prefetch_to_write};
use super::descriptor::{
    Descriptor, Direction, INDIRECT, Kind, LONGEST_CHAIN, NEXT, ScatterList, WRITE,
};
use super::fault::Rule;
use super::gather::Gather;
use super::handshake::publish_then_look;
use super::packed_ring::{
    EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, PackedRing, RingPosition, used_word, was_passed,
};
use super::take::{take_scattered, take_whole};
use super::{Context, VringBase};
use crate::frame::{Burst, MAX_BURST};
use crate::stats::{DropReason, Losses};

/// One buffer: consecutive descriptors, given back by one.
#[derive(Clone, Copy)]
struct Chain {
    position: RingPosition,
    first: Descriptor,
    /// The buffer id by which the driver knows it.
    number: u16,
    descriptors: u16,
}

impl Chain {
    const NONE: Chain = Chain {
        position: RingPosition {
            index: 0,
            wrap: false,
        },
        first: Descriptor {
            address: 0,
            len: 0,
            flags: 0,
            number: 0,
        },
        number: 0,
        descriptors: 0,
    };
}

/// A packed queue while it runs.
pub(super) struct Packed {
    ring: PackedRing,
    /// The next descriptor to take. Chains are given back one for one and in order: so it is
    /// also where the next one is given back, when none is taken.
    next: RingPosition,
    /// Where the front end said that the device goes on; `None` once a buffer was used, when `next` is
    /// certain. See [`Packed::find_place`].
    base: Option<RingPosition>,
    /// A killed device's note, and where that leads to.
    found: Option<[RingPosition; 2]>,
    /// Descriptors given back since the driver's wish to be notified was last read.
    since: u32,
    in_order: bool,
    gather: Gather,
    /// Chains that are taken and not yet given back.
    chains: Box<[Chain]>,
    /// The memory of those chains that are a single piece.
    buffers: [GuestBuffer; MAX_BURST],
    taken: usize,
    scatter: ScatterList,
}

impl Packed {
    /// Begins where [`Packed::find_place`] says. `None` when that is outside the ring.
    pub(super) fn new(ring: PackedRing, base: VringBase, in_order: bool) -> Option<Self> {
        let given = RingPosition::from_bits((base.0 >> 16) as u16);
        let inside = Some(given).filter(|given| given.index < ring.size);
        let base = inside.or_else(|| ring.noted_position())?;
        Some(Packed {
            ring,
            next: base,
            base: Some(base),
            found: None,
            since: 0,
            in_order,
            gather: Gather::default(),
            chains: vec![Chain::NONE; LONGEST_CHAIN].into(),
            buffers: [GuestBuffer::NONE; MAX_BURST],
            taken: 0,
            scatter: ScatterList::default(),
        })
    }

    /// Until the first buffer is used, finds out where the device goes on: where a killed one left off,
    /// otherwise where the front end said. Buffers that another device took and did not give back are
    /// taken again. The note is not kept from the set-up: a driver may clear its ring after that.
    #[inline(always)]
    fn find_place(&mut self) {
        if let Some(base) = self.base {
            self.next = self.begins_at(base);
        }
    }

    #[cold]
    fn begins_at(&mut self, base: RingPosition) -> RingPosition {
        let Some(noted) = self.ring.noted_position() else {
            return base;
        };
        let known = self.found.filter(|[known, _]| *known == noted);
        let [_, place] = known.unwrap_or_else(|| [noted, self.ring.behind_given_back(noted)]);
        self.found = Some([noted, place]);
        place
    }

    /// The place is certain: it is noted before anything is given back.
    fn begin(&mut self) {
        if self.base.take().is_some() {
            self.ring.note_position(self.chains[0].position);
        }
    }

    /// Where another device goes on. The front end learns it from us, so the note in its memory goes.
    pub(super) fn retire(&mut self) -> VringBase {
        let place = self.base.unwrap_or(self.next);
        if self.base.is_none() {
            self.ring.forget_position();
        }
        let position = u32::from(place.bits());
        VringBase(position | position << 16)
    }

    /// Passes over places that a killed device gave back, behind ones that it did not. Before what is in
    /// front of them is given back: the driver waits for that, and then uses them again.
    #[inline(always)]
    fn pass_given_back(&mut self) {
        for _ in 0..LONGEST_CHAIN {
            if !self.ring.is_given_back(self.next) {
                break;
            }
            let count = self.ring.given_back_at(self.next);
            self.next = self.next.ahead(count, self.ring.size);
            // The driver may wait to be notified of one of them.
            self.since += u32::from(count);
        }
    }

    /// The chain at a position, if the driver made one available there.
    #[inline(always)]
    fn chain_at(&self, position: RingPosition) -> Result<Option<Chain>, Rule> {
        let Some(first) = self.ring.available(position) else {
            return Ok(None);
        };
        let mut chain = Chain {
            position,
            first,
            number: first.number,
            descriptors: 1,
        };
        if first.flags & NEXT == 0 {
            return Ok(Some(chain));
        }
        let limit = LONGEST_CHAIN.min(self.ring.size as usize);
        loop {
            if chain.descriptors as usize >= limit {
                return Err(Rule::EndlessChain { limit });
            }
            let next = self
                .ring
                .follower(position.ahead(chain.descriptors, self.ring.size));
            chain.descriptors += 1;
            if next.flags & NEXT == 0 {
                chain.number = next.number;
                return Ok(Some(chain));
            }
        }
    }

    /// Collects the pieces of a chain.
    fn follow(
        &mut self,
        chain: &Chain,
        direction: Direction,
        context: &Context<'_>,
    ) -> Result<(), Rule> {
        let mut descriptor = chain.first;
        for ahead in 1..=chain.descriptors {
            if descriptor.flags & INDIRECT == 0 {
                self.scatter.add(context.memory, &descriptor, direction)?;
            } else {
                self.scatter
                    .add_table(context.memory, &descriptor, direction, Kind::Packed)?;
            }
            if ahead < chain.descriptors {
                descriptor = self
                    .ring
                    .follower(chain.position.ahead(ahead, self.ring.size));
            }
        }
        Ok(())
    }

    /// Takes frames from a transmit queue, without copying them. `true` when more may wait.
    pub(super) fn receive(
        &mut self,
        context: &Context<'_>,
        burst: &mut Burst,
        drops: &mut Losses,
    ) -> Result<bool, Rule> {
        self.find_place();
        let enough = Gather::ENOUGH.min(self.ring.size) - 1;
        let last = self.next.ahead(enough, self.ring.size);
        if self.ring.available(last).is_none() && self.gather.lets_grow() {
            return Ok(true);
        }
        let (mut position, mut count, mut total) = (self.next, 0, 0);
        while count < MAX_BURST {
            let Some(chain) = self.chain_at(position)? else {
                break;
            };
            // A driver that marks every descriptor available would lead us round and round.
            total += u32::from(chain.descriptors);
            if total > u32::from(self.ring.size) {
                break;
            }
            let buffer = context.single_buffer(&chain.first, 0);
            prefetch_to_read(buffer.start);
            prefetch_to_read(buffer.start.wrapping_add(64));
            self.chains[count] = chain;
            self.buffers[count] = buffer;
            count += 1;
            position = position.ahead(chain.descriptors, self.ring.size);
        }
        self.gather.took(count as u16);
        if count == 0 {
            return Ok(false);
        }
        self.begin();
        for index in 0..count {
            if !burst.has_room() {
                break;
            }
            let chain = self.chains[index];
            let GuestBuffer { start, len } = self.buffers[index];
            if len > 0 {
                // SAFETY: `len` bytes are mapped there, and stay the device's until released.
                unsafe { take_whole(start, len, context, burst, drops) };
            } else {
                self.scatter.clear();
                self.follow(&chain, Direction::Read, context)?;
                // SAFETY: the pieces are mapped, and stay the device's until released.
                unsafe { take_scattered(&self.scatter, context, burst, drops) };
            }
            self.taken += 1;
            self.next = chain.position.ahead(chain.descriptors, self.ring.size);
        }
        Ok(true)
    }

    /// Gives back the chains that [`Packed::receive`] took. Returns whether the driver wants to be
    /// notified.
    pub(super) fn release(&mut self) -> bool {
        let count = std::mem::take(&mut self.taken);
        if count == 0 {
            return false;
        }
        if self.in_order && count > 1 {
            // One descriptor that names the last buffer stands for all (virtio 1.2, 2.8.9).
            self.pass_given_back();
            let taken = &self.chains[..count];
            let word = used_word(taken[0].position, taken[count - 1].number, 0, NEXT);
            self.ring.store(taken[0].position, word);
            let descriptors = taken.iter().map(|chain| u32::from(chain.descriptors));
            self.since += descriptors.sum::<u32>();
        } else {
            self.give_back(count, 0, |_| 0);
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
        let result = self.write_frames(context, burst, from, drops);
        let call = self.since > 0 && self.publish();
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

    /// Gives back the first `count` of the chains, with the bytes that `len` says were written to each;
    /// the first one last, which makes all visible to the driver. `next` is behind them already.
    #[inline(always)]
    fn give_back(&mut self, count: usize, flags: u16, len: impl Fn(usize) -> u32) {
        if count > 0 {
            self.begin();
            self.pass_given_back();
        }
        for index in (0..count).rev() {
            let chain = &self.chains[index];
            let more = if chain.descriptors > 1 { NEXT } else { 0 };
            let word = used_word(chain.position, chain.number, len(index), flags | more);
            self.ring.store(chain.position, word);
            self.since += u32::from(chain.descriptors);
        }
    }

    /// Writes frames from `from` on for as long as each fits into one buffer; returns how many.
    #[inline(always)]
    fn write_single(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
    ) -> Result<usize, Rule> {
        let most = (burst.len() - from).min(self.ring.size as usize);
        let (mut position, mut fit) = (self.next, 0);
        while fit < most {
            let Some(chain) = self.chain_at(position)? else {
                break;
            };
            let needed = (context.header_len + burst.frame_len(from + fit)) as u32;
            let buffer = context.single_buffer(&chain.first, WRITE);
            if buffer.len < needed {
                break;
            }
            prefetch_to_write(buffer.start);
            prefetch_to_write(buffer.start.wrapping_add(64));
            self.buffers[fit] = buffer;
            self.chains[fit] = chain;
            fit += 1;
            position = position.ahead(1, self.ring.size);
        }
        for ahead in 0..fit {
            let index = from + ahead;
            // SAFETY: header and frame fit into the buffer, as checked above.
            unsafe {
                copy::write_whole(self.buffers[ahead].start, context.header_len, burst, index);
            }
        }
        self.next = position;
        self.give_back(fit, WRITE, |ahead| {
            (context.header_len + burst.frame_len(from + ahead)) as u32
        });
        Ok(fit)
    }

    /// See [`Queue::lend`](super::queue::Queue::lend).
    pub(super) fn lend(
        &mut self,
        context: &Context<'_>,
        buffers: &mut [GuestBuffer; MAX_BURST],
    ) -> Result<usize, Rule> {
        self.find_place();
        let most = MAX_BURST.min(self.ring.size as usize);
        let mut position = self.next;
        for (ahead, lent) in buffers[..most].iter_mut().enumerate() {
            let Some(chain) = self.chain_at(position)? else {
                return Ok(ahead);
            };
            let buffer = context.single_buffer(&chain.first, WRITE);
            if buffer.len as usize <= context.header_len {
                return Ok(ahead);
            }
            self.chains[ahead] = chain;
            *lent = buffer;
            position = position.ahead(1, self.ring.size);
        }
        Ok(most)
    }

    /// See [`Queue::settle`](super::queue::Queue::settle).
    pub(super) fn settle(&mut self, lens: &[u32]) -> bool {
        self.next = self.next.ahead(lens.len() as u16, self.ring.size);
        self.give_back(lens.len(), WRITE, |ahead| lens[ahead]);
        self.publish()
    }

    /// Notes the place behind all buffers that were given back. Returns whether the driver wants to be
    /// notified of those given back since this was last asked.
    #[inline(always)]
    fn publish(&mut self) -> bool {
        let since = std::mem::take(&mut self.since);
        let (ring, next) = (&self.ring, self.next);
        publish_then_look(
            || ring.note_position(next),
            || match ring.driver_event() {
                (_, EVENT_DISABLE) => false,
                (event, EVENT_DESCRIPTOR) => was_passed(event, next, since, ring.size),
                _ => true,
            },
        )
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
        let mut lens = [0u32; LONGEST_CHAIN];
        let (mut position, mut num_buffers, mut total) = (self.next, 0, 0);
        self.scatter.clear();
        while self.scatter.bytes() < needed {
            if num_buffers > 0 && (!context.mergeable || num_buffers == LONGEST_CHAIN) {
                return Ok(Err(DropReason::TooLong));
            }
            let Some(chain) = self.chain_at(position)? else {
                return Ok(Err(DropReason::ReceiverFull));
            };
            total += u32::from(chain.descriptors);
            if total > u32::from(self.ring.size) {
                return Ok(Err(DropReason::ReceiverFull));
            }
            let before = self.scatter.bytes();
            self.follow(&chain, Direction::Write, context)?;
            let gained = self.scatter.bytes() - before;
            lens[num_buffers] = gained.min(needed - before) as u32;
            self.chains[num_buffers] = chain;
            num_buffers += 1;
            position = position.ahead(chain.descriptors, self.ring.size);
        }
        let buffers = self.scatter.buffers();
        // SAFETY: the buffers are mapped, and the guest's to be written to.
        unsafe {
            copy::write_scattered(
                buffers,
                context.header_len,
                num_buffers as u16,
                burst,
                index,
            );
        }
        self.next = position;
        self.give_back(num_buffers, WRITE, |ahead| lens[ahead]);
        // At once: behind a chain, a note that lags could not be told from one that does not.
        self.ring.note_position(self.next);
        Ok(Ok(()))
    }

    /// As of a split queue.
    pub(super) fn may_have_missed_call(&self) -> bool {
        self.ring.noted_position().is_some() && self.ring.driver_event().1 != EVENT_DISABLE
    }

    /// Asks for kicks. `true` when a buffer became available before that took effect.
    pub(super) fn arm(&mut self) -> bool {
        self.gather.forget();
        self.find_place();
        let (ring, next) = (&self.ring, self.next);
        let ask = || ring.set_device_event(EVENT_ENABLE);
        publish_then_look(ask, || ring.available(next).is_some())
    }

    /// Asks for no kicks.
    pub(super) fn disarm(&mut self) {
        self.ring.set_device_event(EVENT_DISABLE);
    }
}

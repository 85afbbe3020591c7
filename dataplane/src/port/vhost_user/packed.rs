//! A queue on a packed ring (virtio 1.2, 2.8), seen from the device: [`Packed`].
//!
//! One ring of descriptors serves both sides. Two bits of each descriptor say which side owns it, by
//! whether they agree with a counter that flips at every turn of the ring. All buffers of a burst
//! become visible to the driver by one store: that of the flags of the first.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

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
    /// Goes on where a killed device left off; otherwise where `base` says that used descriptors
    /// go: buffers that another device took and did not give back are taken again.
    pub(super) fn new(ring: PackedRing, base: VringBase, in_order: bool) -> Option<Self> {
        let given = RingPosition::from_bits((base.0 >> 16) as u16);
        let next = ring.noted_position().unwrap_or(given);
        (next.index < ring.size).then(|| Packed {
            ring,
            next,
            since: 0,
            in_order,
            gather: Gather::default(),
            chains: vec![Chain::NONE; LONGEST_CHAIN].into(),
            buffers: [GuestBuffer::NONE; MAX_BURST],
            taken: 0,
            scatter: ScatterList::default(),
        })
    }

    /// Where another device goes on. The front end learns it from us, so the note in its memory goes.
    pub(super) fn retire(&mut self) -> VringBase {
        self.ring.forget_position();
        let position = u32::from(self.next.bits());
        VringBase(position | position << 16)
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
        let taken = &self.chains[..std::mem::take(&mut self.taken)];
        let [first, others @ ..] = taken else {
            return false;
        };
        self.since += taken
            .iter()
            .map(|chain| u32::from(chain.descriptors))
            .sum::<u32>();
        let mut number = first.number;
        if self.in_order {
            // One descriptor that names the last buffer stands for all (virtio 1.2, 2.8.9).
            number = others.last().map_or(number, |last| last.number);
        } else {
            for chain in others {
                let word = used_word(chain.position, chain.number, 0, 0);
                self.ring.store(chain.position, word, Ordering::Relaxed);
            }
        }
        let word = used_word(first.position, number, 0, 0);
        let position = first.position;
        self.publish(position, word)
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
        let mut first = None;
        let result = self.write_frames(context, burst, from, drops, &mut first);
        let call = first.is_some_and(|(position, word)| self.publish(position, word));
        result.map(|()| call)
    }

    fn write_frames(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
        drops: &mut Losses,
        first: &mut Option<(RingPosition, u64)>,
    ) -> Result<(), Rule> {
        let mut index = from;
        while index < burst.len() {
            index += self.write_single(context, burst, index, first)?;
            if index == burst.len() {
                break;
            }
            match self.write_scattered(context, burst, index, first)? {
                Ok(()) => {}
                Err(reason) => drops.lose(index, reason),
            }
            index += 1;
        }
        Ok(())
    }

    /// Gives a receive buffer back, but the first one of a burst only when all are filled.
    #[inline(always)]
    fn give_back(&mut self, chain: &Chain, len: u32, first: &mut Option<(RingPosition, u64)>) {
        let word = used_word(chain.position, chain.number, len, WRITE);
        if first.is_none() {
            *first = Some((chain.position, word));
        } else {
            self.ring.store(chain.position, word, Ordering::Relaxed);
        }
        self.since += u32::from(chain.descriptors);
    }

    /// Writes frames from `from` on for as long as each fits into one buffer; returns how many.
    #[inline(always)]
    fn write_single(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
        first: &mut Option<(RingPosition, u64)>,
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
            let written = context.header_len + burst.frame_len(index);
            let chain = self.chains[ahead];
            self.give_back(&chain, written as u32, first);
        }
        self.next = position;
        Ok(fit)
    }

    /// See [`Queue::lend`](super::queue::Queue::lend).
    pub(super) fn lend(
        &mut self,
        context: &Context<'_>,
        buffers: &mut [GuestBuffer; MAX_BURST],
    ) -> Result<usize, Rule> {
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
        let mut first = None;
        for (ahead, len) in lens.iter().enumerate() {
            let chain = self.chains[ahead];
            self.give_back(&chain, *len, &mut first);
        }
        self.next = self.next.ahead(lens.len() as u16, self.ring.size);
        first.is_some_and(|(position, word)| self.publish(position, word))
    }

    /// Makes all buffers that were given back visible to the driver, by writing the first one. Returns
    /// whether the driver wants to be notified of those given back since this was last asked.
    #[inline(always)]
    fn publish(&mut self, first: RingPosition, word: u64) -> bool {
        let since = std::mem::take(&mut self.since);
        let (ring, next) = (&self.ring, self.next);
        let publish = || {
            ring.store(first, word, Ordering::Release);
            ring.note_position(next);
        };
        publish_then_look(publish, || match ring.driver_event() {
            (_, EVENT_DISABLE) => false,
            (event, EVENT_DESCRIPTOR) => was_passed(event, next, since, ring.size),
            _ => true,
        })
    }

    /// Writes one frame into as many pieces of memory and, with mergeable buffers, as many buffers as
    /// it needs.
    fn write_scattered(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        index: usize,
        first: &mut Option<(RingPosition, u64)>,
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
        for (ahead, len) in lens[..num_buffers].iter().enumerate() {
            let chain = self.chains[ahead];
            self.give_back(&chain, *len, first);
        }
        self.next = position;
        Ok(Ok(()))
    }

    /// Asks for kicks. `true` when a buffer became available before that took effect.
    pub(super) fn arm(&mut self) -> bool {
        self.gather.forget();
        let (ring, next) = (&self.ring, self.next);
        let ask = || ring.set_device_event(EVENT_ENABLE);
        publish_then_look(ask, || ring.available(next).is_some())
    }

    /// Asks for no kicks.
    pub(super) fn disarm(&mut self) {
        self.ring.set_device_event(EVENT_DISABLE);
    }
}

//! One queue of a guest: a ring, a buffer for each of its slots, and the two bells.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vmm_sys_util::eventfd::EventFd;

use crate::layout::{HEADER, QueueLayout};
use crate::packed::Packed;
use crate::split::Split;
use crate::{BackEndFault, GuestError, Memory, Ring};

/// Used buffers looked at together: long enough for a prefetch to arrive, short enough that
/// what it brought is still there.
const LOOK_AHEAD: usize = 32;

/// What both sides agreed on for a ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The device writes: a receive queue.
    pub(super) writable: bool,
    pub(super) in_order: bool,
    pub(super) event_idx: bool,
    pub(super) mergeable: bool,
}

/// A buffer that the device is done with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) slot: u16,
    pub(super) written: u32,
}

/// See [`Queue::load`].
#[derive(Debug)]
struct Template {
    number: u32,
    header: [u8; HEADER],
    frame: Vec<u8>,
}

#[derive(Debug)]
enum Driver {
    Split(Split),
    Packed(Packed),
}

/// Calls the same method of either kind of ring.
macro_rules! ring {
    ($queue:expr, $ring:ident => $call:expr) => {
        match &mut $queue.ring {
            Driver::Split($ring) => $call,
            Driver::Packed($ring) => $call,
        }
    };
}

/// See the module's text. Even ones receive, odd ones send.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<Memory>,
    layout: QueueLayout,
    rules: Rules,
    ring: Driver,
    /// Slots that are ours, in the order in which they became so.
    free: VecDeque<u16>,
    /// Whose the slot is: what comes back twice is the back end's fault.
    offered: Vec<bool>,
    /// Buffers taken from the ring whose frame is not complete yet.
    pending: VecDeque<Used>,
    kick: EventFd,
    call: EventFd,
    kicks: u64,
    /// What [`Queue::send`] starts from, counted, and which of them each buffer holds.
    template: Template,
    holds: Vec<u32>,
}

impl Queue {
    pub(super) fn new(
        memory: Arc<Memory>,
        layout: QueueLayout,
        rules: Rules,
    ) -> Result<Queue, GuestError> {
        let bell = || EventFd::new(rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed());
        let mut queue = Queue {
            ring: Self::ring(&memory, layout, rules),
            memory,
            layout,
            rules,
            free: VecDeque::new(),
            offered: Vec::new(),
            pending: VecDeque::new(),
            kick: bell().map_err(GuestError::Bell)?,
            call: bell().map_err(GuestError::Bell)?,
            kicks: 0,
            template: Template {
                number: 1,
                header: [0; HEADER],
                frame: Vec::new(),
            },
            holds: Vec::new(),
        };
        queue.all_ours();
        Ok(queue)
    }

    fn ring(memory: &Arc<Memory>, layout: QueueLayout, rules: Rules) -> Driver {
        match layout.ring {
            Ring::Split => Driver::Split(Split::new(memory.clone(), layout, rules)),
            Ring::Packed => Driver::Packed(Packed::new(memory.clone(), layout, rules)),
        }
    }

    fn all_ours(&mut self) {
        self.free = (0..self.layout.slots).collect();
        self.offered = vec![false; self.layout.slots as usize];
        self.holds = vec![0; self.layout.slots as usize];
        self.pending.clear();
    }

    /// Starts over with an empty ring, as after a reset. The back end must have been stopped.
    pub fn reset(&mut self) {
        self.ring = Self::ring(&self.memory, self.layout, self.rules);
        self.all_ours();
    }

    /// Where ring and buffers lie.
    pub fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// What the back end waits on; it is rung by [`Queue::send`] and [`Queue::post`] as needed.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// What the back end rings.
    pub fn call(&self) -> &EventFd {
        &self.call
    }

    /// How often the back end was kicked.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Slots that are ours.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Asks for an interrupt on the next used buffer, or for none. As after each such change,
    /// look once more before waiting for it.
    pub fn interrupts(&mut self, wanted: bool) {
        ring!(self, ring => ring.interrupts(wanted));
    }

    /// From now on [`Queue::send`] starts from this header and frame. Each buffer gets them only
    /// once: what `fill` does not change is not written again.
    ///
    /// # Panics
    /// When the frame is longer than the buffers.
    pub fn load(&mut self, header: &[u8; HEADER], frame: &[u8]) {
        assert!(
            frame.len() <= self.layout.capacity,
            "a frame longer than its buffer"
        );
        let number = self.template.number + 1;
        self.template = Template {
            number,
            header: *header,
            frame: frame.to_vec(),
        };
    }

    /// Sends up to `limit` frames. `fill` completes each where it lies; without its doing it is
    /// what was loaded. Returns how many there was room for.
    ///
    /// # Errors
    /// [`GuestError::BackEnd`] when the back end broke a rule.
    #[inline]
    pub fn send(
        &mut self,
        limit: usize,
        mut fill: impl FnMut(&mut Outgoing<'_>),
    ) -> Result<usize, GuestError> {
        if self.free.len() < limit {
            self.reclaim()?;
        }
        let count = limit.min(self.free.len());
        for _ in 0..count {
            let Some(slot) = self.free.pop_front() else {
                break;
            };
            let header = self.layout.header(slot);
            if self.holds[slot as usize] != self.template.number {
                self.memory.write(header, &self.template.header);
                self.memory.write(header + HEADER, &self.template.frame);
                self.holds[slot as usize] = self.template.number;
            }
            let mut outgoing = Outgoing {
                memory: &self.memory,
                header,
                capacity: self.layout.capacity,
                len: self.template.frame.len() as u32,
                rewritten: false,
            };
            fill(&mut outgoing);
            let len = outgoing.len;
            if outgoing.rewritten {
                self.holds[slot as usize] = 0;
            }
            self.offered[slot as usize] = true;
            ring!(self, ring => ring.offer(slot, len));
        }
        self.publish()?;
        Ok(count)
    }

    /// Takes back the buffers of frames that were sent.
    ///
    /// # Errors
    /// [`GuestError::BackEnd`] when the back end broke a rule.
    pub fn reclaim(&mut self) -> Result<(), GuestError> {
        while let Some(used) = ring!(self, ring => ring.used())? {
            self.take_back(used)?;
            self.free.push_back(used.slot);
        }
        Ok(())
    }

    /// Whether the device has used a buffer that was not looked at yet.
    pub fn has_used(&mut self) -> bool {
        !self.pending.is_empty() || ring!(self, ring => ring.has_used())
    }

    /// Gives all buffers that are ours to the back end, to receive into.
    ///
    /// # Errors
    /// [`GuestError::Bell`].
    pub fn post(&mut self) -> Result<(), GuestError> {
        let capacity = self.layout.capacity as u32;
        while let Some(slot) = self.free.pop_front() {
            self.offered[slot as usize] = true;
            ring!(self, ring => ring.offer(slot, capacity));
        }
        self.publish()
    }

    /// Takes up to `limit` received frames and gives their buffers back. Returns how many.
    ///
    /// # Errors
    /// [`GuestError::BackEnd`] when the back end broke a rule.
    #[inline]
    pub fn receive(
        &mut self,
        limit: usize,
        mut take: impl FnMut(&Incoming<'_>),
    ) -> Result<usize, GuestError> {
        let mut count = 0;
        while count < limit {
            while self.pending.len() < LOOK_AHEAD {
                let Some(used) = ring!(self, ring => ring.used())? else {
                    break;
                };
                self.take_back(used)?;
                let header = self.layout.header(used.slot);
                if self.rules.mergeable {
                    self.memory.prefetch(header);
                }
                self.memory.prefetch(header + HEADER);
                self.pending.push_back(used);
            }
            let taken = self.take(limit - count, &mut take)?;
            count += taken;
            if taken == 0 {
                break;
            }
        }
        if count > 0 {
            self.post()?;
        }
        Ok(count)
    }

    /// Hands complete frames on.
    #[inline]
    fn take(
        &mut self,
        limit: usize,
        take: &mut impl FnMut(&Incoming<'_>),
    ) -> Result<usize, GuestError> {
        let mut count = 0;
        while count < limit
            && let Some(first) = self.pending.front().copied()
        {
            let header = self.layout.header(first.slot);
            let buffers = if self.rules.mergeable {
                u16::from_le(self.memory.u16(header + 10).load(Relaxed))
            } else {
                1
            };
            if (first.written as usize) < HEADER || buffers == 0 || buffers > self.layout.slots {
                return Err(BackEndFault::NoHeader.into());
            }
            if buffers as usize > self.pending.len() {
                // A frame in more buffers than are looked at in one go.
                let Some(used) = ring!(self, ring => ring.used())? else {
                    break;
                };
                self.take_back(used)?;
                self.pending.push_back(used);
                continue;
            }
            take(&Incoming {
                memory: &self.memory,
                layout: &self.layout,
                buffers: &self.pending,
                count: buffers as usize,
            });
            self.free
                .extend(self.pending.drain(..buffers as usize).map(|used| used.slot));
            count += 1;
        }
        Ok(count)
    }

    #[inline]
    fn take_back(&mut self, used: Used) -> Result<(), BackEndFault> {
        if !std::mem::replace(&mut self.offered[used.slot as usize], false) {
            return Err(BackEndFault::NotOffered(used.slot));
        }
        if self.rules.writable && used.written as usize > HEADER + self.layout.capacity {
            return Err(BackEndFault::TooLong(used.written));
        }
        Ok(())
    }

    #[inline]
    fn publish(&mut self) -> Result<(), GuestError> {
        if ring!(self, ring => ring.publish()) {
            self.kicks += 1;
            self.kick.write(1).map_err(GuestError::Bell)?;
        }
        Ok(())
    }
}

/// A frame that is about to be sent, in the guest's memory.
pub struct Outgoing<'q> {
    memory: &'q Memory,
    header: usize,
    capacity: usize,
    len: u32,
    rewritten: bool,
}

impl Outgoing<'_> {
    /// Sets the virtio-net header.
    pub fn header(&mut self, header: &[u8; HEADER]) {
        self.memory.write(self.header, header);
        self.rewritten = true;
    }

    /// Sets the whole frame.
    ///
    /// # Panics
    /// When it is longer than the buffer.
    pub fn frame(&mut self, frame: &[u8]) {
        assert!(
            frame.len() <= self.capacity,
            "a frame longer than its buffer"
        );
        self.memory.write(self.header + HEADER, frame);
        self.len = frame.len() as u32;
        self.rewritten = true;
    }

    /// Sets eight bytes of the frame, at a multiple of 8, to a number in this machine's order.
    #[inline]
    pub fn word(&mut self, at: usize, word: u64) {
        self.memory
            .u64(self.header + HEADER + at)
            .store(word, Relaxed);
    }
}

/// A frame that was received, in the guest's memory.
pub struct Incoming<'q> {
    memory: &'q Memory,
    layout: &'q QueueLayout,
    buffers: &'q VecDeque<Used>,
    count: usize,
}

impl Incoming<'_> {
    /// Its virtio-net header.
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        self.memory
            .read(self.layout.header(self.buffers[0].slot), &mut header);
        header
    }

    /// Buffers that it lies in.
    pub fn buffers(&self) -> usize {
        self.count
    }

    /// Its length in bytes, without the header.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces().map(|(_, len)| len).sum()
    }

    /// Whether only a header came.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Eight bytes of the frame, at a multiple of 8, as a number in this machine's order. `None`
    /// when its first buffer does not hold them.
    #[inline]
    pub fn word(&self, at: usize) -> Option<u64> {
        let (from, len) = self.pieces().next()?;
        (at + 8 <= len).then(|| self.memory.u64(from + at).load(Relaxed))
    }

    /// Whether the frame has these bytes at an offset.
    pub fn holds(&self, mut at: usize, mut bytes: &[u8]) -> bool {
        for (from, len) in self.pieces() {
            if at >= len {
                at -= len;
                continue;
            }
            let (here, rest) = bytes.split_at(bytes.len().min(len - at));
            if !self.memory.holds(from + at, here) {
                return false;
            }
            (at, bytes) = (0, rest);
        }
        bytes.is_empty()
    }

    /// A copy of the frame.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        for (from, len) in self.pieces() {
            let old = frame.len();
            frame.resize(old + len, 0);
            self.memory.read(from, &mut frame[old..]);
        }
        frame
    }

    /// Offset and length of each part.
    #[inline]
    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        self.buffers
            .iter()
            .take(self.count)
            .enumerate()
            .map(|(index, used)| {
                let (at, len) = (self.layout.header(used.slot), used.written as usize);
                if index == 0 {
                    (at + HEADER, len - HEADER)
                } else {
                    (at, len)
                }
            })
    }
}

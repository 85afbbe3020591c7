//! One queue of a guest: a ring, a buffer for each of its slots, and the eventfds for kick and call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vmm_sys_util::eventfd::EventFd;

use crate::layout::{HEADER, QueueLayout};
use crate::packed::Packed;
use crate::split::Split;
use crate::{BackEndFault, GuestError, Memory, Ring};

/// Number of used buffers whose cache lines are prefetched before the first of them is read: enough
/// for a prefetch to finish, and few enough for its lines to stay in the cache.
const PREFETCHED: usize = 32;

/// The negotiated features that matter to a ring.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueueFeatures {
    /// Whether the device writes the buffers: a receive queue.
    pub(super) writable: bool,
    pub(super) in_order: bool,
    pub(super) event_idx: bool,
    pub(super) mergeable: bool,
}

/// A buffer that the device has used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    pub(super) slot: u16,
    /// Bytes that the device reports as written, header included.
    pub(super) written: u32,
}

/// The frame that [`Queue::send`] starts from; `number` distinguishes it from earlier ones.
#[derive(Debug)]
struct Template {
    number: u32,
    header: [u8; HEADER],
    frame: Vec<u8>,
}

#[derive(Debug)]
enum AnyRing {
    Split(Split),
    Packed(Packed),
}

/// Calls the same method on either kind of ring.
macro_rules! ring {
    ($queue:expr, $ring:ident => $call:expr) => {
        match &mut $queue.ring {
            AnyRing::Split($ring) => $call,
            AnyRing::Packed($ring) => $call,
        }
    };
}

/// One queue of a guest. Queues with even indices receive, those with odd indices send.
#[derive(Debug)]
pub struct Queue {
    memory: Arc<Memory>,
    layout: QueueLayout,
    negotiated: QueueFeatures,
    ring: AnyRing,
    /// Slots that the driver owns, oldest first.
    free: VecDeque<u16>,
    /// For each slot, whether the device owns it. If it returns a slot twice, it broke a rule.
    offered: Vec<bool>,
    /// Buffers taken from the ring whose frames have not been handed on yet.
    pending: VecDeque<Used>,
    kick: EventFd,
    call: EventFd,
    kicks: u64,
    template: Template,
    /// For each slot, the number of the template that its buffer contains; 0 for none.
    loaded: Vec<u32>,
}

impl Queue {
    pub(super) fn new(
        memory: Arc<Memory>,
        layout: QueueLayout,
        negotiated: QueueFeatures,
    ) -> Result<Queue, GuestError> {
        let eventfd = || {
            let flags = rustix::event::EventfdFlags::NONBLOCK.bits().cast_signed();
            EventFd::new(flags).map_err(GuestError::Eventfd)
        };
        let ring = match layout.ring {
            Ring::Split => AnyRing::Split(Split::new(memory.clone(), layout, negotiated)),
            Ring::Packed => AnyRing::Packed(Packed::new(memory.clone(), layout, negotiated)),
        };
        Ok(Queue {
            ring,
            memory,
            layout,
            negotiated,
            free: (0..layout.slots).collect(),
            offered: vec![false; layout.slots as usize],
            pending: VecDeque::new(),
            kick: eventfd()?,
            call: eventfd()?,
            kicks: 0,
            template: Template {
                number: 1,
                header: [0; HEADER],
                frame: Vec::new(),
            },
            loaded: vec![0; layout.slots as usize],
        })
    }

    /// The positions of the queue's ring and buffers in the guest's memory.
    pub fn layout(&self) -> &QueueLayout {
        &self.layout
    }

    /// The eventfd that the back end waits on. [`Queue::send`] and [`Queue::post`] signal it when
    /// the back end asks for that.
    pub fn kick(&self) -> &EventFd {
        &self.kick
    }

    /// The eventfd that the back end signals.
    pub(crate) fn call(&self) -> &EventFd {
        &self.call
    }

    /// How often the driver has kicked the back end.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Number of slots that the driver owns.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Asks for an interrupt at the next used buffer, or for none. After asking for one, call
    /// [`Queue::has_used`] before waiting: the device may have used a buffer just before.
    pub(crate) fn interrupts(&mut self, wanted: bool) {
        ring!(self, ring => ring.interrupts(wanted));
    }

    /// Sets the header and frame that [`Queue::send`] starts from. It copies them into each buffer
    /// only once, so bytes that `fill` leaves alone cost nothing afterwards.
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

    /// Sends up to `limit` frames. `fill` completes each frame in its buffer, which contains the
    /// frame set by [`Queue::load`]. Returns the number of frames for which buffers were free.
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
            if self.loaded[slot as usize] != self.template.number {
                self.memory.write(header, &self.template.header);
                self.memory.write(header + HEADER, &self.template.frame);
                self.loaded[slot as usize] = self.template.number;
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
                self.loaded[slot as usize] = 0;
            }
            self.offered[slot as usize] = true;
            ring!(self, ring => ring.offer(slot, len));
        }
        self.publish()?;
        Ok(count)
    }

    /// Takes back the buffers of frames that the back end has sent.
    ///
    /// # Errors
    /// [`GuestError::BackEnd`] when the back end broke a rule.
    pub fn reclaim(&mut self) -> Result<(), GuestError> {
        while let Some(used) = ring!(self, ring => ring.used())? {
            self.check_used(used)?;
            self.free.push_back(used.slot);
        }
        Ok(())
    }

    /// Whether the device has used a buffer that the driver has not taken yet.
    pub(crate) fn has_used(&mut self) -> bool {
        !self.pending.is_empty() || ring!(self, ring => ring.has_used())
    }

    /// Gives all buffers that the driver owns to the back end, to receive into.
    ///
    /// # Errors
    /// [`GuestError::Eventfd`] when the kick fails.
    pub fn post(&mut self) -> Result<(), GuestError> {
        let capacity = self.layout.capacity as u32;
        while let Some(slot) = self.free.pop_front() {
            self.offered[slot as usize] = true;
            ring!(self, ring => ring.offer(slot, capacity));
        }
        self.publish()
    }

    /// Passes up to `limit` received frames to `take` and gives their buffers back. Returns the
    /// number of frames.
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
            while self.pending.len() < PREFETCHED {
                let Some(used) = ring!(self, ring => ring.used())? else {
                    break;
                };
                self.check_used(used)?;
                let header = self.layout.header(used.slot);
                // `num_buffers` lies on the cache line before the frame.
                if self.negotiated.mergeable {
                    self.memory.prefetch(header);
                }
                self.memory.prefetch(header + HEADER);
                self.pending.push_back(used);
            }
            let taken = self.take_complete(limit - count, &mut take)?;
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

    /// Passes up to `limit` complete frames to `take`.
    #[inline]
    fn take_complete(
        &mut self,
        limit: usize,
        take: &mut impl FnMut(&Incoming<'_>),
    ) -> Result<usize, GuestError> {
        let mut count = 0;
        while count < limit
            && let Some(first) = self.pending.front().copied()
        {
            let header = self.layout.header(first.slot);
            let buffers = if self.negotiated.mergeable {
                u16::from_le(self.memory.u16(header + 10).load(Relaxed))
            } else {
                1
            };
            if (first.written as usize) < HEADER || buffers == 0 || buffers > self.layout.slots {
                return Err(BackEndFault::NoHeader.into());
            }
            if buffers as usize > self.pending.len() {
                // The frame spans buffers that are not taken from the ring yet.
                let Some(used) = ring!(self, ring => ring.used())? else {
                    break;
                };
                self.check_used(used)?;
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

    /// Makes the driver the owner of a used buffer, unless the device broke a rule.
    #[inline]
    fn check_used(&mut self, used: Used) -> Result<(), BackEndFault> {
        if !std::mem::replace(&mut self.offered[used.slot as usize], false) {
            return Err(BackEndFault::NotAvailable(used.slot));
        }
        if self.negotiated.writable && used.written as usize > HEADER + self.layout.capacity {
            return Err(BackEndFault::TooLong(used.written));
        }
        Ok(())
    }

    #[inline]
    fn publish(&mut self) -> Result<(), GuestError> {
        if ring!(self, ring => ring.publish()) {
            self.kicks += 1;
            self.kick.write(1).map_err(GuestError::Eventfd)?;
        }
        Ok(())
    }
}

/// A frame to send, in its buffer in the guest's memory.
pub struct Outgoing<'q> {
    memory: &'q Memory,
    header: usize,
    capacity: usize,
    len: u32,
    rewritten: bool,
}

impl Outgoing<'_> {
    /// Writes the virtio-net header.
    pub fn header(&mut self, header: &[u8; HEADER]) {
        self.memory.write(self.header, header);
        self.rewritten = true;
    }

    /// Writes the whole frame and sets its length.
    ///
    /// # Panics
    /// When the frame is longer than the buffer.
    pub fn frame(&mut self, frame: &[u8]) {
        assert!(
            frame.len() <= self.capacity,
            "a frame longer than its buffer"
        );
        self.memory.write(self.header + HEADER, frame);
        self.len = frame.len() as u32;
        self.rewritten = true;
    }

    /// Writes a number into eight bytes of the frame, in this machine's byte order. `at` is a
    /// multiple of 8.
    #[inline]
    pub fn word(&mut self, at: usize, word: u64) {
        self.memory
            .u64(self.header + HEADER + at)
            .store(word, Relaxed);
    }
}

/// A received frame, in its buffers in the guest's memory.
pub struct Incoming<'q> {
    memory: &'q Memory,
    layout: &'q QueueLayout,
    buffers: &'q VecDeque<Used>,
    count: usize,
}

impl Incoming<'_> {
    /// The frame's virtio-net header.
    pub fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        self.memory
            .read(self.layout.header(self.buffers[0].slot), &mut header);
        header
    }

    /// The frame's length in bytes, without the header.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces().map(|(_, len)| len).sum()
    }

    /// Whether the back end wrote only a header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Eight bytes of the frame as a number, in this machine's byte order. `at` is a multiple of 8.
    /// `None` when the first buffer does not contain all of them.
    #[inline]
    pub fn word(&self, at: usize) -> Option<u64> {
        let (from, len) = self.pieces().next()?;
        (at + 8 <= len).then(|| self.memory.u64(from + at).load(Relaxed))
    }

    /// Whether the frame contains `bytes` at offset `at`.
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

    /// Offset in memory and length of each part of the frame.
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

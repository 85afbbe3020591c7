//! Which of a guest's receive queues gets a burst.

use super::fault::GuestFault;
use super::{VhostUser, context};
use crate::frame::Burst;
use crate::stats::{DropReason, Losses};

/// Bursts in a row of which a queue took no frame, after which it counts as one that nobody drains. A guest
/// that is merely slow should not get there: each change of queue may reorder a flow.
const GIVE_UP: u16 = 256;

/// Which receive queues are drained. A driver may enable more than it uses, or stop using some.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// For each queue: bursts in a row of which it took no frame, up to [`GIVE_UP`].
    refused: Vec<u16>,
    /// Which queue is tried when none is known to be drained.
    probe: usize,
}

impl Drained {
    /// No queue is known to be drained before it took a frame.
    pub(super) fn new(queues: usize) -> Self {
        Drained {
            refused: vec![GIVE_UP; queues],
            probe: 0,
        }
    }

    fn has(&self, index: usize) -> bool {
        self.refused[index] < GIVE_UP
    }

    /// Takes note of what became of the frames of a burst from `from` on.
    #[inline]
    fn learn(&mut self, index: usize, took: bool) {
        let refused = &mut self.refused[index];
        *refused = if took { 0 } else { (*refused + 1).min(GIVE_UP) };
    }

    /// The queue for frames of one that is not drained: always the same of those that are.
    fn instead_of(&mut self, home: usize) -> usize {
        let queues = self.refused.len();
        let drained = (0..queues).filter(|index| self.has(*index)).count();
        if drained == 0 {
            // One a burst: a guest that drains none costs little more than one with a single queue.
            self.probe = (self.probe + 1) % queues;
            return self.probe;
        }
        let mut drained_ones = (0..queues).filter(|index| self.has(*index));
        drained_ones.nth(home % drained).unwrap_or(home)
    }
}

impl VhostUser {
    /// Sends a burst to one of the guest's receive queues: the one that goes with the queue
    /// that the burst came from, so that no flow is reordered; if nobody drains that one, another.
    #[inline]
    pub(in crate::port) fn send(&mut self, burst: &Burst, from: usize, drops: &mut Losses) {
        let queues = self.receive.len();
        if queues == 0 || self.fault.is_some() {
            drops.lose_all(from..burst.len(), DropReason::Unplugged);
            return;
        }
        if queues == 1 {
            return self.send_to(0, burst, from, drops);
        }
        let home = burst.queue() % queues;
        if !self.drained.has(home) {
            return self.send_elsewhere(home, burst, from, drops);
        }
        self.send_to(home, burst, from, drops);
        self.drained.learn(home, took_one(burst, from, drops));
    }

    /// Sends a burst whose queue is not known to be drained: there, if it takes frames now, or else to
    /// another one.
    #[cold]
    fn send_elsewhere(&mut self, home: usize, burst: &Burst, from: usize, drops: &mut Losses) {
        let mut lost = Losses::default();
        self.send_to(home, burst, from, &mut lost);
        let took = took_one(burst, from, &lost);
        self.drained.learn(home, took);
        if !took && self.fault.is_none() {
            let other = self.drained.instead_of(home);
            if other != home {
                lost.clear();
                self.send_to(other, burst, from, &mut lost);
                self.drained.learn(other, took_one(burst, from, &lost));
            }
        }
        for index in from..burst.len() {
            if let Some(reason) = lost.fate(index) {
                drops.lose(index, reason);
            }
        }
    }

    #[inline]
    fn send_to(&mut self, index: usize, burst: &Burst, from: usize, drops: &mut Losses) {
        let context = context(&self.memory, &self.terms);
        let queue = &mut self.receive[index];
        if let Err(rule) = queue.send(&context, burst, from, drops) {
            // Frames that were placed before the fault count as lost, too: the guest will not
            // get them, as its port stops.
            drops.lose_all(from..burst.len(), DropReason::Unplugged);
            let queue = queue.spec.index;
            return self.stop(GuestFault { queue, rule });
        }
        let queue = queue.spec.index;
        self.look_for_lost_memory(queue);
    }
}

/// Whether a frame was placed, or refused for another reason than that there was no buffer.
#[inline]
fn took_one(burst: &Burst, from: usize, drops: &Losses) -> bool {
    (from..burst.len()).any(|index| drops.fate(index) != Some(DropReason::ReceiverFull))
}

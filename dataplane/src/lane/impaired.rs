//! A lane's impairment while it is in force: [`Impaired`].

use std::sync::Arc;

use super::accuracy::Accuracy;
use super::egress::Egress;
use super::impair_burst::ImpairBurst;
use super::{Bursts, LaneTaps};
use crate::capture::Verdict;
use crate::clock;
use crate::frame::{Burst, MAX_BURST};
use crate::hold::{Hold, HoldMemory};
use crate::impair::{Impairer, Impairment};
use crate::port::Port;
use crate::stats::{DropReason, LaneStats, Losses, Tally};
use crate::work::Work;

/// Most holds of a lane: those of earlier impairments in which frames still wait, and its own.
const MAX_HOLDS: usize = 4;

/// Most bursts of held frames that leave at a time: the worker's other cables wait meanwhile.
const BURSTS_PER_RELEASE: usize = 4;

/// An impairment in force, and the frames that wait because of it.
#[derive(Debug)]
pub(crate) struct Impaired {
    /// `None` when the impairment was taken away and only its frames still wait.
    pub(super) impairer: Option<Impairer>,
    /// The last one takes frames in; the others belong to earlier impairments.
    pub(super) holds: Vec<Hold>,
    pub(super) accuracy: Accuracy,
    /// When the frame before was released, in ns: the time from then on counts as busy if the next
    /// frame was queued behind it.
    busy_since: Option<u64>,
    /// When each of the frames that are leaving was due, in ns; 0 for those that did not wait.
    promised: [u64; MAX_BURST],
}

impl Impaired {
    /// Prepares an impairment and reserves all memory that it may need; what is used of it counts against
    /// `memory`. `None` when the system has too little.
    pub(crate) fn new(settings: Impairment, memory: &Arc<HoldMemory>) -> Option<Box<Self>> {
        let mut holds = Vec::with_capacity(MAX_HOLDS);
        holds.push(Hold::new(settings.hold_bytes(), memory.clone())?);
        Some(Box::new(Impaired {
            impairer: Some(Impairer::new(settings)),
            holds,
            accuracy: Accuracy::new()?,
            busy_since: None,
            promised: [0; MAX_BURST],
        }))
    }

    /// Takes over the frames that wait in the impairment before. Memory that is not needed any more
    /// stays in `old`, for control to free.
    pub(super) fn take_over_from(&mut self, old: &mut Impaired, stats: &LaneStats) {
        if let (Some(new), Some(old)) = (&mut self.impairer, &old.impairer) {
            new.follow(old);
        }
        let large_enough = match (old.holds.last(), self.holds.last()) {
            // Into one whose frames leave at once, none goes that has to wait.
            (Some(theirs), Some(ours)) => theirs.is_as_large_as(ours) && !theirs.is_overdue(),
            _ => false,
        };
        std::mem::swap(&mut self.holds, &mut old.holds);
        if large_enough {
            return;
        }
        // All these vectors have the capacity MAX_HOLDS: nothing here allocates.
        let Some(ours) = old.holds.pop() else { return };
        while let Some(idle) = self.holds.iter().position(Hold::is_empty) {
            old.holds.push(self.holds.remove(idle));
        }
        if self.holds.len() == MAX_HOLDS {
            let mut oldest = self.holds.remove(0);
            let mut losses = Losses::default();
            losses.count(DropReason::HoldFull, oldest.purge());
            stats.add(&Tally::default(), &losses);
            old.holds.push(oldest);
        }
        self.holds.push(ours);
    }

    /// Ends the impairment: no further frame is judged, and those that wait leave as soon as they can.
    pub(super) fn end(&mut self) {
        self.impairer = None;
        self.holds.iter_mut().for_each(Hold::release_all);
    }

    /// Whether frames are about to leave that no other frame may overtake.
    pub(super) fn is_overdue(&self) -> bool {
        self.holds.iter().any(Hold::is_overdue)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.impairer.is_none() && self.next_release().is_none()
    }

    pub(super) fn accuracy(&self) -> Accuracy {
        self.accuracy.clone()
    }

    #[inline]
    pub(super) fn next_release(&self) -> Option<u64> {
        self.holds.iter().filter_map(Hold::next_release).min()
    }

    pub(super) fn purge(&mut self, reason: DropReason, stats: &LaneStats) {
        let frames = self.holds.iter_mut().map(Hold::purge).sum();
        if let Some(impairer) = &mut self.impairer {
            impairer.emptied();
        }
        let mut losses = Losses::default();
        losses.count(reason, frames);
        stats.add(&Tally::default(), &losses);
    }

    /// Judges every frame that was received: it is sent at once, waits, or is lost. Returns how much
    /// work that was.
    pub(super) fn pass(
        &mut self,
        now: u64,
        stats: &LaneStats,
        taps: &mut LaneTaps,
        mut to: Option<&mut Port>,
        memory: &mut Bursts,
    ) -> Work {
        let syscalls = to.as_deref().is_some_and(Port::needs_syscall);
        // Frames that are due go first: no new one may overtake them.
        let mut work = self.release(now, stats, taps, to.as_deref_mut(), memory);
        let mut impair_burst = ImpairBurst {
            tally: Tally {
                frames_in: memory.losses.total(),
                bytes_in: memory.received.bytes(),
                ..Tally::default()
            },
            impaired: self,
            now,
            taps,
            to: to.as_deref_mut(),
            ready_losses: &mut memory.ready_losses,
            verdicts: &mut memory.verdicts,
            cut: &mut memory.cut,
            cut_losses: &mut memory.cut_losses,
            losses: &mut memory.losses,
            made: 0,
        };
        let ready = &mut memory.ready;
        for index in 0..memory.received.len() {
            impair_burst.frame(&mut memory.received, index, ready);
        }
        impair_burst.flush(ready);
        let (judged, made) = (impair_burst.tally.frames_in, impair_burst.made);
        work += Work::of(judged, memory.received.bytes(), made, syscalls);
        stats.add(&impair_burst.tally, &memory.losses);
        // A frame that was changed was copied into the hold, and may be due at once.
        work += self.release(now, stats, taps, to, memory);
        work
    }

    /// Sends frames that are due: at most [`BURSTS_PER_RELEASE`] bursts of them, and none after one turn's
    /// work. Returns how much work that was.
    pub(super) fn release(
        &mut self,
        now: u64,
        stats: &LaneStats,
        taps: &mut LaneTaps,
        mut to: Option<&mut Port>,
        memory: &mut Bursts,
    ) -> Work {
        let mut work = Work::default();
        let syscalls = to.as_deref().is_some_and(Port::needs_syscall);
        for _ in 0..BURSTS_PER_RELEASE {
            if work >= Work::TURN || self.next_release().is_none_or(|next| next > now) {
                break;
            }
            let Bursts {
                ready,
                ready_losses,
                verdicts,
                cut,
                cut_losses,
                ..
            } = memory;
            self.collect(now, ready, verdicts);
            let handed_over = clock::now();
            for promised in self.promised[..ready.len()].iter().filter(|at| **at > 0) {
                self.accuracy
                    .released(handed_over.saturating_sub(*promised));
            }
            let mut frames = ready.len() as u64;
            let before = frames;
            let mut made = 0;
            if let Some(port) = to.as_deref_mut() {
                let mut egress = Egress {
                    port,
                    cut,
                    cut_losses,
                    taps,
                    verdicts: Some(verdicts),
                    now,
                };
                let cuts = egress.send(ready, ready_losses);
                frames += cuts.more;
                made += cuts.made;
            } else {
                ready_losses.lose_all(0..ready.len(), DropReason::Unplugged);
            }
            let tally = Tally {
                // A super-frame entered as one frame and leaves as its pieces.
                frames_in: frames - before,
                frames_out: frames - ready_losses.total(),
                ..Tally::default()
            };
            stats.add(&tally, ready_losses);
            work += Work::of(before, ready.bytes(), made, syscalls);
            ready.clear();
            ready_losses.clear();
            self.holds.iter_mut().for_each(Hold::reclaim);
        }
        work
    }

    /// Moves frames that are due from the holds to a burst, in order.
    fn collect(&mut self, now: u64, ready: &mut Burst, verdicts: &mut super::Verdicts) {
        let settings = self.impairer.as_ref().map(Impairer::settings);
        while ready.has_room() {
            let due = |hold: &&mut Hold| hold.next_release().unwrap_or(u64::MAX);
            let Some(hold) = self.holds.iter_mut().min_by_key(due) else {
                return;
            };
            let index = ready.len();
            let Some(due) = hold.take(now, ready) else {
                return;
            };
            verdicts.0[index] = Verdict {
                delay: (due.release > due.arrival).then(|| now.saturating_sub(due.arrival)),
                ..due.verdict
            };
            // A frame that leaves before its time, as its impairment has ended, was promised nothing.
            let waited = due.release > due.arrival && due.release <= now;
            self.promised[index] = if waited { due.release } else { 0 };
            if let (Some(settings), true) = (settings, due.release <= now) {
                let len = ready.frame_len(index) as u64;
                let queued = settings.was_queued(due.release - due.arrival, len as u32);
                if let (true, Some(since)) = (queued, self.busy_since) {
                    self.accuracy.busy_bytes += len;
                    self.accuracy.busy_frames += 1;
                    self.accuracy.busy_ns += now.saturating_sub(since);
                }
                self.busy_since = Some(now);
            }
        }
    }
}

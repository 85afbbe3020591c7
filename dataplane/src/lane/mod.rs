//! One direction of a cable: [`Lane`].

mod accuracy;
mod egress;
mod impair_burst;
mod impaired;
mod taps;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use crate::cable_state::CableState;
use crate::capture::{Recorder, Verdict};
use crate::clock;
use crate::frame::{Burst, MAX_BURST};
use crate::port::Port;
use crate::port::vhost_user::Filled;
use crate::stats::{DropReason, LaneStats, Losses, Tally};
use crate::work::Work;

pub use accuracy::Accuracy;
use egress::Egress;
pub(crate) use impaired::Impaired;
pub(crate) use taps::{LaneTaps, NumberedTap};

/// One direction of a cable: what happens to frames between receiving and sending them.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) stats: Arc<LaneStats>,
    taps: LaneTaps,
    /// An impairment, or frames that still wait from one.
    impaired: Option<Box<Impaired>>,
}

/// A worker's memory for the bursts of one lane at a time; reused by all.
#[derive(Default)]
pub(crate) struct Bursts {
    /// The frames as they came.
    pub(crate) received: Burst,
    /// Frames that the receiver has already, where a tap or the recorder observes the lane.
    pub(crate) seen: Burst,
    /// The losses among the received frames, and frames that were lost on the way in.
    pub(crate) losses: Losses,
    /// How many frames the lane is passing on and has not counted yet; 0 between two bursts.
    passing: u64,
    /// The frames that the impairment lets go on.
    ready: Burst,
    ready_losses: Losses,
    verdicts: Verdicts,
    /// The frames as the receiver takes them.
    cut: Burst,
    cut_losses: Losses,
}

impl Bursts {
    /// Frames that were received and are not counted yet, and their bytes.
    fn in_hand(&self) -> (u64, u64) {
        let receiving = self.received.len() as u64 + self.losses.total();
        let frames = if self.passing > 0 {
            self.passing
        } else {
            receiving
        };
        (frames, self.received.bytes())
    }
}

struct Verdicts([Verdict; MAX_BURST]);

impl Default for Verdicts {
    fn default() -> Self {
        Verdicts([Verdict::default(); MAX_BURST])
    }
}

impl Lane {
    /// Whether frames may be changed, lost, or have to wait.
    #[inline]
    pub(crate) fn is_impaired(&self) -> bool {
        self.impaired.is_some()
    }

    /// Whether a tap or the recorder observes the lane.
    #[inline]
    pub(crate) fn is_tapped(&self) -> bool {
        !self.taps.is_empty()
    }

    /// Counts frames that the source put straight into the receiver's buffers. `seen` has them
    /// if the lane is observed, and is empty afterwards.
    pub(crate) fn pass_direct(&mut self, filled: &Filled, seen: &mut Burst) {
        if !seen.is_empty() {
            let (now, verdict) = (clock::now(), Verdict::default());
            for index in 0..seen.len() {
                self.taps.entered(now, seen, index, &verdict);
                self.taps.left(now, seen, index, &verdict);
            }
            seen.clear();
        }
        if filled.frames > 0 {
            self.stats
                .add_sent(filled.frames, filled.bytes, &Losses::default());
        }
    }

    /// Passes on the burst that was received. Afterwards every frame is counted, and the burst
    /// and its losses are empty. Returns how much work that was.
    #[inline]
    pub(crate) fn pass(
        &mut self,
        state: CableState,
        to: Option<&mut Port>,
        memory: &mut Bursts,
    ) -> Work {
        let frames = memory.received.len() as u64 + memory.losses.total();
        if frames == 0 {
            return Work::default();
        }
        memory.passing = frames;
        let work = if self.impaired.is_some() && state == CableState::Up {
            self.pass_impaired(to, memory)
        } else {
            self.pass_clean(frames, state, to, memory)
        };
        memory.received.clear();
        memory.losses.clear();
        memory.passing = 0;
        work
    }

    #[inline]
    fn pass_clean(
        &mut self,
        mut frames: u64,
        state: CableState,
        to: Option<&mut Port>,
        memory: &mut Bursts,
    ) -> Work {
        let Bursts {
            received, losses, ..
        } = memory;
        let syscalls = to.as_deref().is_some_and(Port::needs_syscall);
        let mut work = Work::of(frames, received.bytes(), 0, syscalls);
        let now = if self.taps.is_empty() {
            0
        } else {
            clock::now()
        };
        let whole = 0..received.len();
        match (state, to) {
            (CableState::Up, Some(port)) => {
                let mut egress = Egress {
                    port,
                    cut: &mut memory.cut,
                    cut_losses: &mut memory.cut_losses,
                    taps: &mut self.taps,
                    verdicts: None,
                    now,
                };
                let cuts = egress.send(received, losses);
                frames += cuts.more;
                work += Work::of(0, 0, cuts.made, syscalls);
            }
            (CableState::Up, None) => losses.lose_all(whole, DropReason::Unplugged),
            (CableState::Down, _) => losses.lose_all(whole, DropReason::CableDown),
            (CableState::Blackhole, _) => losses.lose_all(whole, DropReason::Blackhole),
        }
        if !self.taps.is_empty() {
            for index in 0..received.len() {
                let verdict = Verdict {
                    dropped: losses.fate(index),
                    lost_pieces: losses.pieces(index),
                    ..Verdict::default()
                };
                self.taps.entered(now, received, index, &verdict);
            }
        }
        self.stats.add_sent(frames, received.bytes(), losses);
        work
    }

    fn pass_impaired(&mut self, to: Option<&mut Port>, memory: &mut Bursts) -> Work {
        let Some(impaired) = &mut self.impaired else {
            return Work::default();
        };
        let now = clock::now();
        impaired.pass(now, &self.stats, &mut self.taps, to, memory)
    }

    /// Sends the held frames that are due. Returns when the next one is due, if any is left, and how much
    /// work it was.
    pub(crate) fn release(
        &mut self,
        now: u64,
        to: Option<&mut Port>,
        memory: &mut Bursts,
    ) -> (Option<u64>, Work) {
        let Some(impaired) = &mut self.impaired else {
            return (None, Work::default());
        };
        let work = impaired.release(now, &self.stats, &mut self.taps, to, memory);
        (impaired.next_release(), work)
    }

    /// When the next held frame is due, in ns.
    #[inline]
    pub(crate) fn next_release(&self) -> Option<u64> {
        self.impaired.as_ref()?.next_release()
    }

    /// Drops every frame that waits: the cable was cut.
    pub(crate) fn purge(&mut self, reason: DropReason) {
        if let Some(impaired) = &mut self.impaired {
            impaired.purge(reason, &self.stats);
        }
    }

    /// Drops every frame after a panic: those in hand, which are not counted yet, and those that wait.
    /// Frames in hand that the receiver got already count as dropped, too. The impairment goes with
    /// them, as its state may be inconsistent.
    pub(crate) fn give_up(&mut self, in_hand: Option<&Bursts>) {
        self.impaired = None;
        let (frames, bytes) = in_hand.map_or((0, 0), Bursts::in_hand);
        let mut losses = Losses::default();
        losses.count(DropReason::Fault, frames + self.stats.snapshot().held);
        let tally = Tally {
            frames_in: frames,
            bytes_in: bytes,
            ..Tally::default()
        };
        self.stats.add(&tally, &losses);
    }

    /// Puts another impairment in force, or none. With another one, frames that wait still leave at their
    /// time; with none they leave at once, in the order of their release, ahead of any new frame.
    /// Returns the memory that is not needed any more, for control to free.
    pub(crate) fn impair(&mut self, new: Option<Box<Impaired>>) -> Option<Box<Impaired>> {
        let old = self.impaired.take();
        match (old, new) {
            (None, new) => {
                self.impaired = new;
                None
            }
            (Some(mut old), None) => {
                old.end();
                if old.next_release().is_none() {
                    return Some(old);
                }
                self.impaired = Some(old);
                None
            }
            (Some(mut old), Some(mut new)) => {
                new.take_over_from(&mut old, &self.stats);
                self.impaired = Some(new);
                Some(old)
            }
        }
    }

    /// Takes out an impairment that has ended and whose last frame has left, for control to free.
    pub(crate) fn take_ended(&mut self) -> Option<Box<Impaired>> {
        if self.impaired.as_ref()?.has_ended() {
            return self.impaired.take();
        }
        None
    }

    /// Puts back what [`Lane::take_ended`] gave, because the way to control is full.
    pub(crate) fn put_back(&mut self, ended: Box<Impaired>) {
        self.impaired = Some(ended);
    }

    /// How well the impairment keeps to its settings, if the lane has one.
    pub(crate) fn accuracy(&self) -> Option<Accuracy> {
        self.impaired.as_ref().map(|impaired| impaired.accuracy())
    }

    /// Adds a capture; gives it back when there are too many already.
    pub(crate) fn tap(&mut self, tap: Box<NumberedTap>) -> Result<(), Box<NumberedTap>> {
        self.taps.add(tap)
    }

    pub(crate) fn untap(&mut self, number: u64) -> Option<Box<NumberedTap>> {
        self.taps.remove(number)
    }

    pub(crate) fn record(&mut self, recorder: Option<Box<Recorder>>) -> Option<Box<Recorder>> {
        self.taps.set_recorder(recorder)
    }
}

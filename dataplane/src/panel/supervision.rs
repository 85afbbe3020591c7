//! Sees that a worker makes no progress, or has ended: [`Panel::look`].

use std::time::Duration;

use super::workers::WorkerHandle;
use super::{Inner, Panel};
use crate::command::CableId;
use crate::side::Side;

/// Looks in a row that see no progress before a worker counts as hanging. Looks are counted rather
/// than time: a host that stands still, or has no CPU for control either, is no fault of a worker.
const LOOKS: u32 = 4;

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It forwards, or sleeps because nothing is to be done.
    Works,
    /// It has made no progress for a second: its cables stand still.
    Hangs {
        /// The cable that it handles, and the end whose frames it has; no end: a command.
        in_hand: Option<(CableId, Option<Side>)>,
    },
    /// It has ended by a panic outside of any cable. Its cables are gone with it.
    Ended,
}

/// What was seen of a worker's progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    turns: Option<u64>,
    /// Looks in a row that saw the same.
    still: u32,
}

impl Panel {
    /// The time between two calls of [`Panel::look`].
    pub const LOOK: Duration = Duration::from_millis(250);

    /// What each worker does, by its number; empty once the panel has been stopped. To be called every
    /// [`Panel::LOOK`]. From the call that finds a worker hanging to the one that finds it at work,
    /// nobody waits for its replies: they fail at once, and the command takes effect when the worker
    /// goes on.
    pub fn look(&self) -> Vec<WorkerState> {
        let Inner { workers, .. } = &mut *self.lock();
        workers.iter_mut().map(WorkerHandle::look).collect()
    }
}

impl Panel {
    /// How long each worker has moved frames since it started, by its number; empty once the panel has
    /// been stopped. Two calls and the time between them give its load.
    pub fn busy(&self) -> Vec<Duration> {
        let Inner { workers, .. } = &*self.lock();
        workers.iter().map(|worker| worker.stats.busy()).collect()
    }
}

impl WorkerHandle {
    /// Whether it took commands at the last look.
    pub(super) fn works(&self) -> bool {
        !self.stats.hangs() && !self.running.is_finished()
    }

    fn look(&mut self) -> WorkerState {
        if self.running.is_finished() {
            return WorkerState::Ended;
        }
        let turns = self.stats.turns();
        let seen = &mut self.progress;
        let before = std::mem::replace(&mut seen.turns, turns);
        let stands_still = turns.is_some() && turns == before;
        seen.still = if stands_still { seen.still + 1 } else { 0 };
        let hangs = seen.still >= LOOKS;
        self.stats.set_hangs(hangs);
        if !hangs {
            return WorkerState::Works;
        }
        let in_hand = self.stats.in_hand();
        WorkerState::Hangs { in_hand }
    }
}

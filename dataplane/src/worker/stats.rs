//! What a worker tells control about itself without being asked: [`WorkerStats`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::command::CableId;
use crate::side::Side;

/// How busy a worker is, and what it does. Written by it alone, but for `hangs`.
#[derive(Debug, Default)]
#[repr(align(128))] // no other worker's counters on the same pair of cache lines
pub(crate) struct WorkerStats {
    busy_ns: AtomicU64,
    /// Changes with every turn of its loop; odd while it sleeps and has nothing to do.
    turns: AtomicU64,
    /// The cable and the end whose frames it handles, see [`WorkerStats::take_in_hand`]; 0: none.
    in_hand: AtomicU64,
    /// Control has seen no progress for too long.
    hangs: AtomicBool,
}

impl WorkerStats {
    /// Begins a turn of the worker's loop; `asleep`: it is about to sleep until something happens.
    #[inline]
    pub(crate) fn turn(&self, asleep: bool) {
        let before = self.turns.load(Ordering::Relaxed);
        let even = (before | 1).wrapping_add(1);
        let now = even + u64::from(asleep);
        self.turns.store(now, Ordering::Relaxed);
    }

    /// A number that changes with every turn. `None`: the worker sleeps.
    pub(crate) fn turns(&self) -> Option<u64> {
        let turns = self.turns.load(Ordering::Relaxed);
        turns.is_multiple_of(2).then_some(turns)
    }

    /// Notes which cable the worker handles: frames from one of its ends, or a command (`None`).
    #[inline]
    pub(crate) fn take_in_hand(&self, cable: CableId, from: Option<Side>) {
        let from = from.map_or(2, |side| side as u64);
        let word = (u64::from(cable.0) << 2 | from) + 1;
        self.in_hand.store(word, Ordering::Relaxed);
    }

    /// It handles no cable now.
    #[inline]
    pub(crate) fn put_down(&self) {
        self.in_hand.store(0, Ordering::Relaxed);
    }

    /// The cable that it handles, and the end whose frames it has.
    pub(crate) fn in_hand(&self) -> Option<(CableId, Option<Side>)> {
        let word = self.in_hand.load(Ordering::Relaxed).checked_sub(1)?;
        let from = match word & 3 {
            0 => Some(Side::A),
            1 => Some(Side::B),
            _ => None,
        };
        Some((CableId((word >> 2) as u32), from))
    }

    /// Control notes that the worker makes no progress, or that it does again.
    pub(crate) fn set_hangs(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Whether control has seen no progress for too long.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Ordering::Relaxed)
    }

    pub(crate) fn add_busy(&self, time: Duration) {
        let before = self.busy_ns.load(Ordering::Relaxed);
        let now = before.wrapping_add(time.as_nanos() as u64);
        self.busy_ns.store(now, Ordering::Relaxed);
    }

    /// Time that it moved frames, since it started.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_never_mistaken_for_sleep_or_for_the_turn_before() {
        let stats = WorkerStats::default();
        let mut before = stats.turns();
        for _ in 0..3 {
            stats.turn(false);
            let now = stats.turns();
            assert!(now.is_some() && now != before);
            stats.turn(true);
            assert_eq!(stats.turns(), None);
            stats.turn(false);
            assert!(stats.turns() != now);
            before = stats.turns();
        }
    }

    #[test]
    fn the_cable_in_hand_is_read_back() {
        let stats = WorkerStats::default();
        assert_eq!(stats.in_hand(), None);
        for from in [Some(Side::A), Some(Side::B), None] {
            for cable in [CableId(0), CableId(u32::MAX)] {
                stats.take_in_hand(cable, from);
                assert_eq!(stats.in_hand(), Some((cable, from)));
            }
        }
        stats.put_down();
        assert_eq!(stats.in_hand(), None);
    }
}

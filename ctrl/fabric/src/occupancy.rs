//! What is plugged in at each end. An end with both a tap and a vhost-user socket belongs to the
//! first that is opened.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use model::utc;

/// What is plugged in at one end. A vhost-user front end carries the end for as long as it is
/// connected. It is accepted only while no program holds the tap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct EndOccupancy {
    /// A program has the tap open.
    pub(crate) tap: bool,
    /// A vhost-user front end has started its rings.
    pub(crate) front_end: bool,
    /// Since when somebody is plugged in, in ns since 1970; `None` if nobody is.
    pub(crate) since_ns: Option<u64>,
}

impl EndOccupancy {
    pub(crate) fn is_occupied(self) -> bool {
        self.tap || self.front_end
    }

    /// Notes the time if somebody has come or gone.
    fn count_from(&mut self, now: u64) {
        let since = self.since_ns.unwrap_or(now);
        self.since_ns = self.is_occupied().then_some(since);
    }

    /// Whether front ends are accepted. A front end that carries the end may reconnect after its
    /// connection broke, so a tap that is opened meanwhile closes the socket only after the front
    /// end has left.
    pub(crate) fn accepts_front_ends(self) -> bool {
        self.front_end || !self.tap
    }

    /// Whether a program holds the tap but receives nothing, because a front end carries the end.
    pub(crate) fn tap_is_idle(self) -> bool {
        self.tap && self.front_end
    }
}

/// The occupancy of every pluggable end, by the end's name. Ends that the fabric's own VMs hold are
/// not included.
#[derive(Debug, Default)]
pub(crate) struct Occupancies(Mutex<BTreeMap<String, EndOccupancy>>);

impl Occupancies {
    /// The number of ends that are plugged in.
    pub(crate) fn occupied(&self) -> usize {
        let ends = self.lock();
        ends.values().filter(|end| end.is_occupied()).count()
    }

    pub(crate) fn of(&self, end: &str) -> EndOccupancy {
        self.lock().get(end).copied().unwrap_or_default()
    }

    /// Removes the record of an end that no longer exists.
    pub(crate) fn forget(&self, end: &str) {
        self.lock().remove(end);
    }

    /// Changes the occupancy of an end. Returns it as it was before and as it is now.
    pub(crate) fn change(
        &self,
        end: &str,
        change: impl FnOnce(&mut EndOccupancy),
    ) -> (EndOccupancy, EndOccupancy) {
        let mut ends = self.lock();
        let end = ends.entry(end.into()).or_default();
        let before = *end;
        change(end);
        end.count_from(utc::now_ns());
        (before, *end)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, EndOccupancy>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_from_the_first_who_came_until_the_last_has_gone() {
        let mut end = EndOccupancy::default();
        let mut at = |now, tap, front_end| {
            (end.tap, end.front_end) = (tap, front_end);
            end.count_from(now);
            end.since_ns
        };
        assert_eq!(at(1, false, false), None);
        assert_eq!(at(2, false, true), Some(2));
        assert_eq!(at(3, true, true), Some(2));
        assert_eq!(at(4, true, false), Some(2));
        assert_eq!(at(5, false, false), None);
        assert_eq!(at(6, true, false), Some(6));
    }

    #[test]
    fn the_first_carries_the_end() {
        let mut end = EndOccupancy::default();
        assert!(end.accepts_front_ends() && !end.is_occupied());
        end.tap = true;
        assert!(!end.accepts_front_ends() && !end.tap_is_idle());
        end.tap = false;
        end.front_end = true;
        assert!(end.accepts_front_ends());
        end.tap = true;
        assert!(end.tap_is_idle() && end.accepts_front_ends());
        end.front_end = false;
        assert!(!end.tap_is_idle() && !end.accepts_front_ends());
    }
}

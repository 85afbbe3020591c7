//! Frames that leave in bursts: [`Slots`].

use super::chance::{Source, scale};
use super::distribution::Spread;
use super::settings::{Slot, SlotWait};

/// Puts frames into slots.
#[derive(Debug)]
pub(super) struct Slots {
    wait: Wait,
    frames: u64,
    bytes: u64,
    /// When the slot opens that frames are put into, in ns, ...
    opens: u64,
    /// ... and how much more fits into it.
    frames_left: u64,
    bytes_left: u64,
    source: Source,
}

#[derive(Debug)]
enum Wait {
    Between { min: u64, span: u64 },
    Distributed(Spread),
}

impl Slots {
    pub(super) fn new(slot: &Slot, source: Source) -> Self {
        let wait = match &slot.wait {
            SlotWait::Between { min, max } => Wait::Between {
                min: min.as_nanos() as u64,
                span: max.saturating_sub(*min).as_nanos() as u64,
            },
            SlotWait::Distributed {
                delay,
                jitter,
                distribution,
            } => Wait::Distributed(Spread::new(*delay, *jitter, distribution)),
        };
        let or_any = |number| if number == 0 { u64::MAX } else { number };
        let (frames, bytes) = (or_any(slot.frames), or_any(slot.bytes));
        Slots {
            wait,
            frames,
            bytes,
            opens: 0,
            frames_left: frames,
            bytes_left: bytes,
            source,
        }
    }

    /// When a frame leaves that is ready at `ready`. A frame that comes when its slot has opened
    /// waits for the next one.
    pub(super) fn enter(&mut self, ready: u64, len: u32) -> u64 {
        if ready > self.opens {
            self.open_after(ready);
        }
        let release = self.opens;
        self.frames_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(u64::from(len));
        if self.frames_left == 0 || self.bytes_left == 0 {
            self.open_after(release);
        }
        release
    }

    fn open_after(&mut self, time: u64) {
        let number = self.source.next();
        let wait = match &self.wait {
            Wait::Between { min, span } => min + scale(number, span + 1),
            Wait::Distributed(spread) => spread.draw(number),
        };
        self.opens = time.saturating_add(wait);
        self.frames_left = self.frames;
        self.bytes_left = self.bytes;
    }

    /// The slot that frames wait for opens when it would have opened.
    pub(super) fn follow(&mut self, before: &Slots, same_seed: bool) {
        self.opens = before.opens;
        if (self.frames, self.bytes) == (before.frames, before.bytes) {
            self.frames_left = before.frames_left;
            self.bytes_left = before.bytes_left;
        }
        if same_seed {
            self.source.follow(&before.source);
        }
    }

    pub(super) fn clear(&mut self) {
        self.opens = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::chance::Sources;
    use super::*;

    const MS: u64 = 1_000_000;

    fn slots(min: u64, max: u64, frames: u64, bytes: u64) -> Slots {
        let wait = SlotWait::Between {
            min: Duration::from_millis(min),
            max: Duration::from_millis(max),
        };
        let slot = Slot {
            wait,
            frames,
            bytes,
        };
        Slots::new(&slot, Sources::new(1).next(0.0))
    }

    #[test]
    fn frames_gather_and_leave_together() {
        let mut slots = slots(10, 10, 0, 0);
        let releases: Vec<u64> = [1, 5, 11, 12, 21, 40]
            .map(|ms| slots.enter(ms * MS, 100) / MS)
            .into();
        assert_eq!(releases, [11, 11, 11, 22, 22, 50]);
    }

    #[test]
    fn a_slot_holds_so_many_frames_or_bytes() {
        let mut two = slots(10, 10, 2, 0);
        assert_eq!(
            [1; 5].map(|ms| two.enter(ms * MS, 100) / MS),
            [11, 11, 21, 21, 31]
        );
        // The frame that ends it still leaves in it.
        let mut bytes = slots(10, 10, 0, 250);
        assert_eq!(
            [1; 5].map(|ms| bytes.enter(ms * MS, 100) / MS),
            [11, 11, 11, 21, 21]
        );
    }

    #[test]
    fn waits_stay_between_the_two() {
        let mut slots = slots(2, 5, 0, 0);
        for step in 1..10_000 {
            let ready = step * 100 * MS;
            let wait = slots.enter(ready, 100) - ready;
            assert!((2 * MS..=5 * MS).contains(&wait));
        }
    }
}

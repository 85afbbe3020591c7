//! Which of the frames that were sent arrived, and how.

use serde::Serialize;

use crate::pattern::{Bytes, Damage, Pattern, Stamp};

/// Numbers back from the highest one for which it is known whether they arrived.
const WINDOW: u64 = 1 << 16;

/// Of large frames every so many-th is looked at byte for byte, the others at both ends.
const SAMPLE: u64 = 64;

/// Frames up to this length are always looked at byte for byte.
const SHORT: usize = 128;

/// What became of the frames of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Frames that the schedule, or the window, called for.
    pub offered: u64,
    /// Those that the cable's end took in time.
    pub sent: u64,
    /// Those that arrived, each counted once, in whatever order.
    pub received: u64,
    /// Sent and never received.
    pub lost: u64,
    /// Received after one that was sent later.
    pub reordered: u64,
    /// Received again.
    pub duplicated: u64,
    /// Received with other bytes or of another length.
    pub corrupted: u64,
    /// Frames of others on the cable.
    pub foreign: u64,
}

impl Counts {
    /// Of two trials, or two lanes.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            offered: self.offered + other.offered,
            sent: self.sent + other.sent,
            received: self.received + other.received,
            lost: self.lost + other.lost,
            reordered: self.reordered + other.reordered,
            duplicated: self.duplicated + other.duplicated,
            corrupted: self.corrupted + other.corrupted,
            foreign: self.foreign + other.foreign,
        }
    }

    /// Whether each frame arrived once, whole and in order.
    pub fn is_clean(&self) -> bool {
        self.lost + self.reordered + self.duplicated + self.corrupted == 0
    }

    /// What went wrong, for people; nothing if nothing did.
    pub fn faults(&self) -> String {
        let faults: Vec<_> = [
            (self.offered - self.sent, "refused"),
            (self.lost, "lost"),
            (self.reordered, "reordered"),
            (self.duplicated, "duplicated"),
            (self.corrupted, "corrupted"),
            (self.foreign, "foreign"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        faults.join(", ")
    }
}

/// Looks at what arrives at the end of one lane.
#[derive(Debug)]
pub struct Tally {
    pattern: Pattern,
    /// Behind the highest number that arrived.
    next: u64,
    /// A bit for each number of the window.
    seen: Vec<u64>,
    counts: Counts,
}

impl Tally {
    /// Of frames like these.
    pub fn new(pattern: Pattern) -> Tally {
        Tally {
            pattern,
            next: 0,
            seen: vec![0; (WINDOW / 64) as usize],
            counts: Counts::default(),
        }
    }

    /// Takes in a frame. Its stamp, if it is ours and whole.
    #[inline]
    pub fn take(&mut self, frame: &impl Bytes) -> Option<Stamp> {
        let whole = frame.length() <= SHORT || self.counts.received.is_multiple_of(SAMPLE);
        match self.pattern.stamp(frame, whole) {
            Ok(stamp) => self.arrived(stamp.number).then_some(stamp),
            Err(Damage::Foreign) => {
                self.counts.foreign += 1;
                None
            }
            Err(Damage::Length | Damage::Bytes) => {
                self.counts.corrupted += 1;
                None
            }
        }
    }

    /// One behind the highest number that arrived.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Frames that arrived, each counted once.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// The result, given how many frames were called for and how many of them sent.
    pub fn finish(mut self, offered: u64, sent: u64) -> Counts {
        self.counts.offered = offered;
        self.counts.sent = sent;
        // A frame that came damaged is not missing.
        self.counts.lost = sent.saturating_sub(self.counts.received + self.counts.corrupted);
        self.counts
    }

    #[inline]
    fn arrived(&mut self, number: u64) -> bool {
        if number >= self.next {
            // The numbers in between have not been seen.
            let gap = (number - self.next).min(WINDOW);
            for skipped in self.next..self.next + gap {
                self.mark(skipped, false);
            }
            self.next = number + 1;
        } else if self.next - number > WINDOW || self.is_marked(number) {
            self.counts.duplicated += 1;
            return false;
        } else {
            self.counts.reordered += 1;
        }
        self.mark(number, true);
        self.counts.received += 1;
        true
    }

    #[inline]
    fn mark(&mut self, number: u64, seen: bool) {
        let (word, bit) = Self::place(number);
        if seen {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.seen[word] & bit != 0
    }

    #[inline]
    fn place(number: u64) -> (usize, u64) {
        let place = number % WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(numbers: &[u64], sent: u64) -> Counts {
        let mut tally = Tally::new(Pattern::new(64, 0, 0));
        for number in numbers {
            tally.arrived(*number);
        }
        tally.finish(sent, sent)
    }

    #[test]
    fn each_fault_has_its_count() {
        let all: Vec<u64> = (0..200_000).collect();
        let clean = counted(&all, 200_000);
        assert!(clean.is_clean() && clean.faults().is_empty(), "{clean:?}");

        let counts = counted(&[0, 1, 4, 3, 4, 6], 8);
        assert_eq!((counts.received, counts.lost), (5, 3));
        assert_eq!((counts.reordered, counts.duplicated), (1, 1));
        assert_eq!(counts.faults(), "3 lost, 1 reordered, 1 duplicated");
    }

    #[test]
    fn a_gap_longer_than_the_window_leaves_no_trace() {
        let mut numbers: Vec<u64> = (0..WINDOW).collect();
        numbers.extend([3 * WINDOW, 3 * WINDOW - 5]);
        let counts = counted(&numbers, 3 * WINDOW + 1);
        assert_eq!((counts.reordered, counts.duplicated), (1, 0));
        assert_eq!(counts.lost, 2 * WINDOW - 1);
    }

    #[test]
    fn damage_is_no_loss() {
        let pattern = Pattern::new(64, 0, 0);
        let mut tally = Tally::new(pattern.clone());
        let mut frame = pattern.frame.clone();
        frame[20] ^= 1;
        assert!(tally.take(&&frame[..]).is_none());
        assert!(tally.take(&&[0_u8; 64][..]).is_none());
        assert_eq!(
            tally.finish(2, 2).faults(),
            "1 lost, 1 corrupted, 1 foreign"
        );
    }
}

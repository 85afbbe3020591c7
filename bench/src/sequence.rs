//! Checks the frames that arrive: which of the sent frames they are, in what order, and whether they
//! are intact.

use serde::Serialize;

use crate::pattern::{FrameBytes, Mismatch, Pattern, Stamp};

/// How far behind the highest number that arrived a tracker knows which numbers arrived.
const WINDOW: u64 = 1 << 16;

/// One of this many long frames is compared byte by byte, of the others only stamp and last bytes.
const SAMPLE: u64 = 64;

/// Frames of up to this many bytes are always compared byte by byte.
const SHORT: usize = 128;

/// Counts of the frames of a run, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct FrameCounts {
    /// Frames that the schedule, or the window, called for.
    pub offered: u64,
    /// Offered frames that the cable's end accepted in time.
    pub sent: u64,
    /// Frames that arrived intact, each counted once, in any order.
    pub received: u64,
    /// Frames that were sent and did not arrive.
    pub lost: u64,
    /// Received frames that came after one that was sent later.
    pub reordered: u64,
    /// Frames that arrived again.
    pub duplicated: u64,
    /// Frames that arrived with other bytes or another length.
    pub corrupted: u64,
    /// Frames that another sender put on the cable.
    pub foreign: u64,
}

impl FrameCounts {
    /// Adds the counts of two runs or of two lanes.
    #[must_use]
    pub(crate) fn plus(self, other: FrameCounts) -> FrameCounts {
        FrameCounts {
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

    /// Whether every sent frame arrived once, intact and in order.
    pub fn is_clean(&self) -> bool {
        self.lost + self.reordered + self.duplicated + self.corrupted == 0
    }

    /// The counts of all faults as text, such as `3 lost, 1 reordered`; empty without faults.
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
        .map(|(count, fault)| format!("{count} {fault}"))
        .collect();
        faults.join(", ")
    }
}

/// Checks and counts the frames that arrive at the end of one lane.
#[derive(Debug)]
pub struct SequenceTracker {
    pattern: Pattern,
    /// One more than the highest number that arrived.
    next: u64,
    /// One bit for each number of the window: whether it arrived.
    seen: Vec<u64>,
    counts: FrameCounts,
}

impl SequenceTracker {
    /// A tracker for the frames of `pattern`.
    pub fn new(pattern: Pattern) -> SequenceTracker {
        SequenceTracker {
            pattern,
            next: 0,
            seen: vec![0; (WINDOW / 64) as usize],
            counts: FrameCounts::default(),
        }
    }

    /// Counts a frame. Returns its stamp if it is an intact test frame that arrives for the first
    /// time.
    #[inline]
    pub fn record(&mut self, frame: &impl FrameBytes) -> Option<Stamp> {
        let whole = frame.length() <= SHORT || self.counts.received.is_multiple_of(SAMPLE);
        match self.pattern.stamp(frame, whole) {
            Ok(stamp) => self.record_number(stamp.number).then_some(stamp),
            Err(Mismatch::Foreign) => {
                self.counts.foreign += 1;
                None
            }
            Err(Mismatch::Length | Mismatch::Bytes) => {
                self.counts.corrupted += 1;
                None
            }
        }
    }

    /// One more than the highest number that arrived.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Frames that arrived intact, each counted once.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// The final counts of a lane on which `offered` frames were due and `sent` were sent.
    pub fn finish(mut self, offered: u64, sent: u64) -> FrameCounts {
        self.counts.offered = offered;
        self.counts.sent = sent;
        // A frame that arrived damaged is not lost.
        self.counts.lost = sent.saturating_sub(self.counts.received + self.counts.corrupted);
        self.counts
    }

    /// Counts an intact frame. Returns whether it arrives for the first time.
    #[inline]
    fn record_number(&mut self, number: u64) -> bool {
        if number >= self.next {
            // Clear the bits of the skipped numbers, which the window used for earlier ones.
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
        let (word, bit) = Self::position(number);
        if seen {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = Self::position(number);
        self.seen[word] & bit != 0
    }

    /// The word and the bit that stand for a number.
    #[inline]
    fn position(number: u64) -> (usize, u64) {
        let index = number % WINDOW;
        ((index / 64) as usize, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(numbers: &[u64], sent: u64) -> FrameCounts {
        let mut tracker = SequenceTracker::new(Pattern::new(64, 0, 0));
        for number in numbers {
            tracker.record_number(*number);
        }
        tracker.finish(sent, sent)
    }

    #[test]
    fn each_fault_has_its_count() {
        let all: Vec<u64> = (0..200_000).collect();
        let clean = counts_of(&all, 200_000);
        assert!(clean.is_clean() && clean.faults().is_empty(), "{clean:?}");

        let counts = counts_of(&[0, 1, 4, 3, 4, 6], 8);
        assert_eq!((counts.received, counts.lost), (5, 3));
        assert_eq!((counts.reordered, counts.duplicated), (1, 1));
        assert_eq!(counts.faults(), "3 lost, 1 reordered, 1 duplicated");
    }

    #[test]
    fn a_gap_longer_than_the_window_clears_it() {
        let mut numbers: Vec<u64> = (0..WINDOW).collect();
        numbers.extend([3 * WINDOW, 3 * WINDOW - 5]);
        let counts = counts_of(&numbers, 3 * WINDOW + 1);
        assert_eq!((counts.reordered, counts.duplicated), (1, 0));
        assert_eq!(counts.lost, 2 * WINDOW - 1);
    }

    #[test]
    fn a_damaged_frame_is_not_lost() {
        let pattern = Pattern::new(64, 0, 0);
        let mut tracker = SequenceTracker::new(pattern.clone());
        let mut frame = pattern.frame.clone();
        frame[20] ^= 1;
        assert!(tracker.record(&&frame[..]).is_none());
        assert!(tracker.record(&&[0_u8; 64][..]).is_none());
        assert_eq!(
            tracker.finish(2, 2).faults(),
            "1 lost, 1 corrupted, 1 foreign"
        );
    }
}

//! Merges the frames of several lanes in the order of their times: [`Merge`].

use std::collections::{BinaryHeap, VecDeque};

use dataplane::capture::Record;

use api::capture::Message;

/// How long a frame waits for earlier ones of other lanes, in ns. All workers read the same clock,
/// but one of them may lose its CPU before it hands over a frame.
const HOLD: u64 = 20_000_000;

/// The most bytes that may wait. Beyond it, frames are emitted out of order to save memory.
const MOST_BYTES: usize = 64 << 20;

/// Frames that wait, already encoded as messages.
#[derive(Debug)]
pub(crate) struct Merge {
    lanes: Vec<Queue>,
    /// The next frame of each lane that has one: its time (reversed, because the heap returns its
    /// greatest element) and the lane.
    heads: BinaryHeap<(std::cmp::Reverse<u64>, usize)>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<u8>,
    /// How many bytes of `messages` were handed out.
    at: usize,
    /// Time and length of each frame that was not.
    frames: VecDeque<(u64, usize)>,
}

impl Merge {
    /// Merges this many lanes. A lane's index is the number of its interface.
    pub(crate) fn new(lanes: usize) -> Self {
        Merge {
            lanes: (0..lanes).map(|_| Queue::default()).collect(),
            heads: BinaryHeap::new(),
            bytes: 0,
        }
    }

    /// Adds a frame. The frames of one lane must be added in their order.
    pub(crate) fn push(&mut self, lane: usize, record: &Record, bytes: &[u8]) {
        let queue = &mut self.lanes[lane];
        let before = queue.messages.len();
        let message = Message::Frame {
            interface: lane as u32,
            record: *record,
            bytes,
        };
        message.write(&mut queue.messages);
        let length = queue.messages.len() - before;
        if queue.frames.is_empty() {
            self.heads.push((std::cmp::Reverse(record.time), lane));
        }
        queue.frames.push_back((record.time, length));
        self.bytes += length;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Whether the caller should add no more frames until some have been emitted.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > MOST_BYTES
    }

    /// Moves frames that no earlier frame can precede to `chunk`, until `chunk` has `most`
    /// bytes. `now` is the time at which the lanes were last read. Returns whether there are more.
    pub(crate) fn emit(&mut self, now: u64, most: usize, chunk: &mut Vec<u8>) -> bool {
        let due = if self.lanes.len() == 1 || self.is_full() {
            u64::MAX
        } else {
            now.saturating_sub(HOLD)
        };
        while let Some(&(std::cmp::Reverse(time), lane)) = self.heads.peek()
            && time <= due
        {
            if chunk.len() >= most {
                return true;
            }
            self.heads.pop();
            self.bytes -= self.lanes[lane].hand_out(chunk);
            if let Some((next, _)) = self.lanes[lane].frames.front() {
                self.heads.push((std::cmp::Reverse(*next), lane));
            }
        }
        false
    }
}

impl Queue {
    /// Moves the first frame to `chunk`. Returns its length.
    fn hand_out(&mut self, chunk: &mut Vec<u8>) -> usize {
        let Some((_, length)) = self.frames.pop_front() else {
            return 0;
        };
        chunk.extend_from_slice(&self.messages[self.at..self.at + length]);
        self.at += length;
        // Moving the rest to the front costs a copy, so it waits until the rest is smaller than the
        // gap.
        if self.at * 2 > self.messages.len() {
            self.messages.drain(..self.at);
            self.at = 0;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(time: u64) -> Record {
        Record {
            time,
            ..Record::default()
        }
    }

    fn times(mut chunk: &[u8]) -> Vec<(u32, u64)> {
        let mut times = Vec::new();
        while let Some((message, length)) = Message::read(chunk).unwrap() {
            let Message::Frame {
                interface, record, ..
            } = message
            else {
                panic!("{message:?}");
            };
            times.push((interface, record.time));
            chunk = &chunk[length..];
        }
        times
    }

    #[test]
    fn a_frame_waits_for_earlier_ones_of_other_lanes() {
        let mut merge = Merge::new(2);
        let mut chunk = Vec::new();
        merge.push(0, &record(HOLD + 5), &[1; 60]);
        assert!(!merge.emit(2 * HOLD, 1 << 20, &mut chunk));
        assert!(chunk.is_empty());
        merge.push(1, &record(HOLD + 3), &[2; 60]);
        merge.emit(2 * HOLD + 4, 1 << 20, &mut chunk);
        assert_eq!(times(&chunk), [(1, HOLD + 3)]);
        merge.emit(u64::MAX, 1 << 20, &mut chunk);
        assert_eq!(times(&chunk), [(1, HOLD + 3), (0, HOLD + 5)]);
        assert!(merge.is_empty() && merge.bytes == 0);
    }

    #[test]
    fn one_lane_waits_for_none() {
        let mut merge = Merge::new(1);
        let mut chunk = Vec::new();
        merge.push(0, &record(7), &[]);
        merge.emit(7, 1 << 20, &mut chunk);
        assert_eq!(times(&chunk), [(0, 7)]);
    }

    proptest! {
        #[test]
        fn every_frame_comes_out_once_and_in_order(
            lanes in prop::collection::vec(prop::collection::vec(0u64..1000, 0..40), 1..5),
            most in 1usize..4000,
        ) {
            let mut merge = Merge::new(lanes.len());
            let mut sent = Vec::new();
            for (lane, mut times) in lanes.into_iter().enumerate() {
                times.sort_unstable();
                for time in times {
                    merge.push(lane, &record(time), &vec![0; time as usize % 100]);
                    sent.push((lane as u32, time));
                }
            }
            let mut came = Vec::new();
            loop {
                let mut chunk = Vec::new();
                let more = merge.emit(u64::MAX, most, &mut chunk);
                came.extend(times(&chunk));
                if !more { break }
            }
            prop_assert!(came.is_sorted_by_key(|(_, time)| *time));
            came.sort_unstable();
            sent.sort_unstable();
            prop_assert_eq!(came, sent);
            prop_assert_eq!(merge.bytes, 0);
        }
    }
}

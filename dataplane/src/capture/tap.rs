//! A tap on a lane: the worker writes ([`LaneTap`]), one reader reads ([`LaneCapture`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};

use super::{Record, Verdict};
use crate::bpf::Program;
use crate::frame::FrameBytes;
use crate::frame::{MAX_FRAME, VnetHeader};

/// Which frames of a lane are captured, and how much of each.
#[derive(Debug, Clone, PartialEq)]
pub struct TapSpec {
    /// Captures only frames that match. `None`: all frames.
    pub filter: Option<Program>,
    /// Most bytes of each frame that are kept.
    pub snap: u32,
    /// Captures frames as they leave the lane, with that time; otherwise as they entered it.
    pub wire: bool,
    /// Bytes of the ring between worker and reader. A frame that does not fit is lost to the capture,
    /// and counted.
    pub bytes: usize,
}

/// Written by the worker alone.
#[derive(Debug, Default)]
#[repr(align(128))] // no other lane's counters on the same pair of cache lines
struct Counters {
    seen: AtomicU64,
    lost: AtomicU64,
}

/// Makes the two ends of a tap.
pub(crate) fn lane_tap(spec: TapSpec) -> (LaneTap, LaneCapture) {
    let (writer, reader) = RingBuffer::new(spec.bytes);
    let counters = Arc::new(Counters::default());
    let tap = LaneTap {
        spec,
        ring: writer,
        counters: counters.clone(),
    };
    let capture = LaneCapture {
        ring: reader,
        counters,
        wrapped: Vec::new(),
    };
    (tap, capture)
}

/// The worker's end of a tap. Never waits: what does not fit is lost and counted.
#[derive(Debug)]
pub(crate) struct LaneTap {
    spec: TapSpec,
    /// Whole records only, each with its bytes behind it: one commit a record.
    ring: Producer<u8>,
    counters: Arc<Counters>,
}

impl LaneTap {
    /// What to capture.
    pub(crate) fn spec(&self) -> &TapSpec {
        &self.spec
    }

    /// Copies a frame, if it matches, with what became of it.
    pub(crate) fn see(
        &mut self,
        time: u64,
        header: &VnetHeader,
        frame: &(impl FrameBytes + ?Sized),
        verdict: &Verdict,
    ) {
        if let Some(filter) = &self.spec.filter
            && filter.run(frame) == 0
        {
            return;
        }
        bump(&self.counters.seen);
        let len = frame.len() as u32;
        let record = Record {
            time,
            len,
            captured: len.min(self.spec.snap).min(MAX_FRAME as u32),
            header: *header,
            verdict: *verdict,
        };
        let captured = record.captured as usize;
        let Ok(mut chunk) = self.ring.write_chunk(Record::LEN + captured) else {
            bump(&self.counters.lost);
            return;
        };
        let (first, second) = chunk.as_mut_slices();
        let split = first.len().min(Record::LEN);
        let encoded = record.encode();
        first[..split].copy_from_slice(&encoded[..split]);
        second[..Record::LEN - split].copy_from_slice(&encoded[split..]);
        let first = &mut first[split..];
        frame.copy_out(0, first);
        frame.copy_out(first.len(), &mut second[Record::LEN - split..]);
        chunk.commit_all();
    }
}

/// Adds one. The worker is the only writer: no atomic addition is needed.
fn bump(counter: &AtomicU64) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(1), Ordering::Relaxed);
}

/// The reader's end of a tap.
#[derive(Debug)]
pub struct LaneCapture {
    ring: Consumer<u8>,
    counters: Arc<Counters>,
    /// The bytes of a record that wraps around the ring's end.
    wrapped: Vec<u8>,
}

impl LaneCapture {
    /// Calls `each` for every record that waits in the ring now, oldest first, with the bytes that were
    /// captured. Returns how many records.
    pub fn read(&mut self, mut each: impl FnMut(&Record, &[u8])) -> usize {
        let mut left = self.ring.slots();
        let mut count = 0;
        while left > 0 {
            let taken = self.read_one(&mut each);
            left = left.saturating_sub(taken);
            count += 1;
        }
        count
    }

    /// The number of frames that matched: read, lost, and still waiting.
    pub fn seen(&self) -> u64 {
        self.counters.seen.load(Ordering::Relaxed)
    }

    /// The number of frames that matched and were lost because the ring was full.
    pub fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::Relaxed)
    }

    /// Whether the capture has ended at the lane: no record follows those that wait now, and the
    /// counts are final.
    pub fn is_finished(&self) -> bool {
        let gone = self.ring.is_abandoned();
        // rtrb reads the number of ends without ordering what the other end did before.
        fence(Ordering::Acquire);
        gone
    }

    /// Reads the next record, which must be there. Returns how much of the ring it took.
    fn read_one(&mut self, each: &mut impl FnMut(&Record, &[u8])) -> usize {
        const WHOLE: &str = "the worker commits whole records";
        let chunk = self.ring.read_chunk(Record::LEN).expect(WHOLE);
        let (first, second) = chunk.as_slices();
        let mut encoded = [0; Record::LEN];
        encoded[..first.len()].copy_from_slice(first);
        encoded[first.len()..].copy_from_slice(second);
        let record = Record::decode(&encoded).expect("this process wrote it");
        let len = Record::LEN + record.captured as usize;

        let chunk = self.ring.read_chunk(len).expect(WHOLE);
        let (first, second) = chunk.as_slices();
        match first.get(Record::LEN..) {
            Some(bytes) if second.is_empty() => each(&record, bytes),
            _ => {
                self.wrapped.clear();
                self.wrapped
                    .extend(first.iter().chain(second).skip(Record::LEN));
                each(&record, &self.wrapped);
            }
        }
        chunk.commit_all();
        len
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::any_verdict;
    use super::*;
    use crate::bpf::Instruction;

    fn spec(snap: u32, bytes: usize) -> TapSpec {
        TapSpec {
            filter: None,
            snap,
            wire: false,
            bytes,
        }
    }

    proptest! {
        /// Frames of any length in a ring of any size, read at any time: those that come out are
        /// as they went in, in order, and all others are counted.
        #[test]
        fn every_frame_is_read_or_lost(
            bytes in 0..2000_usize,
            snap in prop_oneof![Just(65_535_u32), 0..300_u32],
            frames in proptest::collection::vec((0..400_usize, any::<bool>(), any_verdict()), 0..60),
        ) {
            let (mut tap, mut capture) = lane_tap(spec(snap, bytes));
            let (mut read, mut next) = (0, 0);
            let mut look = |capture: &mut LaneCapture| {
                read += capture.read(|record, bytes| {
                    assert!(record.time >= next, "in order, each once");
                    next = record.time + 1;
                    let (len, _, verdict) = frames[record.time as usize];
                    assert_eq!(record.len as usize, len);
                    assert_eq!(record.verdict, verdict);
                    assert_eq!(record.captured, record.len.min(snap));
                    assert_eq!(bytes.len(), record.captured as usize);
                    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == payload(record.time, at)));
                });
                read
            };
            for (time, (len, now, verdict)) in frames.iter().enumerate() {
                let time = time as u64;
                let frame: Vec<u8> = (0..*len).map(|at| payload(time, at)).collect();
                tap.see(time, &VnetHeader::default(), &frame[..], verdict);
                if *now {
                    look(&mut capture);
                }
            }
            let read = look(&mut capture);
            assert_eq!(capture.seen(), frames.len() as u64);
            assert_eq!(capture.lost(), capture.seen() - read as u64);
        }
    }

    fn payload(time: u64, at: usize) -> u8 {
        (time as usize * 31 + at * 7 + at / 256) as u8
    }

    #[test]
    fn only_what_matches_is_seen() {
        // The first byte is 7.
        let filter = [(0x30, 0, 0, 0), (0x15, 0, 1, 7), (6, 0, 0, 1), (6, 0, 0, 0)]
            .map(|(code, jt, jf, k)| Instruction { code, jt, jf, k });
        let filter = Some(Program::new(filter.to_vec()).unwrap());
        let (mut tap, mut capture) = lane_tap(TapSpec {
            filter,
            ..spec(100, 4096)
        });
        assert_eq!(tap.spec().snap, 100);
        for first in [7, 8, 7] {
            let frame = [first; 60];
            tap.see(1, &VnetHeader::default(), &frame[..], &Verdict::default());
        }
        assert_eq!(capture.read(|_, bytes| assert_eq!(bytes, [7; 60])), 2);
        assert_eq!((capture.seen(), capture.lost()), (2, 0));
    }

    #[test]
    fn either_end_survives_the_other() {
        let (mut tap, capture) = lane_tap(spec(100, 4096));
        assert!(!capture.is_finished());
        drop(capture);
        // Until the worker drops its end.
        for _ in 0..100 {
            tap.see(1, &VnetHeader::default(), &[0; 60][..], &Verdict::default());
        }
        let (tap, capture) = lane_tap(spec(100, 4096));
        drop(tap);
        assert!(capture.is_finished());
    }

    /// At full speed, with a reader that falls behind.
    #[test]
    fn a_million_frames_are_read_or_lost() {
        let many: u64 = if cfg!(miri) { 200 } else { 1_000_000 };
        let (mut tap, mut capture) = lane_tap(spec(64, 16 * 1024));
        let writer = std::thread::spawn(move || {
            for time in 0..many {
                let mut frame = [0; 64];
                frame[..8].copy_from_slice(&time.to_le_bytes());
                frame[56..].copy_from_slice(&(!time).to_le_bytes());
                let frame = &frame[..64 - (time % 3 * 8) as usize];
                tap.see(time, &VnetHeader::default(), frame, &Verdict::default());
            }
        });
        let (mut read, mut next) = (0, 0);
        loop {
            let finished = capture.is_finished();
            read += capture.read(|record, bytes| {
                assert!(record.time >= next, "in order, each once");
                next = record.time + 1;
                assert_eq!(bytes[..8], record.time.to_le_bytes());
                assert_eq!(bytes.len() as u64, 64 - record.time % 3 * 8);
                if record.time % 3 == 0 {
                    assert_eq!(bytes[56..], (!record.time).to_le_bytes());
                }
            });
            if finished {
                break;
            }
        }
        writer.join().expect("the worker's part never fails");
        assert_eq!(capture.seen(), many);
        assert_eq!(read as u64 + capture.lost(), many);
        assert!(read > 0);
    }
}

//! How well an impairment keeps to its settings: [`Accuracy`].

use hdrhistogram::Histogram;

/// A frame that leaves later than this after its time counts as late, in ns.
const LATE: u64 = 100_000;

/// How well a lane has kept to its impairment's settings since they were set.
#[derive(Debug, Clone)]
pub struct Accuracy {
    /// How many ns after they were due the delayed frames were handed to the port: 1 ns to 10 s, to
    /// two digits.
    pub delay_error: Histogram<u64>,
    /// Frames that were sent more than 100 µs late, because the host was too busy.
    pub late: u64,
    /// Frames that the impairment judged; each piece of a super-frame counts.
    pub judged: u64,
    /// Judged frames that were lost on purpose.
    pub lost: u64,
    /// Judged frames that were marked (ECN) instead of lost.
    pub marked: u64,
    /// Duplicates that were made.
    pub duplicated: u64,
    /// Judged frames with a bit flipped.
    pub corrupted: u64,
    /// Judged frames that overtook others on purpose.
    pub reordered: u64,
    /// Bytes that left while frames were queued behind a rate limit, without the overhead that the
    /// limit adds.
    pub busy_bytes: u64,
    /// Frames that left in that time.
    pub busy_frames: u64,
    /// The length of that time, in ns.
    pub busy_ns: u64,
}

impl Accuracy {
    pub(super) fn new() -> Option<Self> {
        Some(Accuracy {
            delay_error: Histogram::new_with_bounds(1, 10_000_000_000, 2).ok()?,
            late: 0,
            judged: 0,
            lost: 0,
            marked: 0,
            duplicated: 0,
            corrupted: 0,
            reordered: 0,
            busy_bytes: 0,
            busy_frames: 0,
            busy_ns: 0,
        })
    }

    pub(super) fn released(&mut self, late: u64) {
        // Within its bounds a histogram does not allocate.
        self.delay_error.saturating_record(late.max(1));
        self.late += u64::from(late > LATE);
    }
}

//! How well a lane keeps to what it was asked: [`Accuracy`].

use hdrhistogram::Histogram;

/// A frame that leaves later than this after its time counts as late, in ns.
const LATE: u64 = 100_000;

/// How well a lane kept to what its impairment asked, since it was set.
#[derive(Debug, Clone)]
pub struct Accuracy {
    /// How many ns after their time the delayed frames were handed to the port: 1 ns to 10 s, two
    /// digits.
    pub delay_error: Histogram<u64>,
    /// Frames that were sent later than asked by more than 100 µs: the host was too busy.
    pub late: u64,
    /// Frames that the impairment decided on: super-frames as their pieces.
    pub judged: u64,
    /// Of these: lost on purpose.
    pub lost: u64,
    /// Marked (ECN) instead of lost.
    pub marked: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// With a bit flipped.
    pub corrupted: u64,
    /// Sent ahead of others.
    pub reordered: u64,
    /// Bytes that left while a rate limit had a queue, without the overhead that it adds.
    pub busy_bytes: u64,
    /// Frames that left then.
    pub busy_frames: u64,
    /// How long that was, in ns.
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

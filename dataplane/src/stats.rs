//! The counters of a lane: [`LaneStats`], written by one worker, read by any thread.

use std::ops::Range;

use crate::frame::MAX_BURST;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Why a frame was not sent. Every frame that came in is sent, held, or counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// The cable is administratively down.
    CableDown,
    /// The cable is a blackhole: carrier stays, frames vanish.
    Blackhole,
    /// The other end has no port, or its port no receiver: no front end, a device that is down.
    Unplugged,
    /// The receiver's queue was full.
    ReceiverFull,
    /// Longer than the receiver's MTU or than any frame may be.
    TooLong,
    /// Shorter than an Ethernet header, or with a virtio-net header that contradicts it; or a super-frame that
    /// its receiver does not take, of a kind that cannot be cut.
    Malformed,
    /// The kernel dropped it before the worker read it: its buffer was full.
    ReadTooLate,
    /// The other end's port failed; the error was reported as an event.
    PortError,
    /// Lost on purpose: the lane's impairment has a loss.
    Loss,
    /// Dropped on purpose: the impairment's `drop_nth` chose exactly this frame.
    Chosen,
    /// More had to wait than the impairment's limit allows.
    HoldFull,
    /// A fault of this program closed the cable while it had the frame.
    Fault,
    /// More had to wait in all lanes together than the memory for held frames allows.
    HoldMemory,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [DropReason; 13] = [
        DropReason::CableDown,
        DropReason::Blackhole,
        DropReason::Unplugged,
        DropReason::ReceiverFull,
        DropReason::TooLong,
        DropReason::Malformed,
        DropReason::ReadTooLate,
        DropReason::PortError,
        DropReason::Loss,
        DropReason::Chosen,
        DropReason::HoldFull,
        DropReason::Fault,
        DropReason::HoldMemory,
    ];

    /// Its index in [`DropReason::ALL`]: a number for files and messages.
    #[inline]
    pub fn index(self) -> u8 {
        self as usize as u8
    }

    /// The reason with that number, if this version has it.
    pub fn from_index(index: u8) -> Option<DropReason> {
        DropReason::ALL.get(usize::from(index)).copied()
    }

    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            DropReason::CableDown => "cable-down",
            DropReason::Blackhole => "blackhole",
            DropReason::Unplugged => "unplugged",
            DropReason::ReceiverFull => "receiver-full",
            DropReason::TooLong => "too-long",
            DropReason::Malformed => "malformed",
            DropReason::ReadTooLate => "read-too-late",
            DropReason::PortError => "port-error",
            DropReason::Loss => "loss",
            DropReason::Chosen => "chosen",
            DropReason::HoldFull => "hold-full",
            DropReason::Fault => "fault",
            DropReason::HoldMemory => "hold-memory",
        }
    }
}

/// Drops by reason.
pub type Drops = [u64; DropReason::ALL.len()];

/// The losses of one burst: how many frames by reason, and which of those that were to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Losses {
    counts: Drops,
    /// By the frame's index in the burst.
    fates: [Option<DropReason>; MAX_BURST],
    /// How many of the pieces that it was cut into.
    pieces: [u16; MAX_BURST],
    any: bool,
}

impl Default for Losses {
    fn default() -> Self {
        Losses {
            counts: Drops::default(),
            fates: [None; MAX_BURST],
            pieces: [0; MAX_BURST],
            any: false,
        }
    }
}

impl Losses {
    /// Frames that never got into the burst.
    #[inline]
    pub(crate) fn count(&mut self, reason: DropReason, frames: u64) {
        self.any |= frames > 0;
        self.counts[reason as usize] += frames;
    }

    /// A frame that the burst did not take in, if it did not.
    #[inline]
    pub(crate) fn count_refused(&mut self, taken: Result<(), DropReason>) {
        if let Err(reason) = taken {
            self.count(reason, 1);
        }
    }

    /// A frame of the burst. Of two reasons the first counts.
    #[inline]
    pub(crate) fn lose(&mut self, index: usize, reason: DropReason) {
        if self.fates[index].is_none() {
            self.fates[index] = Some(reason);
            self.count(reason, 1);
        }
    }

    /// One of the pieces that a frame of the burst was cut into.
    pub(crate) fn lose_piece(&mut self, index: usize, reason: DropReason) {
        self.lose_pieces(index, 1, reason);
    }

    /// Some of the pieces that a frame of the burst is cut into.
    pub(crate) fn lose_pieces(&mut self, index: usize, pieces: u16, reason: DropReason) {
        self.pieces[index] = self.pieces[index].saturating_add(pieces);
        self.count(reason, pieces.into());
    }

    /// Several frames of the burst.
    pub(crate) fn lose_all(&mut self, frames: Range<usize>, reason: DropReason) {
        for index in frames {
            self.lose(index, reason);
        }
    }

    /// Why the frame at `index` was not sent, if it was not.
    #[inline]
    pub(crate) fn fate(&self, index: usize) -> Option<DropReason> {
        self.fates[index]
    }

    /// How many pieces of the frame at `index` were lost.
    #[inline]
    pub(crate) fn pieces(&self, index: usize) -> u16 {
        self.pieces[index]
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        !self.any
    }

    /// How many for one reason.
    #[cfg(test)]
    pub(crate) fn of(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// All together.
    #[inline]
    pub(crate) fn total(&self) -> u64 {
        if self.any {
            self.counts.iter().sum()
        } else {
            0
        }
    }

    /// Adds the counts of another burst.
    pub(crate) fn absorb(&mut self, other: &Losses) {
        if !other.any {
            return;
        }
        self.any = true;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Forgets all.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if self.any {
            *self = Losses::default();
        }
    }
}

/// Counters at one instant: `frames_in == frames_out + held + drops`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// Frames that entered the lane. A super-frame counts as the frames that it was cut into,
    /// as one when it was passed on whole; a duplicate that the lane made counts as well.
    pub frames_in: u64,
    /// Their bytes as they came, without FCS and virtio-net headers. A super-frame counts with the
    /// bytes that it came with, a duplicate with none.
    pub bytes_in: u64,
    /// Frames that left it.
    pub frames_out: u64,
    /// Frames that wait in it.
    pub held: u64,
    /// Frames that were dropped, by [`DropReason`].
    pub drops: Drops,
    /// Counts of what the lane's impairment did besides dropping.
    pub impaired: ImpairmentCounts,
    /// How often the lane had to wait because it had used up its budget of the worker while other
    /// lanes had frames.
    pub throttled: u64,
}

/// What an impairment did to frames besides dropping them; one frame may count in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImpairmentCounts {
    /// Frames that had to wait.
    pub delayed: u64,
    /// Second copies that were made.
    pub duplicated: u64,
    /// Frames with a bit flipped.
    pub corrupted: u64,
    /// Frames that overtook others on purpose.
    pub reordered: u64,
    /// Frames marked as having met congestion (ECN) instead of being lost.
    pub marked: u64,
}

impl LaneSnapshot {
    /// All drops together.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn drop_reasons(&self) -> impl Iterator<Item = (DropReason, u64)> {
        let drops = self.drops;
        DropReason::ALL
            .into_iter()
            .map(move |reason| (reason, drops[reason as usize]))
            .filter(|(_, count)| *count > 0)
    }
}

/// The counters of one lane. Written by the worker that owns the lane, a burst at a time;
/// readers on any thread get all counters of the same instant (a sequence lock: the writer
/// never waits).
#[derive(Debug, Default)]
#[repr(align(128))] // no other worker's counters on the same pair of cache lines
pub struct LaneStats {
    sequence: AtomicU64,
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    frames_out: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    /// In the order of [`ImpairmentCounts`]'s fields.
    impaired: [AtomicU64; 5],
    /// Says nothing about frames, so no part of what the sequence lock keeps together.
    throttled: AtomicU64,
}

/// What is to be added to a lane's counters.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) frames_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) impaired: ImpairmentCounts,
}

impl LaneStats {
    /// Adds one burst, of which what was not lost was sent. Only the owning worker may call
    /// this.
    #[inline]
    pub(crate) fn add_sent(&self, frames_in: u64, bytes_in: u64, losses: &Losses) {
        let tally = Tally {
            frames_in,
            bytes_in,
            frames_out: frames_in - losses.total(),
            impaired: ImpairmentCounts::default(),
        };
        self.add(&tally, losses);
    }

    /// Adds one burst. What came in and neither went out nor was lost is held. Only the owning
    /// worker may call this.
    #[inline]
    pub(crate) fn add(&self, tally: &Tally, losses: &Losses) {
        let bump = |counter: &AtomicU64, by: u64| {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(by),
                Ordering::Relaxed,
            );
        };
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence
            .store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        if !losses.is_empty() {
            for (counter, &count) in self.drops.iter().zip(&losses.counts) {
                bump(counter, count);
            }
        }
        if tally.impaired != ImpairmentCounts::default() {
            let ImpairmentCounts {
                delayed,
                duplicated,
                corrupted,
                reordered,
                marked,
            } = tally.impaired;
            let counts = [delayed, duplicated, corrupted, reordered, marked];
            for (counter, count) in self.impaired.iter().zip(counts) {
                bump(counter, count);
            }
        }
        bump(&self.frames_in, tally.frames_in);
        bump(&self.bytes_in, tally.bytes_in);
        bump(&self.frames_out, tally.frames_out);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Counts that the lane has to wait for others. Only the owning worker may call this.
    pub(crate) fn add_throttled(&self) {
        let before = self.throttled.load(Ordering::Relaxed);
        self.throttled
            .store(before.wrapping_add(1), Ordering::Relaxed);
    }

    /// All counters at one instant.
    pub fn snapshot(&self) -> LaneSnapshot {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let [delayed, duplicated, corrupted, reordered, marked] =
                std::array::from_fn(|which| read(&self.impaired[which]));
            let mut snapshot = LaneSnapshot {
                frames_in: read(&self.frames_in),
                bytes_in: read(&self.bytes_in),
                frames_out: read(&self.frames_out),
                held: 0,
                drops: std::array::from_fn(|reason| read(&self.drops[reason])),
                impaired: ImpairmentCounts {
                    delayed,
                    duplicated,
                    corrupted,
                    reordered,
                    marked,
                },
                throttled: read(&self.throttled),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                let gone = snapshot.frames_out + snapshot.dropped();
                snapshot.held = snapshot.frames_in - gone;
                return snapshot;
            }
            spin_loop();
        }
    }
}

#[cfg(all(test, loom))]
mod loom {
    use ::loom::sync::Arc;
    use ::loom::thread;

    use super::*;

    #[test]
    fn a_snapshot_is_of_one_instant() {
        ::loom::model(|| {
            let stats = Arc::new(LaneStats::default());
            // The writer begins: see `sync.rs`.
            let reader = {
                let stats = stats.clone();
                thread::spawn(move || {
                    let seen = stats.snapshot();
                    assert_eq!(seen.frames_in, seen.frames_out + seen.dropped());
                    assert_eq!(seen.bytes_in, seen.frames_in * 100);
                })
            };
            // Without losses: each counter more that is written multiplies the orders to try.
            stats.add_sent(3, 300, &Losses::default());
            reader.join().expect("every snapshot adds up");
            assert_eq!(stats.snapshot().frames_in, 3);
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn readers_never_see_half_a_burst() {
        let stats = Arc::new(LaneStats::default());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let (stats, stop) = (stats.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut losses = Losses::default();
                let mut bursts = 0;
                while !stop.load(Ordering::Relaxed) {
                    losses.clear();
                    losses.count(DropReason::Blackhole, bursts % 5);
                    losses.count(DropReason::Unplugged, bursts % 7);
                    stats.add_sent(32, 2048, &losses);
                    bursts += 1;
                }
                bursts
            })
        };
        let mut last = 0;
        let rounds = if cfg!(miri) { 50 } else { 5_000 };
        for _ in 0..rounds {
            let seen = stats.snapshot();
            assert_eq!(seen.frames_in, seen.frames_out + seen.held + seen.dropped());
            assert_eq!(seen.bytes_in, seen.frames_in * 64);
            assert!(seen.frames_in >= last);
            last = seen.frames_in;
        }
        stop.store(true, Ordering::Relaxed);
        let bursts = writer.join().unwrap();
        assert_eq!(stats.snapshot().frames_in, bursts * 32);
    }
}

//! What a lane counted: [`LaneStats`], written by one worker, read by anyone.

use std::time::Duration;

use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// Why a frame was not sent. Every frame that came in is sent, held, or counted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// The cable is administratively down.
    CableDown,
    /// The cable is a blackhole: carrier stays, frames vanish.
    Blackhole,
    /// Nobody is plugged in at the other end.
    Unplugged,
    /// The receiver's queue was full.
    ReceiverFull,
    /// Longer than the receiver's MTU or than any frame may be.
    TooLong,
    /// Shorter than an Ethernet header, or with a virtio-net header that contradicts it.
    Malformed,
    /// Lost in the kernel in front of us: the worker came too late to read it.
    ReadTooLate,
    /// The other end's port failed; its error is in the log.
    PortError,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [DropReason; 8] = [
        DropReason::CableDown,
        DropReason::Blackhole,
        DropReason::Unplugged,
        DropReason::ReceiverFull,
        DropReason::TooLong,
        DropReason::Malformed,
        DropReason::ReadTooLate,
        DropReason::PortError,
    ];

    /// Its place in [`DropReason::ALL`]: a number for what is stored or sent.
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
        }
    }
}

/// Drops by reason; what a port or lane hands up for one burst, and what a reader gets.
pub type Drops = [u64; DropReason::ALL.len()];

/// Counters at one instant: `frames_in == frames_out + held + drops`, always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneSnapshot {
    /// Frames that entered the lane. A super-frame counts as the frames that it was cut into,
    /// as one when it was passed on whole.
    pub frames_in: u64,
    /// Their bytes as they came, without FCS and virtio-net headers: those of a super-frame,
    /// whatever was made of it.
    pub bytes_in: u64,
    /// Frames that left it.
    pub frames_out: u64,
    /// Frames that wait in it.
    pub held: u64,
    /// Frames that were dropped, by [`DropReason`].
    pub drops: Drops,
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
}

impl LaneStats {
    /// Adds one burst. Only the owning worker may call this.
    pub(crate) fn add(&self, frames_in: u64, bytes_in: u64, drops: &Drops) {
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
        let mut dropped = 0;
        for (counter, &count) in self.drops.iter().zip(drops) {
            if count > 0 {
                bump(counter, count);
                dropped += count;
            }
        }
        debug_assert!(dropped <= frames_in);
        bump(&self.frames_in, frames_in);
        bump(&self.bytes_in, bytes_in);
        bump(&self.frames_out, frames_in - dropped);
        self.sequence
            .store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// All counters at one instant.
    pub fn snapshot(&self) -> LaneSnapshot {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let snapshot = LaneSnapshot {
                frames_in: read(&self.frames_in),
                bytes_in: read(&self.bytes_in),
                frames_out: read(&self.frames_out),
                held: 0,
                drops: std::array::from_fn(|reason| read(&self.drops[reason])),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && before == self.sequence.load(Ordering::Relaxed) {
                return snapshot;
            }
            spin_loop();
        }
    }
}

/// How busy a worker is. Written by it alone.
#[derive(Debug, Default)]
#[repr(align(128))] // no other worker's counters on the same pair of cache lines
pub(crate) struct WorkerStats {
    busy_ns: AtomicU64,
}

impl WorkerStats {
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
            let mut drops = Drops::default();
            drops[DropReason::Unplugged as usize] = 1;
            stats.add(3, 300, &drops);
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
                let mut drops = Drops::default();
                let mut bursts = 0;
                while !stop.load(Ordering::Relaxed) {
                    drops[DropReason::Blackhole as usize] = bursts % 5;
                    drops[DropReason::Unplugged as usize] = bursts % 7;
                    stats.add(32, 2048, &drops);
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

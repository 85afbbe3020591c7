//! The queue of the frames that a lane sends later: [`Hold`].

mod chunks;
mod memory;
#[cfg(test)]
mod tests;
mod zero_copy;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::capture::Verdict;
use crate::frame::{Burst, MAX_BURST, MAX_FRAME, VnetHeader};
use crate::stats::DropReason;

use chunks::{CHUNK, Chunks, Full};
use memory::Quota;
pub use memory::{HoldMemory, quarter_of_ram};
use zero_copy::ZeroCopyFrames;

/// A frame of at least this many bytes that lies in a burst's own memory is not copied: it takes
/// that memory with it, and the burst gets a spare piece in exchange. That is at most about twice as
/// much memory as the frame has bytes.
const ZERO_COPY_FROM: usize = 32 << 10;

/// The least capacity of a hold, in bytes: the longest frame fits in any.
const MIN_BYTES: u64 = 128 << 10;

const NONE: u32 = u32::MAX;

/// Frames of one lane, each with the time of its release. They leave in that order, and frames of the
/// same time in the order in which they came.
///
/// All memory is reserved when the hold is made, and only as much of it is touched as frames wait at
/// the same time: what was freed last is used first. What is touched for the first time counts against the
/// budget of all holds, until the hold is dropped.
pub(crate) struct Hold {
    chunks: Chunks,
    zero_copy: ZeroCopyFrames,
    frames: Vec<HeldFrame>,
    free: Vec<u32>,
    /// Dropped after the memory that it stands for.
    quota: Quota,
    /// Bytes of frames that it was made for.
    capacity: u64,
    /// The list of the frames that came in the order of their release, as most do.
    first: u32,
    last: u32,
    /// All other frames, by the time of their release.
    out_of_order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    sequence: u64,
    waiting: u64,
    bytes: u64,
    /// Its frames leave as soon as they can, whenever they were to be released; until it is empty.
    overdue: bool,
    /// The frames that were taken and whose memory is not yet reclaimed.
    lent: [u32; MAX_BURST],
    lent_len: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct HeldFrame {
    release: u64,
    sequence: u64,
    arrival: u64,
    header: VnetHeader,
    len: u32,
    next: u32,
    place: Place,
    verdict: Verdict,
}

/// Where a held frame lies.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In chunks, from this one on.
    Chunks(u32),
    /// In the memory that it took with it.
    Own(u32),
}

impl Default for Place {
    fn default() -> Self {
        Place::Own(NONE)
    }
}

/// Bytes of memory that a waiting frame takes besides its own: its entry, its number in the list of free
/// ones, and its place in the order of release.
const ENTRY: u64 =
    (size_of::<HeldFrame>() + size_of::<u32>() + size_of::<Reverse<(u64, u64, u32)>>()) as u64;

/// How a frame waits: since when and until when, in ns, and what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) arrival: u64,
    pub(crate) release: u64,
    pub(crate) verdict: Verdict,
}

impl Hold {
    /// Reserves memory for `bytes` of frames of any length, but for no more than one frame in 128 bytes.
    /// What is used of it counts against `memory`. `None` when the system has too little memory.
    pub(crate) fn new(bytes: u64, memory: Arc<HoldMemory>) -> Option<Self> {
        let room = usize::try_from(bytes.max(MIN_BYTES)).ok()?;
        let frames = room / CHUNK;
        let mut hold = Hold {
            // Each frame may waste nearly a chunk.
            chunks: Chunks::new(frames.checked_mul(2)?)?,
            zero_copy: ZeroCopyFrames::new(room / MAX_FRAME)?,
            frames: Vec::new(),
            free: Vec::new(),
            quota: Quota::new(memory),
            capacity: bytes,
            first: NONE,
            last: NONE,
            out_of_order: BinaryHeap::new(),
            sequence: 0,
            waiting: 0,
            bytes: 0,
            overdue: false,
            lent: [NONE; MAX_BURST],
            lent_len: 0,
        };
        hold.frames.try_reserve_exact(frames).ok()?;
        hold.free.try_reserve_exact(frames).ok()?;
        hold.out_of_order.try_reserve_exact(frames).ok()?;
        Some(hold)
    }

    /// Whether its capacity is at least that of the other.
    pub(crate) fn is_as_large_as(&self, other: &Hold) -> bool {
        self.capacity >= other.capacity
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The number of frames that wait.
    pub(crate) fn frames(&self) -> u64 {
        self.waiting
    }

    /// The bytes of the frames that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes every frame that waits due at once: they leave in the order of their release, and frames that
    /// are added before the last one has left go behind them.
    pub(crate) fn release_all(&mut self) {
        self.overdue = !self.is_empty();
    }

    /// Whether its frames leave as soon as they can.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// When the next frame is due, in ns.
    #[inline]
    pub(crate) fn next_release(&self) -> Option<u64> {
        if self.overdue {
            return Some(0);
        }
        let in_order = (self.first != NONE).then(|| self.held(self.first).release);
        let out_of_order = self
            .out_of_order
            .peek()
            .map(|Reverse((release, ..))| *release);
        match (in_order, out_of_order) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Moves the frame at `index` out of a burst that is not sent any more: with its memory, if
    /// that is cheaper than a copy.
    ///
    /// # Errors
    /// Why it was not kept: the hold is full, or all holds together are.
    pub(crate) fn take_over(
        &mut self,
        burst: &mut Burst,
        index: usize,
        wait: Wait,
    ) -> Result<(), DropReason> {
        let plain = wait.verdict.corrupted.is_none() && !wait.verdict.marked;
        if plain && burst.frame_len(index) >= ZERO_COPY_FROM {
            let number = self.number()?;
            if let Some(own) = self.zero_copy.take_in(burst, index, &mut self.quota) {
                self.add(number, Place::Own(own), burst, index, wait);
                return Ok(());
            }
            self.free.push(number);
        }
        self.copy_in(burst, index, wait, None)
    }

    /// Copies the frame at `index` in. The copy has the bit flipped that `wait` names, and its first
    /// bytes as `rewrite` leaves them.
    ///
    /// # Errors
    /// Why it was not kept: the hold is full, or all holds together are.
    pub(crate) fn copy_in(
        &mut self,
        burst: &Burst,
        index: usize,
        wait: Wait,
        rewrite: Option<fn(&mut [u8])>,
    ) -> Result<(), DropReason> {
        let number = self.number()?;
        let first = match self.chunks.copy_in(burst, index, &mut self.quota) {
            Ok(first) => first,
            Err(full) => {
                self.free.push(number);
                return Err(match full {
                    Full::Hold => DropReason::HoldFull,
                    Full::Budget => DropReason::HoldMemory,
                });
            }
        };
        if let Some(rewrite) = rewrite {
            rewrite(self.chunks.head(first, burst.frame_len(index)));
        }
        if let Some(bit) = wait.verdict.corrupted
            && let Some(byte) = self.chunks.byte(first, (bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
        self.add(number, Place::Chunks(first), burst, index, wait);
        Ok(())
    }

    /// A number for one more frame.
    fn number(&mut self) -> Result<u32, DropReason> {
        if let Some(number) = self.free.pop() {
            return Ok(number);
        }
        if self.frames.len() == self.frames.capacity() {
            return Err(DropReason::HoldFull);
        }
        if !self.quota.allows(ENTRY) {
            return Err(DropReason::HoldMemory);
        }
        // Does not allocate, as was just checked.
        self.frames.push(HeldFrame::default());
        Ok(self.frames.len() as u32 - 1)
    }

    fn add(&mut self, frame: u32, place: Place, burst: &Burst, index: usize, wait: Wait) {
        let len = burst.frame_len(index);
        let sequence = self.sequence;
        *self.held_mut(frame) = HeldFrame {
            // Behind all that wait, when these leave before their time.
            release: if self.overdue { u64::MAX } else { wait.release },
            sequence,
            arrival: wait.arrival,
            header: *burst.header(index),
            len: len as u32,
            next: NONE,
            place,
            verdict: wait.verdict,
        };
        self.enqueue(frame);
        self.sequence += 1;
        self.waiting += 1;
        self.bytes += len as u64;
    }

    fn held(&self, frame: u32) -> &HeldFrame {
        &self.frames[frame as usize]
    }

    fn held_mut(&mut self, frame: u32) -> &mut HeldFrame {
        &mut self.frames[frame as usize]
    }

    fn give_back(&mut self, frame: u32) {
        match self.held(frame).place {
            Place::Chunks(first) => self.chunks.give_back(first),
            Place::Own(own) => self.zero_copy.give_back(own),
        }
        self.free.push(frame);
    }

    fn enqueue(&mut self, frame: u32) {
        let HeldFrame {
            release, sequence, ..
        } = *self.held(frame);
        if self.last == NONE {
            self.first = frame;
            self.last = frame;
        } else if self.held(self.last).release <= release {
            self.held_mut(self.last).next = frame;
            self.last = frame;
        } else {
            self.out_of_order.push(Reverse((release, sequence, frame)));
        }
    }

    /// Appends the next frame to `out`, which must have room for it, if it is due. The frame lies in
    /// the hold until [`Hold::reclaim`].
    pub(crate) fn take(&mut self, now: u64, out: &mut Burst) -> Option<Wait> {
        if self.lent_len == MAX_BURST {
            return None;
        }
        let in_order = (self.first != NONE).then(|| {
            let held = self.held(self.first);
            (held.release, held.sequence)
        });
        let out_of_order = self.out_of_order.peek();
        let out_of_order =
            out_of_order.map(|Reverse((release, sequence, _))| (*release, *sequence));
        let from_heap = match (in_order, out_of_order) {
            (Some(in_order), Some(out_of_order)) => out_of_order < in_order,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let release = in_order.into_iter().chain(out_of_order).min()?.0;
        if release > now && !self.overdue {
            return None;
        }
        let frame = if from_heap {
            self.out_of_order.pop()?.0.2
        } else {
            self.first
        };
        let held = *self.held(frame);
        if !from_heap {
            self.first = held.next;
            if self.first == NONE {
                self.last = NONE;
            }
        }
        self.lend(frame, &held, out);
        Some(Wait {
            release: held.release,
            arrival: held.arrival,
            verdict: held.verdict,
        })
    }

    fn lend(&mut self, frame: u32, held: &HeldFrame, out: &mut Burst) {
        let len = held.len as usize;
        match held.place {
            Place::Chunks(first) => self.chunks.add_to(first, len, out),
            Place::Own(own) => {
                if let Some((memory, at)) = &self.zero_copy.memory[own as usize] {
                    out.add_segment(memory.segment(*at, len));
                }
            }
        }
        out.add_frame(held.header, held.len as usize);
        self.lent[self.lent_len] = frame;
        self.lent_len += 1;
        self.waiting -= 1;
        self.overdue &= self.waiting > 0;
        self.bytes -= u64::from(held.len);
    }

    /// Takes back the memory of the frames that were taken.
    pub(crate) fn reclaim(&mut self) {
        for lent in 0..self.lent_len {
            self.give_back(self.lent[lent]);
        }
        self.lent_len = 0;
    }

    /// Drops every frame that waits; returns how many.
    pub(crate) fn purge(&mut self) -> u64 {
        let purged = self.waiting;
        while self.first != NONE {
            let frame = self.first;
            self.first = self.held(frame).next;
            self.give_back(frame);
        }
        self.last = NONE;
        while let Some(Reverse((_, _, frame))) = self.out_of_order.pop() {
            self.give_back(frame);
        }
        self.waiting = 0;
        self.bytes = 0;
        self.overdue = false;
        purged
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} frames, {} bytes", self.waiting, self.bytes)
    }
}

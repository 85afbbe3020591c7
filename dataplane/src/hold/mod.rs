//! The queue of the frames that a lane sends later: [`Hold`].

mod chunks;
#[cfg(test)]
mod tests;
mod zero_copy;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::capture::Verdict;
use crate::frame::{Burst, MAX_BURST, MAX_FRAME, VnetHeader};

use chunks::Chunks;
use zero_copy::ZeroCopyFrames;

/// Frames up to this length, in bytes, lie in chunks of this size each.
const SHORT: usize = 256;

/// Longer frames lie in as many chunks of this size as they need: one for a frame of the usual MTU,
/// 33 for the longest super-frame.
const LONG: usize = 2048;

/// A frame of at least this many bytes that lies in a burst's own memory is not copied: it takes
/// that memory with it, and the burst gets a spare piece in exchange.
const ZERO_COPY_FROM: usize = 8 << 10;

/// Marks the number of a frame that lies in long chunks.
const IN_LONG: u32 = 1 << 31;

/// Marks the number of a frame that took its memory with it.
const IN_ZERO_COPY: u32 = 1 << 30;

/// The least capacity of a hold, in bytes: the longest frame fits in any.
const MIN_BYTES: u64 = 128 << 10;

const NONE: u32 = u32::MAX;

/// Frames of one lane, each with the time of its release. They leave in that order, and frames of the
/// same time in the order in which they came.
///
/// All memory is reserved when the hold is made, and only as much of it is touched as frames wait at
/// the same time: the chunk that was freed last is used first.
pub(crate) struct Hold {
    short: Chunks,
    long: Chunks,
    zero_copy: ZeroCopyFrames,
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
    verdict: Verdict,
}

/// How a frame waits: since when and until when, in ns, and what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) arrival: u64,
    pub(crate) release: u64,
    pub(crate) verdict: Verdict,
}

impl Hold {
    /// Reserves memory for `bytes` of frames of any length, but for no more than one short frame in
    /// 128 bytes. `None` when the system has too little memory.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let room = usize::try_from(bytes.max(MIN_BYTES)).ok()?;
        let counts = [room / 128, room / 512, room / MAX_FRAME];
        if counts.iter().any(|count| *count >= IN_ZERO_COPY as usize) {
            return None;
        }
        let mut hold = Hold {
            short: Chunks::new(SHORT, counts[0])?,
            long: Chunks::new(LONG, counts[1])?,
            zero_copy: ZeroCopyFrames::new(counts[2])?,
            capacity: bytes,
            first: NONE,
            last: NONE,
            out_of_order: BinaryHeap::new(),
            sequence: 0,
            waiting: 0,
            bytes: 0,
            lent: [NONE; MAX_BURST],
            lent_len: 0,
        };
        hold.out_of_order
            .try_reserve_exact(counts.iter().sum())
            .ok()?;
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

    /// When the next frame is due, in ns.
    #[inline]
    pub(crate) fn next_release(&self) -> Option<u64> {
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
    /// that is cheaper than a copy. `false` when the hold is full.
    pub(crate) fn take_over(&mut self, burst: &mut Burst, index: usize, wait: Wait) -> bool {
        let plain = wait.verdict.corrupted.is_none() && !wait.verdict.marked;
        if plain
            && burst.frame_len(index) >= ZERO_COPY_FROM
            && let Some(frame) = self.zero_copy.take_in(burst, index)
        {
            self.add(frame | IN_ZERO_COPY, burst, index, wait);
            return true;
        }
        self.copy_in(burst, index, wait, None)
    }

    /// Copies the frame at `index` in. The copy has the bit flipped that `wait` names, and its first
    /// bytes as `rewrite` leaves them. `false` when the hold is full.
    pub(crate) fn copy_in(
        &mut self,
        burst: &Burst,
        index: usize,
        wait: Wait,
        rewrite: Option<fn(&mut [u8])>,
    ) -> bool {
        let len = burst.frame_len(index);
        let (chunks, mark) = if len <= SHORT {
            (&mut self.short, 0)
        } else {
            (&mut self.long, IN_LONG)
        };
        let Some(first) = chunks.copy_in(burst, index) else {
            return false;
        };
        if let Some(rewrite) = rewrite {
            let at = first as usize * chunks.size;
            rewrite(chunks.pool.piece(at, len.min(chunks.size)));
        }
        if let Some(bit) = wait.verdict.corrupted
            && let Some(byte) = chunks.byte(first, (bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
        self.add(first | mark, burst, index, wait);
        true
    }

    fn add(&mut self, frame: u32, burst: &Burst, index: usize, wait: Wait) {
        let len = burst.frame_len(index);
        let sequence = self.sequence;
        *self.held_mut(frame) = HeldFrame {
            release: wait.release,
            sequence,
            arrival: wait.arrival,
            header: *burst.header(index),
            len: len as u32,
            next: NONE,
            verdict: wait.verdict,
        };
        self.enqueue(frame);
        self.sequence += 1;
        self.waiting += 1;
        self.bytes += len as u64;
    }

    fn held(&self, frame: u32) -> &HeldFrame {
        let frames = match frame & (IN_LONG | IN_ZERO_COPY) {
            0 => &self.short.frames,
            IN_LONG => &self.long.frames,
            _ => &self.zero_copy.frames,
        };
        &frames[(frame & !(IN_LONG | IN_ZERO_COPY)) as usize]
    }

    fn held_mut(&mut self, frame: u32) -> &mut HeldFrame {
        let frames = match frame & (IN_LONG | IN_ZERO_COPY) {
            0 => &mut self.short.frames,
            IN_LONG => &mut self.long.frames,
            _ => &mut self.zero_copy.frames,
        };
        &mut frames[(frame & !(IN_LONG | IN_ZERO_COPY)) as usize]
    }

    fn give_back(&mut self, frame: u32) {
        let number = frame & !(IN_LONG | IN_ZERO_COPY);
        match frame & (IN_LONG | IN_ZERO_COPY) {
            0 => self.short.give_back(number),
            IN_LONG => self.long.give_back(number),
            _ => self.zero_copy.give_back(number),
        }
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
        if in_order.into_iter().chain(out_of_order).min()?.0 > now {
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
        let (number, len) = (frame & !(IN_LONG | IN_ZERO_COPY), held.len as usize);
        match frame & (IN_LONG | IN_ZERO_COPY) {
            0 => self.short.add_to(number, len, out),
            IN_LONG => self.long.add_to(number, len, out),
            _ => {
                if let Some((memory, at)) = &self.zero_copy.memory[number as usize] {
                    out.add_segment(memory.segment(*at, len));
                }
            }
        }
        out.add_frame(held.header, held.len as usize);
        self.lent[self.lent_len] = frame;
        self.lent_len += 1;
        self.waiting -= 1;
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
        purged
    }
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} frames, {} bytes", self.waiting, self.bytes)
    }
}

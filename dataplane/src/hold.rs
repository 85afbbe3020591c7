//! Where frames wait that a lane sends later: [`Hold`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::capture::Verdict;
use crate::frame::{Burst, MAX_BURST, MAX_FRAME, VnetHeader};
use crate::sys::pool::Pool;

/// Frames up to this length, in bytes, lie in chunks of this size each.
const SHORT: usize = 256;

/// All others lie in as many of these as they need: one for a frame of the usual MTU, 33 for the
/// longest super-frame.
const LONG: usize = 2048;

/// A frame of at least so many bytes that lies in a burst's own memory is not copied: it takes
/// that memory with it, and the burst gets other.
const WHOLE: usize = 8 << 10;

/// Marks the number of a frame that lies in long chunks.
const IN_LONG: u32 = 1 << 31;

/// Marks the number of a frame that took its memory with it.
const IN_WHOLE: u32 = 1 << 30;

/// A hold has room for no fewer bytes: the longest frame fits in any.
const LEAST: u64 = 128 << 10;

const NONE: u32 = u32::MAX;

/// Frames of one lane, copied, each with the time of its release. They leave in that order, and
/// those of the same time in the order they came.
///
/// All memory is reserved when it is made, and touched only as far as frames wait at the same
/// time: the chunk that was freed last is used first.
pub(crate) struct Hold {
    short: Shelf,
    long: Shelf,
    whole: Wholes,
    /// What it was made for.
    room: u64,
    /// Frames in the order of their release, as far as they came in that order: most do.
    first: u32,
    last: u32,
    /// The others.
    early: BinaryHeap<Reverse<(u64, u64, u32)>>,
    sequence: u64,
    waiting: u64,
    bytes: u64,
    /// The frames that were handed out and not yet reclaimed.
    lent: [u32; MAX_BURST],
    lent_len: usize,
}

/// Frames that took their memory with them.
struct Wholes {
    frames: Vec<Held>,
    /// By frame: its memory, and where in it the frame begins.
    places: Vec<Option<(Pool, usize)>>,
    free: Vec<u32>,
    /// Memory to give for theirs.
    spare: Vec<Pool>,
}

impl Wholes {
    fn new(capacity: usize) -> Option<Self> {
        let mut wholes = Wholes {
            frames: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
        };
        wholes.frames.try_reserve_exact(capacity).ok()?;
        wholes.places.try_reserve_exact(capacity).ok()?;
        wholes.free.try_reserve_exact(capacity).ok()?;
        // What was given for the frames' memory comes back.
        wholes.spare.try_reserve_exact(capacity).ok()?;
        for _ in 0..capacity {
            wholes.spare.push(Burst::new_stride().ok()?);
        }
        Some(wholes)
    }

    fn take_in(&mut self, burst: &mut Burst, index: usize) -> Option<u32> {
        let spare = self.spare.pop()?;
        match burst.exchange(index, spare) {
            Ok(place) => {
                let frame = self.free.pop().unwrap_or(self.frames.len() as u32);
                if frame as usize == self.frames.len() {
                    // Reserved when it was made: as many as there were spare ones.
                    self.frames.push(Held::default());
                    self.places.push(None);
                }
                self.places[frame as usize] = Some(place);
                Some(frame)
            }
            Err(spare) => {
                self.spare.push(spare);
                None
            }
        }
    }

    fn give_back(&mut self, frame: u32) {
        if let Some((memory, _)) = self.places[frame as usize].take() {
            self.spare.push(memory);
            self.free.push(frame);
        }
    }
}

/// Memory in chunks of one size.
struct Shelf {
    pool: Pool,
    size: usize,
    capacity: usize,
    /// By chunk: the next one of the same frame.
    links: Vec<u32>,
    /// By the frame's first chunk.
    frames: Vec<Held>,
    free: Vec<u32>,
}

impl Shelf {
    fn new(size: usize, capacity: usize) -> Option<Self> {
        let mut shelf = Shelf {
            pool: Pool::try_new(size.checked_mul(capacity)?).ok()?,
            size,
            capacity,
            links: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
        };
        shelf.pool.prefer_huge_pages();
        shelf.links.try_reserve_exact(capacity).ok()?;
        shelf.frames.try_reserve_exact(capacity).ok()?;
        shelf.free.try_reserve_exact(capacity).ok()?;
        Some(shelf)
    }

    /// Copies a frame in; returns its first chunk. `None` when there is no room.
    fn copy_in(&mut self, burst: &Burst, index: usize) -> Option<u32> {
        let first = self.chunk()?;
        let (mut chunk, mut used) = (first, 0);
        for segment in burst.segments(index) {
            let mut at = 0;
            while at < segment.len() {
                if used == self.size {
                    let Some(next) = self.chunk() else {
                        self.give_back(first);
                        return None;
                    };
                    self.links[chunk as usize] = next;
                    (chunk, used) = (next, 0);
                }
                let len = (segment.len() - at).min(self.size - used);
                let to = self.pool.piece(chunk as usize * self.size + used, len);
                segment.part(at, len).copy_to(to);
                at += len;
                used += len;
            }
        }
        Some(first)
    }

    fn add_to(&self, first: u32, mut left: usize, out: &mut Burst) {
        let mut chunk = first;
        while left > 0 {
            let len = left.min(self.size);
            out.add_segment(self.pool.segment(chunk as usize * self.size, len));
            left -= len;
            chunk = self.links[chunk as usize];
        }
    }

    fn chunk(&mut self) -> Option<u32> {
        if let Some(chunk) = self.free.pop() {
            self.links[chunk as usize] = NONE;
            return Some(chunk);
        }
        let fresh = self.links.len();
        if fresh == self.capacity {
            return None;
        }
        // Reserved when it was made: neither allocates.
        self.links.push(NONE);
        self.frames.push(Held::default());
        Some(fresh as u32)
    }

    fn give_back(&mut self, first: u32) {
        let mut chunk = first;
        while chunk != NONE {
            let next = self.links[chunk as usize];
            self.free.push(chunk);
            chunk = next;
        }
    }

    /// The byte of a frame, to be changed.
    fn byte(&mut self, first: u32, mut at: usize) -> Option<&mut u8> {
        let mut chunk = first;
        while at >= self.size {
            at -= self.size;
            chunk = self.links[chunk as usize];
            if chunk == NONE {
                return None;
            }
        }
        self.pool
            .piece(chunk as usize * self.size + at, 1)
            .first_mut()
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Held {
    release: u64,
    sequence: u64,
    arrival: u64,
    header: VnetHeader,
    len: u32,
    next: u32,
    verdict: Verdict,
}

/// What [`Hold::take`] tells of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    pub(crate) release: u64,
    pub(crate) arrival: u64,
    pub(crate) verdict: Verdict,
}

/// How a frame is to be kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) arrival: u64,
    pub(crate) release: u64,
    pub(crate) verdict: Verdict,
}

impl Hold {
    /// Room for `bytes` of frames of any length, but of short ones for no more than one in 128
    /// bytes. `None` when there is not so much memory.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let room = usize::try_from(bytes.max(LEAST)).ok()?;
        let counts = [room / 128, room / 512, room / MAX_FRAME];
        if counts.iter().any(|count| *count >= IN_WHOLE as usize) {
            return None;
        }
        let mut hold = Hold {
            short: Shelf::new(SHORT, counts[0])?,
            long: Shelf::new(LONG, counts[1])?,
            whole: Wholes::new(counts[2])?,
            room: bytes,
            first: NONE,
            last: NONE,
            early: BinaryHeap::new(),
            sequence: 0,
            waiting: 0,
            bytes: 0,
            lent: [NONE; MAX_BURST],
            lent_len: 0,
        };
        hold.early.try_reserve_exact(counts.iter().sum()).ok()?;
        Some(hold)
    }

    /// Whether it has room for as many bytes as the other.
    pub(crate) fn is_as_large_as(&self, other: &Hold) -> bool {
        self.room >= other.room
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Frames that wait.
    pub(crate) fn frames(&self) -> u64 {
        self.waiting
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the next frame is due.
    #[inline]
    pub(crate) fn next_release(&self) -> Option<u64> {
        let straight = (self.first != NONE).then(|| self.held(self.first).release);
        let early = self.early.peek().map(|Reverse((release, ..))| *release);
        match (straight, early) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes the frame at `index` out of a burst that nobody sends any more: with its memory, if
    /// that is better than a copy. `false` when there is no room.
    pub(crate) fn take_over(&mut self, burst: &mut Burst, index: usize, wait: Wait) -> bool {
        let plain = wait.verdict.corrupted.is_none() && !wait.verdict.marked;
        if plain
            && burst.frame_len(index) >= WHOLE
            && let Some(frame) = self.whole.take_in(burst, index)
        {
            self.add(frame | IN_WHOLE, burst, index, wait);
            return true;
        }
        self.keep(burst, index, wait, None)
    }

    /// Copies the frame at `index` in, with a bit flipped if so wished, and what `mend` makes of
    /// its first bytes. `false` when there is no room.
    pub(crate) fn keep(
        &mut self,
        burst: &Burst,
        index: usize,
        wait: Wait,
        mend: Option<fn(&mut [u8])>,
    ) -> bool {
        let len = burst.frame_len(index);
        let (shelf, mark) = if len <= SHORT {
            (&mut self.short, 0)
        } else {
            (&mut self.long, IN_LONG)
        };
        let Some(first) = shelf.copy_in(burst, index) else {
            return false;
        };
        if let Some(mend) = mend {
            let at = first as usize * shelf.size;
            mend(shelf.pool.piece(at, len.min(shelf.size)));
        }
        if let Some(bit) = wait.verdict.corrupted
            && let Some(byte) = shelf.byte(first, (bit / 8) as usize)
        {
            *byte ^= 1 << (bit % 8);
        }
        self.add(first | mark, burst, index, wait);
        true
    }

    fn add(&mut self, frame: u32, burst: &Burst, index: usize, wait: Wait) {
        let len = burst.frame_len(index);
        let sequence = self.sequence;
        *self.held_mut(frame) = Held {
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

    fn held(&self, frame: u32) -> &Held {
        let frames = match frame & (IN_LONG | IN_WHOLE) {
            0 => &self.short.frames,
            IN_LONG => &self.long.frames,
            _ => &self.whole.frames,
        };
        &frames[(frame & !(IN_LONG | IN_WHOLE)) as usize]
    }

    fn held_mut(&mut self, frame: u32) -> &mut Held {
        let frames = match frame & (IN_LONG | IN_WHOLE) {
            0 => &mut self.short.frames,
            IN_LONG => &mut self.long.frames,
            _ => &mut self.whole.frames,
        };
        &mut frames[(frame & !(IN_LONG | IN_WHOLE)) as usize]
    }

    fn give_back(&mut self, frame: u32) {
        let number = frame & !(IN_LONG | IN_WHOLE);
        match frame & (IN_LONG | IN_WHOLE) {
            0 => self.short.give_back(number),
            IN_LONG => self.long.give_back(number),
            _ => self.whole.give_back(number),
        }
    }

    fn enqueue(&mut self, frame: u32) {
        let Held {
            release, sequence, ..
        } = *self.held(frame);
        if self.last == NONE {
            self.first = frame;
            self.last = frame;
        } else if self.held(self.last).release <= release {
            self.held_mut(self.last).next = frame;
            self.last = frame;
        } else {
            self.early.push(Reverse((release, sequence, frame)));
        }
    }

    /// Appends the next frame to `out`, which has room for it, if it is due. It lies here until
    /// [`Hold::reclaim`].
    pub(crate) fn take(&mut self, now: u64, out: &mut Burst) -> Option<Due> {
        if self.lent_len == MAX_BURST {
            return None;
        }
        let straight = (self.first != NONE).then(|| {
            let held = self.held(self.first);
            (held.release, held.sequence)
        });
        let early = self.early.peek();
        let early = early.map(|Reverse((release, sequence, _))| (*release, *sequence));
        let from_early = match (straight, early) {
            (Some(straight), Some(early)) => early < straight,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if straight.into_iter().chain(early).min()?.0 > now {
            return None;
        }
        let frame = if from_early {
            self.early.pop()?.0.2
        } else {
            self.first
        };
        let held = *self.held(frame);
        if !from_early {
            self.first = held.next;
            if self.first == NONE {
                self.last = NONE;
            }
        }
        self.lend(frame, &held, out);
        Some(Due {
            release: held.release,
            arrival: held.arrival,
            verdict: held.verdict,
        })
    }

    fn lend(&mut self, frame: u32, held: &Held, out: &mut Burst) {
        let (number, len) = (frame & !(IN_LONG | IN_WHOLE), held.len as usize);
        match frame & (IN_LONG | IN_WHOLE) {
            0 => self.short.add_to(number, len, out),
            IN_LONG => self.long.add_to(number, len, out),
            _ => {
                if let Some((memory, at)) = &self.whole.places[number as usize] {
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

    /// Takes back the memory of what was handed out.
    pub(crate) fn reclaim(&mut self) {
        for lent in 0..self.lent_len {
            self.give_back(self.lent[lent]);
        }
        self.lent_len = 0;
    }

    /// Forgets every frame that waits; returns how many those were.
    pub(crate) fn purge(&mut self) -> u64 {
        let purged = self.waiting;
        while self.first != NONE {
            let frame = self.first;
            self.first = self.held(frame).next;
            self.give_back(frame);
        }
        self.last = NONE;
        while let Some(Reverse((_, _, frame))) = self.early.pop() {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(release: u64) -> Wait {
        Wait {
            arrival: 0,
            release,
            verdict: Verdict::default(),
        }
    }

    fn burst_of(frame: &[u8]) -> Burst {
        let mut burst = Burst::new();
        assert!(burst.push(VnetHeader::default(), frame));
        burst
    }

    #[test]
    fn a_frame_comes_back_when_it_is_due_and_as_it_was() {
        let mut hold = Hold::new(1 << 20).unwrap();
        let frame: Vec<u8> = (0..65_000_u32).map(|byte| byte as u8).collect();
        assert!(hold.keep(&burst_of(&frame), 0, wait(100), None));
        let mut out = Burst::new();
        assert!(hold.take(99, &mut out).is_none());
        assert_eq!(hold.take(100, &mut out).unwrap().release, 100);
        assert_eq!(out.to_vec(0), frame);
        assert!(hold.is_empty());
    }

    #[test]
    fn a_long_frame_takes_its_memory_with_it_and_gives_it_back() {
        let mut hold = Hold::new(1 << 20).unwrap();
        let spare = hold.whole.spare.len();
        let mut burst = Burst::new();
        for round in 0..100_u8 {
            assert!(burst.push(VnetHeader::default(), &vec![round; 60_000]));
            let at = burst.segments(0)[0].start();
            assert!(hold.take_over(&mut burst, 0, wait(0)));
            burst.clear();
            // Whoever comes next writes elsewhere.
            assert!(burst.push(VnetHeader::default(), &vec![255; 60_000]));
            burst.clear();
            let mut out = Burst::new();
            hold.take(0, &mut out).unwrap();
            assert_eq!(out.segments(0)[0].start(), at);
            assert_eq!(out.to_vec(0), vec![round; 60_000]);
            hold.reclaim();
        }
        assert_eq!(hold.whole.spare.len(), spare);
        assert!(hold.is_empty());
    }

    #[test]
    fn a_bit_is_flipped_in_the_copy_alone() {
        let mut hold = Hold::new(1 << 20).unwrap();
        let burst = burst_of(&[0; 1514]);
        let mut corrupt = wait(0);
        corrupt.verdict.corrupted = Some(1000 * 8 + 3);
        assert!(hold.keep(&burst, 0, corrupt, None));
        let mut out = Burst::new();
        hold.take(0, &mut out).unwrap();
        let mut expected = vec![0; 1514];
        expected[1000] = 8;
        assert_eq!(out.to_vec(0), expected);
        assert_eq!(burst.to_vec(0), vec![0; 1514]);
    }

    #[test]
    fn full_it_refuses_and_reclaimed_it_takes_again() {
        let mut hold = Hold::new(1).unwrap();
        let burst = burst_of(&[7; 1514]);
        let mut kept = 0;
        while hold.keep(&burst, 0, wait(kept), None) {
            kept += 1;
        }
        assert!(kept * 1514 >= LEAST);
        let mut out = Burst::new();
        hold.take(0, &mut out).unwrap();
        assert!(!hold.keep(&burst, 0, wait(9), None), "it is still lent");
        hold.reclaim();
        assert!(hold.keep(&burst, 0, wait(9), None));
        assert_eq!(hold.purge(), kept);
        assert!(hold.next_release().is_none());
    }

    proptest! {
        /// Whatever the times: all come out once, in order of time and then of arrival.
        #[test]
        fn frames_leave_in_order(times in prop::collection::vec(0_u64..50, 1..200)) {
            let mut hold = Hold::new(1 << 20).unwrap();
            for (number, time) in times.iter().enumerate() {
                let mut frame = [0; 60];
                frame[..8].copy_from_slice(&(number as u64).to_be_bytes());
                prop_assert!(hold.keep(&burst_of(&frame), 0, wait(*time), None));
            }
            let mut expected: Vec<_> = times.iter().copied().zip(0_u64..).collect();
            expected.sort_unstable();
            let mut seen = Vec::new();
            let mut out = Burst::new();
            for now in 0..50 {
                while let Some(due) = hold.take(now, &mut out) {
                    let frame = out.to_vec(0);
                    let number = u64::from_be_bytes(frame[..8].try_into().unwrap());
                    seen.push((due.release, number));
                    out.clear();
                    hold.reclaim();
                }
                prop_assert!(hold.next_release().is_none_or(|next| next > now));
            }
            prop_assert_eq!(seen, expected);
        }
    }
}

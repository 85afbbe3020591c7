//! Frames that were copied into small chunks of memory: [`Chunks`].

use super::NONE;
use super::memory::Quota;
use crate::frame::Burst;
use crate::sys::pool::Pool;

/// Bytes of a chunk. A frame takes as many as it needs: of one of 257 bytes, 127 are lost, and of no
/// frame more.
pub(super) const CHUNK: usize = 128;

/// Memory in chunks. Chunks that are freed together are used together again, in the same order; so most
/// frames lie in one piece.
pub(super) struct Chunks {
    pool: Pool,
    capacity: u32,
    /// By chunk: the next one of the same frame, or the next free one.
    links: Vec<u32>,
    free: u32,
    free_count: u32,
}

/// Why a frame was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The hold is full.
    Hold,
    /// The budget of all holds is used up.
    Budget,
}

impl Chunks {
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let mut chunks = Chunks {
            pool: Pool::try_new(CHUNK.checked_mul(capacity)?).ok()?,
            capacity: u32::try_from(capacity).ok().filter(|count| *count < NONE)?,
            links: Vec::new(),
            free: NONE,
            free_count: 0,
        };
        chunks.pool.prefer_huge_pages();
        chunks.links.try_reserve_exact(capacity).ok()?;
        Some(chunks)
    }

    /// Copies a frame in; returns its first chunk.
    pub(super) fn copy_in(
        &mut self,
        burst: &Burst,
        index: usize,
        quota: &mut Quota,
    ) -> Result<u32, Full> {
        let len = burst.frame_len(index);
        let first = self.allot(len.div_ceil(CHUNK).max(1) as u32, quota)?;
        let mut run = self.run(first, len);
        let mut at = 0;
        for segment in burst.segments(index) {
            let mut from = 0;
            while from < segment.len() {
                if at == run.len {
                    run = self.run(run.next, len);
                    at = 0;
                }
                let part = (segment.len() - from).min(run.len - at);
                let to = self.pool.piece(run.at + at, part);
                from += segment.part(from, part).copy_to(to);
                at += part;
            }
        }
        Ok(first)
    }

    /// Adds the segments of a frame of `left` bytes to a burst.
    pub(super) fn add_to(&self, first: u32, mut left: usize, out: &mut Burst) {
        let mut chunk = first;
        while left > 0 {
            let run = self.run(chunk, left);
            out.add_segment(self.pool.segment(run.at, run.len.min(left)));
            left -= run.len.min(left);
            chunk = run.next;
        }
    }

    pub(super) fn give_back(&mut self, first: u32) {
        let (mut last, mut count) = (first, 1);
        while self.links[last as usize] != NONE {
            last = self.links[last as usize];
            count += 1;
        }
        self.links[last as usize] = self.free;
        self.free = first;
        self.free_count += count;
    }

    /// The first bytes of a frame, at most a chunk, to be changed.
    pub(super) fn head(&mut self, first: u32, len: usize) -> &mut [u8] {
        self.pool.piece(first as usize * CHUNK, len.min(CHUNK))
    }

    /// The byte at `at` of a frame, to be changed.
    pub(super) fn byte(&mut self, first: u32, mut at: usize) -> Option<&mut u8> {
        let mut chunk = first;
        while at >= CHUNK {
            at -= CHUNK;
            chunk = *self.links.get(chunk as usize)?;
        }
        if chunk == NONE {
            return None;
        }
        self.pool.piece(chunk as usize * CHUNK + at, 1).first_mut()
    }

    /// Takes chunks and links them: free ones first, then some that were never used.
    fn allot(&mut self, count: u32, quota: &mut Quota) -> Result<u32, Full> {
        let reused = count.min(self.free_count);
        let fresh = count - reused;
        let begin = self.links.len() as u32;
        if fresh > self.capacity - begin {
            return Err(Full::Hold);
        }
        if fresh > 0 && !quota.allows(u64::from(fresh) * (CHUNK + size_of::<u32>()) as u64) {
            return Err(Full::Budget);
        }
        // The capacity is there since it was made: this does not allocate.
        self.links.extend(begin + 1..=begin + fresh);
        let fresh_first = if fresh > 0 {
            self.links[(begin + fresh - 1) as usize] = NONE;
            begin
        } else {
            NONE
        };
        if reused == 0 {
            return Ok(fresh_first);
        }
        let first = self.free;
        let mut last = first;
        for _ in 1..reused {
            last = self.links[last as usize];
        }
        self.free = self.links[last as usize];
        self.free_count -= reused;
        self.links[last as usize] = fresh_first;
        Ok(first)
    }

    /// The chunks of a frame from `chunk` on that lie one behind the other, as many as `len` bytes need.
    fn run(&self, chunk: u32, len: usize) -> Run {
        let (mut last, mut bytes) = (chunk, CHUNK);
        let mut next = self.links[last as usize];
        while bytes < len && next == last + 1 {
            last = next;
            bytes += CHUNK;
            next = self.links[last as usize];
        }
        Run {
            at: chunk as usize * CHUNK,
            len: bytes,
            next,
        }
    }
}

/// Memory of a frame in one piece.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: usize,
    len: usize,
    /// The chunk where the frame goes on.
    next: u32,
}

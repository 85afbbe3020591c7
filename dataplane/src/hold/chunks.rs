//! Frames that were copied into chunks of one size: [`Chunks`].

use super::{HeldFrame, NONE};
use crate::frame::Burst;
use crate::sys::pool::Pool;

/// Memory in chunks of one size.
pub(super) struct Chunks {
    pub(super) pool: Pool,
    pub(super) size: usize,
    capacity: usize,
    /// By chunk: the next one of the same frame.
    links: Vec<u32>,
    /// By the frame's first chunk.
    pub(super) frames: Vec<HeldFrame>,
    free: Vec<u32>,
}

impl Chunks {
    pub(super) fn new(size: usize, capacity: usize) -> Option<Self> {
        let mut chunks = Chunks {
            pool: Pool::try_new(size.checked_mul(capacity)?).ok()?,
            size,
            capacity,
            links: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
        };
        chunks.pool.prefer_huge_pages();
        chunks.links.try_reserve_exact(capacity).ok()?;
        chunks.frames.try_reserve_exact(capacity).ok()?;
        chunks.free.try_reserve_exact(capacity).ok()?;
        Some(chunks)
    }

    /// Copies a frame in; returns its first chunk. `None` when too few chunks are free.
    pub(super) fn copy_in(&mut self, burst: &Burst, index: usize) -> Option<u32> {
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

    pub(super) fn add_to(&self, first: u32, mut left: usize, out: &mut Burst) {
        let mut chunk = first;
        while left > 0 {
            let len = left.min(self.size);
            out.add_segment(self.pool.segment(chunk as usize * self.size, len));
            left -= len;
            chunk = self.links[chunk as usize];
        }
    }

    pub(super) fn chunk(&mut self) -> Option<u32> {
        if let Some(chunk) = self.free.pop() {
            self.links[chunk as usize] = NONE;
            return Some(chunk);
        }
        let fresh = self.links.len();
        if fresh == self.capacity {
            return None;
        }
        // Both have the capacity since they were made: neither allocates.
        self.links.push(NONE);
        self.frames.push(HeldFrame::default());
        Some(fresh as u32)
    }

    pub(super) fn give_back(&mut self, first: u32) {
        let mut chunk = first;
        while chunk != NONE {
            let next = self.links[chunk as usize];
            self.free.push(chunk);
            chunk = next;
        }
    }

    /// The byte at `at` of a frame, to be changed.
    pub(super) fn byte(&mut self, first: u32, mut at: usize) -> Option<&mut u8> {
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

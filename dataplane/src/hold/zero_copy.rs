//! Long frames that wait in the memory in which they were received: [`ZeroCopyFrames`].

use super::memory::Quota;
use crate::frame::Burst;
use crate::sys::pool::Pool;

/// The memory of frames that were moved here with it.
pub(super) struct ZeroCopyFrames {
    /// By frame: its memory, and where in it the frame begins.
    pub(super) memory: Vec<Option<(Pool, usize)>>,
    free: Vec<u32>,
    /// Memory to give to a burst in exchange for a frame's.
    pub(super) spare: Vec<Pool>,
}

impl ZeroCopyFrames {
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let mut kept = ZeroCopyFrames {
            memory: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
        };
        kept.memory.try_reserve_exact(capacity).ok()?;
        kept.free.try_reserve_exact(capacity).ok()?;
        // Never more than `capacity`: each exchange takes one and later gives one back.
        kept.spare.try_reserve_exact(capacity).ok()?;
        for _ in 0..capacity {
            kept.spare.push(Burst::new_stride().ok()?);
        }
        Some(kept)
    }

    /// Takes a frame in with its memory. `None` when it does not lie in the burst's own, or there is no
    /// memory to give in exchange.
    pub(super) fn take_in(
        &mut self,
        burst: &mut Burst,
        index: usize,
        quota: &mut Quota,
    ) -> Option<u32> {
        if !burst.is_own(index) {
            return None;
        }
        // The memory that was given away last is the first to be given away again: only one that is
        // given away for the first time will be touched for the first time.
        let is_fresh = self.free.is_empty();
        if is_fresh && (self.spare.is_empty() || !quota.allows(Burst::STRIDE_BYTES)) {
            return None;
        }
        let spare = self.spare.pop()?;
        match burst.exchange(index, spare) {
            Ok(memory) => {
                let frame = self.free.pop().unwrap_or(self.memory.len() as u32);
                if frame as usize == self.memory.len() {
                    // Does not allocate: the capacity is that of the spare ones.
                    self.memory.push(None);
                }
                self.memory[frame as usize] = Some(memory);
                Some(frame)
            }
            Err(spare) => {
                self.spare.push(spare);
                None
            }
        }
    }

    pub(super) fn give_back(&mut self, frame: u32) {
        if let Some((memory, _)) = self.memory[frame as usize].take() {
            self.spare.push(memory);
            self.free.push(frame);
        }
    }
}

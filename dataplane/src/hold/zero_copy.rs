//! Long frames that wait in the memory in which they were received: [`ZeroCopyFrames`].

use super::HeldFrame;
use crate::frame::Burst;
use crate::sys::pool::Pool;

/// Frames that were moved here with their memory.
pub(super) struct ZeroCopyFrames {
    pub(super) frames: Vec<HeldFrame>,
    /// By frame: its memory, and where in it the frame begins.
    pub(super) memory: Vec<Option<(Pool, usize)>>,
    free: Vec<u32>,
    /// Memory to give to a burst in exchange for a frame's.
    pub(super) spare: Vec<Pool>,
}

impl ZeroCopyFrames {
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let mut kept = ZeroCopyFrames {
            frames: Vec::new(),
            memory: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
        };
        kept.frames.try_reserve_exact(capacity).ok()?;
        kept.memory.try_reserve_exact(capacity).ok()?;
        kept.free.try_reserve_exact(capacity).ok()?;
        // Never more than `capacity`: each exchange takes one and later gives one back.
        kept.spare.try_reserve_exact(capacity).ok()?;
        for _ in 0..capacity {
            kept.spare.push(Burst::new_stride().ok()?);
        }
        Some(kept)
    }

    pub(super) fn take_in(&mut self, burst: &mut Burst, index: usize) -> Option<u32> {
        let spare = self.spare.pop()?;
        match burst.exchange(index, spare) {
            Ok(memory) => {
                let frame = self.free.pop().unwrap_or(self.frames.len() as u32);
                if frame as usize == self.frames.len() {
                    // Does not allocate: the capacity is that of the spare ones.
                    self.frames.push(HeldFrame::default());
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

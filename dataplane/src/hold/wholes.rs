//! Long frames that wait in the memory that they came in: [`Wholes`].

use super::Held;
use crate::frame::Burst;
use crate::sys::pool::Pool;

/// Frames that took their memory with them.
pub(super) struct Wholes {
    pub(super) frames: Vec<Held>,
    /// By frame: its memory, and where in it the frame begins.
    pub(super) places: Vec<Option<(Pool, usize)>>,
    free: Vec<u32>,
    /// Memory to give for theirs.
    pub(super) spare: Vec<Pool>,
}

impl Wholes {
    pub(super) fn new(capacity: usize) -> Option<Self> {
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

    pub(super) fn take_in(&mut self, burst: &mut Burst, index: usize) -> Option<u32> {
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

    pub(super) fn give_back(&mut self, frame: u32) {
        if let Some((memory, _)) = self.places[frame as usize].take() {
            self.spare.push(memory);
            self.free.push(frame);
        }
    }
}

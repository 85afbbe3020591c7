//! Frames as bytes that can be copied and not borrowed: [`FrameBytes`].

use crate::sync::{AtomicU64, Ordering};

/// The bytes of a frame, from the destination address on, without FCS. They may lie in a guest's
/// memory, where the guest can change them at any time: so they can only be copied.
pub(crate) trait FrameBytes {
    /// The frame's length in bytes.
    fn len(&self) -> usize;

    /// Copies the bytes from `at` on, as many as there are and fit; returns how many.
    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize;

    /// Copies the frame from its first byte on to words, in the machine's byte order; the last word
    /// may get fewer than eight bytes.
    #[inline]
    fn copy_words(&self, to: &[AtomicU64]) {
        copy_in_steps(self, to);
    }
}

/// [`FrameBytes::copy_words`] by way of the stack.
pub(super) fn copy_in_steps(frame: &(impl FrameBytes + ?Sized), to: &[AtomicU64]) {
    // Zeroing the buffer costs time, and most frames are short.
    match to.len() {
        0..=8 => copy_steps::<8>(frame, to),
        9..=32 => copy_steps::<32>(frame, to),
        _ => copy_steps::<256>(frame, to),
    }
}

fn copy_steps<const WORDS: usize>(frame: &(impl FrameBytes + ?Sized), to: &[AtomicU64]) {
    let mut bytes = [[0; 8]; WORDS];
    for (step, words) in to.chunks(WORDS).enumerate() {
        let bytes = &mut bytes[..words.len()];
        frame.copy_out(step * WORDS * 8, bytes.as_flattened_mut());
        for (word, bytes) in words.iter().zip(bytes) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }
}

impl FrameBytes for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        let from = self.get(at..).unwrap_or_default();
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        len
    }
}

impl<F: FrameBytes + ?Sized> FrameBytes for &F {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        (**self).copy_out(at, to)
    }
}

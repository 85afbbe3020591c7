//! Adding up bytes for the Internet checksum (RFC 1071), wherever they lie.

use super::pool::Segment;

/// Bytes that one step of the loop takes: what a compiler turns into a few vector additions.
const BLOCK: usize = 64;

/// The sum of `bytes` as 16-bit words in this machine's byte order, not folded: a sum of
/// 32-bit words is one too once folded (RFC 1071, 2). An odd byte at the end counts as a word
/// whose second byte is 0.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    // SAFETY: a slice is readable in its whole length.
    unsafe { sum_at(bytes.as_ptr(), bytes.len()) }
}

/// As [`sum`], of the bytes in a segment at this moment: a guest may be changing them.
#[inline]
pub(crate) fn sum_of_segment(segment: &Segment) -> u64 {
    // SAFETY: readable by the segment's own promise.
    unsafe { sum_at(segment.start(), segment.len()) }
}

/// # Safety
/// `len` bytes at `start` must be readable. They may change meanwhile: only the sum depends on
/// them. `len` must be below 2^32, so that no sum overflows.
#[expect(clippy::cast_ptr_alignment, reason = "read as unaligned")]
unsafe fn sum_at(start: *const u8, len: usize) -> u64 {
    let mut lanes = [0u64; BLOCK / 4];
    let (blocks, mut at) = (len / BLOCK, len / BLOCK * BLOCK);
    // SAFETY: every read ends at `len` at the latest, and is made as an unaligned one.
    unsafe {
        for block in 0..blocks {
            let from = start.add(block * BLOCK).cast::<[u32; BLOCK / 4]>();
            for (lane, word) in lanes.iter_mut().zip(from.read_unaligned()) {
                *lane += u64::from(word);
            }
        }
        let mut total: u64 = lanes.iter().sum();
        while len - at >= 4 {
            total += u64::from(start.add(at).cast::<u32>().read_unaligned());
            at += 4;
        }
        if len - at >= 2 {
            total += u64::from(start.add(at).cast::<u16>().read_unaligned());
            at += 2;
        }
        if at < len {
            total += u64::from(u16::from_ne_bytes([start.add(at).read(), 0]));
        }
        total
    }
}

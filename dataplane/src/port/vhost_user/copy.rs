//! Copies into and out of guest memory. The guest may change its bytes at any moment: whatever a
//! decision depends on is copied out once and checked, and only the copy is used.
#![allow(unsafe_code)]

use std::ptr;

use crate::frame::{Burst, VnetHeader};

/// Consecutive bytes of a guest's memory, as one of its descriptors names them.
#[derive(Clone, Copy)]
pub(super) struct GuestBuffer {
    pub(super) start: *mut u8,
    pub(super) len: u32,
}

// SAFETY: an address and a length. Its queue follows it while it holds the memory.
unsafe impl Send for GuestBuffer {}

impl GuestBuffer {
    pub(super) const NONE: GuestBuffer = GuestBuffer {
        start: ptr::null_mut(),
        len: 0,
    };
}

/// Prefetches a cache line that will be read soon.
#[inline(always)]
pub(super) fn prefetch_to_read(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it faults on no address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches a cache line, exclusively, that will be written soon.
#[inline(always)]
pub(super) fn prefetch_to_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint; it faults on no address. PREFETCHW is a no-op on CPUs
    // without it, since the first x86-64.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Reads a virtio-net header without `num_buffers`.
///
/// # Safety
/// [`VnetHeader::LEN`] bytes at `from` must be mapped.
#[inline(always)]
pub(super) unsafe fn read_header(from: *const u8) -> VnetHeader {
    // SAFETY: as the caller promises; any bytes are a header.
    VnetHeader(unsafe { from.cast::<[u8; VnetHeader::LEN]>().read_unaligned() })
}

/// The header as it goes into a receive buffer: without the flags that have a meaning only from a
/// guest to a device, and with `num_buffers`.
#[inline(always)]
fn header_bytes(header: &VnetHeader, num_buffers: u16) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..VnetHeader::LEN].copy_from_slice(&header.for_guest().0);
    bytes[10..].copy_from_slice(&num_buffers.to_le_bytes());
    bytes
}

/// Writes header and frame into one buffer that is long enough for both.
///
/// # Safety
/// `header_len` and the frame's bytes must be mapped at `to`; `header_len` is 10 or 12.
#[inline(always)]
pub(super) unsafe fn write_whole(to: *mut u8, header_len: usize, burst: &Burst, index: usize) {
    let bytes = header_bytes(burst.header(index), 1);
    // SAFETY: as the caller promises. The pieces of a frame are as long together as it is.
    // They may overlap `to` only when one guest is at both ends of the cable, or two share
    // memory: then they get a mixture of their own bytes, which `copy` allows for.
    unsafe {
        if header_len == 12 {
            to.cast::<[u8; 12]>().write_unaligned(bytes);
        } else {
            to.cast::<[u8; 10]>()
                .write_unaligned(burst.header(index).for_guest().0);
        }
        let mut to = to.add(header_len);
        for segment in burst.segments(index) {
            copy(to, segment.start(), segment.len());
            to = to.add(segment.len());
        }
    }
}

/// Writes a virtio-net header.
///
/// # Safety
/// `header_len`, 10 or 12, bytes must be mapped at `to`.
pub(super) unsafe fn write_header(
    to: *mut u8,
    header_len: usize,
    header: &VnetHeader,
    num_buffers: u16,
) {
    let bytes = header_bytes(header, num_buffers);
    // SAFETY: as the caller promises.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, header_len.min(bytes.len())) };
}

/// Writes header and frame into buffers that together are long enough, in order.
///
/// # Safety
/// Every buffer must be mapped in its whole length; `header_len` is 10 or 12.
pub(super) unsafe fn write_scattered(
    buffers: &[GuestBuffer],
    header_len: usize,
    num_buffers: u16,
    burst: &Burst,
    index: usize,
) {
    let header = header_bytes(burst.header(index), num_buffers);
    let frame = burst.segments(index).iter();
    let pieces = frame.map(|segment| (segment.start(), segment.len()));
    let mut buffers = buffers.iter().copied();
    let mut buffer = GuestBuffer::NONE;
    for (mut from, mut left) in std::iter::once((header.as_ptr(), header_len)).chain(pieces) {
        while left > 0 {
            if buffer.len == 0 {
                let Some(next) = buffers.next() else { return };
                buffer = next;
                continue;
            }
            let len = left.min(buffer.len as usize);
            // SAFETY: `len` bytes are left in the buffer, which is mapped as the caller
            // promises, and in the piece, which is the header or a valid segment.
            unsafe {
                copy(buffer.start, from, len);
                buffer.start = buffer.start.add(len);
                from = from.add(len);
            }
            buffer.len -= len as u32;
            left -= len;
        }
    }
}

/// Small frames are many, and calling memcpy for each costs as much as the copy.
///
/// # Safety
/// `len` bytes must be mapped at both. They may overlap, or a guest may change them: the bytes
/// that are copied are unspecified then, nothing else is.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // Two moves of a fixed length that overlap cover every length in between.
    macro_rules! overlapping {
        ($bytes:literal) => {{
            let first = from.cast::<[u8; $bytes]>().read_unaligned();
            let last = from
                .add(len - $bytes)
                .cast::<[u8; $bytes]>()
                .read_unaligned();
            to.cast::<[u8; $bytes]>().write_unaligned(first);
            to.add(len - $bytes)
                .cast::<[u8; $bytes]>()
                .write_unaligned(last);
        }};
    }
    // SAFETY: every access is inside the `len` bytes; unaligned accesses are made as such.
    // `ptr::copy` is memmove: overlapping is allowed.
    unsafe {
        match len {
            16..32 => overlapping!(16),
            32..64 => overlapping!(32),
            64..=128 => overlapping!(64),
            _ => ptr::copy(from, to, len), // very small, or worth the call
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole_and_nothing_beside_it() {
        let from: Vec<u8> = (0..300u16).map(|byte| (byte % 251) as u8).collect();
        for len in 0..=290 {
            let mut to = vec![255; 300];
            // SAFETY: both are 300 bytes long.
            unsafe { copy(to.as_mut_ptr().add(3), from.as_ptr(), len) };
            assert_eq!(to[..3], [255; 3]);
            assert_eq!(to[3..3 + len], from[..len]);
            assert!(to[3 + len..].iter().all(|byte| *byte == 255), "{len}");
        }
    }

    #[test]
    fn a_frame_is_spread_over_rooms_of_any_length() {
        let mut burst = Burst::new();
        let frame: Vec<u8> = (0..100).collect();
        burst.push(VnetHeader::default(), &frame);
        for length in 1..=50 {
            let mut memory = vec![vec![0u8; length]; 112usize.div_ceil(length)];
            let buffers: Vec<GuestBuffer> = memory
                .iter_mut()
                .map(|buffer| GuestBuffer {
                    start: buffer.as_mut_ptr(),
                    len: length as u32,
                })
                .collect();
            // SAFETY: the buffers are vectors of their lengths.
            unsafe { write_scattered(&buffers, 12, 3, &burst, 0) };
            let flat = memory.concat();
            assert_eq!(flat[..12], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
            assert_eq!(flat[12..112], frame[..]);
        }
    }
}

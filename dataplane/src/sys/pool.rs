//! Memory that frames lie in, and pieces of it: [`Pool`] and [`Segment`].
//!
//! A frame is a list of segments. They point into a pool or into a guest's memory, which the
//! guest may change at any moment. So no reference is ever made of a segment: its bytes are only
//! copied out or handed to the kernel.

use std::fmt;
use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::sync::{AtomicU64, Ordering};

const HUGE_PAGE: usize = 2 << 20;

/// Zeroed memory of a fixed size, given out in pieces: pages of its own, touched only as they
/// are used, and given back when it is dropped.
pub(crate) struct Pool {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: a pool owns its memory; its segments are used by the thread that has its burst.
unsafe impl Send for Pool {}

impl Pool {
    /// # Panics
    /// When `bytes` is 0, or the system is out of memory.
    pub(crate) fn new(bytes: usize) -> Self {
        match Self::try_new(bytes) {
            Ok(pool) => pool,
            Err(error) => panic!("{bytes} bytes of memory: {error}"),
        }
    }

    /// # Errors
    /// When the system has too little memory, or `bytes` is 0.
    pub(crate) fn try_new(bytes: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: new pages, wherever the kernel has room: nothing refers to them yet.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Pool { start, size: bytes })
    }

    /// Asks for huge pages, so that using much of it costs fewer page faults. Without effect where
    /// the kernel has none.
    pub(crate) fn prefer_huge_pages(&self) {
        let first = self.address();
        let begin = first.next_multiple_of(HUGE_PAGE);
        let end = (first + self.size) / HUGE_PAGE * HUGE_PAGE;
        if begin < end {
            let at = self.start.as_ptr().wrapping_add(begin - first);
            // SAFETY: whole pages of our own memory, whose contents the advice does not change.
            let _ = unsafe { madvise(at.cast(), end - begin, Advice::LinuxHugepage) };
        }
    }

    /// The piece of `len` bytes at `at`, to write to. Segments of other pieces stay valid.
    ///
    /// # Panics
    /// When the piece is not inside the pool.
    pub(crate) fn piece(&mut self, at: usize, len: usize) -> &mut [u8] {
        self.check(at, len);
        // SAFETY: inside the pool, initialised, and borrowed for as long as `self` is; the
        // segments that overlap it are only read through after the borrow ended.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(at), len) }
    }

    /// The piece of `len` bytes at `at` as a segment.
    ///
    /// # Panics
    /// When the piece is not inside the pool.
    pub(crate) fn segment(&self, at: usize, len: usize) -> Segment {
        self.check(at, len);
        // SAFETY: inside the pool, which lives as long as the burst that it belongs to.
        unsafe { Segment::new(self.start.as_ptr().add(at), len as u32) }
    }

    /// The address of its first byte, which begins a page.
    pub(crate) fn address(&self) -> usize {
        self.start.as_ptr() as usize
    }

    /// Where a segment begins, if it lies in this pool.
    pub(crate) fn offset_of(&self, segment: &Segment) -> Option<usize> {
        let at = (segment.start as usize).checked_sub(self.address())?;
        (at < self.size && segment.len() <= self.size - at).then_some(at)
    }

    fn check(&self, at: usize, len: usize) {
        let inside = at.checked_add(len).is_some_and(|end| end <= self.size);
        assert!(inside, "{len} bytes at {at} are not in the pool");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: mapped with this very size, and nothing refers to it any more.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
        debug_assert!(result.is_ok());
    }
}

/// Words that are 0, in memory that is touched only as they are written to.
#[cfg(not(loom))]
pub(crate) fn zero_words(count: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0_u64; count].into_boxed_slice());
    // SAFETY: an atomic word has size and, where pointers have 64 bits, alignment of a plain one;
    // every bit pattern is valid for both; and the box has no other owner.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

/// loom's atomics are more than a word.
#[cfg(loom)]
pub(crate) fn zero_words(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(not(target_pointer_width = "64"))]
compile_error!("ikv-fabric needs a machine with pointers of 64 bits");

/// Consecutive bytes of a frame. Valid from the moment that a port adds it to a burst of frames until
/// that burst is cleared, which happens before the port gets its buffers back.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    start: *const u8,
    len: u32,
}

// SAFETY: an address and a length. What lies there may be read from any thread for as long
// as the segment is valid.
unsafe impl Send for Segment {}

impl Segment {
    /// A segment of 0 bytes.
    pub(crate) const EMPTY: Segment = Segment {
        start: NonNull::dangling().as_ptr(),
        len: 0,
    };

    /// # Safety
    /// `len` bytes from `start` on must be mapped and readable until the burst that the
    /// segment is added to is cleared. They may change meanwhile.
    #[inline]
    pub(crate) unsafe fn new(start: *const u8, len: u32) -> Self {
        Segment { start, len }
    }

    #[inline]
    pub(crate) fn start(&self) -> *const u8 {
        self.start
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The part of `len` bytes that begins at `at`.
    ///
    /// # Panics
    /// When the segment is shorter.
    #[inline]
    pub(crate) fn part(&self, at: usize, len: usize) -> Segment {
        assert!(
            at <= self.len() && len <= self.len() - at,
            "a part is inside"
        );
        Segment {
            // SAFETY: at most one past the end of what the segment spans.
            start: unsafe { self.start.add(at) },
            len: len as u32,
        }
    }

    /// Copies the first bytes out, as many as both have; returns how many.
    #[inline]
    pub(crate) fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len().min(to.len());
        // SAFETY: readable by the segment's own promise. The destination is ours alone, so
        // the two do not overlap. A guest that writes meanwhile gets its own mixture across.
        unsafe { std::ptr::copy_nonoverlapping(self.start, to.as_mut_ptr(), len) };
        len
    }

    /// Copies the first bytes out to words, in the machine's byte order, as many as both have.
    #[inline]
    pub(crate) fn copy_to_words(&self, to: &[AtomicU64]) {
        let eight = |at: usize| {
            debug_assert!(at + 8 <= self.len());
            // SAFETY: as in `copy_to`; both callers are inside.
            unsafe { self.start.add(at).cast::<[u8; 8]>().read() }
        };
        let whole = (self.len() / 8).min(to.len());
        for (index, word) in to[..whole].iter().enumerate() {
            word.store(u64::from_ne_bytes(eight(index * 8)), Ordering::Relaxed);
        }
        let (Some(word), rest @ 1..) = (to.get(whole), self.len() % 8) else {
            return;
        };
        let mut bytes = [0; 8];
        if whole == 0 {
            self.copy_to(&mut bytes);
        } else {
            // Reads some bytes of the word before again: faster than a copy of variable length.
            let last = u64::from_le_bytes(eight(self.len() - 8));
            bytes = (last >> (64 - 8 * rest)).to_le_bytes();
        }
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }

    /// For the kernel to read from.
    #[inline]
    pub(crate) fn io_vector(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.start.cast_mut().cast(),
            iov_len: self.len(),
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:p}", self.len, self.start)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_readable_while_another_piece_is_written() {
        let mut pool = Pool::new(256);
        pool.piece(0, 64).fill(1);
        let first = pool.segment(0, 64);
        pool.piece(64, 64).fill(2);
        let mut copy = [0; 64];
        assert_eq!(first.part(60, 4).copy_to(&mut copy), 4);
        assert_eq!(copy[..5], [1, 1, 1, 1, 0]);
    }

    #[test]
    fn words_have_what_bytes_have() {
        let mut pool = Pool::new(128);
        pool.piece(0, 128)
            .copy_from_slice(&std::array::from_fn::<u8, 128, _>(|at| at as u8 + 1));
        for (len, words) in (0..=40).flat_map(|len| (0..6).map(move |words| (len, words))) {
            let segment = pool.segment(3, len);
            let mut bytes = vec![0; words * 8];
            segment.copy_to(&mut bytes);
            let to: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
            segment.copy_to_words(&to);
            let copied = to
                .iter()
                .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
            assert_eq!(
                copied.collect::<Vec<u8>>(),
                bytes,
                "{len} bytes, {words} words"
            );
        }
    }

    #[test]
    #[should_panic(expected = "not in the pool")]
    fn no_piece_leaves_the_pool() {
        Pool::new(64).piece(usize::MAX, 2);
    }
}

//! A guest's memory: files that the back end maps too, here mapped as one range of bytes.
//!
//! The only file of this crate that may contain `unsafe`. Its interface is safe: the back end may
//! change every byte at any time, so all accesses are atomic, and every offset is checked.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// The guest address of the memory's first byte. Neither 0 nor the front end's own address
/// (`USER_BASE`), so a back end that confuses the two kinds of address finds no memory.
pub const GUEST_BASE: u64 = 0x4000_0000;

/// The user address of the memory's first byte. A front end names its rings by user addresses.
const USER_BASE: u64 = 0x5500_0000_0000;

/// Bytes of a huge page. The size of a file of huge pages is a multiple of it.
const HUGE: usize = 2 << 20;

/// Bytes of a normal page.
const PAGE: usize = 4096;

/// Properties of a guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Number of files, 1 to 8, mapped one after another. Each is a region of its own for the back
    /// end, and a buffer may cross from one to the next.
    pub regions: usize,
    /// Whether to use huge pages, if the machine has enough of them.
    pub huge: bool,
    /// Whether the files are sealed against shrinking. An honest front end seals them to protect
    /// its back end; a hostile one does not (see [`Memory::truncate`]).
    pub sealed: bool,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        MemoryOptions {
            regions: 1,
            huge: false,
            sealed: true,
        }
    }
}

/// One file of the memory.
#[derive(Debug)]
pub(crate) struct Region {
    file: OwnedFd,
    /// Offset of the file's first byte in the memory.
    pub(crate) at: usize,
    /// Bytes of the file.
    pub(crate) size: usize,
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Memory that a guest shares with its back end. Offsets count from its first byte. Its numbers are
/// little-endian, as virtio 1.x requires.
///
/// Every accessor panics for bytes outside the memory and for a number that is not aligned to its
/// size: offsets come from this crate or a test, never from the back end.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
    regions: Vec<Region>,
}

// SAFETY: the mapping belongs to this value alone, lives as long, and is accessed by atomics.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Makes at least `size` bytes of zeroed memory.
    ///
    /// # Errors
    /// When the kernel is out of memory, descriptors or address space.
    pub fn new(size: usize, options: MemoryOptions) -> Result<Memory, Errno> {
        if options.huge
            && let Ok(memory) = Self::with_page_size(size, options, HUGE)
        {
            return Ok(memory);
        }
        Self::with_page_size(size, options, PAGE)
    }

    fn with_page_size(size: usize, options: MemoryOptions, page: usize) -> Result<Memory, Errno> {
        let count = options.regions.clamp(1, 8);
        let part = size.div_ceil(count).next_multiple_of(page);
        let reserved = part * count + HUGE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                reserved,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let skipped = start.addr().next_multiple_of(HUGE) - start.addr();
        let base = start.wrapping_byte_add(skipped).cast::<u8>();
        // SAFETY: both ends belong to the reservation just made, and nothing uses them yet.
        unsafe {
            if skipped > 0 {
                munmap(start, skipped)?;
            }
            if skipped < HUGE {
                munmap(base.wrapping_add(part * count).cast(), HUGE - skipped)?;
            }
        }
        // From here on `Memory`'s drop unmaps the reservation if a step fails.
        let mut memory = Memory {
            base: NonNull::new(base).ok_or(Errno::NOMEM)?,
            len: part * count,
            regions: Vec::new(),
        };
        for index in 0..count {
            let file = memory_file(part, options.sealed, page == HUGE)?;
            // SAFETY: replaces a part of the reservation above, which this value owns and nothing
            // uses yet.
            unsafe {
                mmap(
                    base.wrapping_add(index * part).cast(),
                    part,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::SHARED | MapFlags::FIXED,
                    &file,
                    0,
                )
            }?;
            memory.regions.push(Region {
                file,
                at: index * part,
                size: part,
            });
        }
        Ok(memory)
    }

    /// Bytes of the memory: a whole number of pages for each region.
    pub fn size(&self) -> usize {
        self.len
    }

    /// The memory's files, in the order of their offsets.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The guest address of the byte at this offset: descriptors contain guest addresses.
    pub fn guest_address(&self, at: usize) -> u64 {
        GUEST_BASE + at as u64
    }

    /// The user address of the byte at this offset: messages of the front end contain those.
    pub(crate) fn user_address(at: usize) -> u64 {
        USER_BASE + at as u64
    }

    /// Removes a region's pages while the back end has them mapped, for tests of hostile guests.
    /// Do not access the region afterwards: the kernel kills a process that does (SIGBUS).
    ///
    /// # Errors
    /// `EPERM` when the memory is sealed.
    pub fn truncate(&self, region: usize) -> Result<(), Errno> {
        ftruncate(&self.regions[region].file, 0)
    }

    /// The byte at offset `at`.
    pub fn u8(&self, at: usize) -> &AtomicU8 {
        // SAFETY: `checked` returns a pointer into the mapping, which lives as long as `self`, and
        // aligned for the type. Within this program only atomics access the bytes; other
        // processes that access them are outside the program's memory model.
        unsafe { AtomicU8::from_ptr(self.checked(at, 1, 1)) }
    }

    /// The number at offset `at`, in the memory's byte order (little-endian).
    #[inline]
    pub fn u16(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU16::from_ptr(self.checked(at, 2, 2).cast()) }
    }

    /// The number at offset `at`, in the memory's byte order (little-endian).
    #[inline]
    pub fn u32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU32::from_ptr(self.checked(at, 4, 4).cast()) }
    }

    /// The number at offset `at`, in the memory's byte order (little-endian).
    #[inline]
    pub fn u64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU64::from_ptr(self.checked(at, 8, 8).cast()) }
    }

    /// Copies `bytes` into the memory, from offset `at` on.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        let (head, words, tail) = self.split(at, bytes.len());
        for (index, byte) in bytes[..head].iter().enumerate() {
            self.u8(at + index).store(*byte, Ordering::Relaxed);
        }
        for (word, bytes) in words.iter().zip(bytes[head..].chunks_exact(8)) {
            let bytes = bytes.try_into().expect("chunks of eight");
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        for (index, byte) in bytes.iter().enumerate().skip(bytes.len() - tail) {
            self.u8(at + index).store(*byte, Ordering::Relaxed);
        }
    }

    /// Fills `bytes` from the memory, from offset `at` on.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        let (head, words, tail) = self.split(at, bytes.len());
        let len = bytes.len();
        for (index, byte) in bytes[..head].iter_mut().enumerate() {
            *byte = self.u8(at + index).load(Ordering::Relaxed);
        }
        for (word, bytes) in words.iter().zip(bytes[head..].chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        for (index, byte) in bytes.iter_mut().enumerate().skip(len - tail) {
            *byte = self.u8(at + index).load(Ordering::Relaxed);
        }
    }

    /// Whether the memory contains `bytes` at offset `at`.
    pub fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        let (head, words, tail) = self.split(at, bytes.len());
        let single = |index: usize| self.u8(at + index).load(Ordering::Relaxed) == bytes[index];
        let differ =
            words
                .iter()
                .zip(bytes[head..].chunks_exact(8))
                .fold(0, |differ, (word, bytes)| {
                    let bytes = bytes.try_into().expect("chunks of eight");
                    differ | (word.load(Ordering::Relaxed) ^ u64::from_ne_bytes(bytes))
                });
        differ == 0 && (0..head).all(single) && (bytes.len() - tail..bytes.len()).all(single)
    }

    /// Begins to load the cache line at offset `at`, so that a later access finds it in the cache.
    #[inline]
    pub(crate) fn prefetch(&self, at: usize) {
        let pointer = self.checked(at, 1, 1);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that the program could observe.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(pointer.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = pointer;
    }

    /// Divides a range for word-wise access: the number of bytes before the first multiple of 8,
    /// the aligned words, and the number of bytes after them.
    fn split(&self, at: usize, len: usize) -> (usize, &[AtomicU64], usize) {
        let head = (at.next_multiple_of(8) - at).min(len);
        let count = (len - head) / 8;
        let tail = len - head - count * 8;
        if count == 0 {
            self.checked(at, len, 1);
            return (head, &[], tail);
        }
        #[expect(clippy::cast_ptr_alignment, reason = "checked to be a multiple of 8")]
        let first = self
            .checked(at + head, count * 8 + tail, 8)
            .cast::<AtomicU64>();
        self.checked(at, head, 1);
        // SAFETY: `checked` ensures that the words are aligned and lie in the mapping, which lives
        // as long as `self`. An AtomicU64 has the memory layout of a u64.
        (
            head,
            unsafe { std::slice::from_raw_parts(first, count) },
            tail,
        )
    }

    /// The address of offset `at`, after checks of bounds and alignment.
    #[inline]
    fn checked(&self, at: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            at.is_multiple_of(align) && at <= self.len && len <= self.len - at,
            "offset outside the guest's memory, or not aligned"
        );
        // SAFETY: the assertion keeps the result within the mapping.
        unsafe { self.base.as_ptr().add(at) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and no reference into it outlives `self`.
        // The result is ignored: nothing could be done about a failure.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A file in memory that other processes can map.
fn memory_file(size: usize, sealed: bool, huge: bool) -> Result<OwnedFd, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB;
    }
    let file = memfd_create("ikv-guest", flags)?;
    ftruncate(&file, size as u64)?;
    if sealed {
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_back_equal_at_every_alignment() {
        let options = MemoryOptions {
            regions: 3,
            ..MemoryOptions::default()
        };
        let memory = Memory::new(10_000, options).unwrap();
        assert_eq!((memory.regions().len(), memory.len), (3, 12_288));
        for (at, len) in [
            (0, 0),
            (1, 3),
            (4090, 20),
            (8, 64),
            (8191, 1),
            (8185, 23),
            (12_287, 1),
        ] {
            let bytes: Vec<u8> = (0..len).map(|index| (index * 7 + at) as u8).collect();
            memory.write(at, &bytes);
            let mut copy = vec![0; len];
            memory.read(at, &mut copy);
            assert_eq!(copy, bytes, "{at}");
            assert!(memory.holds(at, &bytes));
            if let Some(last) = len.checked_sub(1) {
                copy[last] ^= 1;
                assert!(!memory.holds(at, &copy), "{at}");
            }
        }
        memory
            .u32(4)
            .store(0x0102_0304_u32.to_le(), Ordering::Relaxed);
        assert!(memory.holds(4, &[4, 3, 2, 1]));
    }

    #[test]
    #[should_panic(expected = "outside the guest's memory")]
    fn an_offset_outside_the_memory_panics() {
        let memory = Memory::new(4096, MemoryOptions::default()).unwrap();
        memory.write(4095, &[0; 2]);
    }

    #[test]
    fn sealed_memory_cannot_shrink() {
        let sealed = Memory::new(4096, MemoryOptions::default()).unwrap();
        assert_eq!(sealed.truncate(0), Err(Errno::PERM));
        let options = MemoryOptions {
            sealed: false,
            ..MemoryOptions::default()
        };
        Memory::new(4096, options).unwrap().truncate(0).unwrap();
    }
}

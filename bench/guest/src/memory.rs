//! A guest's memory: files that a back end maps too, seen here as one range of bytes.
//!
//! The only file of this crate that may hold `unsafe`. What it offers is safe: the other side
//! may change every byte at any time, so all access is by atomics, and every offset is checked.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Where the memory begins for the guest. Not 0, and not [`USER_BASE`]: a back end that takes
/// one kind of address for the other finds nothing.
pub const GUEST_BASE: u64 = 0x4000_0000;

/// Where it begins as "user address", by which a front end names its rings.
pub const USER_BASE: u64 = 0x5500_0000_0000;

/// Size of a huge page, and what sizes of huge-page files are multiples of.
const HUGE: usize = 2 << 20;

/// Size of a small page.
const PAGE: usize = 4096;

/// How the memory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Files that it consists of, 1 to 8, one behind the other: each is a region of its own for
    /// the back end, and buffers may lie across two.
    pub regions: usize,
    /// From huge pages where the machine has enough of them.
    pub huge: bool,
    /// The files cannot be made shorter later. A front end that wants its back end to live seals
    /// them; a hostile one does not (see [`Memory::truncate`]).
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
pub struct Region {
    file: OwnedFd,
    /// Offset of its first byte in the memory.
    pub at: usize,
    /// Its size in bytes.
    pub size: usize,
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// See the module's text. Offsets count from the memory's first byte; numbers are little-endian
/// there, as virtio 1.x wants them.
///
/// Every accessor panics when it is asked for bytes outside of the memory, or for a number that
/// is not aligned to its size: offsets come from this crate or a test, never from the back end.
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
    /// When the kernel has no memory, descriptors or address space left.
    pub fn new(size: usize, options: MemoryOptions) -> Result<Memory, Errno> {
        if options.huge
            && let Ok(memory) = Self::of_pages(size, options, HUGE)
        {
            return Ok(memory);
        }
        Self::of_pages(size, options, PAGE)
    }

    fn of_pages(size: usize, options: MemoryOptions, page: usize) -> Result<Memory, Errno> {
        let count = options.regions.clamp(1, 8);
        let part = size.div_ceil(count).next_multiple_of(page);
        let reserved = part * count + HUGE;
        // SAFETY: a new anonymous mapping at a place that the kernel chooses touches nothing.
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
        // SAFETY: both ends of the reservation were just mapped and nobody uses them.
        unsafe {
            if skipped > 0 {
                munmap(start, skipped)?;
            }
            if skipped < HUGE {
                munmap(base.wrapping_add(part * count).cast(), HUGE - skipped)?;
            }
        }
        // From here on the memory unmaps itself if something fails.
        let mut memory = Memory {
            base: NonNull::new(base).ok_or(Errno::NOMEM)?,
            len: part * count,
            regions: Vec::new(),
        };
        for index in 0..count {
            let file = file_of(part, options.sealed, page == HUGE)?;
            // SAFETY: replaces a part of the reservation above, which is ours and unused.
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

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The files that it consists of, in the order of their offsets.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// What the guest calls the byte at this offset.
    pub fn guest_address(&self, at: usize) -> u64 {
        GUEST_BASE + at as u64
    }

    /// What a front end calls it in its messages.
    pub fn user_address(&self, at: usize) -> u64 {
        USER_BASE + at as u64
    }

    /// Takes a region's pages away under the back end's eyes, for tests of that. Whoever
    /// touches them afterwards is killed by SIGBUS: here, do not.
    ///
    /// # Errors
    /// `EPERM` when the memory is sealed.
    pub fn truncate(&self, region: usize) -> Result<(), Errno> {
        ftruncate(&self.regions[region].file, 0)
    }

    /// The byte at an offset.
    pub fn u8(&self, at: usize) -> &AtomicU8 {
        // SAFETY: `checked` returned a pointer into the mapping, which lives as long as `self`,
        // aligned for the type. Other processes use the bytes too; they are no part of this
        // program, and within it only atomics do.
        unsafe { AtomicU8::from_ptr(self.checked(at, 1, 1)) }
    }

    /// The number at an offset, in the memory's byte order.
    #[inline]
    pub fn u16(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU16::from_ptr(self.checked(at, 2, 2).cast()) }
    }

    /// The number at an offset, in the memory's byte order.
    #[inline]
    pub fn u32(&self, at: usize) -> &AtomicU32 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU32::from_ptr(self.checked(at, 4, 4).cast()) }
    }

    /// The number at an offset, in the memory's byte order.
    #[inline]
    pub fn u64(&self, at: usize) -> &AtomicU64 {
        // SAFETY: as in `u8`.
        unsafe { AtomicU64::from_ptr(self.checked(at, 8, 8).cast()) }
    }

    /// Copies bytes into the memory.
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

    /// Copies bytes out of the memory.
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

    /// Whether the memory holds these bytes.
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

    /// Begins to load the cache line at an offset, so that it is there when it is needed.
    #[inline]
    pub fn prefetch(&self, at: usize) {
        let pointer = self.checked(at, 1, 1);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing that the program could see.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(pointer.cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = pointer;
    }

    /// Bytes up to the first multiple of 8, the words behind, and the bytes behind those.
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
        // SAFETY: `checked` saw to it that the words lie in the mapping, which lives as long as
        // `self`, and are aligned. An AtomicU64 has the memory layout of a u64.
        (
            head,
            unsafe { std::slice::from_raw_parts(first, count) },
            tail,
        )
    }

    #[inline]
    fn checked(&self, at: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            at.is_multiple_of(align) && at <= self.len && len <= self.len - at,
            "offset outside of the guest's memory, or not aligned"
        );
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(at) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives `self`.
        // Nothing could be done about a failure.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn file_of(size: usize, sealed: bool, huge: bool) -> Result<OwnedFd, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB;
    }
    let file = memfd_create("ikv-bench-guest", flags)?;
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
    fn bytes_come_back_wherever_they_lie() {
        let options = MemoryOptions {
            regions: 3,
            ..MemoryOptions::default()
        };
        let memory = Memory::new(10_000, options).unwrap();
        assert_eq!((memory.regions().len(), memory.len()), (3, 12_288));
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
    #[should_panic(expected = "outside of the guest's memory")]
    fn no_offset_leads_outside() {
        let memory = Memory::new(4096, MemoryOptions::default()).unwrap();
        memory.write(4095, &[0; 2]);
    }

    #[test]
    fn sealed_memory_stays() {
        let sealed = Memory::new(4096, MemoryOptions::default()).unwrap();
        assert_eq!(sealed.truncate(0), Err(Errno::PERM));
        let options = MemoryOptions {
            sealed: false,
            ..MemoryOptions::default()
        };
        Memory::new(4096, options).unwrap().truncate(0).unwrap();
    }
}

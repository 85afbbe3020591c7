//! A guest's memory as its front end shares it: [`GuestMemory`].

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{fcntl_get_seals, fstat};

use crate::sys::guarded_memory::SharedMapping;

/// Most regions that a guest's memory may have. QEMU needs two or three, and one more for each
/// memory module that is plugged in later.
pub const MAX_REGIONS: usize = 32;

/// Most memory that one front end may share, in bytes, so that no front end uses up the address space.
const MAX_BYTES: u64 = 1 << 40;

/// One region, as in the messages SET_MEM_TABLE and ADD_MEM_REG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSpec {
    /// Its first address as the guest sees it.
    pub guest: u64,
    /// Bytes, at least 1.
    pub size: u64,
    /// Its first address in the front end; the addresses of rings are of this kind.
    pub user: u64,
    /// Offset in the file at which it begins, in bytes.
    pub offset: u64,
}

/// Why the memory that a front end shares is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// A region is empty, wraps around the address space, or exceeds what one front end may share.
    #[error("memory region at {0:#x} is empty, too large, or goes beyond the last address")]
    Extent(u64),
    /// Two regions share addresses.
    #[error("memory regions at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// More than [`MAX_REGIONS`].
    #[error("more than {MAX_REGIONS} memory regions")]
    TooMany,
    /// The file is not in memory: reading it might wait for a disk or for another process.
    #[error(
        "memory region at {0:#x} is not a file in memory: give QEMU memory-backend-memfd, or memory-backend-file with a path in /dev/shm or on hugetlbfs, and share=on"
    )]
    NoMemoryFile(u64),
    /// The file ends before the region does.
    #[error("memory region at {guest:#x} needs {needed} bytes of a file that has {found}")]
    TooShort {
        /// The region.
        guest: u64,
        /// Bytes up to the region's end.
        needed: u64,
        /// The file's size.
        found: u64,
    },
    /// The kernel refused to map the region.
    #[error("cannot map memory region at {guest:#x}: {source}")]
    Map {
        /// The region.
        guest: u64,
        /// The kernel's reason.
        source: io::Error,
    },
}

#[derive(Debug, Clone)]
struct Region {
    spec: RegionSpec,
    file: FileIdentity,
    /// The address at which its first byte is mapped.
    start: *mut u8,
    /// Keeps it mapped.
    _mapping: Arc<SharedMapping>,
}

/// Device and inode: the same for every descriptor of one file.
type FileIdentity = (u64, u64);

/// A guest's memory, mapped: up to [`MAX_REGIONS`] regions that do not overlap. The guest chooses the
/// addresses that it passes us, so each is checked whenever it is used.
///
/// The guest and its front end write to it at any time: two reads of one address may differ. They may
/// even truncate the file; then the memory is lost.
#[derive(Debug)]
pub struct GuestMemory {
    regions: Vec<Region>,
    lost: Arc<AtomicBool>,
}

// SAFETY: the pointers in it are addresses in mappings that it keeps alive; it gives them out
// and never dereferences them.
unsafe impl Send for GuestMemory {}
// SAFETY: as above, and nothing in it changes.
unsafe impl Sync for GuestMemory {}

impl GuestMemory {
    /// Maps the regions that a front end shares, each from its file.
    ///
    /// # Errors
    /// When a region contradicts another one or its file; nothing is mapped then.
    pub fn map(regions: Vec<(RegionSpec, File)>) -> Result<GuestMemory, MemoryError> {
        let empty = GuestMemory {
            regions: Vec::new(),
            lost: Arc::default(),
        };
        regions
            .into_iter()
            .try_fold(empty, |memory, (spec, file)| memory.with(spec, &file))
    }

    /// The same memory with one region added.
    ///
    /// # Errors
    /// As [`GuestMemory::map`].
    pub fn with(&self, spec: RegionSpec, file: &File) -> Result<GuestMemory, MemoryError> {
        self.admit(&spec)?;
        let mut regions = self.regions.clone();
        regions.push(map_region(spec, file, &self.lost)?);
        regions.sort_by_key(|region| region.spec.guest);
        Ok(GuestMemory {
            regions,
            lost: self.lost.clone(),
        })
    }

    /// Whether it has this very region already: all four values and the file are the same.
    pub fn has(&self, spec: &RegionSpec, file: impl AsFd) -> bool {
        let known = self.regions.iter().find(|region| region.spec == *spec);
        known.is_some_and(|known| {
            fstat(file).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == known.file)
        })
    }

    /// The same memory without one region. The offset is not compared: front ends leave it out. `None`
    /// when the memory has no such region.
    pub fn without(&self, spec: &RegionSpec) -> Option<GuestMemory> {
        let key = |spec: &RegionSpec| (spec.guest, spec.size, spec.user);
        let mut regions = self.regions.clone();
        let place = regions
            .iter()
            .position(|region| key(&region.spec) == key(spec))?;
        regions.remove(place);
        Some(GuestMemory {
            regions,
            lost: self.lost.clone(),
        })
    }

    /// The longest contiguous piece from the guest's address `guest` on, at most `len` bytes of
    /// it. `None` when `guest` is outside the guest's memory.
    #[inline]
    pub(super) fn at(&self, guest: u64, len: u32) -> Option<(*mut u8, u32)> {
        for region in &self.regions {
            let within = guest.wrapping_sub(region.spec.guest);
            if within < region.spec.size {
                let piece = u64::from(len).min(region.spec.size - within);
                return Some((region.start.wrapping_add(within as usize), piece as u32));
            }
        }
        None
    }

    /// Where the `len` bytes at the front end's address `user` are mapped. `None` unless all of them
    /// are in one region and the first is at a multiple of `align`.
    pub(super) fn by_user(&self, user: u64, len: usize, align: usize) -> Option<*mut u8> {
        let region = self
            .regions
            .iter()
            .find(|region| user.wrapping_sub(region.spec.user) < region.spec.size)?;
        let within = user - region.spec.user;
        let start = region.start.wrapping_add(within as usize);
        let fits = len as u64 <= region.spec.size - within;
        (fits && (start as usize).is_multiple_of(align)).then_some(start)
    }

    /// Whether part of the memory has gone, most likely because the front end truncated its file. Any
    /// of it may read as zeros then.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    fn admit(&self, spec: &RegionSpec) -> Result<(), MemoryError> {
        let known = self.regions.iter().map(|region| region.spec.size);
        let total = known.fold(spec.size, u64::saturating_add);
        let wraps = [spec.guest, spec.user, spec.offset]
            .iter()
            .any(|first| first.checked_add(spec.size).is_none());
        if spec.size == 0 || total > MAX_BYTES || wraps {
            return Err(MemoryError::Extent(spec.guest));
        }
        if self.regions.len() == MAX_REGIONS {
            return Err(MemoryError::TooMany);
        }
        for Region { spec: other, .. } in &self.regions {
            if overlap(spec.guest, spec.size, other.guest, other.size)
                || overlap(spec.user, spec.size, other.user, other.size)
            {
                return Err(MemoryError::Overlap(other.guest, spec.guest));
            }
        }
        Ok(())
    }
}

/// Whether it is a file in memory: on tmpfs (which includes memfd) or hugetlbfs, the only file systems
/// with seals. Any other file could make us wait: for a disk or, on FUSE, for as long as a hostile
/// front end likes. This query itself never waits.
pub(crate) fn is_memory_file(file: impl AsFd) -> bool {
    fcntl_get_seals(file).is_ok()
}

fn overlap(a: u64, a_size: u64, b: u64, b_size: u64) -> bool {
    a < b + b_size && b < a + a_size
}

fn map_region(
    spec: RegionSpec,
    file: &File,
    lost: &Arc<AtomicBool>,
) -> Result<Region, MemoryError> {
    let guest = spec.guest;
    if !is_memory_file(file) {
        return Err(MemoryError::NoMemoryFile(guest));
    }
    let failed = |source| MemoryError::Map { guest, source };
    let stat = fstat(file).map_err(|errno| failed(errno.into()))?;
    let (needed, found) = (spec.offset + spec.size, stat.st_size.cast_unsigned());
    if needed > found {
        return Err(MemoryError::TooShort {
            guest,
            needed,
            found,
        });
    }
    let page = page_size(stat.st_blksize.cast_unsigned());
    let Range { start, end } = whole_pages(spec.offset, needed, page);
    let mapping = SharedMapping::new(file, start, (end - start) as usize, lost.clone());
    let mapping = Arc::new(mapping.map_err(failed)?);
    Ok(Region {
        spec,
        file: (stat.st_dev, stat.st_ino),
        start: mapping.start().wrapping_add((spec.offset - start) as usize),
        _mapping: mapping,
    })
}

/// The page size of a file, of which offset and length of a mapping must be multiples: hugetlbfs
/// reports it as the block size.
fn page_size(block: u64) -> u64 {
    let page = rustix::param::page_size() as u64;
    if block.is_power_of_two() {
        block.max(page)
    } else {
        page
    }
}

fn whole_pages(first: u64, end: u64, page: u64) -> Range<u64> {
    first / page * page..end.next_multiple_of(page)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn file(bytes: u64) -> File {
        let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, bytes).unwrap();
        file
    }

    fn spec(guest: u64, size: u64, user: u64, offset: u64) -> RegionSpec {
        RegionSpec {
            guest,
            size,
            user,
            offset,
        }
    }

    fn refused(specs: &[RegionSpec]) -> MemoryError {
        let regions = specs.iter().map(|spec| (*spec, file(0x4000))).collect();
        GuestMemory::map(regions).unwrap_err()
    }

    #[allow(unsafe_code)]
    fn byte((start, len): (*mut u8, u32)) -> u8 {
        assert_ne!(len, 0);
        // SAFETY: the piece is mapped, and the test keeps its memory.
        unsafe { start.read_volatile() }
    }

    /// Two regions that touch in the guest and not in the front end; the second begins in the
    /// midst of a page of its file.
    fn two_regions() -> GuestMemory {
        let (first, mut second) = (file(0x2000), file(0x4000));
        second.seek(SeekFrom::Start(0x1100)).unwrap();
        second.write_all(&[42]).unwrap();
        GuestMemory::map(vec![
            (spec(0x12000, 0x2000, 0x900_0000, 0x1100), second),
            (spec(0x10000, 0x2000, 0x500_0000, 0), first),
        ])
        .unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn guest_addresses_are_cut_where_regions_end() {
        let memory = two_regions();
        let len = |guest, len| memory.at(guest, len).map(|piece| piece.1);
        assert_eq!(len(0x10000, 100), Some(100));
        assert_eq!(len(0x11ff0, 100), Some(16));
        assert_eq!(len(0x12000, 0x2000), Some(0x2000));
        assert_eq!(len(0x13fff, u32::MAX), Some(1));
        for outside in [0, 0xffff, 0x14000, u64::MAX] {
            assert_eq!(len(outside, 1), None);
        }
        assert_eq!(byte(memory.at(0x12000, 1).unwrap()), 42);
        assert_eq!(byte(memory.at(0x11fff, 1).unwrap()), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn rings_lie_in_one_region_and_aligned() {
        let memory = two_regions();
        let has = |user, len, align| memory.by_user(user, len, align).is_some();
        assert!(has(0x500_0000, 0x2000, 16));
        assert!(!has(0x500_0000, 0x2001, 16));
        assert!(!has(0x500_1fff, 2, 1));
        assert!(has(0x500_1fff, 1, 1));
        assert!(!has(0x500_0008, 1, 16));
        assert!(has(0x900_0000, 0x2000, 16));
        assert!(!has(0x4ff_ffff, 1, 1));
        assert!(!has(0x900_0000, usize::MAX, 1));
        assert_eq!(
            memory.by_user(0x900_0000, 1, 1),
            memory.at(0x12000, 1).map(|piece| piece.0)
        );
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn contradictions_are_refused() {
        let fine = spec(0x10000, 0x1000, 0x500_0000, 0);
        let cases = [
            (spec(0x20000, 0, 0x600_0000, 0), "empty"),
            (spec(u64::MAX - 1, 0x1000, 0x600_0000, 0), "beyond"),
            (spec(0x20000, 0x1000, u64::MAX - 1, 0), "beyond"),
            (spec(0x20000, 0x1000, 0x600_0000, u64::MAX - 1), "beyond"),
            (spec(0x20000, MAX_BYTES + 1, 0x600_0000, 0), "too large"),
            (spec(0x10fff, 0x1000, 0x600_0000, 0), "overlap"),
            (spec(0xf001, 0x1000, 0x600_0000, 0), "overlap"),
            (spec(0x20000, 0x1000, 0x500_0fff, 0), "overlap"),
            (
                spec(0x20000, 0x1000, 0x600_0000, 0x3001),
                "16385 bytes of a file that has 16384",
            ),
        ];
        for (bad, sentence) in cases {
            for order in [[fine, bad], [bad, fine]] {
                let error = refused(&order).to_string();
                assert!(error.contains(sentence), "{sentence}: {error}");
            }
        }
        let many: Vec<_> = (0..33).map(|n| spec(n << 16, 1, n << 32, 0)).collect();
        assert!(matches!(refused(&many), MemoryError::TooMany));
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn only_memory_files_are_mapped() {
        let disk = File::open(std::env::current_exe().unwrap()).unwrap();
        let zero = File::open("/dev/zero").unwrap();
        for file in [disk, zero] {
            let error = GuestMemory::map(vec![(spec(0, 1, 0, 0), file)]).unwrap_err();
            assert!(matches!(error, MemoryError::NoMemoryFile(0)), "{error}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn regions_come_and_go() {
        let memory = two_regions();
        let third = spec(0x80000, 0x1000, 0x100_0000, 0);
        let more = memory.with(third, &file(0x1000)).unwrap();
        assert!(more.at(0x80000, 1).is_some());
        let without_offset = spec(0x12000, 0x2000, 0x900_0000, 0);
        let less = more.without(&without_offset).unwrap();
        drop((memory, more));
        assert!(less.at(0x12000, 1).is_none());
        assert_eq!(byte(less.at(0x10000, 1).unwrap()), 0);
        assert!(less.without(&without_offset).is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn a_region_is_known_by_its_values_and_its_file() {
        let first = file(0x2000);
        let region = spec(0x10000, 0x1000, 0x500_0000, 0x1000);
        let memory = GuestMemory::map(vec![(region, first.try_clone().unwrap())]).unwrap();
        assert!(memory.has(&region, &first));
        assert!(!memory.has(&region, file(0x2000)), "another file");
        for other in [
            spec(0x10001, 0x1000, 0x500_0000, 0x1000),
            spec(0x10000, 0x1001, 0x500_0000, 0x1000),
            spec(0x10000, 0x1000, 0x500_0001, 0x1000),
            spec(0x10000, 0x1000, 0x500_0000, 0),
        ] {
            assert!(!memory.has(&other, &first));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore)]
    fn truncated_memory_is_lost_and_readable() {
        let file = file(0x4000);
        let copy = file.try_clone().unwrap();
        let memory = GuestMemory::map(vec![(spec(0, 0x4000, 0, 0), file)]).unwrap();
        assert_eq!(byte(memory.at(0x3000, 1).unwrap()), 0);
        assert!(!memory.is_lost());
        ftruncate(&copy, 0x1000).unwrap();
        assert_eq!(byte(memory.at(0x3000, 1).unwrap()), 0);
        assert!(memory.is_lost());
    }
}

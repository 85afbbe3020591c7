//! The split ring (virtio 1.2, 2.7): where its parts are, and each access to them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::descriptor::{Descriptor, Kind};

/// VIRTQ_AVAIL_F_NO_INTERRUPT and VIRTQ_USED_F_NO_NOTIFY.
pub(super) const NO_SIGNAL: u16 = 1;

/// Where the three parts of a split ring are.
#[derive(Debug)]
pub(super) struct SplitRing {
    descriptors: *const [AtomicU64; 2],
    available: *const AtomicU16,
    used: *mut u8,
    pub(super) size: u16,
}

// SAFETY: the pointers lead into a guest's memory, which any thread may use; everything that
// decides is read and written atomically.
unsafe impl Send for SplitRing {}

impl SplitRing {
    /// Bytes of the descriptor table, the available ring, and the used ring.
    pub(super) fn lengths(size: u16) -> [usize; 3] {
        let size = size as usize;
        [16 * size, 6 + 2 * size, 6 + 8 * size]
    }

    /// Their alignments (virtio 1.2, 2.7).
    pub(super) const ALIGNMENTS: [usize; 3] = [16, 2, 4];

    /// # Safety
    /// The three addresses must be aligned to [`SplitRing::ALIGNMENTS`] and mapped for
    /// [`SplitRing::lengths`], for as long as the ring is used; `size` is a power of two.
    pub(super) unsafe fn new(size: u16, [descriptors, available, used]: [*mut u8; 3]) -> Self {
        SplitRing {
            descriptors: descriptors.cast(),
            available: available.cast(),
            used,
            size,
        }
    }

    #[inline(always)]
    pub(super) fn mask(&self) -> u16 {
        self.size - 1
    }

    #[inline(always)]
    pub(super) fn available(&self, field: usize) -> &AtomicU16 {
        debug_assert!(field < 3 + self.size as usize);
        // SAFETY: flags, index, `size` entries and used_event are inside the available ring.
        unsafe { &*self.available.add(field) }
    }

    /// How far the driver got; what it wrote before is visible afterwards.
    #[inline(always)]
    pub(super) fn available_index(&self) -> u16 {
        u16::from_le(self.available(1).load(Ordering::Acquire))
    }

    #[inline(always)]
    pub(super) fn available_flags(&self) -> u16 {
        u16::from_le(self.available(0).load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(super) fn available_entry(&self, index: u16) -> u16 {
        let entry = self.available(2 + (index & self.mask()) as usize);
        u16::from_le(entry.load(Ordering::Relaxed))
    }

    pub(super) fn used_event(&self) -> u16 {
        let field = self.available(2 + self.size as usize);
        u16::from_le(field.load(Ordering::Relaxed))
    }

    /// The descriptor, once. `number` must be below the size.
    #[inline(always)]
    pub(super) fn descriptor(&self, number: u16) -> Descriptor {
        debug_assert!(number < self.size);
        // SAFETY: inside the table.
        let raw = unsafe { &*self.descriptors.add((number & self.mask()) as usize) };
        let raw = [
            raw[0].load(Ordering::Relaxed),
            raw[1].load(Ordering::Relaxed),
        ];
        Descriptor::from_raw(raw, Kind::Split)
    }

    #[inline(always)]
    pub(super) fn set_used(&self, index: u16, head: u16, len: u32) {
        let entry = u64::from(head) | u64::from(len) << 32;
        // SAFETY: entry `index & mask` is inside the used ring. The driver does not look at
        // it before the index says so; if it does, it reads nonsense of its own making.
        unsafe {
            let at = self.used.add(4 + 8 * (index & self.mask()) as usize);
            at.cast::<u64>().write_unaligned(entry.to_le());
        }
    }

    #[inline(always)]
    pub(super) fn used(&self, offset: usize) -> &AtomicU16 {
        debug_assert!(offset.is_multiple_of(2) && offset < 6 + 8 * self.size as usize);
        // SAFETY: an aligned field inside the used ring.
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "2-byte fields of a 4-aligned ring"
        )]
        // SAFETY: as above.
        unsafe {
            &*self.used.add(offset).cast::<AtomicU16>()
        }
    }

    #[inline(always)]
    pub(super) fn publish_used(&self, index: u16) {
        self.used(2).store(index.to_le(), Ordering::Release);
    }

    pub(super) fn used_index(&self) -> u16 {
        u16::from_le(self.used(2).load(Ordering::Relaxed))
    }

    pub(super) fn set_used_flags(&self, flags: u16) {
        self.used(0).store(flags.to_le(), Ordering::Relaxed);
    }

    pub(super) fn set_available_event(&self, index: u16) {
        self.used(4 + 8 * self.size as usize)
            .store(index.to_le(), Ordering::Relaxed);
    }
}

/// Whether the index `event` lies in what was used since `before` (virtio 1.2, 2.7.10).
pub(super) fn needs_event(event: u16, now: u16, before: u16) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

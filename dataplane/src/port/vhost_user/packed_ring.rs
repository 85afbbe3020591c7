//! The packed ring (virtio 1.2, 2.8): where its parts are, and each access to them.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use super::descriptor::{Descriptor, Kind, NEXT};

const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// RING_EVENT_FLAGS_…: when a side wants to be notified.
pub(super) const EVENT_ENABLE: u16 = 0;
pub(super) const EVENT_DISABLE: u16 = 1;
pub(super) const EVENT_DESCRIPTOR: u16 = 2;

/// A position in the ring: the index of a descriptor, and the wrap counter, which flips at every turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RingPosition {
    pub(super) index: u16,
    pub(super) wrap: bool,
}

impl RingPosition {
    pub(super) fn from_bits(bits: u16) -> Self {
        RingPosition {
            index: bits & !(1 << 15),
            wrap: bits >> 15 != 0,
        }
    }

    pub(super) fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// The position `by` descriptors further on, at most one turn.
    #[inline(always)]
    pub(super) fn ahead(self, by: u16, size: u16) -> RingPosition {
        let index = u32::from(self.index) + u32::from(by);
        if index < u32::from(size) {
            return RingPosition {
                index: index as u16,
                ..self
            };
        }
        RingPosition {
            index: (index - u32::from(size)) as u16,
            wrap: !self.wrap,
        }
    }

    #[inline(always)]
    pub(super) fn used_flags(self) -> u16 {
        if self.wrap { AVAILABLE | USED } else { 0 }
    }
}

/// Where the parts of a packed ring are.
#[derive(Debug)]
pub(super) struct PackedRing {
    descriptors: *const [AtomicU64; 2],
    /// When the driver wants to be notified: position and flags.
    driver: *const [AtomicU16; 2],
    /// When we want to be notified.
    device: *const [AtomicU16; 2],
    pub(super) size: u16,
}

// SAFETY: the pointers lead into a guest's memory, which any thread may use; everything that
// decides is read and written atomically.
unsafe impl Send for PackedRing {}

impl PackedRing {
    /// Bytes of the ring and of the two event structures.
    pub(super) fn lengths(size: u16) -> [usize; 3] {
        [16 * size as usize, 4, 4]
    }

    /// Their alignments (virtio 1.2, 2.8.10.1).
    pub(super) const ALIGNMENTS: [usize; 3] = [16, 4, 4];

    /// # Safety
    /// The three addresses must be aligned to [`PackedRing::ALIGNMENTS`] and mapped for
    /// [`PackedRing::lengths`], for as long as the ring is used.
    pub(super) unsafe fn new(size: u16, [descriptors, driver, device]: [*mut u8; 3]) -> Self {
        PackedRing {
            descriptors: descriptors.cast(),
            driver: driver.cast(),
            device: device.cast(),
            size,
        }
    }

    #[inline(always)]
    pub(super) fn words(&self, index: u16) -> &[AtomicU64; 2] {
        assert!(index < self.size, "positions stay inside the ring");
        // SAFETY: inside the ring.
        unsafe { &*self.descriptors.add(index as usize) }
    }

    /// Reads the descriptor at a position, once, if the driver made it available.
    #[inline(always)]
    pub(super) fn available(&self, position: RingPosition) -> Option<Descriptor> {
        let words = self.words(position.index);
        let rest = words[1].load(Ordering::Acquire);
        let flags = (u64::from_le(rest) >> 48) as u16;
        let ours =
            (flags & AVAILABLE != 0) == position.wrap && (flags & USED != 0) != position.wrap;
        ours.then(|| {
            let address = words[0].load(Ordering::Relaxed);
            Descriptor::from_raw([address, rest], Kind::Packed)
        })
    }

    /// Reads a descriptor behind the first of a chain: the driver writes the first one's flags last, so
    /// the whole chain is there.
    pub(super) fn follower(&self, position: RingPosition) -> Descriptor {
        let [address, rest] = self.words(position.index);
        let raw = [
            address.load(Ordering::Relaxed),
            rest.load(Ordering::Relaxed),
        ];
        Descriptor::from_raw(raw, Kind::Packed)
    }

    #[inline(always)]
    pub(super) fn store(&self, position: RingPosition, word: u64) {
        self.words(position.index)[1].store(word.to_le(), Ordering::Release);
    }

    /// Whether a device gave the place back in its turn, and the driver has not used it since.
    pub(super) fn is_given_back(&self, position: RingPosition) -> bool {
        let flags = self.flags(position);
        flags & (AVAILABLE | USED) == position.used_flags()
    }

    /// Whether the driver made the place available in its turn, whatever became of it since.
    fn was_made_available(&self, position: RingPosition) -> bool {
        (self.flags(position) & AVAILABLE != 0) == position.wrap
    }

    fn flags(&self, position: RingPosition) -> u16 {
        (u64::from_le(self.words(position.index)[1].load(Ordering::Acquire)) >> 48) as u16
    }

    /// How many places the used descriptor at `position` gives back: it is marked with NEXT, which
    /// drivers ignore there (virtio 1.2, 2.8.6), when it stands for more than its own. The others
    /// are as the driver wrote them, and the last of them has the same number.
    pub(super) fn given_back_at(&self, position: RingPosition) -> u16 {
        let used = self.follower(position);
        if used.flags & NEXT == 0 {
            return 1;
        }
        for count in 1..self.size {
            let Some(other) = self.available(position.ahead(count, self.size)) else {
                break;
            };
            if other.flags & NEXT == 0 && other.number == used.number {
                return count + 1;
            }
        }
        1
    }

    /// Where a device goes on that follows a killed one: the first place from `noted` on that was not
    /// given back. A driver makes places available in order: one that is not available in front of
    /// one that is was given back, and made available for the next turn since.
    pub(super) fn behind_given_back(&self, noted: RingPosition) -> RingPosition {
        let mut moved = 0;
        while moved < self.size {
            let position = noted.ahead(moved, self.size);
            moved += if self.is_given_back(position) {
                self.given_back_at(position)
            } else if self.was_made_available(position) {
                return position;
            } else {
                let further = (moved + 1..self.size)
                    .find(|by| self.was_made_available(noted.ahead(*by, self.size)));
                match further {
                    Some(further) => further - moved,
                    None => return position,
                }
            };
        }
        noted.ahead(self.size, self.size)
    }

    pub(super) fn driver_event(&self) -> (RingPosition, u16) {
        // SAFETY: the driver's event structure, mapped and aligned.
        let [position, flags] = unsafe { &*self.driver };
        let flags = u16::from_le(flags.load(Ordering::Relaxed));
        let position = u16::from_le(position.load(Ordering::Relaxed));
        (RingPosition::from_bits(position), flags)
    }

    pub(super) fn set_device_event(&self, flags: u16) {
        self.device_event()[1].store(flags.to_le(), Ordering::Relaxed);
    }

    /// Writes our position into the guest's memory, where it survives a fabric that is killed. A packed
    /// ring itself does not contain it, so QEMU cannot give it to the next fabric (QEMU 7.2 gives the
    /// position of the last clean stop). It goes into the field of our event structure that names the
    /// descriptor to be notified of, which is free: we never ask for a particular descriptor.
    #[inline(always)]
    pub(super) fn note_position(&self, position: RingPosition) {
        // Drivers begin with zeros there: adding one distinguishes position 0 from no note.
        let note = RingPosition {
            index: position.index + 1,
            ..position
        };
        self.device_event()[0].store(note.bits().to_le(), Ordering::Relaxed);
    }

    pub(super) fn forget_position(&self) {
        self.device_event()[0].store(0, Ordering::Relaxed);
    }

    pub(super) fn noted_position(&self) -> Option<RingPosition> {
        let note =
            RingPosition::from_bits(u16::from_le(self.device_event()[0].load(Ordering::Relaxed)));
        let index = note.index.checked_sub(1)?;
        (index < self.size).then_some(RingPosition { index, ..note })
    }

    #[inline(always)]
    pub(super) fn device_event(&self) -> &[AtomicU16; 2] {
        // SAFETY: our event structure, mapped and aligned.
        unsafe { &*self.device }
    }
}

pub(super) fn used_word(position: RingPosition, number: u16, len: u32, flags: u16) -> u64 {
    let flags = position.used_flags() | flags;
    u64::from(len) | u64::from(number) << 32 | u64::from(flags) << 48
}

/// Whether the descriptor at `event` is among the last `since` in front of `now`.
pub(super) fn was_passed(event: RingPosition, now: RingPosition, since: u32, size: u16) -> bool {
    let turn = if event.wrap == now.wrap {
        0
    } else {
        i32::from(size)
    };
    let distance = i32::from(now.index) + turn - i32::from(event.index);
    distance > 0 && distance.cast_unsigned() <= since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_go_round_and_flip_the_counter() {
        let position = RingPosition {
            index: 5,
            wrap: true,
        };
        assert_eq!(position.ahead(2, 8).bits(), 7 | 1 << 15);
        assert_eq!(position.ahead(3, 8).bits(), 0);
        assert_eq!(RingPosition::from_bits(position.bits()), position);
    }

    #[test]
    fn an_event_is_passed_once() {
        let at = |index, wrap| RingPosition { index, wrap };
        // From 6 to 2 of the next turn in a ring of 8: 6, 7, 0 and 1 were passed.
        for (event, passed) in [
            (at(5, true), false),
            (at(6, true), true),
            (at(7, true), true),
            (at(0, false), true),
            (at(1, false), true),
            (at(2, false), false),
            (at(30_000, false), false),
        ] {
            assert_eq!(was_passed(event, at(2, false), 4, 8), passed, "{event:?}");
        }
    }
}

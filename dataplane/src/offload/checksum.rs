//! The Internet checksum (RFC 1071) over bytes in several pieces of memory: [`Sum`].

use crate::sys::checksum;
use crate::sys::pool::Segment;

/// A ones' complement sum of 16-bit words, growing byte by byte.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sum {
    /// In this machine's byte order: the sum does not care (RFC 1071, 2 (B)).
    words: u64,
    /// The next byte is the second of its word.
    odd: bool,
}

impl Sum {
    #[inline]
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.add_sum(checksum::sum(bytes), bytes.len());
    }

    #[inline]
    pub(super) fn add_segment(&mut self, segment: &Segment) {
        self.add_sum(checksum::sum_of_segment(segment), segment.len());
    }

    /// The sum as a number. Never 0 unless nothing but zeros was added.
    #[inline]
    pub(super) fn folded(self) -> u16 {
        u16::from_be_bytes(fold(self.words).to_ne_bytes())
    }

    #[inline]
    fn add_sum(&mut self, sum: u64, len: usize) {
        let sum = fold(sum);
        let in_place = if self.odd { sum.swap_bytes() } else { sum };
        self.words += u64::from(in_place);
        self.odd ^= len % 2 == 1;
    }
}

/// Adds the carries back in until 16 bits are left.
#[inline]
pub(super) fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 as it is written.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for word in bytes.chunks(2) {
            sum += u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn pieces_add_up_wherever_they_are_cut(
            bytes in prop::collection::vec(any::<u8>(), 0..3000),
            mut cuts in prop::collection::vec(0usize..3000, 0..8),
        ) {
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut sum, mut at) = (Sum::default(), 0);
            for cut in cuts.into_iter().filter(|cut| *cut <= bytes.len()) {
                sum.add(&bytes[at..cut]);
                at = cut;
            }
            prop_assert_eq!(sum.folded(), by_the_book(&bytes));
        }
    }

    #[test]
    fn every_carry_is_added_back() {
        for len in [1, 2, 3, 1500, 65_535, 65_536] {
            let bytes = vec![0xff; len];
            let mut sum = Sum::default();
            sum.add(&bytes);
            assert_eq!(sum.folded(), by_the_book(&bytes), "{len}");
        }
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_ffff_ffff), 1);
    }
}

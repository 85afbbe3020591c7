//! Observing a lane: what it reports about each frame ([`Record`], [`Verdict`]), and the two ways
//! in which that leaves the worker. A tap ([`LaneCapture`]) gives every frame from now on to one
//! reader; the flight recorder ([`RecorderReader`]) gives the last frames to any reader that asks.
//! Neither makes the worker wait.

mod overwrite_ring;
mod recorder;
mod tap;

use crate::frame::VnetHeader;
use crate::stats::DropReason;

pub use recorder::RecorderReader;
pub(crate) use recorder::{Recorder, recorder};
pub use tap::{LaneCapture, TapSpec};
pub(crate) use tap::{LaneTap, lane_tap};

/// One frame on one lane, without its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// When it entered or left the lane, in ns of the monotonic clock.
    pub time: u64,
    /// Bytes of the frame, without FCS.
    pub len: u32,
    /// How many of them were captured; at most `len`.
    pub captured: u32,
    /// The work that the sender left to others: an unfinished checksum, pieces to be cut.
    pub header: VnetHeader,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a frame. The default is a frame that was sent at once, as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it was not sent; `None` when it was.
    pub dropped: Option<DropReason>,
    /// How many wire frames of a super-frame the receiver lost.
    pub lost_pieces: u16,
    /// How long the impairment made it wait, in ns.
    pub delay: Option<u64>,
    /// A second copy of it was made.
    pub duplicated: bool,
    /// This is that second copy.
    pub copy: bool,
    /// The index of the bit that was flipped, counted from the frame's start.
    pub corrupted: Option<u32>,
    /// It overtook other frames on purpose.
    pub reordered: bool,
    /// It was marked as having met congestion (ECN) instead of being lost.
    pub marked: bool,
}

impl Record {
    /// The size of an encoded record, in bytes: the same for every frame.
    pub const LEN: usize = 8 * Record::WORDS;

    /// The size of a record in 64-bit words.
    const WORDS: usize = 6;

    /// The record in little-endian bytes.
    pub fn encode(&self) -> [u8; Record::LEN] {
        let mut bytes = [0; Record::LEN];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record at the beginning of `bytes`. `None` when they are too few, or contain a value that
    /// this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; Record::WORDS];
        let bytes = bytes.first_chunk::<{ Record::LEN }>()?;
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().ok()?);
        }
        Record::from_words(words)
    }

    /// Time and lengths first, then the words that are zero for a plain frame that was sent at once.
    #[inline]
    fn words(&self) -> [u64; Record::WORDS] {
        let VnetHeader([h0, h1, h2, h3, h4, h5, h6, h7, h8, h9]) = self.header;
        let verdict = &self.verdict;
        // 0 stands for `None`, so that a new reason does not renumber the others.
        let dropped = verdict.dropped.map_or(0, |reason| reason.index() + 1);
        let [lost0, lost1] = verdict.lost_pieces.to_le_bytes();
        [
            self.time,
            u64::from(self.len) | u64::from(self.captured) << 32,
            u64::from_le_bytes([h0, h1, h2, h3, h4, h5, h6, h7]),
            u64::from_le_bytes([h8, h9, dropped, verdict.flags(), lost0, lost1, 0, 0]),
            verdict.delay.unwrap_or(0),
            verdict.corrupted.unwrap_or(0).into(),
        ]
    }

    fn from_words(words: [u64; Record::WORDS]) -> Option<Self> {
        let [time, lengths, header, rest, delay, bit] = words;
        let [h0, h1, h2, h3, h4, h5, h6, h7] = header.to_le_bytes();
        let [h8, h9, dropped, flags, lost0, lost1, 0, 0] = rest.to_le_bytes() else {
            return None;
        };
        let (len, captured) = (lengths as u32, (lengths >> 32) as u32);
        if flags & !flag::ALL != 0 || captured > len {
            return None;
        }
        let dropped = match dropped.checked_sub(1) {
            None => None,
            Some(index) => Some(DropReason::from_index(index)?),
        };
        let has = |flag| flags & flag != 0;
        Some(Record {
            time,
            len,
            captured,
            header: VnetHeader([h0, h1, h2, h3, h4, h5, h6, h7, h8, h9]),
            verdict: Verdict {
                dropped,
                lost_pieces: u16::from_le_bytes([lost0, lost1]),
                delay: has(flag::DELAY).then_some(delay),
                duplicated: has(flag::DUPLICATED),
                copy: has(flag::COPY),
                corrupted: has(flag::CORRUPTED).then_some(bit as u32),
                reordered: has(flag::REORDERED),
                marked: has(flag::MARKED),
            },
        })
    }
}

impl Verdict {
    /// The frame was sent at once, as it came.
    #[inline]
    fn is_plain(&self) -> bool {
        matches!(
            self,
            Verdict {
                dropped: None,
                lost_pieces: 0,
                delay: None,
                duplicated: false,
                copy: false,
                corrupted: None,
                reordered: false,
                marked: false,
            }
        )
    }

    #[inline]
    fn flags(&self) -> u8 {
        let bit = |set: bool, flag: u8| if set { flag } else { 0 };
        bit(self.delay.is_some(), flag::DELAY)
            | bit(self.duplicated, flag::DUPLICATED)
            | bit(self.copy, flag::COPY)
            | bit(self.corrupted.is_some(), flag::CORRUPTED)
            | bit(self.reordered, flag::REORDERED)
            | bit(self.marked, flag::MARKED)
    }
}

/// Bits of an encoded verdict.
mod flag {
    pub(super) const DELAY: u8 = 1;
    pub(super) const DUPLICATED: u8 = 1 << 1;
    pub(super) const COPY: u8 = 1 << 2;
    pub(super) const CORRUPTED: u8 = 1 << 3;
    pub(super) const REORDERED: u8 = 1 << 4;
    pub(super) const MARKED: u8 = 1 << 5;
    pub(super) const ALL: u8 = (1 << 6) - 1;
}

#[cfg(all(test, not(loom)))]
mod tests;

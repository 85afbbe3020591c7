//! What a lane tells about its frames: [`Record`] and [`Verdict`], and the two ways out of the
//! worker. A tap ([`LaneCapture`]) gives every frame from now on to one reader, the flight
//! recorder ([`RecorderReader`]) the last frames to whoever asks. Neither ever makes the worker
//! wait.

mod overwrite_ring;
mod recorder;
mod tap;

use crate::frame::VnetHeader;
use crate::stats::DropReason;
use crate::sync::{AtomicU64, Ordering};

pub use recorder::RecorderReader;
pub(crate) use recorder::{Recorder, recorder};
pub use tap::{LaneCapture, TapSpec};
pub(crate) use tap::{LaneTap, lane_tap};

/// The bytes of a frame, wherever they lie; from the destination address on, without FCS. Guests
/// may change theirs at any time, so they can only be copied.
pub trait FrameBytes {
    /// How many.
    fn len(&self) -> usize;

    /// Copies the bytes from `at` on, as many as both have; returns how many.
    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes from the first on to words, in the machine's byte order; the last word
    /// may get fewer than eight.
    #[inline]
    fn copy_words(&self, to: &[AtomicU64]) {
        copy_in_steps(self, to);
    }
}

/// [`FrameBytes::copy_words`] by way of the stack.
pub(crate) fn copy_in_steps(frame: &(impl FrameBytes + ?Sized), to: &[AtomicU64]) {
    // As much is zeroed as a frame may need: most are short.
    match to.len() {
        0..=8 => copy_steps::<8>(frame, to),
        9..=32 => copy_steps::<32>(frame, to),
        _ => copy_steps::<256>(frame, to),
    }
}

fn copy_steps<const WORDS: usize>(frame: &(impl FrameBytes + ?Sized), to: &[AtomicU64]) {
    let mut bytes = [[0; 8]; WORDS];
    for (step, words) in to.chunks(WORDS).enumerate() {
        let bytes = &mut bytes[..words.len()];
        frame.copy_out(step * WORDS * 8, bytes.as_flattened_mut());
        for (word, bytes) in words.iter().zip(bytes) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }
}

impl FrameBytes for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        let from = self.get(at..).unwrap_or_default();
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        len
    }
}

impl<F: FrameBytes + ?Sized> FrameBytes for &F {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) -> usize {
        (**self).copy_out(at, to)
    }
}

/// One frame on one lane, without its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// When, in ns of the monotonic clock.
    pub time: u64,
    /// Bytes of the frame, without FCS.
    pub len: u32,
    /// How many of them are here; at most `len`.
    pub captured: u32,
    /// What the sender left to others: an unfinished checksum, pieces to be cut.
    pub header: VnetHeader,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a frame. The default: it was sent at once, as it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// It was not sent, and why.
    pub dropped: Option<DropReason>,
    /// Of a super-frame, how many of its wire frames the receiver lost.
    pub lost_pieces: u16,
    /// How long it was asked to wait, in ns.
    pub delay: Option<u64>,
    /// A second copy of it was made.
    pub duplicated: bool,
    /// This is that second copy.
    pub copy: bool,
    /// The bit that was flipped, counted from the frame's start.
    pub corrupted: Option<u32>,
    /// It overtook others.
    pub reordered: bool,
    /// It was marked as having met congestion (ECN) instead of being lost.
    pub marked: bool,
}

impl Record {
    /// Bytes of one on its way, whatever became of the frame.
    pub const LEN: usize = 8 * Record::WORDS;

    /// Words of one in memory.
    const WORDS: usize = 6;

    /// The record in little-endian bytes.
    pub fn encode(&self) -> [u8; Record::LEN] {
        let mut bytes = [0; Record::LEN];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.words()) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The record at the beginning of `bytes`. `None` when they are too few, or name what this
    /// version does not know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; Record::WORDS];
        let bytes = bytes.first_chunk::<{ Record::LEN }>()?;
        for (word, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(from.try_into().ok()?);
        }
        Record::from_words(words)
    }

    /// Time, lengths, and then what is all zeros for a plain frame that was sent at once.
    #[inline]
    fn words(&self) -> [u64; Record::WORDS] {
        let VnetHeader([h0, h1, h2, h3, h4, h5, h6, h7, h8, h9]) = self.header;
        let verdict = &self.verdict;
        // 0 is for none, so that a new reason changes no number.
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

/// Bits of a verdict on its way.
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

//! A ring of words that one thread keeps overwriting ([`Writer`]) and others copy at any time
//! ([`Ring::copy`]); neither waits for the other.
//!
//! Positions count the words that were ever written; a word lies at its position modulo the
//! ring's size. The writer publishes up to where it is going to write, writes, and publishes that it
//! has. A reader copies, then reads how far the writer has gone meanwhile, and discards the words that
//! may have been overwritten while it copied them.

use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering, fence};
use crate::sys::pool::zero_words;

/// Words that a reader copies before it checks whether they were overwritten.
const COPIED_AT_ONCE: u64 = if cfg!(loom) { 2 } else { 256 };

/// Most attempts of a reader that the writer overtakes.
const TRIES: usize = 16;

/// The memory that the worker and the readers share.
#[derive(Debug)]
#[repr(align(128))] // no other lane's positions on the same pair of cache lines
pub(super) struct Ring {
    /// Up to where words may be changing.
    reserved: AtomicU64,
    /// Up to where they are written.
    written: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl Ring {
    /// Its memory is touched only when it is written: a ring that is not written to costs none.
    pub(super) fn new(words: usize) -> Self {
        Ring {
            reserved: AtomicU64::new(0),
            written: AtomicU64::new(0),
            words: zero_words(words),
        }
    }

    /// The newest words, as many as were not overwritten; the last one is the end of a piece. Tries
    /// again when the writer has overwritten all of them.
    pub(super) fn copy(&self) -> Vec<u64> {
        for _ in 1..TRIES {
            let words = self.copy_once();
            if !words.is_empty() {
                return words;
            }
        }
        self.copy_once()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn has_words(&self) -> bool {
        self.written.load(Ordering::Relaxed) > 0
    }

    /// From the newest on, which the writer overwrites last, to the first that it has overwritten.
    fn copy_once(&self) -> Vec<u64> {
        let size = self.words.len() as u64;
        let end = self.written.load(Ordering::Acquire);
        let start = end.saturating_sub(size);
        let mut words = vec![0; (end - start) as usize];
        let mut whole_from = end;
        while whole_from > start {
            let from = start.max(whole_from.saturating_sub(COPIED_AT_ONCE));
            self.load(
                from,
                &mut words[(from - start) as usize..(whole_from - start) as usize],
            );
            // A load that got an overwriting word synchronises with the writer's fence: the load
            // below sees the reservation that was made before that word was written.
            fence(Ordering::Acquire);
            let overwritten = self.reserved.load(Ordering::Relaxed).saturating_sub(size);
            if overwritten > from {
                whole_from = whole_from.min(overwritten);
                break;
            }
            whole_from = from;
        }
        words.drain(..(whole_from - start) as usize);
        words
    }

    /// The words from a position on, as they are.
    fn load(&self, position: u64, to: &mut [u64]) {
        let at = (position % self.words.len() as u64) as usize;
        let (before, behind) = self.words.split_at(at);
        for (to, word) in to.iter_mut().zip(behind.iter().chain(before)) {
            *to = word.load(Ordering::Relaxed);
        }
    }
}

/// The writing end of a ring. Its position is the one that it published in the ring: that saves a
/// store for each piece.
#[derive(Debug)]
pub(super) struct Writer {
    ring: Arc<Ring>,
    /// The position that lies at the ring's beginning.
    lap: u64,
}

impl Writer {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Writer { ring, lap: 0 }
    }

    /// Has `fill` write a piece of `count` consecutive words. If they do not fit in front of the ring's
    /// end, the words left there become a piece of their own, whose last word `gap` makes.
    ///
    /// # Panics
    /// When the ring has fewer words.
    #[inline]
    pub(super) fn write(
        &mut self,
        count: usize,
        gap: impl FnOnce(usize) -> u64,
        fill: impl FnOnce(&[AtomicU64]),
    ) {
        let ring = &*self.ring;
        let mut start = ring.written.load(Ordering::Relaxed);
        let mut at = (start - self.lap) as usize;
        let rest = &ring.words[at..];
        let fits = count <= rest.len();
        if !fits {
            self.lap += ring.words.len() as u64;
            (start, at) = (self.lap, 0);
        }
        let end = start + count as u64;
        ring.reserved.store(end, Ordering::Relaxed);
        // No reader sees one of the following words without the reservation.
        fence(Ordering::Release);
        if !fits && let Some(last) = rest.last() {
            last.store(gap(rest.len()), Ordering::Relaxed);
        }
        fill(&ring.words[at..][..count]);
        ring.written.store(end, Ordering::Release);
    }
}

#[cfg(all(test, loom))]
mod loom {
    use ::loom::thread;

    use super::*;

    /// Pieces of two words in a ring of three, so that there are gaps, too.
    #[test]
    fn a_copy_has_whole_pieces_only() {
        const GAP: u64 = 99;
        ::loom::model(|| {
            let ring = Arc::new(Ring::new(3));
            let mut writer = Writer::new(ring.clone());
            let mut piece = |value| {
                writer.write(
                    2,
                    |_| GAP,
                    |words| {
                        for word in words {
                            word.store(value, Ordering::Relaxed);
                        }
                    },
                );
            };
            piece(1);
            let reader = thread::spawn(move || {
                let copy = ring.copy_once();
                let mut words = copy.as_slice();
                while let [before @ .., last] = words {
                    words = before;
                    if *last != GAP
                        && let [before @ .., first] = words
                    {
                        assert_eq!(first, last, "torn: {copy:?}");
                        words = before;
                    }
                }
            });
            piece(2);
            piece(3);
            reader.join().expect("every copy is whole");
        });
    }
}

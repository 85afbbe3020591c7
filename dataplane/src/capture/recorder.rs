//! The flight recorder of a lane: the last frames, in memory that the worker overwrites for
//! ever ([`Recorder`]) and anyone reads at any time ([`RecorderReader`]).
//!
//! Positions count the words that were ever written; a word lies at its position modulo the
//! ring's size. The worker says up to where it is going to write, writes, and says that it has.
//! A reader copies everything and then asks how far the worker meanwhile went: what may have
//! been overwritten while it was copied is thrown away. Each record has its size in its last
//! word, so that the copy is read backwards, from the newest.

use std::sync::Arc;

use super::{FrameBytes, Record, Verdict};
use crate::frame::{MAX_FRAME, VnetHeader};
use crate::sync::{AtomicU64, Ordering, fence};

/// Bytes of a frame that are copied in one go.
const STEP: usize = 2048;

/// Words that a reader copies before it asks whether they were whole.
const COPIED_AT_ONCE: u64 = 1024;

/// Copies that a reader makes, at most, when the worker overtakes it.
const TRIES: usize = 16;

/// Makes the two ends of a flight recorder of `bytes` of memory, which keeps `snap` bytes of
/// each frame, but no more than an eighth of the memory.
pub(crate) fn recorder(bytes: usize, snap: u32) -> (Recorder, RecorderReader) {
    let words = (bytes / 8).max(16 * Record::WORDS);
    let snap = snap.min(MAX_FRAME as u32).min(words as u32);
    let ring = Arc::new(Ring::new(words));
    let recorder = Recorder {
        writer: Writer::new(ring.clone()),
        snap,
        copy: vec![0; STEP].into_boxed_slice(),
    };
    (recorder, RecorderReader { ring })
}

/// The worker's end of a flight recorder.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    snap: u32,
    /// Where a frame's bytes become words.
    copy: Box<[u8]>,
}

impl Recorder {
    /// Keeps a frame, and what became of it, in place of the oldest.
    #[inline]
    pub(crate) fn see(
        &mut self,
        time: u64,
        header: &VnetHeader,
        frame: &(impl FrameBytes + ?Sized),
        verdict: &Verdict,
    ) {
        let len = frame.len() as u32;
        let record = Record {
            time,
            len,
            captured: len.min(self.snap),
            header: *header,
            verdict: *verdict,
        };
        let [time, _, rest @ ..] = record.words();
        let is_plain = rest == [0; REST];
        let trailer = Trailer::new(&record, is_plain);
        let copy = &mut self.copy;
        self.writer.write(trailer.words(), |place| {
            let (bytes, place) = place.split_at(trailer.payload_words());
            for (step, words) in bytes.chunks(STEP / 8).enumerate() {
                let copy = &mut copy[..words.len() * 8];
                frame.copy_out(step * STEP, copy);
                for (word, bytes) in words.iter().zip(copy.chunks_exact(8)) {
                    let bytes = bytes.try_into().expect("eight bytes");
                    word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
                }
            }
            if let [rest_place @ .., time_place, trailer_place] = place {
                for (word, value) in rest_place.iter().zip(rest) {
                    word.store(value, Ordering::Relaxed);
                }
                time_place.store(time, Ordering::Relaxed);
                trailer_place.store(trailer.0, Ordering::Relaxed);
            }
        });
    }
}

/// Reads a flight recorder, from any thread, as often as wanted.
#[derive(Debug, Clone)]
pub struct RecorderReader {
    ring: Arc<Ring>,
}

impl RecorderReader {
    /// Gives the frames that are still there and whose time is `since` or later (ns of the
    /// monotonic clock), in order of time, each with as many bytes as it says were captured.
    /// The worker goes on meanwhile; this takes as much memory again as the recorder has.
    pub fn dump(&self, since: u64, mut each: impl FnMut(&Record, &[u8])) {
        let copy = self.ring.copy();
        let mut found = copy.records();
        found.retain(|(record, _)| record.time >= since);
        found.reverse();
        found.sort_by_key(|(record, _)| record.time);
        let mut bytes = Vec::new();
        for (record, payload) in found {
            bytes.clear();
            bytes.extend(payload.iter().flat_map(|word| word.to_ne_bytes()));
            bytes.truncate(record.captured as usize);
            each(&record, &bytes);
        }
    }
}

/// Words of a record besides time and lengths.
const REST: usize = Record::WORDS - 2;

/// The last word of what was written in one go: how long it is, and what.
#[derive(Debug, Clone, Copy)]
struct Trailer(u64);

impl Trailer {
    const PLAIN: u64 = 1 << 48;
    const GAP: u64 = 1 << 49;
    const LENGTH: u64 = (1 << 24) - 1;

    #[inline]
    fn new(record: &Record, is_plain: bool) -> Self {
        let plain = if is_plain { Trailer::PLAIN } else { 0 };
        Trailer(u64::from(record.len) | u64::from(record.captured) << 24 | plain)
    }

    /// Words in front of the ring's end that are left out, because the next record would not fit.
    fn gap(words: usize) -> Self {
        Trailer(words as u64 | Trailer::GAP)
    }

    fn is_gap(self) -> bool {
        self.0 & Trailer::GAP != 0
    }

    #[inline]
    fn is_plain(self) -> bool {
        self.0 & Trailer::PLAIN != 0
    }

    /// Bytes of the frame, and those that were captured.
    #[inline]
    fn lengths(self) -> (u32, u32) {
        let length = |word: u64| (word & Trailer::LENGTH) as u32;
        (length(self.0), length(self.0 >> 24))
    }

    #[inline]
    fn payload_words(self) -> usize {
        self.lengths().1.div_ceil(8) as usize
    }

    /// All words, this one included.
    #[inline]
    fn words(self) -> usize {
        if self.is_gap() {
            return (self.0 & !Trailer::GAP) as usize;
        }
        let rest = if self.is_plain() { 0 } else { REST };
        self.payload_words() + rest + 2
    }
}

/// What worker and readers share.
#[derive(Debug)]
#[repr(align(128))] // no other lane's positions on the same pair of cache lines
struct Ring {
    /// Up to where words may be changing.
    reserved: AtomicU64,
    /// Up to where they are written.
    written: AtomicU64,
    words: Box<[AtomicU64]>,
}

impl Ring {
    /// Its memory is touched here, so that no page fault comes upon the worker.
    fn new(words: usize) -> Self {
        Ring {
            reserved: AtomicU64::new(0),
            written: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The words that are whole; again when the worker overtook the copy as a whole.
    fn copy(&self) -> Copy {
        for _ in 1..TRIES {
            let copy = self.copy_once();
            if !copy.words.is_empty() {
                return copy;
            }
        }
        self.copy_once()
    }

    fn copy_once(&self) -> Copy {
        let size = self.words.len() as u64;
        let end = self.written.load(Ordering::Acquire);
        let start = end.saturating_sub(size);
        let mut whole_from = start;
        let mut words = Vec::with_capacity((end - start) as usize);
        let mut at = start;
        while at < end {
            let until = end.min(at + COPIED_AT_ONCE);
            let places = (at..until).map(|position| &self.words[(position % size) as usize]);
            words.extend(places.map(|word| word.load(Ordering::Relaxed)));
            // Whoever got a word that was written over gets the reservation for it, too.
            fence(Ordering::Acquire);
            let overwritten = self.reserved.load(Ordering::Relaxed).saturating_sub(size);
            if overwritten > at {
                whole_from = whole_from.max(overwritten);
            }
            at = until;
        }
        let torn = (whole_from.min(end) - start) as usize;
        words.drain(..torn);
        Copy { words }
    }
}

/// The end of a ring that writes.
#[derive(Debug)]
struct Writer {
    ring: Arc<Ring>,
    position: u64,
    /// The same, modulo the ring's size, or that size.
    at: usize,
}

impl Writer {
    fn new(ring: Arc<Ring>) -> Self {
        Writer {
            ring,
            position: 0,
            at: 0,
        }
    }

    /// Has `count` words filled, which lie side by side.
    #[inline]
    fn write(&mut self, count: usize, fill: impl FnOnce(&[AtomicU64])) {
        let ring = &*self.ring;
        let left = ring.words.len() - self.at;
        let gap = if count > left { left } else { 0 };
        let end = self.position + (gap + count) as u64;
        ring.reserved.store(end, Ordering::Relaxed);
        // Nobody sees a word of what follows without the reservation.
        fence(Ordering::Release);
        if count > left {
            if let Some(last) = ring.words[self.at..].last() {
                last.store(Trailer::gap(gap).0, Ordering::Relaxed);
            }
            self.at = 0;
        }
        fill(&ring.words[self.at..][..count]);
        self.at += count;
        self.position = end;
        ring.written.store(end, Ordering::Release);
    }
}

/// A private copy of the ring's newest words, all whole; the oldest record may lack its
/// beginning.
struct Copy {
    words: Vec<u64>,
}

impl Copy {
    /// Every whole record with the words of its payload, the newest first.
    fn records(&self) -> Vec<(Record, &[u64])> {
        let mut found = Vec::new();
        let mut words = self.words.as_slice();
        while let Some(last) = words.last() {
            let trailer = Trailer(*last);
            let Some(start) = words.len().checked_sub(trailer.words()) else {
                break;
            };
            let (before, whole) = words.split_at(start);
            if !trailer.is_gap() {
                let (payload, tail) = whole.split_at(trailer.payload_words());
                found.extend(record(trailer, tail).map(|record| (record, payload)));
            }
            words = before;
        }
        found
    }
}

/// The record in front of the trailer, which is the tail's last word.
fn record(trailer: Trailer, tail: &[u64]) -> Option<Record> {
    let [rest @ .., time, _] = tail else {
        return None;
    };
    let (len, captured) = trailer.lengths();
    let mut words = [0; Record::WORDS];
    words[0] = *time;
    words[1] = u64::from(len) | u64::from(captured) << 32;
    words[2..][..rest.len()].copy_from_slice(rest);
    Record::from_words(words)
}

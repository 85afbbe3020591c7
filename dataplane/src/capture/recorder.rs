//! The flight recorder of a lane: the last frames, in memory that the worker keeps overwriting
//! ([`Recorder`]) and any thread reads at any time ([`RecorderReader`]).
//!
//! A record consists of the frame's bytes, then, for a frame that is not plain, its header and
//! verdict, then the time, and last one word with its lengths: a reader goes backwards, from the
//! newest record. A plain frame of 64 bytes takes ten words.

use std::sync::Arc;

use super::overwrite_ring::{Ring, Writer};
use super::{Record, Verdict};
use crate::frame::FrameBytes;
use crate::frame::{MAX_FRAME, VnetHeader};
use crate::sync::{AtomicU64, Ordering};

/// Makes the two ends of a flight recorder of `bytes` of memory, which keeps `snap` bytes of
/// each frame, but no more than an eighth of the memory.
pub(crate) fn recorder(bytes: usize, snap: u32) -> (Recorder, RecorderReader) {
    let words = (bytes / 8).max(16 * Record::WORDS);
    let snap = snap.min(MAX_FRAME as u32).min(words as u32);
    let ring = Arc::new(Ring::new(words));
    let recorder = Recorder {
        writer: Writer::new(ring.clone()),
        snap,
    };
    (recorder, RecorderReader { ring })
}

/// The worker's end of a flight recorder.
#[derive(Debug)]
pub(crate) struct Recorder {
    writer: Writer,
    snap: u32,
}

impl Recorder {
    /// Keeps a frame and what became of it, and overwrites the oldest ones.
    #[inline]
    pub(crate) fn see(
        &mut self,
        time: u64,
        header: &VnetHeader,
        frame: &(impl FrameBytes + ?Sized),
        verdict: &Verdict,
    ) {
        let len = frame.len() as u32;
        let captured = len.min(self.snap);
        let is_plain = verdict.is_plain() && *header == VnetHeader::default();
        let trailer = Trailer::new(len, captured, is_plain);
        let payload = captured.div_ceil(8) as usize;
        let count = payload + 2 + if is_plain { 0 } else { REST };
        self.writer.write(count, Trailer::gap, |place| {
            let (bytes, place) = place.split_at(payload);
            frame.copy_words(bytes);
            let [rest @ .., time_place, trailer_place] = place else {
                unreachable!("two words more than the payload");
            };
            if !is_plain {
                store_rest(rest, header, verdict);
            }
            time_place.store(time, Ordering::Relaxed);
            trailer_place.store(trailer.0, Ordering::Relaxed);
        });
    }
}

/// Stores the words that are zero for a plain frame that was sent at once.
fn store_rest(place: &[AtomicU64], header: &VnetHeader, verdict: &Verdict) {
    let record = Record {
        header: *header,
        verdict: *verdict,
        ..Record::default()
    };
    for (word, value) in place.iter().zip(&record.words()[2..]) {
        word.store(*value, Ordering::Relaxed);
    }
}

/// Reads a flight recorder, from any thread and any number of times.
#[derive(Debug, Clone)]
pub struct RecorderReader {
    ring: Arc<Ring>,
}

impl RecorderReader {
    /// Calls `each` for the frames that are still there and whose time is `since` or later (ns of the
    /// monotonic clock), in order of time, with the bytes that were captured. The worker goes on
    /// overwriting the oldest meanwhile. While this runs, it needs as much memory again as the
    /// recorder has.
    pub fn dump(&self, since: u64, mut each: impl FnMut(&Record, &[u8])) {
        let copy = self.ring.copy();
        let mut found = records(&copy);
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

/// The last word of a piece: its kind and length.
#[derive(Debug, Clone, Copy)]
struct Trailer(u64);

impl Trailer {
    const PLAIN: u64 = 1 << 48;
    const GAP: u64 = 1 << 49;
    const LENGTH: u64 = (1 << 24) - 1;

    #[inline]
    fn new(len: u32, captured: u32, is_plain: bool) -> Self {
        let plain = if is_plain { Trailer::PLAIN } else { 0 };
        Trailer(u64::from(len) | u64::from(captured) << 24 | plain)
    }

    /// A piece of `words` words at the ring's end that is left out because the next record does not fit.
    fn gap(words: usize) -> u64 {
        words as u64 | Trailer::GAP
    }

    fn is_gap(self) -> bool {
        self.0 & Trailer::GAP != 0
    }

    #[inline]
    fn is_plain(self) -> bool {
        self.0 & Trailer::PLAIN != 0
    }

    /// The bytes of the frame, and how many of them were captured.
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

/// Every whole record of a copy with the words of its payload, the newest first. A record that lacks
/// its beginning, as the oldest one may, is left out.
fn records(mut words: &[u64]) -> Vec<(Record, &[u64])> {
    let mut found = Vec::new();
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::super::tests::any_verdict;
    use super::*;

    /// A frame that says when it was made, and has a checksum.
    fn frame(time: u64, len: usize) -> Vec<u8> {
        let byte = |at: usize| (time.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 8 * 8)) as u8;
        (0..len).map(|at| byte(at) ^ (at / 8) as u8).collect()
    }

    fn dumped(reader: &RecorderReader, since: u64) -> Vec<(Record, Vec<u8>)> {
        let mut all = Vec::new();
        reader.dump(since, |record, bytes| all.push((*record, bytes.to_vec())));
        all
    }

    proptest! {
        /// What comes out is the newest of what went in, as it was.
        #[test]
        fn the_last_frames_are_there(
            bytes in 0..6000_usize,
            snap in prop_oneof![Just(u32::MAX), 0..200_u32],
            frames in proptest::collection::vec(
                (0..5000_usize, any_verdict(), any::<[bool; 2]>(), any::<[u8; 10]>()),
                1..80,
            ),
        ) {
            let (mut recorder, reader) = recorder(bytes, snap);
            let mut all = Vec::new();
            for (time, (len, verdict, [plain, long], header)) in frames.into_iter().enumerate() {
                let time = time as u64;
                let bytes = frame(time, if long { len } else { len % 150 });
                let (verdict, header) = if plain {
                    (Verdict::default(), VnetHeader::default())
                } else {
                    (verdict, VnetHeader(header))
                };
                recorder.see(time, &header, &bytes[..], &verdict);
                let captured = bytes.len().min(recorder.snap as usize);
                let record = Record {
                    time,
                    len: bytes.len() as u32,
                    captured: captured as u32,
                    header,
                    verdict,
                };
                all.push((record, bytes[..captured].to_vec()));
            }
            let seen = dumped(&reader, 0);
            assert!(!seen.is_empty());
            assert_eq!(seen, all[all.len() - seen.len()..]);
            let since = seen[seen.len() / 2].0.time;
            assert_eq!(dumped(&reader, since), seen[seen.len() / 2..]);
        }
    }

    #[test]
    fn most_of_the_memory_holds_frames() {
        let (mut recorder, reader) = recorder(64 * 1024, 1 << 16);
        assert_eq!(recorder.snap, 8192);
        for time in 0..10_000 {
            recorder.see(
                time,
                &VnetHeader::default(),
                &frame(time, 64)[..],
                &Verdict::default(),
            );
        }
        let seen = dumped(&reader, 0);
        assert_eq!(seen.len(), 64 * 1024 / 80);
        assert_eq!(seen.last().expect("many").0.time, 9999);
        assert!(dumped(&reader, 10_000).is_empty());
    }

    #[test]
    fn times_that_go_back_come_out_in_order() {
        let (mut recorder, reader) = recorder(4096, 100);
        for time in [3, 1, 2, 1] {
            recorder.see(
                time,
                &VnetHeader::default(),
                &frame(time, 60)[..],
                &Verdict::default(),
            );
        }
        let times: Vec<u64> = dumped(&reader, 2)
            .iter()
            .map(|(record, _)| record.time)
            .collect();
        assert_eq!(times, [2, 3]);
    }

    /// At full speed; rings from one that is overwritten faster than it is copied to one that
    /// is not.
    #[test]
    fn a_reader_gets_whole_records_only() {
        let sizes = if cfg!(miri) { 1 } else { 3 };
        for bytes in [1 << 10, 1 << 13, 1 << 17].into_iter().take(sizes) {
            let (mut recorder, reader) = recorder(bytes, 200);
            let stop = Arc::new(AtomicBool::new(false));
            let writer = {
                let stop = stop.clone();
                std::thread::spawn(move || {
                    let frames: Vec<_> = (0..64)
                        .map(|time| frame(time, 64 + time as usize))
                        .collect();
                    let mut time = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let verdict = Verdict {
                            delay: (time % 3 == 0).then_some(time),
                            ..Verdict::default()
                        };
                        let frame = &frames[time as usize % 64][..];
                        recorder.see(time, &VnetHeader::default(), frame, &verdict);
                        time += 1;
                    }
                })
            };
            while !reader.ring.has_words() {
                std::thread::yield_now();
            }
            let (dumps, limit) = if cfg!(miri) { (5, 20) } else { (50, 5_000) };
            let (mut full, mut last) = (0, 0);
            for _ in 0..limit {
                let mut next = None;
                reader.dump(0, |record, bytes| {
                    let time = record.time;
                    assert!(next.is_none_or(|next| next == time), "without a gap");
                    next = Some(time + 1);
                    assert_eq!(record.verdict.delay, (time % 3 == 0).then_some(time));
                    assert_eq!(bytes, frame(time % 64, 64 + time as usize % 64));
                });
                if let Some(next) = next {
                    assert!(next >= last, "no older than the last dump");
                    (full, last) = (full + 1, next);
                }
                if full == dumps {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            writer.join().expect("the worker's part never fails");
            assert!(full > 0, "{bytes} bytes");
        }
    }
}

//! The load of two taps, used as a VM without vhost uses them: one thread writes into the first,
//! another reads from the second.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::endpoint::{CableEnd, Endpoint, FrameSink};
use crate::pattern::{FrameBytes, Pattern, Stamp};
use crate::sequence::{FrameCounts, SequenceTracker};
use guest::GuestOptions;

/// After the writer's end, the reader waits this long for frames in flight.
const DRAIN: Duration = Duration::from_millis(300);

/// Makes the taps, waits for a line on standard input, then sends frames of `size` bytes from the
/// first to the second for `time`. Returns the frames received per second, in millions, and the
/// counts of all frames.
///
/// # Errors
/// When a tap cannot be made or fails.
pub fn load_taps(
    taps: [&str; 2],
    size: usize,
    time: Duration,
) -> Result<(f64, FrameCounts), BenchError> {
    let guest = GuestOptions::default();
    let open = |tap: &str| Endpoint::open(&CableEnd::Tap(tap.into()), size, &guest);
    let (mut from, mut to) = (open(taps[0])?, open(taps[1])?);
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let pattern = Pattern::new(size, 0, 1);
    let mut sink = TrackingSink(SequenceTracker::new(pattern.clone()));
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut last = Instant::now();
            while !over.load(Ordering::Relaxed) || last.elapsed() < DRAIN {
                if to.receive(64, &mut sink)? > 0 {
                    last = Instant::now();
                } else {
                    to.wait(Duration::from_millis(50))?;
                }
            }
            Ok::<_, BenchError>(sink.0)
        });
        from.load(&pattern);
        let (began, mut sent) = (Instant::now(), 0);
        let written = loop {
            if began.elapsed() >= time {
                break Ok(());
            }
            let mut number = sent;
            let next = || {
                number += 1;
                Stamp {
                    number: number - 1,
                    time: 0,
                }
            };
            match from.send(64, &pattern, next) {
                Ok(taken) => sent += taken as u64,
                Err(error) => break Err(error),
            }
        };
        over.store(true, Ordering::Relaxed);
        let tracker = reader.join().expect("the reader does not panic")?;
        written?;
        let counts = tracker.finish(sent, sent);
        Ok((counts.received as f64 / time.as_secs_f64() / 1e6, counts))
    })
}

struct TrackingSink(SequenceTracker);

impl FrameSink for &mut TrackingSink {
    fn accept(&mut self, frame: &impl FrameBytes) {
        self.0.record(frame);
    }
}

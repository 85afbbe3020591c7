//! Two taps held as a VM without vhost holds them: a thread writes into one, another reads what
//! comes out of the other.

use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::BenchError;
use crate::endpoint::{End, Endpoint, Take};
use crate::pattern::{Bytes, Pattern, Stamp};
use crate::tally::{Counts, Tally};
use guest::GuestOptions;

/// What is still under way when the writer has ended has arrived by then.
const DRAIN: Duration = Duration::from_millis(300);

/// Makes the taps, waits for a line on standard input, then loads the cable between them.
/// Returns the frames received per second, in millions, and what became of them all.
///
/// # Errors
/// When a tap cannot be made or fails.
pub fn pump(taps: [&str; 2], size: usize, time: Duration) -> Result<(f64, Counts), BenchError> {
    let guest = GuestOptions::default();
    let open = |tap: &str| Endpoint::open(&End::Tap(tap.into()), size, &guest);
    let (mut from, mut to) = (open(taps[0])?, open(taps[1])?);
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let pattern = Pattern::new(size, 0, 1);
    let mut tally = Counter(Tally::new(pattern.clone()));
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut last = Instant::now();
            while !over.load(Ordering::Relaxed) || last.elapsed() < DRAIN {
                if to.receive(64, &mut tally)? > 0 {
                    last = Instant::now();
                } else {
                    to.wait(Duration::from_millis(50))?;
                }
            }
            Ok::<_, BenchError>(tally.0)
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
        let tally = reader.join().expect("the reader does not panic")?;
        written?;
        let counts = tally.finish(sent, sent);
        Ok((counts.received as f64 / time.as_secs_f64() / 1e6, counts))
    })
}

struct Counter(Tally);

impl Take for &mut Counter {
    fn frame(&mut self, frame: &impl Bytes) {
        self.0.take(frame);
    }
}

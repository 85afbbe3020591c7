//! One trial: frames through a cable for some time, from a single thread that sends and
//! receives in turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::BenchError;
use crate::clock::CpuMeter;
use crate::endpoint::{Endpoint, Take};
use crate::pattern::{Bytes, Pattern, Stamp};
use crate::schedule::Schedule;
use crate::tally::{Counts, Tally};

/// Frames sent, or received, before the other is looked at.
const BURST: usize = 32;

/// Bytes under way in each lane, at most: more than any end has room for in super-frames.
const BYTES_UNDER_WAY: usize = 1 << 20;

/// Loading up before rates count.
const WARM_UP: Duration = Duration::from_millis(100);

/// Under a flood: when nothing came for so long, what is under way is taken for lost. If it was
/// only late, more is under way afterwards than there is room for: so long enough for a worker
/// that other work keeps from its CPU.
const SILENCE: Duration = Duration::from_millis(200);

/// Under a flood: rounds in which nothing came before another thread may run.
const PATIENCE: u32 = 64;

/// At the end of a trial: what comes later than this after the last one is taken for lost.
const DRAIN: Duration = Duration::from_millis(300);

/// Frames may be sent so late after the end of their trial and still count: a port's queue, or
/// an interruption of the sender, is no loss.
const LATE: Duration = Duration::from_millis(10);

/// The longest wait for the first frame of a size.
const FIRST: Duration = Duration::from_secs(3);

/// Latencies up to 10 s, to three digits.
pub type Latencies = Histogram<u64>;

/// What trials have in common.
pub struct Stage<'s> {
    /// The cable's two ends.
    pub ends: [Endpoint; 2],
    /// Frame size in bytes without FCS.
    pub size: usize,
    /// Load in both directions at once.
    pub both_ways: bool,
    /// Whose CPU time counts.
    pub cpu: Option<CpuMeter>,
    /// Ends everything early when it becomes true.
    pub stop: &'s AtomicBool,
    /// Trials so far: frames of one are not taken for another's.
    pub trials: u16,
}

/// A lane under load.
struct Lane {
    from: usize,
    pattern: Pattern,
    tally: Tally,
    sent: u64,
    /// Numbers below this are not waited for any more.
    given_up: u64,
}

impl Lane {
    fn under_way(&self) -> u64 {
        self.sent - self.tally.next().max(self.given_up)
    }
}

/// Result of [`Stage::flood`].
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// Frames that arrived each second, all lanes together.
    pub frames_per_second: f64,
    /// CPU seconds for a million of them.
    pub cpu_per_million: Option<f64>,
    /// All frames, those before and after the measured time too.
    pub counts: Counts,
}

/// Result of [`Stage::paced`].
pub struct Paced {
    /// All frames.
    pub counts: Counts,
    /// Time from when each was due to when it was seen at the other end, in nanoseconds.
    pub latencies: Latencies,
    /// Frames were late though there was room for them: the generator is too slow.
    pub generator_late: bool,
}

/// Counts what arrives, and how long it took.
struct Sink<'t, F> {
    tally: &'t mut Tally,
    arrived: F,
}

impl<F: FnMut(Stamp)> Take for Sink<'_, F> {
    #[inline]
    fn frame(&mut self, frame: &impl Bytes) {
        if let Some(stamp) = self.tally.take(frame) {
            (self.arrived)(stamp);
        }
    }
}

impl Stage<'_> {
    /// Sends as much as arrives: a fixed number of frames is kept under way, so that the cable
    /// is never without work and no queue behind it overflows.
    ///
    /// # Errors
    /// When an end fails.
    pub fn flood(&mut self, time: Duration) -> Result<Flood, BenchError> {
        let mut lanes = self.lanes()?;
        let window = (BYTES_UNDER_WAY / self.size).max(4) as u64;
        let windows = [1, 0].map(|to| window.min(self.ends[to].room(self.size) as u64));
        let began = Instant::now();
        let mut measured = None;
        let mut last = (began, 0);
        let mut idle = 0;
        loop {
            for lane in &mut lanes {
                let room = windows[lane.from].saturating_sub(lane.under_way()) as usize;
                if room >= BURST.min(windows[lane.from] as usize / 2) {
                    self.send(lane, room.min(BURST), |_| 0)?;
                }
                self.receive(lane, |_| ())?;
            }
            let received = lanes.iter().map(|lane| lane.tally.received()).sum();
            let now = Instant::now();
            idle += 1;
            if received > last.1 {
                last = (now, received);
                idle = 0;
            } else if now - last.0 > SILENCE {
                // All that is under way is lost.
                for lane in &mut lanes {
                    lane.given_up = lane.sent;
                }
                last.0 = now;
            }
            if idle > PATIENCE {
                // Where there is no CPU to spare, the one that forwards must have this one.
                std::thread::yield_now();
            }
            if measured.is_none() && now - began >= WARM_UP {
                measured = Some((now, received, self.cpu_seconds()));
            }
            if now - began >= WARM_UP + time || self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let (end, cpu_end) = (Instant::now(), self.cpu_seconds());
        let received: u64 = lanes.iter().map(|lane| lane.tally.received()).sum();
        let (start, before, cpu_start) = measured.ok_or(BenchError::Interrupted)?;
        let frames = (received - before) as f64;
        let cpu = cpu_end.zip(cpu_start).map(|(end, start)| end - start);
        self.drain(&mut lanes)?;
        Ok(Flood {
            frames_per_second: frames / (end - start).as_secs_f64(),
            cpu_per_million: cpu.filter(|_| frames > 0.0).map(|cpu| cpu / frames * 1e6),
            counts: counts(lanes, None),
        })
    }

    /// Sends each frame at its time, `rate` a second in each lane, whatever becomes of the
    /// others (an open loop).
    ///
    /// # Errors
    /// When an end fails, or the trial is interrupted.
    pub fn paced(&mut self, rate: f64, time: Duration) -> Result<Paced, BenchError> {
        let schedule = Schedule::at(rate);
        let total = schedule.until(time.as_nanos() as u64);
        let mut lanes = self.lanes()?;
        let mut latencies = latencies();
        let mut refusals = 0_u64;
        let began = Instant::now();
        let since = |instant: Instant| (instant - began).as_nanos() as u64;
        loop {
            let now = since(Instant::now());
            let due = schedule.due(now).min(total);
            for lane in &mut lanes {
                let wanted = ((due - lane.sent) as usize).min(BURST);
                if wanted > 0 {
                    let sent = self.send(lane, wanted, |number| schedule.time(number))?;
                    refusals += u64::from(sent < wanted);
                }
                let mut seen = None;
                self.receive(lane, |stamp| {
                    let now = *seen.get_or_insert_with(|| since(Instant::now()));
                    latencies.saturating_record(now.saturating_sub(stamp.time));
                })?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let over = now >= time.as_nanos() as u64;
            if over && lanes.iter().all(|lane| lane.sent == total)
                || now > (time + LATE).as_nanos() as u64
            {
                break;
            }
        }
        let unsent = lanes.iter().any(|lane| lane.sent < total);
        self.drain(&mut lanes)?;
        Ok(Paced {
            counts: counts(lanes, Some(total)),
            latencies,
            generator_late: unsent && refusals == 0,
        })
    }

    /// Waits until frames of this size arrive, in every lane that is to be loaded.
    ///
    /// # Errors
    /// [`BenchError::Silent`] when none does.
    pub fn wait_for_first(&mut self) -> Result<(), BenchError> {
        let began = Instant::now();
        let mut lanes = self.lanes()?;
        for lane in &mut lanes {
            let mut last = None;
            while lane.tally.received() == 0 {
                let now = Instant::now();
                if last.is_none_or(|last| now - last > Duration::from_millis(1)) {
                    self.send(lane, 1, |_| 0)?;
                    last = Some(now);
                }
                self.receive(lane, |_| ())?;
                if now - began > FIRST {
                    return Err(BenchError::Silent(self.size));
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(BenchError::Interrupted);
                }
            }
        }
        self.drain(&mut lanes)
    }

    fn lanes(&mut self) -> Result<Vec<Lane>, BenchError> {
        self.trials = self.trials.wrapping_add(1);
        let ways = if self.both_ways { 2 } else { 1 };
        // What the host's own stack, or an earlier trial, left.
        for end in &mut self.ends {
            while end.receive(BURST, Ignore)? > 0 {}
        }
        Ok((0..ways)
            .map(|from| {
                let pattern = Pattern::new(self.size, from as u8, self.trials);
                self.ends[from].load(&pattern);
                let tally = Tally::new(pattern.clone());
                Lane {
                    from,
                    pattern,
                    tally,
                    sent: 0,
                    given_up: 0,
                }
            })
            .collect())
    }

    #[inline]
    fn send(
        &mut self,
        lane: &mut Lane,
        limit: usize,
        time: impl Fn(u64) -> u64,
    ) -> Result<usize, BenchError> {
        let mut number = lane.sent;
        let sent = self.ends[lane.from].send(limit, &lane.pattern, || {
            let stamp = Stamp {
                number,
                time: time(number),
            };
            number += 1;
            stamp
        })?;
        lane.sent += sent as u64;
        Ok(sent)
    }

    #[inline]
    fn receive(
        &mut self,
        lane: &mut Lane,
        arrived: impl FnMut(Stamp),
    ) -> Result<usize, BenchError> {
        let sink = Sink {
            tally: &mut lane.tally,
            arrived,
        };
        self.ends[1 - lane.from].receive(2 * BURST, sink)
    }

    /// Takes in what is still under way.
    fn drain(&mut self, lanes: &mut [Lane]) -> Result<(), BenchError> {
        let mut last = Instant::now();
        while last.elapsed() < DRAIN {
            let mut missing = 0;
            for lane in &mut *lanes {
                if self.receive(lane, |_| ())? > 0 {
                    last = Instant::now();
                }
                missing += lane.sent.saturating_sub(lane.tally.received());
            }
            if missing == 0 || self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    fn cpu_seconds(&self) -> Option<f64> {
        self.cpu.as_ref()?.seconds()
    }
}

struct Ignore;

impl Take for Ignore {
    fn frame(&mut self, _: &impl Bytes) {}
}

fn counts(lanes: Vec<Lane>, offered: Option<u64>) -> Counts {
    lanes
        .into_iter()
        .map(|lane| lane.tally.finish(offered.unwrap_or(lane.sent), lane.sent))
        .fold(Counts::default(), Counts::plus)
}

/// An empty histogram.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("these bounds are valid")
}

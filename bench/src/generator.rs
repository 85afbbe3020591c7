//! Runs: frames through a cable for a fixed time, from a single thread that sends and receives in
//! turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::BenchError;
use crate::cpu_time::CpuMeter;
use crate::endpoint::{Endpoint, FrameSink};
use crate::pattern::{FrameBytes, Pattern, Stamp};
use crate::schedule::Schedule;
use crate::sequence::{FrameCounts, SequenceTracker};
use crate::testbed::Testbed;
use guest::GuestOptions;

/// Frames that are sent before the generator receives, and the other way round.
const BURST: usize = 32;

/// Limit of the bytes in flight in each lane: with super-frames, the limit in frames alone would
/// allow more than the ends can buffer.
const MAX_BYTES_IN_FLIGHT: usize = 1 << 20;

/// How long a flood lasts before its rate counts.
const WARM_UP: Duration = Duration::from_millis(100);

/// In a flood: after this time without a frame, the frames in flight count as lost. If they were
/// only late, more would be in flight afterwards than the ends can buffer; so the time is long
/// enough for a worker that other work keeps from its CPU.
const SILENCE: Duration = Duration::from_millis(200);

/// In a flood: this many rounds without a frame let another thread run.
const IDLE_ROUNDS: u32 = 64;

/// At the end of a run: after this time without a frame, the missing frames count as lost.
const DRAIN: Duration = Duration::from_millis(300);

/// Frames may be sent this late after the end of their run and still count as sent: a full queue of
/// a port, or an interruption of the generator, is not a loss.
const GRACE: Duration = Duration::from_millis(10);

/// The longest wait for the first frame of a size.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(3);

/// Loads a cable with frames of one size, run after run.
pub(crate) struct LoadGenerator<'s> {
    ends: [Endpoint; 2],
    /// Frame size in bytes without FCS.
    pub(crate) size: usize,
    /// Whether to load both directions at once.
    both_ways: bool,
    /// Meters the CPU time of the threads that forward.
    cpu: Option<CpuMeter>,
    /// Ends a run early when it becomes true.
    stop: &'s AtomicBool,
    /// Number of runs so far, which distinguishes the frames of one run from those of another.
    runs: u16,
}

/// A lane under load.
struct LoadedLane {
    from: usize,
    pattern: Pattern,
    tracker: SequenceTracker,
    sent: u64,
    /// Frames with lower numbers count as lost.
    given_up: u64,
}

impl LoadedLane {
    fn in_flight(&self) -> u64 {
        self.sent - self.tracker.next().max(self.given_up)
    }
}

/// Result of [`LoadGenerator::flood`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloodResult {
    /// Frames that arrived per second, in all lanes together.
    pub(crate) frames_per_second: f64,
    /// CPU seconds per million of those frames.
    pub(crate) cpu_per_million: Option<f64>,
    /// All frames, including those before and after the measured time.
    pub(crate) counts: FrameCounts,
}

/// Result of [`LoadGenerator::paced`].
pub(crate) struct PacedResult {
    pub(crate) counts: FrameCounts,
    /// Nanoseconds from when a frame was due to when the generator received it, up to 10 s and to
    /// three digits.
    pub(crate) latencies: Histogram<u64>,
    /// Whether frames were late although the cable accepted them: the generator is too slow.
    pub(crate) generator_late: bool,
}

/// Counts the frames that arrive and passes their stamps on.
struct TrackingSink<'t, F> {
    tracker: &'t mut SequenceTracker,
    arrived: F,
}

impl<F: FnMut(Stamp)> FrameSink for TrackingSink<'_, F> {
    #[inline]
    fn accept(&mut self, frame: &impl FrameBytes) {
        if let Some(stamp) = self.tracker.record(frame) {
            (self.arrived)(stamp);
        }
    }
}

impl LoadGenerator<'_> {
    /// Opens both ends of a cable for frames of `size` bytes. Guests at vhost-user sockets have the
    /// properties `guest`. `stop` ends each run early when it becomes true.
    pub(crate) fn open<'s>(
        testbed: &Testbed,
        size: usize,
        both_ways: bool,
        guest: &GuestOptions,
        stop: &'s AtomicBool,
    ) -> Result<LoadGenerator<'s>, BenchError> {
        let open = |end| Endpoint::open(end, size, guest);
        Ok(LoadGenerator {
            ends: [open(&testbed.ends[0])?, open(&testbed.ends[1])?],
            size,
            both_ways,
            cpu: testbed.cpu.clone(),
            stop,
            runs: 0,
        })
    }

    /// Sends as many frames as arrive: it keeps a fixed number of frames in flight, so that the
    /// cable always has work and no queue after it overflows.
    ///
    /// # Errors
    /// When an end fails, or the run is stopped during its warm-up.
    pub(crate) fn flood(&mut self, time: Duration) -> Result<FloodResult, BenchError> {
        let mut lanes = self.start_run()?;
        let window = (MAX_BYTES_IN_FLIGHT / self.size).max(4) as u64;
        let windows = [1, 0].map(|to| window.min(self.ends[to].in_flight_limit(self.size) as u64));
        let began = Instant::now();
        let mut measured = None;
        let mut last = (began, 0);
        let mut idle = 0;
        loop {
            for lane in &mut lanes {
                let free = windows[lane.from].saturating_sub(lane.in_flight()) as usize;
                // Whole bursts, as a guest under load sends them.
                if free >= BURST.min(windows[lane.from] as usize / 2) {
                    self.send(lane, free.min(BURST), |_| 0)?;
                }
                self.receive(lane, |_| ())?;
            }
            let received = lanes.iter().map(|lane| lane.tracker.received()).sum();
            let now = Instant::now();
            idle += 1;
            if received > last.1 {
                last = (now, received);
                idle = 0;
            } else if now - last.0 > SILENCE {
                // All frames in flight are lost: fill the window again.
                for lane in &mut lanes {
                    lane.given_up = lane.sent;
                }
                last.0 = now;
            }
            if idle > IDLE_ROUNDS {
                // On a single CPU the worker needs this one to forward.
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
        let received: u64 = lanes.iter().map(|lane| lane.tracker.received()).sum();
        let (start, before, cpu_start) = measured.ok_or(BenchError::Interrupted)?;
        let frames = (received - before) as f64;
        let cpu = cpu_end.zip(cpu_start).map(|(end, start)| end - start);
        self.drain(&mut lanes)?;
        Ok(FloodResult {
            frames_per_second: frames / (end - start).as_secs_f64(),
            cpu_per_million: cpu.filter(|_| frames > 0.0).map(|cpu| cpu / frames * 1e6),
            counts: counts(lanes, None),
        })
    }

    /// Sends each frame at its time, `rate` frames per second in each lane, whether or not earlier
    /// frames have arrived (an open loop).
    ///
    /// # Errors
    /// When an end fails, or the run is stopped.
    pub(crate) fn paced(&mut self, rate: f64, time: Duration) -> Result<PacedResult, BenchError> {
        let schedule = Schedule::at(rate);
        let total = schedule.before(time.as_nanos() as u64);
        let mut lanes = self.start_run()?;
        let mut latencies =
            Histogram::new_with_bounds(1, 10_000_000_000, 3).expect("these bounds are valid");
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
                // All frames of a burst were received at once: read the clock once.
                let mut received_at = None;
                self.receive(lane, |stamp| {
                    let now = *received_at.get_or_insert_with(|| since(Instant::now()));
                    latencies.saturating_record(now.saturating_sub(stamp.time));
                })?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(BenchError::Interrupted);
            }
            let over = now >= time.as_nanos() as u64;
            if over && lanes.iter().all(|lane| lane.sent == total)
                || now > (time + GRACE).as_nanos() as u64
            {
                break;
            }
        }
        let unsent = lanes.iter().any(|lane| lane.sent < total);
        self.drain(&mut lanes)?;
        Ok(PacedResult {
            counts: counts(lanes, Some(total)),
            latencies,
            generator_late: unsent && refusals == 0,
        })
    }

    /// Waits until a frame arrives in every lane to load: ports may come up late, and a device may
    /// refuse frames of this size.
    ///
    /// # Errors
    /// [`BenchError::Silent`] when none arrives within 3 s.
    pub(crate) fn wait_for_first_frame(&mut self) -> Result<(), BenchError> {
        let began = Instant::now();
        let mut lanes = self.start_run()?;
        for lane in &mut lanes {
            let mut last = None;
            while lane.tracker.received() == 0 {
                let now = Instant::now();
                if last.is_none_or(|last| now - last > Duration::from_millis(1)) {
                    self.send(lane, 1, |_| 0)?;
                    last = Some(now);
                }
                self.receive(lane, |_| ())?;
                if now - began > FIRST_FRAME_TIMEOUT {
                    return Err(BenchError::Silent(self.size));
                }
                if self.stop.load(Ordering::Relaxed) {
                    return Err(BenchError::Interrupted);
                }
            }
        }
        self.drain(&mut lanes)
    }

    /// Prepares the lanes of a new run.
    fn start_run(&mut self) -> Result<Vec<LoadedLane>, BenchError> {
        self.runs = self.runs.wrapping_add(1);
        let ways = if self.both_ways { 2 } else { 1 };
        // Discard frames of the host's own network stack and of an earlier run.
        for end in &mut self.ends {
            while end.receive(BURST, Ignore)? > 0 {}
        }
        Ok((0..ways)
            .map(|from| {
                let pattern = Pattern::new(self.size, from as u8, self.runs);
                self.ends[from].load(&pattern);
                let tracker = SequenceTracker::new(pattern.clone());
                LoadedLane {
                    from,
                    pattern,
                    tracker,
                    sent: 0,
                    given_up: 0,
                }
            })
            .collect())
    }

    #[inline]
    fn send(
        &mut self,
        lane: &mut LoadedLane,
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
        lane: &mut LoadedLane,
        arrived: impl FnMut(Stamp),
    ) -> Result<usize, BenchError> {
        let sink = TrackingSink {
            tracker: &mut lane.tracker,
            arrived,
        };
        self.ends[1 - lane.from].receive(2 * BURST, sink)
    }

    /// Receives the frames that are still in flight.
    fn drain(&mut self, lanes: &mut [LoadedLane]) -> Result<(), BenchError> {
        let mut last = Instant::now();
        while last.elapsed() < DRAIN {
            let mut missing = 0;
            for lane in &mut *lanes {
                if self.receive(lane, |_| ())? > 0 {
                    last = Instant::now();
                }
                missing += lane.sent.saturating_sub(lane.tracker.received());
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

impl FrameSink for Ignore {
    fn accept(&mut self, _: &impl FrameBytes) {}
}

/// The counts of all lanes together. Without `offered`, the frames that were sent count as offered.
fn counts(lanes: Vec<LoadedLane>, offered: Option<u64>) -> FrameCounts {
    lanes
        .into_iter()
        .map(|lane| lane.tracker.finish(offered.unwrap_or(lane.sent), lane.sent))
        .fold(FrameCounts::default(), FrameCounts::plus)
}

//! The whole measurement of a cable: throughput, the highest rate without loss, latency.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::BenchError;
use crate::bed::Bed;
use crate::endpoint::Endpoint;
use crate::report::{Latency, Load, NoDrop, SizeReport, Throughput};
use crate::search::Search;
use crate::tally::Counts;
use crate::trial::Stage;
use guest::GuestOptions;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Frame sizes in bytes without FCS.
    pub sizes: Vec<usize>,
    /// Length of throughput and latency trials.
    pub time: Duration,
    /// Length of each trial of the search; zero leaves the search out.
    pub trial: Duration,
    /// Share of the frames that may be lost in a trial that passes: 0 in RFC 2544.
    pub tolerance: f64,
    /// Trials in a row that must fail before a rate counts as failed: 1 in RFC 2544. More look
    /// past what has nothing to do with the rate, such as other work on the same CPU.
    pub attempts: u32,
    /// How close the search comes to the limit: 0.01 is 1 %.
    pub resolution: f64,
    /// Loads at which latency is measured.
    pub loads: Vec<Load>,
    /// Load both directions at once.
    pub both_ways: bool,
    /// What the guests on vhost-user ends are like.
    pub guest: GuestOptions,
}

/// What is being done, for people who wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// As much as goes through.
    Throughput,
    /// A trial of the search at this rate, and the best rate so far.
    NoDrop(f64, f64),
    /// At this rate.
    Latency(f64),
}

/// How far a measurement is.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// A step begins, with frames of this size.
    Begins(usize, Step),
    /// A size is done.
    Done(SizeReport),
}

/// Measures frames of each size in turn, and tells of each step. A size that the cable does not
/// carry is reported as such.
///
/// # Errors
/// When an end cannot be opened or fails, or `stop` became true.
pub fn measure(
    bed: &Bed,
    plan: &Plan,
    stop: &AtomicBool,
    mut tell: impl FnMut(News),
) -> Result<Vec<SizeReport>, BenchError> {
    let mut reports = Vec::new();
    for size in &plan.sizes {
        let size = *size;
        let open = |end| Endpoint::open(end, size, &plan.guest);
        let mut stage = Stage {
            ends: [open(&bed.ends[0])?, open(&bed.ends[1])?],
            size,
            both_ways: plan.both_ways,
            cpu: bed.cpu.clone(),
            stop,
            trials: 0,
        };
        let result = measure_size(&mut stage, plan, &mut |step| {
            tell(News::Begins(size, step));
        });
        let report = match result {
            Err(error @ (BenchError::Silent(_) | BenchError::TooLong(_))) => SizeReport {
                size,
                not_carried: Some(error.to_string()),
                ..SizeReport::default()
            },
            result => result?,
        };
        tell(News::Done(report.clone()));
        reports.push(report);
    }
    Ok(reports)
}

fn measure_size(
    stage: &mut Stage<'_>,
    plan: &Plan,
    begins: &mut impl FnMut(Step),
) -> Result<SizeReport, BenchError> {
    stage.wait_for_first()?;
    begins(Step::Throughput);
    let flood = stage.flood(plan.time)?;
    let throughput = Throughput {
        frames_per_second: flood.frames_per_second,
        bits_per_second: flood.frames_per_second * stage.size as f64 * 8.0,
        cpu_seconds_per_million_frames: flood.cpu_per_million,
        counts: flood.counts,
    };
    let no_drop = if plan.trial.is_zero() {
        None
    } else {
        Some(no_drop(stage, plan, flood.frames_per_second, begins)?)
    };
    let lanes = if plan.both_ways { 2.0 } else { 1.0 };
    let full = no_drop
        .as_ref()
        .map_or(flood.frames_per_second, |found| found.frames_per_second);
    let mut latency = Vec::new();
    for load in &plan.loads {
        let rate = load.rate(full / lanes);
        if rate <= 0.0 {
            continue;
        }
        begins(Step::Latency(rate * lanes));
        let paced = stage.paced(rate, plan.time)?;
        latency.push(Latency::new(*load, rate * lanes, &paced));
    }
    Ok(SizeReport {
        size: stage.size,
        not_carried: None,
        throughput: Some(throughput),
        no_drop,
        latency,
    })
}

/// The search. What went through at full load is where it begins; a quarter more is its ceiling.
fn no_drop(
    stage: &mut Stage<'_>,
    plan: &Plan,
    full: f64,
    begins: &mut impl FnMut(Step),
) -> Result<NoDrop, BenchError> {
    let lanes = if plan.both_ways { 2.0 } else { 1.0 };
    let mut search = Search::below(full * 1.25, plan.resolution);
    let (mut trials, mut generator_late) = (0, false);
    let mut counts = Counts::default();
    while let Some(rate) = search.next() {
        begins(Step::NoDrop(rate, search.best()));
        let mut passed = false;
        for _ in 0..plan.attempts.max(1) {
            let paced = stage.paced(rate / lanes, plan.trial)?;
            trials += 1;
            let missing = paced.counts.offered.saturating_sub(paced.counts.received);
            passed = missing as f64 <= paced.counts.offered as f64 * plan.tolerance;
            if passed {
                counts = counts.plus(paced.counts);
                break;
            }
            generator_late = paced.generator_late;
        }
        search.tried(passed);
    }
    Ok(NoDrop {
        frames_per_second: search.best(),
        trials,
        generator_late,
        counts,
    })
}

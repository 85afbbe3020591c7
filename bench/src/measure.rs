//! A whole measurement of a cable: throughput, the highest rate without loss, latency.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::BenchError;
use crate::generator::LoadGenerator;
use crate::report::{Latency, NoDrop, OfferedLoad, SizeReport, Throughput};
use crate::search::RateSearch;
use crate::sequence::FrameCounts;
use crate::testbed::Testbed;
use guest::GuestOptions;

/// The loads to put on a cable, and what to measure with each.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// Frame sizes in bytes without FCS.
    pub sizes: Vec<usize>,
    /// Length of each run for throughput or latency.
    pub time: Duration,
    /// Length of each run of the search for the highest rate without loss; zero omits the search.
    pub search_time: Duration,
    /// Share of the frames, 0..=1, that a run of the search may lose and still pass: 0 in RFC 2544.
    pub tolerance: f64,
    /// How many runs in a row must fail before a rate counts as failed: 1 in RFC 2544. More hide
    /// disturbances that do not depend on the rate, such as other work on the same CPU.
    pub attempts: u32,
    /// How close the search comes to the limit: 0.01 is 1 %.
    pub resolution: f64,
    /// Loads at which latency is measured.
    pub loads: Vec<OfferedLoad>,
    /// Whether to load both directions at once.
    pub both_ways: bool,
    /// Properties of the guests at vhost-user ends.
    pub guest: GuestOptions,
}

/// A part of a measurement. Rates are frames per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LoadStep {
    /// The flood that measures throughput.
    Throughput,
    /// A run of the search for the highest rate without loss.
    NoDrop {
        /// The rate of this run.
        rate: f64,
        /// The highest rate that passed so far.
        best: f64,
    },
    /// A latency run at this rate.
    Latency(f64),
}

/// The progress of a measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum LoadProgress {
    /// A step begins, with frames of this many bytes.
    Begins(usize, LoadStep),
    /// All steps of one frame size are done.
    Done(SizeReport),
}

/// Measures a cable with frames of each size in turn and reports each step to `progress`. The
/// result says of a size that the cable does not carry why it does not.
///
/// # Errors
/// When an end cannot be opened or fails, or `stop` became true.
pub fn measure(
    testbed: &Testbed,
    plan: &LoadPlan,
    stop: &AtomicBool,
    mut progress: impl FnMut(LoadProgress),
) -> Result<Vec<SizeReport>, BenchError> {
    let mut reports = Vec::new();
    for &size in &plan.sizes {
        let mut generator = LoadGenerator::open(testbed, size, plan.both_ways, &plan.guest, stop)?;
        let result = measure_size(&mut generator, plan, &mut |step| {
            progress(LoadProgress::Begins(size, step));
        });
        let report = match result {
            Err(error @ (BenchError::Silent(_) | BenchError::TooLong(_))) => SizeReport {
                size,
                not_carried: Some(error.to_string()),
                ..SizeReport::default()
            },
            result => result?,
        };
        progress(LoadProgress::Done(report.clone()));
        reports.push(report);
    }
    Ok(reports)
}

fn measure_size(
    generator: &mut LoadGenerator<'_>,
    plan: &LoadPlan,
    begins: &mut impl FnMut(LoadStep),
) -> Result<SizeReport, BenchError> {
    generator.wait_for_first_frame()?;
    begins(LoadStep::Throughput);
    let flood = generator.flood(plan.time)?;
    let throughput = Throughput {
        frames_per_second: flood.frames_per_second,
        bits_per_second: flood.frames_per_second * generator.size as f64 * 8.0,
        cpu_seconds_per_million_frames: flood.cpu_per_million,
        counts: flood.counts,
    };
    let no_drop = if plan.search_time.is_zero() {
        None
    } else {
        Some(no_drop(generator, plan, flood.frames_per_second, begins)?)
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
        begins(LoadStep::Latency(rate * lanes));
        let paced = generator.paced(rate, plan.time)?;
        latency.push(Latency::new(*load, rate * lanes, &paced));
    }
    Ok(SizeReport {
        size: generator.size,
        not_carried: None,
        throughput: Some(throughput),
        no_drop,
        latency,
    })
}

/// Searches the highest rate without loss. The ceiling is a quarter above `full`, the throughput of
/// the flood.
fn no_drop(
    generator: &mut LoadGenerator<'_>,
    plan: &LoadPlan,
    full: f64,
    begins: &mut impl FnMut(LoadStep),
) -> Result<NoDrop, BenchError> {
    let lanes = if plan.both_ways { 2.0 } else { 1.0 };
    let mut search = RateSearch::below(full * 1.25, plan.resolution);
    let (mut trials, mut generator_late) = (0, false);
    let mut counts = FrameCounts::default();
    while let Some(rate) = search.next() {
        begins(LoadStep::NoDrop {
            rate,
            best: search.best(),
        });
        let mut passed = false;
        for _ in 0..plan.attempts.max(1) {
            let paced = generator.paced(rate / lanes, plan.search_time)?;
            trials += 1;
            let missing = paced.counts.offered.saturating_sub(paced.counts.received);
            passed = missing as f64 <= paced.counts.offered as f64 * plan.tolerance;
            if passed {
                counts = counts.plus(paced.counts);
                break;
            }
            generator_late = paced.generator_late;
        }
        search.record(passed);
    }
    Ok(NoDrop {
        frames_per_second: search.best(),
        trials,
        generator_late,
        counts,
    })
}

//! Compares what a lane was asked to do with what it did: arithmetic on its figures, without side
//! effects.

use dataplane::Accuracy;

use api::{AccuracyReport, DelayReport, LossReport, RateReport};
use model::impairment::{ImpairKeys, LossModel, Percent};

/// The largest share of frames, 0..=1, that may leave more than 100 µs late. Above it the figures
/// are not trusted.
const LATE: f64 = 0.01;

/// The smallest share of the requested rate, 0..=1, that a lane must reach.
const SLOW: f64 = 0.99;

/// With fewer frames than this, the report makes no statement about trust.
const FEW: u64 = 100;

/// If frames have waited for the line for less than this, in ns, the report makes no statement
/// about its rate.
const SHORT: u64 = 50_000_000;

/// 95 % of a normal distribution lie within this many standard deviations of its mean.
const Z: f64 = 1.959_964;

/// Compares the figures of a lane with its impairment `keys`.
pub(super) fn report(keys: &ImpairKeys, seen: &Accuracy) -> AccuracyReport {
    let waits = keys.delay.is_some() || keys.jitter.is_some() || keys.slot.is_some();
    let us = |ns: u64| ns as f64 / 1e3;
    let errors = &seen.delay_error;
    let delay = (waits && !errors.is_empty()).then(|| DelayReport {
        requested_us: us(keys.delay.unwrap_or_default().0.as_nanos() as u64),
        released: errors.len(),
        late_p50_us: us(errors.value_at_quantile(0.5)),
        late_p99_us: us(errors.value_at_quantile(0.99)),
        late_max_us: us(errors.max()),
        late_frames: seen.late,
    });
    let rate = keys.rate.map(|rate| RateReport {
        requested_bps: rate.0,
        achieved_bps: line_rate(keys, seen),
        busy_s: seen.busy_ns as f64 / 1e9,
    });
    let loss = keys.loss.filter(|_| seen.judged > 0).map(|model| {
        let achieved = seen.lost as f64 / seen.judged as f64;
        let (low, high) = wilson(achieved, seen.judged as f64 * independent(model));
        LossReport {
            requested: in_the_long_run(model),
            achieved,
            low,
            high,
            lost: seen.lost,
        }
    });
    let note = doubts(seen, waits, rate.as_ref());
    AccuracyReport {
        frames: seen.judged,
        delay,
        rate,
        loss,
        trusted: note.is_empty(),
        note,
    }
}

/// The rate while frames waited for the line, in bit/s on the line. `None` with cells, because how
/// full they were is unknown.
fn line_rate(keys: &ImpairKeys, seen: &Accuracy) -> Option<f64> {
    let overhead = keys.overhead.map_or(0, |bytes| bytes.0) as f64;
    let bytes = seen.busy_bytes as f64 + seen.busy_frames as f64 * overhead;
    (seen.busy_ns >= SHORT && keys.cell.is_none()).then(|| bytes * 8e9 / seen.busy_ns as f64)
}

/// The reasons why the figures are not those that were asked for; empty if they are.
fn doubts(seen: &Accuracy, waits: bool, rate: Option<&RateReport>) -> String {
    let released = seen.delay_error.len();
    let late = seen.late as f64 / released.max(1) as f64;
    let mut doubts = Vec::new();
    // A frame that was late because of the line does not make the rate wrong: the next one was in
    // time.
    if waits && released >= FEW && late > LATE {
        doubts.push(format!(
            "{:.1} % of the frames left more than 100 µs late",
            late * 100.0
        ));
    }
    if let Some(rate) = rate
        && let Some(achieved) = rate.achieved_bps
        && achieved < rate.requested_bps as f64 * SLOW
    {
        doubts.push("the line was slower than requested".into());
    }
    if doubts.is_empty() {
        return String::new();
    }
    format!(
        "the host was too busy for these figures: {}; give the workers CPUs of their own (--cpus, \
         --idle spin)",
        doubts.join(", and ")
    )
}

/// The share of frames that a model loses in the long run, 0..=1.
fn in_the_long_run(model: LossModel) -> f64 {
    match model {
        LossModel::None => 0.0,
        LossModel::Random(share, _) => share.share(),
        LossModel::State(shares) => {
            let [p13, p31, p32, p23, p14] = shares.map(Percent::share);
            // How often each state is visited for each visit to state 1.
            let alone = p14;
            let (lost, received) = match (p13 > 0.0, p31 > 0.0) {
                (false, _) => (0.0, 0.0),
                (true, true) => (
                    p13 / p31,
                    if p32 > 0.0 {
                        p13 / p31 * p32 / p23
                    } else {
                        0.0
                    },
                ),
                // State 1 is never reached again.
                (true, false) if p32 > 0.0 => return p23 / (p32 + p23),
                (true, false) => return 1.0,
            };
            if received.is_infinite() {
                return 0.0; // No way back from state 2.
            }
            (lost + alone) / (1.0 + lost + received + alone)
        }
        LossModel::Gemodel(shares) => {
            let [p, r, in_bad, in_good] = shares.map(Percent::share);
            let bad = if p > 0.0 { p / (p + r) } else { 0.0 };
            bad * in_bad + (1.0 - bad) * in_good
        }
    }
}

/// How much a frame reveals about a model's share, compared with a frame that is lost independently
/// of all others, 0..=1. Where losses come in bursts, it reveals less.
fn independent(model: LossModel) -> f64 {
    // The correlation between the fates of two successive frames.
    let memory = match model {
        LossModel::None => 0.0,
        LossModel::Random(_, correlation) => correlation.share(),
        LossModel::State([begins, ends, ..]) | LossModel::Gemodel([begins, ends, ..]) => {
            (1.0 - begins.share() - ends.share()).max(0.0)
        }
    };
    (1.0 - memory) / (1.0 + memory)
}

/// Wilson's score interval for 95 % of a share `p` that was found in `n` tries.
fn wilson(p: f64, n: f64) -> (f64, f64) {
    if n < 1.0 {
        return (0.0, 1.0);
    }
    let z2 = Z * Z;
    let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-4, "{found}, not {expected}");
    }

    /// Figures of Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    #[test]
    fn wilson_s_interval() {
        for ((hits, tries), (low, high)) in [
            ((81, 263), (0.2553, 0.3662)),
            ((15, 148), (0.0624, 0.1605)),
            ((0, 20), (0.0, 0.1611)),
            ((1, 29), (0.0061, 0.1718)),
        ] {
            let found = wilson(f64::from(hits) / f64::from(tries), f64::from(tries));
            near(found.0, low);
            near(found.1, high);
        }
        near(wilson(1.0, 5.0).1, 1.0);
        assert_eq!(wilson(0.5, 0.5), (0.0, 1.0), "nothing is known");
    }

    #[test]
    fn frames_of_a_burst_say_less_than_those_that_are_lost_alone() {
        let of = |text: &str| independent(text.parse().unwrap());
        near(of("5%"), 1.0);
        near(of("5% 50%"), 1.0 / 3.0);
        near(of("gemodel 1%"), 1.0);
        near(of("gemodel 2% 20%"), 0.22 / 1.78);
        near(of("state 2% 30% 10% 50% 1%"), 0.32 / 1.68);
        near(of("gemodel 100% 100%"), 1.0);
    }

    #[test]
    fn what_models_lose_in_the_long_run() {
        let of = |text: &str| in_the_long_run(text.parse().unwrap());
        near(of("1%"), 0.01);
        near(of("state 1%"), 0.01);
        near(of("gemodel 1%"), 0.01);
        near(of("gemodel 5% 20% 50% 1%"), 0.2 * 0.5 + 0.8 * 0.01);
        near(
            of("state 5% 20% 10% 50% 1%"),
            (0.25 + 0.01) / (1.0 + 0.25 + 0.05 + 0.01),
        );
        near(of("state 5% 0% 0%"), 1.0);
        near(of("state 5% 0% 30% 10%"), 0.25);
        near(of("none"), 0.0);
    }

    fn seen(late: u64) -> Accuracy {
        let mut delay_error = Histogram::new_with_bounds(1, 10_000_000_000, 3).unwrap();
        delay_error.record_n(3_000, 990).unwrap();
        delay_error.record_n(80_000, 10).unwrap();
        Accuracy {
            delay_error,
            late,
            marked: 0,
            judged: 1010,
            lost: 10,
            duplicated: 0,
            corrupted: 0,
            reordered: 0,
            busy_bytes: 125_000_000,
            busy_frames: 100_000,
            busy_ns: 1_000_000_000,
        }
    }

    #[test]
    fn only_what_was_asked_for_is_reported() {
        let mut keys = ImpairKeys::default();
        assert_eq!(report(&keys, &seen(0)).delay, None);
        keys.set("delay", "10ms").unwrap();
        keys.set("loss", "1%").unwrap();
        keys.set("rate", "1gbit").unwrap();
        let text = serde_json::to_string_pretty(&report(&keys, &seen(3))).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_busy_host_is_not_trusted() {
        let mut keys = ImpairKeys::default();
        keys.set("rate", "1gbit").unwrap();
        assert!(report(&keys, &seen(50)).trusted, "late frames, right rate");
        keys.set("rate", "2gbit").unwrap();
        keys.set("delay", "1ms").unwrap();
        let doubtful = report(&keys, &seen(50));
        assert!(!doubtful.trusted);
        insta::assert_snapshot!(doubtful.note);
    }
}

//! What befalls frames is counted and compared with what was asked for.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

const FRAMES: u64 = 50_000;
const GAP_NS: u64 = 1_000;
const PROBABILITIES: [f64; 6] = [0.0, 0.002, 0.01, 0.1, 0.5, 1.0];
/// Above this one in a thousand is, with one degree of freedom.
const UNLIKELY: f64 = 10.83;

fn chance(probability: f64) -> Chance {
    Chance {
        probability,
        correlation: 0.0,
    }
}

fn fates(settings: Impairment) -> impl Iterator<Item = Fate> {
    settings.check().expect("the test asks for what can be");
    let mut impairer = Impairer::new(settings);
    (1..=FRAMES).map(move |n| impairer.judge(n * GAP_NS, 100, false, Backlog::default()))
}

/// Chi-squared of how often it befell a frame, and of how often it did twice in a row: luck that
/// depends on the luck before would show in the second.
fn assert_befalls(probability: f64, name: &str, settings: Impairment, event: fn(&Fate) -> bool) {
    let luck: Vec<bool> = fates(settings).map(|fate| event(&fate)).collect();
    let count = luck.iter().filter(|hit| **hit).count();
    if probability == 0.0 || probability >= 1.0 {
        let all = if probability == 0.0 { 0 } else { luck.len() };
        assert_eq!(count, all, "{name} {probability}");
        return;
    }
    let pairs = luck.chunks(2).filter(|pair| pair[0] && pair[1]).count();
    for (what, count, tries, p) in [
        ("frames", count, luck.len(), probability),
        ("pairs", pairs, luck.len() / 2, probability * probability),
    ] {
        let (count, expected) = (count as f64, tries as f64 * p);
        if expected < 5.0 {
            continue;
        }
        let chi_squared = (count - expected).powi(2) / (expected * (1.0 - p));
        assert!(
            chi_squared < UNLIKELY,
            "{name} {probability}: {count} {what} of {expected}"
        );
    }
}

#[test]
fn loss_duplicate_corrupt_and_reorder_befall_their_share() {
    for (seed, p) in (1..).zip(PROBABILITIES) {
        let with = |change: fn(&mut Impairment, f64)| {
            let mut settings = Impairment {
                delay: Duration::from_millis(1),
                seed,
                ..Impairment::default()
            };
            change(&mut settings, p);
            settings
        };
        let loss = with(|it, probability| {
            it.loss = Loss::Random {
                probability,
                correlation: 0.0,
            };
        });
        assert_befalls(p, "loss", loss, |fate| {
            fate.dropped == Some(DropReason::Loss)
        });
        let duplicate = with(|it, p| it.duplicate = chance(p));
        assert_befalls(p, "duplicate", duplicate, |fate| fate.duplicate);
        let corrupt = with(|it, p| it.corrupt = chance(p));
        assert_befalls(p, "corrupt", corrupt, |fate| fate.corrupt.is_some());
        let reorder = with(|it, p| it.reorder = chance(p));
        assert_befalls(p, "reorder", reorder, |fate| fate.reordered);
    }
}

#[test]
fn events_together_leave_each_other_alone() {
    let settings = Impairment {
        delay: Duration::from_millis(1),
        loss: Loss::Random {
            probability: 0.2,
            correlation: 0.0,
        },
        duplicate: chance(0.3),
        ..Impairment::default()
    };
    let both = |fate: &Fate| fate.dropped.is_some() && fate.duplicate;
    assert_befalls(0.06, "loss and duplicate", settings, both);
}

#[test]
fn corruption_hits_every_bit() {
    let settings = Impairment {
        corrupt: chance(1.0),
        ..Impairment::default()
    };
    let mut counts = [0_u32; 800];
    for fate in fates(settings) {
        counts[fate.corrupt.expect("at 100 %") as usize] += 1;
    }
    let expected = FRAMES as f64 / 800.0;
    let chi_squared: f64 = counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    // 799 degrees of freedom: one in a thousand is above.
    assert!(chi_squared < 928.0, "{chi_squared}");
}

#[test]
fn correlated_loss_comes_in_bursts_but_is_no_more() {
    let count = |correlation| {
        let loss = Loss::Random {
            probability: 0.05,
            correlation,
        };
        let settings = Impairment {
            loss,
            ..Impairment::default()
        };
        let lost: Vec<bool> = fates(settings).map(|fate| fate.dropped.is_some()).collect();
        let again = lost.windows(2).filter(|two| two[0] && two[1]).count();
        let all = lost.iter().filter(|lost| **lost).count();
        (all as f64, again as f64 / all as f64)
    };
    let (_, mut last) = count(0.0);
    assert!((last - 0.05).abs() < 0.02, "{last}");
    for correlation in [0.25, 0.5, 0.75] {
        let (all, again) = count(correlation);
        assert!((all / FRAMES as f64 - 0.05).abs() < 0.006, "{all}");
        assert!(again > last + 0.05, "{again} after {last} at {correlation}");
        last = again;
    }
}

#[test]
fn correlated_jitter_stays_as_wide() {
    for (distribution, deviation) in [
        (Distribution::Uniform, 10.0 / 3.0_f64.sqrt()),
        (Distribution::Normal, 10.0),
    ] {
        let settings = Impairment {
            delay: Duration::from_millis(100),
            jitter: Duration::from_millis(10),
            delay_correlation: 0.5,
            distribution,
            ..Impairment::default()
        };
        let waits: Vec<f64> = (1..)
            .zip(fates(settings))
            .map(|(n, fate)| (fate.release - n * GAP_NS) as f64 / 1e6 - 100.0)
            .collect();
        let mean = waits.iter().sum::<f64>() / FRAMES as f64;
        let squares: f64 = waits.iter().map(|wait| wait * wait).sum();
        let with_last: f64 = waits.windows(2).map(|two| two[0] * two[1]).sum();
        let measured = (squares / FRAMES as f64).sqrt();
        assert!(mean.abs() < 0.2, "mean {mean}");
        assert!((measured - deviation).abs() < 0.2, "deviation {measured}");
        let correlation = with_last / squares;
        assert!((correlation - 0.5).abs() < 0.04, "{correlation}");
    }
}

/// Twice as much comes as the line takes; what the limit drops costs the line nothing.
#[test]
fn an_overloaded_line_sends_at_its_rate() {
    const LEN: u32 = 1514;
    const MBIT: u64 = 1_000_000;
    for bits_per_second in [MBIT, 10 * MBIT, 100 * MBIT, 1000 * MBIT, 5000 * MBIT] {
        let rate = Rate {
            bits_per_second,
            overhead: 0,
            cell: 0,
            cell_overhead: 0,
        };
        let settings = Impairment {
            delay: Duration::from_micros(100),
            rate: Some(rate),
            limit: Some(Limit::Frames(50)),
            ..Impairment::default()
        };
        let mut impairer = Impairer::new(settings);
        let gap = u64::from(LEN) * 8 * 500_000_000 / bits_per_second;
        let mut waiting = VecDeque::new();
        let mut sent = Vec::new();
        for now in (1..20_000).map(|n| n * gap) {
            while waiting.front().is_some_and(|release| *release <= now) {
                sent.extend(waiting.pop_front());
            }
            let frames = waiting.len() as u64;
            let backlog = Backlog {
                frames,
                bytes: frames * u64::from(LEN),
            };
            let fate = impairer.judge(now, LEN, false, backlog);
            if fate.dropped.is_none() {
                waiting.push_back(fate.release);
            }
        }
        let time = sent[sent.len() - 1] - sent[0];
        let bits = (sent.len() as u64 - 1) * u64::from(LEN) * 8;
        let achieved = bits as f64 / (time as f64 / 1e9);
        let error = achieved / bits_per_second as f64 - 1.0;
        assert!(error.abs() < 1e-5, "{bits_per_second} bit/s: {error}");
    }
}

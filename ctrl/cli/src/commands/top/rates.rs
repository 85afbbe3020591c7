//! Rates of cables, from two reports.

use std::collections::HashMap;
use std::time::Duration;

use crate::commands::cables::lost;
use api::{CableReport, LaneReport};

/// What passes a cable, in both lanes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct CableRates {
    /// From the first end to the second, then back.
    pub(super) lanes: [LaneRates; 2],
    /// Frames per second that were dropped on their way to somebody.
    pub(super) drops: f64,
}

/// What enters a lane, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct LaneRates {
    pub(super) frames: f64,
    /// Of frame bytes, without FCS.
    pub(super) bits: f64,
}

/// The rates of the cables in `now`, in their order. `None` for one that was not there before.
pub(super) fn rates(
    before: &[CableReport],
    now: &[CableReport],
    time: Duration,
) -> Vec<Option<CableRates>> {
    let seconds = time.as_secs_f64();
    if seconds <= 0.0 {
        return vec![None; now.len()];
    }
    let same = before.len() == now.len() && before.iter().zip(now).all(|(a, b)| a.name == b.name);
    // An `apply` has changed the cables.
    let by_name: HashMap<_, _> = if same {
        HashMap::new()
    } else {
        before.iter().map(|cable| (&*cable.name, cable)).collect()
    };
    let rates = now.iter().enumerate().map(|(index, cable)| {
        let old = if same {
            before.get(index)
        } else {
            by_name.get(&*cable.name).copied()
        };
        old.map(|old| of_cable(old, cable, seconds))
    });
    rates.collect()
}

fn of_cable(before: &CableReport, now: &CableReport, seconds: f64) -> CableRates {
    // A cable that was made again under its name begins at zero.
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let lane = |index: usize| {
        let (before, now) = (&before.lanes[index], &now.lanes[index]);
        LaneRates {
            frames: per_second(now.frames_in, before.frames_in),
            bits: per_second(now.bytes_in, before.bytes_in) * 8.0,
        }
    };
    let drops = |lanes: &[LaneReport; 2]| lanes.iter().map(lost).sum::<u64>();
    CableRates {
        lanes: [lane(0), lane(1)],
        drops: per_second(drops(&now.lanes), drops(&before.lanes)),
    }
}

/// A rate in at most 5 characters: `0`, `999`, `1.23k`, `12.3M`, `123G`.
pub(super) fn short(rate: f64) -> String {
    let mut value = rate;
    for unit in ["", "k", "M", "G", "T"] {
        // What would be rounded to four digits has the next unit.
        if value < 999.5 {
            return match value {
                _ if unit.is_empty() => format!("{value:.0}"),
                ..9.995 => format!("{value:.2}{unit}"),
                ..99.95 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1e3;
    }
    "much".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::tests::cable;

    fn at(name: &str, frames: u64, dropped: &[(&str, u64)]) -> CableReport {
        let mut report = cable(name);
        report.lanes[0].frames_in = frames;
        report.lanes[0].bytes_in = frames * 100;
        let drops = dropped.iter();
        report.lanes[1].drops = drops.map(|(why, n)| ((*why).to_owned(), *n)).collect();
        report
    }

    #[test]
    fn rates_are_what_was_added_over_the_time() {
        let before = [at("a", 100, &[("loss", 1)])];
        let now = [at("a", 1100, &[("loss", 5), ("unplugged", 900)])];
        let rates = rates(&before, &now, Duration::from_secs(2));
        let expected = CableRates {
            lanes: [
                LaneRates {
                    frames: 500.0,
                    bits: 400_000.0,
                },
                LaneRates::default(),
            ],
            // Frames to nobody are no loss.
            drops: 2.0,
        };
        assert_eq!(rates, [Some(expected)]);
    }

    #[test]
    fn cables_that_come_go_and_begin_again_have_no_wrong_rates() {
        let second = Duration::from_secs(1);
        let before = [at("a", 100, &[]), at("b", 50, &[])];
        let now = [at("b", 60, &[]), at("c", 7, &[])];
        let found = rates(&before, &now, second);
        let frames = found[0].unwrap().lanes[0].frames;
        assert!((frames - 10.0).abs() < 1e-9, "{frames}");
        assert_eq!(found[1], None);
        let again = rates(&before, &[at("a", 3, &[]), at("b", 50, &[])], second);
        assert_eq!(again[0], Some(CableRates::default()));
        assert_eq!(rates(&before, &before, Duration::ZERO), [None, None]);
    }

    #[test]
    fn a_rate_has_at_most_five_characters() {
        for (rate, text) in [
            (0.0, "0"),
            (0.4, "0"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (9_994.0, "9.99k"),
            (9_996.0, "10.0k"),
            (99_960.0, "100k"),
            (1_234_567.0, "1.23M"),
            (999_600_000.0, "1.00G"),
            (1e30, "much"),
        ] {
            assert_eq!(short(rate), text, "{rate}");
        }
    }
}

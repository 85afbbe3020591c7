//! The requested and the achieved values of an impairment, as text.

use api::{AccuracyReport, CableReport, LaneReport};
use model::impairment::BitRate;

/// Every impaired lane with all its figures.
pub(super) fn text(cables: &[CableReport]) -> String {
    let mut text = String::new();
    for cable in cables {
        for lane in &cable.lanes {
            if lane.impairment.is_none() {
                continue;
            }
            text += &format!("{:<10} {} > {}\n", cable.name, lane.from, lane.to);
            for line in lines(lane) {
                text += &format!("    {line}\n");
            }
        }
    }
    if text.is_empty() {
        text += "no cable is impaired\n";
    }
    text
}

/// The keys of a lane's impairment, what it achieved, and whether the figures are reliable; empty for
/// a lane that is not impaired.
pub(in crate::commands) fn lines(lane: &LaneReport) -> Vec<String> {
    let Some(keys) = &lane.impairment else {
        return Vec::new();
    };
    let mut lines = vec![format!("asked: {}", keys.words())];
    let Some(accuracy) = &lane.accuracy else {
        return lines;
    };
    lines.extend(achieved(accuracy));
    let done = [
        (lane.duplicated, "duplicated"),
        (lane.corrupted, "corrupted"),
        (lane.reordered, "reordered"),
        (lane.marked, "marked"),
    ];
    let done: Vec<_> = done
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !done.is_empty() {
        lines.push(format!("frames since the start: {}", done.join(", ")));
    }
    if !accuracy.trusted {
        lines.push(format!("NOT TO BE TRUSTED: {}", accuracy.note));
    }
    lines
}

fn achieved(accuracy: &AccuracyReport) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(delay) = &accuracy.delay {
        lines.push(format!(
            "{} by {} (p50), {} (p99), {} (max), of {} frames",
            if delay.requested_us > 0.0 {
                format!(
                    "delay: {} asked; later than asked",
                    time(delay.requested_us)
                )
            } else {
                "time: later than due".into()
            },
            time(delay.late_p50_us),
            time(delay.late_p99_us),
            time(delay.late_max_us),
            delay.released
        ));
    }
    if let Some(rate) = &accuracy.rate {
        let asked = BitRate(rate.requested_bps);
        lines.push(match rate.achieved_bps {
            Some(achieved) => format!(
                "rate: {asked} asked; {} ({:+.2} %) in the {:.1} s that frames waited for it",
                BitRate(achieved.round() as u64),
                (achieved / rate.requested_bps as f64 - 1.0) * 100.0,
                rate.busy_s
            ),
            None => format!(
                "rate: {asked} asked; frames waited for it for {:.3} s: too short to measure",
                rate.busy_s
            ),
        });
    }
    if let Some(loss) = &accuracy.loss {
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        lines.push(format!(
            "loss: {} asked; {} ({} to {} with 95 % confidence), {} of {} frames",
            percent(loss.requested),
            percent(loss.achieved),
            percent(loss.low),
            percent(loss.high),
            loss.lost,
            accuracy.frames
        ));
    }
    lines
}

fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.1} µs"),
        ..1_000_000.0 => format!("{:.3} ms", us / 1e3),
        _ => format!("{:.3} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{DelayReport, LossReport, RateReport};
    use model::cable_change::CableState;
    use model::impairment::ImpairKeys;

    fn lane(from: &str, to: &str) -> LaneReport {
        LaneReport {
            from: from.into(),
            to: to.into(),
            frames_in: 20_000,
            bytes_in: 1_280_000,
            frames_out: 19_794,
            held: 0,
            drops: [("loss".to_owned(), 206)].into(),
            duplicated: 7,
            corrupted: 0,
            delayed: 19_794,
            reordered: 0,
            marked: 0,
            throttled: 0,
            impairment: None,
            accuracy: None,
        }
    }

    #[test]
    fn a_report_in_words() {
        let mut keys = ImpairKeys::default();
        for (key, value) in [("delay", "10ms"), ("loss", "1%"), ("rate", "1gbit")] {
            keys.set(key, value).unwrap();
        }
        let impaired = LaneReport {
            impairment: Some(keys),
            accuracy: Some(AccuracyReport {
                frames: 20_000,
                delay: Some(DelayReport {
                    requested_us: 10_000.0,
                    released: 19_794,
                    late_p50_us: 3.12,
                    late_p99_us: 140.0,
                    late_max_us: 2_345.6,
                    late_frames: 300,
                }),
                rate: Some(RateReport {
                    requested_bps: 1_000_000_000,
                    achieved_bps: Some(999_800_000.4),
                    busy_s: 12.04,
                }),
                loss: Some(LossReport {
                    requested: 0.01,
                    achieved: 0.0103,
                    low: 0.0091,
                    high: 0.0117,
                    lost: 206,
                }),
                trusted: false,
                note: "the host was too busy".into(),
            }),
            ..lane("ika", "ikb")
        };
        let cable = CableReport {
            name: "wire".into(),
            state: CableState::Up,
            closed: None,
            lanes: [impaired, lane("ikb", "ika")],
        };
        insta::assert_snapshot!(
            text(std::slice::from_ref(&cable)) + &crate::commands::cables::table(&[cable], 80)
        );
        assert_eq!(text(&[]), "no cable is impaired\n");
    }
}

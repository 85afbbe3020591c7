//! The metrics of cables and their lanes.

use std::fmt;

use super::families::{self, Family};
use super::{Labels, Page, Value, labels};
use crate::{AccuracyReport, CableReport, LaneReport};
use model::cable_change::CableState;
use model::impairment::{ImpairKeys, LossModel};

pub(super) fn write(page: &mut Page<'_>, cables: &[CableReport]) -> fmt::Result {
    let up = cables.iter().map(|cable| {
        let passes = cable.state == CableState::Up && cable.closed.is_none();
        (labels([("cable", &*cable.name)]), Value::of(passes))
    });
    page.family(families::CABLE_UP, up)?;
    let lanes = Lanes(cables);
    lanes.each(page, families::FRAMES_IN, |lane| count(lane.frames_in))?;
    lanes.each(page, families::BYTES_IN, |lane| count(lane.bytes_in))?;
    lanes.each(page, families::FRAMES_OUT, |lane| count(lane.frames_out))?;
    lanes.each(page, families::HELD, |lane| count(lane.held))?;
    lanes.several(page, families::DROPS, "reason", |lane| {
        let drops = lane.drops.iter();
        drops
            .map(|(reason, drops)| (&**reason, Value::Count(*drops)))
            .collect()
    })?;
    lanes.several(page, families::EFFECTS, "effect", |lane| {
        let effects = [
            ("duplicated", lane.duplicated),
            ("corrupted", lane.corrupted),
            ("delayed", lane.delayed),
            ("reordered", lane.reordered),
            ("marked", lane.marked),
        ];
        let seen = effects.into_iter().filter(|(_, frames)| *frames > 0);
        seen.map(|(effect, frames)| (effect, Value::Count(frames)))
            .collect()
    })?;
    lanes.each(page, families::THROTTLED, |lane| {
        (lane.throttled > 0).then_some(Value::Count(lane.throttled))
    })?;
    requested(page, &lanes)?;
    achieved(page, &lanes)
}

type Asked = fn(&ImpairKeys) -> Option<f64>;

/// What impairments were asked for.
fn requested(page: &mut Page<'_>, lanes: &Lanes<'_>) -> fmt::Result {
    let keys: [(Family, Asked); 6] = [
        (families::DELAY, |keys| Some(keys.delay?.0.as_secs_f64())),
        (families::JITTER, |keys| Some(keys.jitter?.0.as_secs_f64())),
        (families::RATE, |keys| Some(keys.rate?.0 as f64)),
        (families::DUPLICATE, |keys| {
            Some(keys.duplicate?.share.share())
        }),
        (families::CORRUPT, |keys| Some(keys.corrupt?.share.share())),
        (families::REORDER, |keys| Some(keys.reorder?.share.share())),
    ];
    for (family, read) in keys {
        lanes.each(page, family, |lane| {
            lane.impairment.as_ref().and_then(read).map(Value::Number)
        })?;
    }
    lanes.each(page, families::LOSS, |lane| {
        let model = lane.impairment.as_ref()?.loss?;
        let in_the_long_run = || Some(lane.accuracy.as_ref()?.loss.as_ref()?.requested);
        let share = match model {
            LossModel::None => Some(0.0),
            LossModel::Random(share, _) => Some(share.share()),
            // Known once a frame has gone through the impairment.
            _ => in_the_long_run(),
        };
        share.map(Value::Number)
    })
}

type Seen = fn(&AccuracyReport) -> Option<Value>;

/// What they achieved.
fn achieved(page: &mut Page<'_>, lanes: &Lanes<'_>) -> fmt::Result {
    lanes.several(page, families::LATE, "quantile", |lane| {
        let delay = lane.accuracy.as_ref().and_then(|seen| seen.delay.as_ref());
        let Some(delay) = delay else {
            return Vec::new();
        };
        let seconds = |us: f64| Value::Number(us / 1e6);
        vec![
            ("0.5", seconds(delay.late_p50_us)),
            ("0.99", seconds(delay.late_p99_us)),
            ("1", seconds(delay.late_max_us)),
        ]
    })?;
    let figures: [(Family, Seen); 3] = [
        (families::LOSS_ACHIEVED, |seen| {
            Some(Value::Number(seen.loss.as_ref()?.achieved))
        }),
        (families::RATE_ACHIEVED, |seen| {
            Some(Value::Number(seen.rate.as_ref()?.achieved_bps?))
        }),
        (families::TRUSTED, |seen| Some(Value::of(seen.trusted))),
    ];
    for (family, read) in figures {
        lanes.each(page, family, |lane| lane.accuracy.as_ref().and_then(read))?;
    }
    Ok(())
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "a lane's counters are always there, other figures not"
)]
fn count(count: u64) -> Option<Value> {
    Some(Value::Count(count))
}

/// All lanes of these cables.
struct Lanes<'c>(&'c [CableReport]);

impl<'c> Lanes<'c> {
    fn all(&self) -> impl Iterator<Item = (Labels<'c>, &'c LaneReport)> {
        self.0.iter().flat_map(|cable| {
            let lane = |lane: &'c LaneReport| {
                let named = [
                    ("cable", &*cable.name),
                    ("from", &*lane.from),
                    ("to", &*lane.to),
                ];
                (labels(named), lane)
            };
            cable.lanes.each_ref().map(lane)
        })
    }

    /// A sample for each lane that has the figure.
    fn each(
        &self,
        page: &mut Page<'_>,
        family: Family,
        read: impl Fn(&LaneReport) -> Option<Value>,
    ) -> fmt::Result {
        let samples = self.all();
        page.family(
            family,
            samples.filter_map(|(labels, lane)| Some((labels, read(lane)?))),
        )
    }

    /// Any number of samples for each lane, which the label `name` tells apart.
    fn several(
        &self,
        page: &mut Page<'_>,
        family: Family,
        name: &'static str,
        read: impl Fn(&'c LaneReport) -> Vec<(&'c str, Value)>,
    ) -> fmt::Result {
        let samples = self.all().flat_map(|(labels, lane)| {
            let figures = read(lane).into_iter();
            figures.map(move |(label, value)| {
                let mut labels = labels.clone();
                labels.push((name, super::escaped(label)));
                (labels, value)
            })
        });
        page.family(family, samples)
    }
}

//! Checks whether an event has occurred that a trigger waits for: [`Triggers`].

use dataplane::capture::TapSpec;
use dataplane::{Capture, DropReason, PanelError};
use frr_conf::Timers;
use futures_util::future::try_join_all;

use super::bgp_tap::bgp_tap;
use super::schedule::{Due, Schedule};
use super::sessions::Sessions;
use crate::cables::Cables;
use crate::cables::names::CableNames;
use crate::capture::program;
use api::ApiError;
use api::recorder::Trigger;
use dataplane::Side;
use model::cable_change::CableState;

/// Ring size in bytes. Matching frames are only counted, so one record must fit.
const COUNTING_RING: usize = 128;

/// With fewer drops per second than this, the drop rate is not significant.
const FEW: u64 = 10;

const SECOND: u64 = 1_000_000_000;

/// The triggers and what they have observed so far.
pub(super) struct Triggers {
    /// Indices of the cables between switches.
    inner: Vec<usize>,
    list: Vec<Trigger>,
    /// One for each trigger.
    matchers: Vec<Matcher>,
    schedule: Schedule,
}

/// What one trigger observes.
enum Matcher {
    Down {
        /// Which cables were cut when last checked.
        cut: Vec<bool>,
    },
    Bgp {
        taps: Vec<(usize, Capture)>,
        sessions: Sessions,
    },
    Match {
        expression: String,
        /// Each with the number of frames it had counted when last checked.
        taps: Vec<(usize, Capture, u64)>,
    },
    Drops {
        percent: f64,
        /// Each lane with the frames that had entered it and those it had dropped when last
        /// checked.
        lanes: Vec<(usize, Side, (u64, u64))>,
        /// Time of the last check, in ns on the dataplane's clock.
        looked: u64,
    },
}

impl Triggers {
    pub(super) fn new(inner: Vec<usize>) -> Self {
        Triggers {
            inner,
            list: Vec::new(),
            matchers: Vec::new(),
            schedule: Schedule::default(),
        }
    }

    pub(super) fn list(&self) -> &[Trigger] {
        &self.list
    }

    /// See [`super::Recorder::set_triggers`].
    pub(super) async fn set(
        &mut self,
        cables: &Cables,
        triggers: Vec<Trigger>,
        names: &impl CableNames,
    ) -> Result<(), ApiError> {
        let inner = &self.inner;
        let matchers = triggers
            .iter()
            .map(|trigger| Matcher::new(inner, cables, trigger, names));
        self.matchers = try_join_all(matchers.collect::<Vec<_>>()).await?;
        self.list = triggers;
        Ok(())
    }

    /// See [`super::Recorder::rewire`].
    pub(super) async fn rewire(
        &mut self,
        cables: &Cables,
        inner: Vec<usize>,
        names: &impl CableNames,
    ) -> Result<(), ApiError> {
        // `set` reads `inner`, so it must be new before and restored on failure.
        let before = std::mem::replace(&mut self.inner, inner);
        let mut triggers = self.list.clone();
        triggers.retain_mut(|trigger| trigger.keep_cables(|name| names.named(name).is_ok()));
        let set = self.set(cables, triggers, names).await;
        set.inspect_err(|_| self.inner = before)
    }

    /// Checks all triggers. Returns a dump if one is due.
    pub(super) fn look(&mut self, cables: &Cables, now: u64) -> Option<Due> {
        let schedule = &mut self.schedule;
        let reports_cuts = self.list.contains(&Trigger::Down {});
        for matcher in &mut self.matchers {
            let kind = matcher.kind();
            matcher.look(cables, (now, reports_cuts), &mut |cable, why| {
                schedule.add(now, kind, cable, why);
            });
        }
        schedule.due(now)
    }
}

impl Matcher {
    async fn new(
        inner: &[usize],
        cables: &Cables,
        trigger: &Trigger,
        names: &impl CableNames,
    ) -> Result<Self, ApiError> {
        Ok(match trigger {
            Trigger::Down {} => Matcher::Down { cut: cut(cables) },
            Trigger::Bgp {} => Matcher::Bgp {
                taps: tap(cables, inner, &bgp_tap()).await?,
                sessions: Sessions::new(Timers::default().hold),
            },
            Trigger::Match {
                expression,
                filter,
                cables: named,
            } => {
                let spec = TapSpec {
                    filter: program(filter)?,
                    snap: 0,
                    wire: false,
                    bytes: COUNTING_RING,
                };
                let taps = tap(cables, &find(cables, names, named)?, &spec).await?;
                Matcher::Match {
                    expression: expression.clone(),
                    taps: taps.into_iter().map(|(on, tap)| (on, tap, 0)).collect(),
                }
            }
            Trigger::Drops {
                percent,
                cables: named,
            } => {
                let on = find(cables, names, named)?.into_iter();
                let lanes = on.flat_map(|on| [(on, Side::A), (on, Side::B)]);
                let counted = |(on, side)| (on, side, drops(cables, on, side));
                Matcher::Drops {
                    percent: *percent,
                    lanes: lanes.map(counted).collect(),
                    looked: dataplane::clock::now(),
                }
            }
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Matcher::Down { .. } => "down",
            Matcher::Bgp { .. } => "bgp",
            Matcher::Match { .. } => "match",
            Matcher::Drops { .. } => "drops",
        }
    }

    /// `reports_cuts`: another trigger reports cables that are cut.
    fn look(
        &mut self,
        cables: &Cables,
        (now, reports_cuts): (u64, bool),
        happened: &mut dyn FnMut(&str, String),
    ) {
        match self {
            Matcher::Down { cut: before } => {
                let after = cut(cables);
                for on in 0..after.len() {
                    if after[on] && !before[on] {
                        let name = cables.name(on);
                        happened(name, format!("{name} was cut"));
                    }
                }
                *before = after;
            }
            Matcher::Bgp { taps, sessions } => {
                let mut lost = Vec::new();
                for (on, tap) in &mut *taps {
                    tap.reader().read(|record, bytes| {
                        let delivered = record.verdict.dropped.is_none();
                        lost.extend(sessions.see(*on, record.time, bytes, delivered));
                    });
                }
                // A session that ends with its cable is part of the cut: it does not expire later, on
                // its own, as another incident.
                for (on, _) in taps {
                    if cables.state(*on) == CableState::Down {
                        let ended = sessions.cut(*on).into_iter();
                        lost.extend(ended.filter(|_| !reports_cuts));
                    }
                }
                lost.extend(sessions.silent(now));
                for lost in lost {
                    let name = cables.name(lost.cable);
                    happened(name, format!("{name}: {}", lost.why));
                }
            }
            Matcher::Match { expression, taps } => {
                for (on, tap, counted) in taps {
                    let seen = tap.reader().seen();
                    if seen > std::mem::replace(counted, seen) {
                        let name = cables.name(*on);
                        happened(name, format!("a frame on {name} matches \"{expression}\""));
                    }
                }
            }
            Matcher::Drops {
                percent,
                lanes,
                looked,
            } => {
                // The rate is defined per second, but the recorder looks five times as often.
                if now.saturating_sub(*looked) < SECOND {
                    return;
                }
                *looked = now;
                for (on, side, before) in lanes {
                    let after = drops(cables, *on, *side);
                    let (entered, dropped) = (after.0 - before.0, after.1 - before.1);
                    *before = after;
                    if too_many(entered, dropped, *percent) {
                        let name = cables.name(*on);
                        happened(
                            name,
                            format!("{name} dropped {dropped} of {entered} frames"),
                        );
                    }
                }
            }
        }
    }
}

/// The named cables, or all if `names` is empty.
fn find(
    cables: &Cables,
    names: &impl CableNames,
    named: &[String],
) -> Result<Vec<usize>, ApiError> {
    if named.is_empty() {
        return Ok((0..cables.len()).collect());
    }
    names.all_named(named)
}

/// Taps both lanes of these cables.
async fn tap(
    cables: &Cables,
    on: &[usize],
    spec: &TapSpec,
) -> Result<Vec<(usize, Capture)>, ApiError> {
    let lanes = on.iter().flat_map(|on| [(*on, Side::A), (*on, Side::B)]);
    let taps = lanes.map(async |(on, side)| Ok((on, cables.tap(on, side, spec.clone()).await?)));
    try_join_all(taps.collect::<Vec<_>>())
        .await
        .map_err(|error: PanelError| ApiError::failed(error))
}

/// Whether a lane has dropped too large a share of its frames. A few drops do not count.
fn too_many(entered: u64, dropped: u64, percent: f64) -> bool {
    dropped >= FEW && dropped as f64 * 100.0 >= entered as f64 * percent
}

fn cut(cables: &Cables) -> Vec<bool> {
    (0..cables.len())
        .map(|on| cables.state(on) == CableState::Down)
        .collect()
}

/// Frames that entered a lane, and those it dropped, except drops because the cable was cut or the
/// far end was not plugged in.
fn drops(cables: &Cables, on: usize, from: Side) -> (u64, u64) {
    let expected = [
        DropReason::CableDown,
        DropReason::Blackhole,
        DropReason::Unplugged,
    ];
    cables.drops(on, from, |reason| !expected.contains(&reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_rate_is_a_share_of_more_than_a_few() {
        assert!(too_many(1000, 10, 1.0));
        assert!(!too_many(1001, 10, 1.0));
        assert!(!too_many(9, 9, 1.0));
        assert!(too_many(10, 10, 100.0));
        assert!(!too_many(0, 0, 0.0));
    }
}

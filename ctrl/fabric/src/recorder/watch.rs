//! Whether something has happened that a trigger waits for: [`Watch`].

use dataplane::capture::TapSpec;
use dataplane::{Capture, DropReason};
use frr_conf::Timers;

use super::bgp_tap::bgp_tap;
use super::schedule::{Due, Schedule};
use super::sessions::Sessions;
use crate::cables::Cables;
use crate::capture::program;
use api::ApiError;
use api::recorder::Trigger;
use model::cable_change::CableState;
use model::topology::Side;

/// Frames that match are only counted: room for one.
const COUNTING_RING: usize = 128;

/// Fewer drops in a second are no rate.
const FEW: u64 = 10;

const SECOND: u64 = 1_000_000_000;

/// The triggers and what they have seen so far.
pub(super) struct Watch {
    /// Cables between switches.
    inner: Vec<usize>,
    triggers: Vec<Trigger>,
    eyes: Vec<Eye>,
    schedule: Schedule,
}

/// What one trigger looks at.
enum Eye {
    Down {
        /// Which cables were cut when it looked last.
        cut: Vec<bool>,
    },
    Bgp {
        taps: Vec<(usize, Capture)>,
        sessions: Sessions,
    },
    Match {
        expression: String,
        /// Each with what it had counted.
        taps: Vec<(usize, Capture, u64)>,
    },
    Drops {
        percent: f64,
        /// Each lane with the frames that entered and that it dropped so far.
        lanes: Vec<(usize, Side, (u64, u64))>,
        looked: u64,
    },
}

impl Watch {
    pub(super) fn new(inner: Vec<usize>) -> Self {
        Watch {
            inner,
            triggers: Vec::new(),
            eyes: Vec::new(),
            schedule: Schedule::default(),
        }
    }

    pub(super) fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// See [`super::Recorder::arm`].
    pub(super) fn arm(
        &mut self,
        cables: &Cables,
        triggers: Vec<Trigger>,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<(), ApiError> {
        let eyes = triggers
            .iter()
            .map(|trigger| self.eye(cables, trigger, cable));
        self.eyes = eyes.collect::<Result<_, _>>()?;
        self.triggers = triggers;
        Ok(())
    }

    /// See [`super::Recorder::rewire`].
    pub(super) fn rewire(
        &mut self,
        cables: &Cables,
        inner: Vec<usize>,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<(), ApiError> {
        let before = std::mem::replace(&mut self.inner, inner);
        let mut triggers = self.triggers.clone();
        triggers.retain_mut(|trigger| trigger.keep_cables(|name| cable(name).is_ok()));
        self.arm(cables, triggers, cable)
            .inspect_err(|_| self.inner = before)
    }

    fn eye(
        &self,
        cables: &Cables,
        trigger: &Trigger,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<Eye, ApiError> {
        let find = |names: &[String]| -> Result<Vec<usize>, ApiError> {
            if names.is_empty() {
                return Ok((0..cables.len()).collect());
            }
            names.iter().map(|name| cable(name)).collect()
        };
        let tap = |on: &[usize], spec: &TapSpec| -> Result<Vec<(usize, Capture)>, ApiError> {
            let lanes = on.iter().flat_map(|on| [(*on, Side::A), (*on, Side::B)]);
            let tap = |(on, side)| Ok((on, cables.tap(on, side, spec.clone())?));
            let taps = lanes.map(tap).collect::<Result<_, dataplane::PanelError>>();
            taps.map_err(ApiError::failed)
        };
        Ok(match trigger {
            Trigger::Down => Eye::Down { cut: cut(cables) },
            Trigger::Bgp => Eye::Bgp {
                taps: tap(&self.inner, &bgp_tap())?,
                sessions: Sessions::new(Timers::default().hold),
            },
            Trigger::Match {
                expression,
                filter,
                cables: names,
            } => {
                let spec = TapSpec {
                    filter: program(filter)?,
                    snap: 0,
                    wire: false,
                    bytes: COUNTING_RING,
                };
                let taps = tap(&find(names)?, &spec)?;
                Eye::Match {
                    expression: expression.clone(),
                    taps: taps.into_iter().map(|(on, tap)| (on, tap, 0)).collect(),
                }
            }
            Trigger::Drops {
                percent,
                cables: names,
            } => {
                let on = find(names)?.into_iter();
                let lanes = on.flat_map(|on| [(on, Side::A), (on, Side::B)]);
                let counted = |(on, side)| (on, side, drops(cables, on, side));
                Eye::Drops {
                    percent: *percent,
                    lanes: lanes.map(counted).collect(),
                    looked: dataplane::clock::now(),
                }
            }
        })
    }

    /// Looks at everything, and says whether a dump is due.
    pub(super) fn look(&mut self, cables: &Cables, now: u64) -> Option<Due> {
        let schedule = &mut self.schedule;
        for eye in &mut self.eyes {
            let kind = eye.kind();
            eye.look(cables, now, &mut |why| schedule.add(now, kind, why));
        }
        schedule.due(now)
    }
}

impl Eye {
    fn kind(&self) -> &'static str {
        match self {
            Eye::Down { .. } => "down",
            Eye::Bgp { .. } => "bgp",
            Eye::Match { .. } => "match",
            Eye::Drops { .. } => "drops",
        }
    }

    fn look(&mut self, cables: &Cables, now: u64, happened: &mut dyn FnMut(String)) {
        match self {
            Eye::Down { cut: before } => {
                let after = cut(cables);
                for on in 0..after.len() {
                    if after[on] && !before[on] {
                        happened(format!("{} was cut", cables.name(on)));
                    }
                }
                *before = after;
            }
            Eye::Bgp { taps, sessions } => {
                let mut lost = Vec::new();
                for (on, tap) in taps {
                    tap.reader().read(|record, bytes| {
                        let delivered = record.verdict.dropped.is_none();
                        lost.extend(sessions.see(*on, record.time, bytes, delivered));
                    });
                }
                lost.extend(sessions.silent(now));
                for lost in lost {
                    happened(format!("{}: {}", cables.name(lost.cable), lost.why));
                }
            }
            Eye::Match { expression, taps } => {
                for (on, tap, counted) in taps {
                    let seen = tap.reader().seen();
                    if seen > std::mem::replace(counted, seen) {
                        let name = cables.name(*on);
                        happened(format!("a frame on {name} matches \"{expression}\""));
                    }
                }
            }
            Eye::Drops {
                percent,
                lanes,
                looked,
            } => {
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
                        happened(format!("{name} dropped {dropped} of {entered} frames"));
                    }
                }
            }
        }
    }
}

/// A single frame among few is no rate.
fn too_many(entered: u64, dropped: u64, percent: f64) -> bool {
    dropped >= FEW && dropped as f64 * 100.0 >= entered as f64 * percent
}

fn cut(cables: &Cables) -> Vec<bool> {
    (0..cables.len())
        .map(|on| cables.state(on) == CableState::Down)
        .collect()
}

/// Frames that entered a lane, and those that it dropped, but for those that a cut cable takes
/// away, and those for an end where nobody is.
fn drops(cables: &Cables, on: usize, from: Side) -> (u64, u64) {
    let told = [
        DropReason::CableDown,
        DropReason::Blackhole,
        DropReason::Unplugged,
    ];
    cables.drops(on, from, |reason| !told.contains(&reason))
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

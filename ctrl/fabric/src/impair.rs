//! Changing cables: states and impairments, several at once, all or none.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use dataplane::{PanelChange, clock};

use super::cables::{Cables, Condition};
use super::reports::{to_dataplane, to_panel};
use api::{ApiError, LaneImpairment};
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};
use model::impairment::{BoundedInt, ImpairKeys};
use model::topology::{Side, Topology};

/// How a request's names are understood.
pub(super) trait Names {
    /// A cable by its name or either end: its place.
    fn cable(&self, name: &str) -> Result<usize, ApiError>;
    /// A port by name or alias: its cable's place, and which end of that it is.
    fn end(&self, name: &str) -> Result<(usize, Side), ApiError>;
}

impl Names for Topology {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        let cable = Topology::cable(self, name).map_err(ApiError::unknown)?;
        let index = self
            .cables
            .iter()
            .position(|other| other.name == cable.name);
        Ok(index.expect("the topology's own cable"))
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        let found = Topology::end(self, name).map_err(ApiError::unknown)?;
        Ok((found.index, found.side))
    }
}

/// A step that has been checked: what every cable in it will be.
pub(super) struct CheckedBatch {
    cables: BTreeMap<usize, PlannedCable>,
}

struct PlannedCable {
    condition: Condition,
    /// Asked for, be it the same as before: its ends are told once more.
    state_asked: bool,
    /// By side.
    impair_asked: [bool; 2],
}

impl CheckedBatch {
    /// Checks every change before anything is touched.
    ///
    /// # Errors
    /// The first that cannot be.
    pub(super) fn check(
        names: &impl Names,
        cables: &Cables,
        step: &CableBatch,
    ) -> Result<Self, ApiError> {
        let mut planned = CheckedBatch {
            cables: BTreeMap::new(),
        };
        for change in &step.changes {
            planned.add(names, cables, change)?;
        }
        Ok(planned)
    }

    /// What was made of a cable, for one that takes its place.
    pub(super) fn again(index: usize, condition: Condition) -> Self {
        let cable = PlannedCable {
            condition,
            state_asked: true,
            impair_asked: [true; 2],
        };
        CheckedBatch {
            cables: [(index, cable)].into(),
        }
    }

    fn add(
        &mut self,
        names: &impl Names,
        cables: &Cables,
        change: &CableChange,
    ) -> Result<(), ApiError> {
        let index = names.cable(&change.cable)?;
        let cable = self.cables.entry(index).or_insert_with(|| PlannedCable {
            condition: cables.condition(index),
            state_asked: false,
            impair_asked: [false; 2],
        });
        if let Some(state) = change.state {
            cable.condition.state = state;
            cable.state_asked = true;
        }
        let Some(ImpairmentChange { from, clear, set }) = &change.impair else {
            return Ok(());
        };
        let only = match from {
            Some(from) => match names.end(from)? {
                (of, side) if of == index => Some(side),
                _ => {
                    let [a, b] = cables.end_names(index);
                    return Err(ApiError::unknown(format!(
                        "{from} is no end of {}: its ends are {a} and {b}",
                        cables.name(index)
                    )));
                }
            },
            None => None,
        };
        for side in [Side::A, Side::B] {
            if only.is_some_and(|only| only != side) {
                continue;
            }
            let lane = &mut cable.condition.impairments[side as usize];
            let before = if *clear {
                ImpairKeys::default()
            } else {
                std::mem::take(lane)
            };
            *lane = with_seed(before.overlay(set.clone()), set.seed.is_some());
            cable.impair_asked[side as usize] = true;
            lane.settings()
                .map_err(|error| ApiError::conflict(format!("{}: {error}", change.cable)))?;
        }
        Ok(())
    }

    /// Does it. Returns when it took effect, in ns since 1970, and the cables whose ends are to
    /// be told of their state.
    ///
    /// # Errors
    /// When the workers refuse; nothing has changed then.
    pub(super) fn apply(
        self,
        cables: &Cables,
    ) -> Result<(u64, Vec<(usize, CableState)>), ApiError> {
        let mut changes = Vec::new();
        for (index, planned) in &self.cables {
            let (id, condition) = (cables.id(*index), &planned.condition);
            if planned.state_asked {
                changes.push(PanelChange::State {
                    id,
                    state: to_dataplane(condition.state),
                });
            }
            for side in [Side::A, Side::B] {
                if !planned.impair_asked[side as usize] {
                    continue;
                }
                let settings = condition.impairments[side as usize].settings();
                let settings = settings.map_err(ApiError::conflict)?;
                changes.push(PanelChange::Impair {
                    id,
                    from: to_panel(side),
                    impairment: (!settings.is_clean()).then(|| Box::new(settings)),
                });
            }
        }
        if !changes.is_empty() {
            cables
                .panel()
                .commit(changes)
                .wait()
                .map_err(ApiError::failed)?;
        }
        // By the captures' clock, so that it can be compared with what they show.
        let at = clock::now() + cables.wall_offset();
        let mut told = Vec::new();
        for (index, planned) in self.cables {
            if planned.state_asked {
                told.push((index, planned.condition.state));
            }
            cables.set_condition(index, planned.condition);
        }
        Ok((at, told))
    }
}

/// Random numbers begin somewhere else in every lane, unless the person says where; what was
/// chosen is shown, so that it can be done again, and is gone with the last of the other keys.
fn with_seed(mut keys: ImpairKeys, said: bool) -> ImpairKeys {
    if keys.seed.is_none() && !keys.is_empty() {
        // The standard library's hash keys are the kernel's random numbers.
        let random = std::hash::RandomState::new().build_hasher().finish();
        keys.seed = Some(BoundedInt(i64::from(random as u32) + 1));
    } else if !said && keys.pairs().len() == 1 && keys.seed.is_some() {
        keys.seed = None;
    }
    keys
}

impl Cables {
    /// What the lanes of one cable do to their frames.
    pub(super) fn impairments(&self, index: usize) -> [LaneImpairment; 2] {
        let [a, b] = self.condition(index).impairments;
        let cable = self.name(index);
        let [end_a, end_b] = self.end_names(index);
        let lane = |from: &str, to: &str, impairment| LaneImpairment {
            cable: cable.into(),
            from: from.into(),
            to: to.into(),
            impairment,
        };
        [lane(end_a, end_b, a), lane(end_b, end_a, b)]
    }

    /// All lanes that do something to their frames.
    pub(super) fn all_impairments(&self) -> Vec<LaneImpairment> {
        let lanes = (0..self.len()).flat_map(|index| self.impairments(index));
        lanes.filter(|lane| !lane.impairment.is_empty()).collect()
    }
}

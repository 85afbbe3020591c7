//! Changes to the states and impairments of several cables at once: all or none.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use super::names::CableNames;
use super::panel::answer;
use super::report::to_dataplane_state;
use super::{Cables, Condition};
use api::ApiError;
use dataplane::Side;
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};
use model::impairment::{BoundedInt, ImpairKeys};

/// A batch that has been checked: the condition that each of its cables will have.
pub(crate) struct CheckedBatch {
    cables: BTreeMap<usize, CheckedChange>,
}

struct CheckedChange {
    condition: Condition,
    /// The request named the state. Even if it stays the same, the ends are notified again.
    sets_state: bool,
    /// By the side where the lane begins.
    sets_impairment: [bool; 2],
}

/// The effect of a batch.
pub(crate) struct Committed {
    /// When it took effect, in ns since 1970.
    pub(crate) at_ns: u64,
    /// Cables whose state was named, with that state: their ends must be notified.
    pub(crate) states: Vec<(usize, CableState)>,
    /// Every cable of the batch.
    pub(crate) changes: Vec<ConditionChange>,
}

/// The condition that a batch found a cable in, and the one that it gave it.
pub(crate) struct ConditionChange {
    /// The cable's index in the topology.
    pub(crate) index: usize,
    pub(crate) before: Condition,
    pub(crate) now: Condition,
}

impl CheckedBatch {
    /// Checks every change before making the first.
    ///
    /// # Errors
    /// The first change that is not possible.
    pub(crate) fn check(
        names: &impl CableNames,
        cables: &Cables,
        batch: &CableBatch,
    ) -> Result<Self, ApiError> {
        let mut checked = CheckedBatch {
            cables: BTreeMap::new(),
        };
        for change in &batch.changes {
            checked.add(names, cables, change)?;
        }
        Ok(checked)
    }

    /// Gives a cable that replaces another the condition of that one.
    pub(crate) fn restoring(index: usize, condition: Condition) -> Self {
        let condition = Condition {
            closed: None,
            ..condition
        };
        let change = CheckedChange {
            condition,
            sets_state: true,
            sets_impairment: [true; 2],
        };
        CheckedBatch {
            cables: [(index, change)].into(),
        }
    }

    fn add(
        &mut self,
        names: &impl CableNames,
        cables: &Cables,
        change: &CableChange,
    ) -> Result<(), ApiError> {
        for index in names.named(&change.cable)? {
            self.add_one(names, cables, (index, change))?;
        }
        Ok(())
    }

    fn add_one(
        &mut self,
        names: &impl CableNames,
        cables: &Cables,
        (index, change): (usize, &CableChange),
    ) -> Result<(), ApiError> {
        let checked = self.cables.entry(index).or_insert_with(|| CheckedChange {
            condition: cables.condition(index),
            sets_state: false,
            sets_impairment: [false; 2],
        });
        if let Some(state) = change.state {
            checked.condition.state = state;
            checked.sets_state = true;
            if state == CableState::Up && checked.condition.closed.take().is_some() {
                // What impaired its lanes went with the fault.
                checked.sets_impairment = [true; 2];
            }
        }
        let Some(ImpairmentChange { from, clear, set }) = &change.impair else {
            return Ok(());
        };
        let only = match from {
            Some(from) => Some(side_of(names, cables, index, from)?),
            None => None,
        };
        for side in [Side::A, Side::B] {
            if only.is_some_and(|only| only != side) {
                continue;
            }
            let lane = &mut checked.condition.impairments[side as usize];
            let before = if *clear {
                ImpairKeys::default()
            } else {
                std::mem::take(lane)
            };
            *lane = with_seed(before.overlay(set.clone()), set.seed.is_some());
            checked.sets_impairment[side as usize] = true;
            lane.settings()
                .map_err(|error| ApiError::conflict(format!("{}: {error}", change.cable)))?;
        }
        Ok(())
    }

    /// Makes the changes. The caller holds the lock of [`PatchPanel::lock_changes`] and awaits this
    /// to its end: the workers cannot take back a command that was sent.
    ///
    /// [`PatchPanel::lock_changes`]: super::panel::PatchPanel::lock_changes
    ///
    /// # Errors
    /// When a worker refuses or does not answer. The batch then counts as not made.
    pub(crate) async fn commit(self, cables: &Cables) -> Result<Committed, ApiError> {
        let changes = self.dataplane_changes(cables)?;
        // One command for all of them: the panel makes them at one instant.
        if !changes.is_empty() {
            let panel = &cables.panel.panel;
            answer(panel.commit(changes))
                .await
                .map_err(ApiError::failed)?;
        }
        let at_ns = cables.wall_clock();
        let (mut states, mut changes) = (Vec::new(), Vec::new());
        for (index, checked) in self.cables {
            let now = checked.condition;
            if checked.sets_state {
                states.push((index, now.state));
            }
            // Recorded only after the workers have accepted the batch.
            let before = cables.set_condition(index, now.clone());
            changes.push(ConditionChange { index, before, now });
        }
        Ok(Committed {
            at_ns,
            states,
            changes,
        })
    }

    fn dataplane_changes(&self, cables: &Cables) -> Result<Vec<dataplane::PanelChange>, ApiError> {
        let mut changes = Vec::new();
        for (index, checked) in &self.cables {
            let (id, condition) = (cables.id(*index), &checked.condition);
            if checked.sets_state {
                changes.push(dataplane::PanelChange::State {
                    id,
                    state: to_dataplane_state(condition.state),
                });
            }
            for side in [Side::A, Side::B] {
                if !checked.sets_impairment[side as usize] {
                    continue;
                }
                let settings = condition.impairments[side as usize].settings();
                let settings = settings.map_err(ApiError::conflict)?;
                changes.push(dataplane::PanelChange::Impair {
                    id,
                    from: side,
                    impairment: (!settings.is_clean()).then(|| Box::new(settings)),
                });
            }
        }
        Ok(changes)
    }
}

/// The side of a cable at which the port `from` is.
fn side_of(
    names: &impl CableNames,
    cables: &Cables,
    index: usize,
    from: &str,
) -> Result<Side, ApiError> {
    match names.end(from)? {
        (cable, side) if cable == index => Ok(side),
        _ => {
            let [a, b] = cables.end_names(index);
            Err(ApiError::unknown(format!(
                "{from} is not an end of {}: its ends are {a} and {b}",
                cables.name(index)
            )))
        }
    }
}

/// Gives every impaired lane random numbers of its own, unless the user has chosen a seed. The seed
/// is reported, so that a run can be repeated; it is removed together with the last of the other
/// keys.
fn with_seed(mut keys: ImpairKeys, chosen: bool) -> ImpairKeys {
    if keys.seed.is_none() && !keys.is_empty() {
        // The standard library seeds its hashers with random numbers from the kernel.
        let random = std::hash::RandomState::new().build_hasher().finish();
        keys.seed = Some(BoundedInt(i64::from(random as u32) + 1));
    } else if !chosen && keys.pairs().len() == 1 && keys.seed.is_some() {
        keys.seed = None;
    }
    keys
}

//! The configured states and impairments of cables.

use std::collections::BTreeMap;

use super::FabricPlan;
use crate::cable_change::{CableChange, CableState, ImpairmentChange};
use crate::impairment::ImpairKeys;
use crate::topology::EndOwner;
use dataplane::Side;

/// The configured state and impairments of one cable.
#[derive(Debug, Clone, PartialEq)]
struct Setting {
    state: CableState,
    /// By the side where the lane begins.
    lanes: [ImpairKeys; 2],
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            state: CableState::Up,
            lanes: Default::default(),
        }
    }
}

/// The changes to cables whose configured state or impairment differs. A `kept` cable keeps all
/// other settings, including those that a command has set since.
pub(super) fn settings(old: &FabricPlan, new: &FabricPlan, kept: &[String]) -> Vec<CableChange> {
    let (before, after) = (configured(old), configured(new));
    let mut changes = Vec::new();
    for cable in &new.topology.cables {
        let known = kept.contains(&cable.name);
        let before = before.get(&cable.name).filter(|_| known).cloned();
        let before = before.unwrap_or_default();
        let after = after.get(&cable.name).cloned().unwrap_or_default();
        let state = (before.state != after.state).then_some(after.state);
        let mut lanes = Vec::new();
        for side in [Side::A, Side::B] {
            let [old, new] = [&before, &after].map(|setting| &setting.lanes[side as usize]);
            // No frame enters at an end without a port.
            if old != new && cable.end(side).owner != EndOwner::Open {
                lanes.push(ImpairmentChange {
                    from: Some(cable.end(side).tap.clone()),
                    clear: true,
                    set: new.clone(),
                });
            }
        }
        // If both lanes change in the same way, one change of the whole cable replaces the two.
        if let [a, b] = &lanes[..]
            && a.set == b.set
        {
            lanes.truncate(1);
            lanes[0].from = None;
        }
        let lanes: Vec<_> = lanes.into_iter().map(Some).collect();
        let lanes = if lanes.is_empty() { vec![None] } else { lanes };
        for (number, impair) in lanes.into_iter().enumerate() {
            let state = state.filter(|_| number == 0);
            if state.is_some() || impair.is_some() {
                changes.push(CableChange {
                    cable: cable.name.clone(),
                    state,
                    impair,
                });
            }
        }
    }
    changes
}

/// By the cable's name. Cables that the configuration does not mention are left out.
fn configured(plan: &FabricPlan) -> BTreeMap<String, Setting> {
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    for keys in &plan.config.cable {
        // The topology has every cable that the configuration names, or it could not have been
        // built.
        let Ok(cable) = plan.topology.cable(keys.called()) else {
            continue;
        };
        let setting = settings.entry(cable.name.clone()).or_default();
        if let Some(state) = keys.state {
            setting.state = state;
        }
        let from = keys.from.as_deref();
        let only = from.and_then(|from| plan.topology.end(from).ok());
        for side in [Side::A, Side::B] {
            if only.is_none_or(|only| only.side == side) {
                let lane = &mut setting.lanes[side as usize];
                *lane = std::mem::take(lane).overlay(keys.impair.clone());
            }
        }
    }
    settings
}

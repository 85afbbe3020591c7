//! Exchanges devices, cables and the host's rules, and with them the [`FabricState`].
//!
//! Requests during an exchange see the state before it; those that change cables wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;

use super::{ChangeError, Prepared};
use crate::cables::batch::CheckedBatch;
use crate::cables::error::CablesError;
use crate::cables::names::CableNames;
use crate::cables::open::CableOpener;
use crate::cables::{Cables, PluggedCable};
use crate::descriptors::make_room;
use crate::fabric::Fabric;
use crate::files;
use crate::links::WatchedChange;
use crate::preflight::needs::taps;
use crate::state::FabricState;
use crate::switches::switch::Switch;
use api::ApiError;
use dataplane::Side;
use host::execute::{HostChangeError, HostChanges, HostTaps};
use host::plan::TapPlan;
use model::cable_change::{CableBatch, CableState};
use model::config::HostReach;
use model::difference::FabricPlan;
use model::topology::EndOwner;

impl Fabric {
    /// Replaces the state `before`. Returns the new state, and notes for the user.
    ///
    /// # Errors
    /// The first step that failed; everything is as before then.
    pub(super) async fn exchange(
        &self,
        before: &FabricState,
        prepared: &Prepared,
    ) -> Result<(Arc<FabricState>, Vec<String>), ChangeError> {
        let reach = prepared.difference.reach.as_ref();
        if let Some(reach) = reach {
            self.set_reach(reach).await?;
        }
        let exchanged = self.exchange_parts(before, prepared).await;
        if exchanged.is_err()
            && reach.is_some()
            && let Err(error) = self.set_reach(&before.plan.topology.host.reach).await
        {
            let notice = format!("{error}; apply the former [host] again");
            self.live.notices.add(notice);
        }
        exchanged
    }

    async fn set_reach(&self, reach: &HostReach) -> Result<(), ChangeError> {
        let reach = reach.clone();
        self.change_host(move |host| host.set_reach(reach)).await
    }

    async fn exchange_parts(
        &self,
        before: &FabricState,
        prepared: &Prepared,
    ) -> Result<(Arc<FabricState>, Vec<String>), ChangeError> {
        let (plan, difference) = (&prepared.plan, &prepared.difference);
        let notes: Vec<_> = make_room(plan.topology.cables.len())?.into_iter().collect();
        let is_new = |tap: &TapPlan| difference.taps.added.contains(&tap.name);
        // New taps come before the cables that open them. Old taps are removed last: until the
        // exchange has succeeded, going back needs them.
        let mut added = taps(plan);
        added.retain(is_new);
        if !added.is_empty() {
            self.change_host(move |host| host.add_taps(&added)).await?;
        }
        let result = self.exchange_cables(before, prepared).await;
        let gone = if result.is_ok() {
            &difference.taps.removed
        } else {
            &difference.taps.added
        };
        if let Ok(after) = &result {
            // Before the taps are removed, so that their removal is not taken for another
            // program's.
            self.watch_devices(before, after);
            for tap in gone {
                self.live.occupancies.forget(tap);
            }
        }
        if !gone.is_empty()
            && let Err(error) = self.remove_taps(gone.clone()).await
        {
            let notice = format!("{error}; they are removed when the fabric ends");
            self.live.notices.add(notice);
        }
        Ok((result?, notes))
    }

    async fn exchange_cables(
        &self,
        before: &FabricState,
        prepared: &Prepared,
    ) -> Result<Arc<FabricState>, ChangeError> {
        let (plan, difference) = (&prepared.plan, &prepared.difference);
        let (paths, owner) = (&self.live.paths, &self.live.owner);
        let old = CableOpener::new(&before.plan, paths, owner);
        let new = CableOpener::new(plan, paths, owner);
        make_folders(&new, prepared)?;
        let taken: BTreeSet<&str> = difference.cables.to_take().collect();
        let made: BTreeSet<&str> = difference.cables.to_make().collect();
        // A request must not change a cable that is about to be removed.
        let changing = before.cables.panel().lock_changes().await;
        // Old cables first: a new cable may reuse their ports and socket paths.
        self.unplug(before, &old, &taken).await;
        let mut plugged = Vec::new();
        let result = async {
            plug(&new, plan, &before.cables, &made, &mut plugged).await?;
            let after = before.with(plan, &plugged)?;
            self.settle(before, after, prepared).await
        };
        let result = result.await;
        if result.is_err() {
            before.cables.unplug(&plugged).await;
            for cable in &plugged {
                forget(&new, plan, cable.name());
            }
            remove_folders(&new, prepared);
            self.plug_back(before, &old, &taken).await;
        }
        drop(changing);
        result
    }

    /// Unplugs cables. Afterwards nothing is connected at their ends.
    async fn unplug(&self, state: &FabricState, opener: &CableOpener<'_>, taken: &BTreeSet<&str>) {
        let cables = state.plan.topology.cables.iter().enumerate();
        let cables: Vec<_> = cables
            .filter(|(_, cable)| taken.contains(&*cable.name))
            .collect();
        let plugged = cables.iter().map(|(index, _)| state.cables.plugged(*index));
        let plugged: Vec<_> = plugged.cloned().collect();
        state.cables.unplug(&plugged).await;
        for (_, cable) in cables {
            opener.forget(cable);
            for (_, end) in cable.ends() {
                let occupancies = &self.live.occupancies;
                occupancies.change(&end.tap, |occupancy| occupancy.front_end = false);
            }
        }
    }

    /// Records the cables, applies their configured states and impairments, and makes the new state
    /// the current one.
    async fn settle(
        &self,
        before: &FabricState,
        after: FabricState,
        prepared: &Prepared,
    ) -> Result<Arc<FabricState>, ChangeError> {
        let batch = CableBatch {
            changes: prepared.difference.settings.clone(),
        };
        let topology = &after.plan.topology;
        let batch = CheckedBatch::check(topology, &after.cables, &batch)?;
        // The recorder before the batch: a batch that has been committed cannot be taken back, but
        // the recorder can.
        self.record(before, &after).await?;
        match batch.commit(&after.cables).await {
            Ok(committed) => {
                let events = &self.live.events;
                events.cables_changed(&after.cables, &committed.changes);
            }
            Err(error) => {
                // The result does not matter: recordings of removed cables end with the cables in
                // either case.
                let _ = self.record(&after, before).await;
                return Err(error.into());
            }
        }
        // Front ends are accepted only now, when the exchange can no longer fail.
        for (index, cable) in topology.cables.iter().enumerate() {
            for (side, end) in cable.ends() {
                if after.is_pluggable(end.owner) && prepared.makes(&cable.name) {
                    let accepting = self.live.occupancies.of(&end.tap).accepts_front_ends();
                    after.cables.set_accepting(index, side, accepting);
                }
            }
        }
        let after = Arc::new(after);
        self.live.put(after.clone());
        Ok(after)
    }

    async fn record(&self, before: &FabricState, after: &FabricState) -> Result<(), CablesError> {
        let Some(recorder) = &*self.recorder else {
            return Ok(());
        };
        let index_before = |index: usize| {
            let cable = after.cables.plugged(index);
            let mut all = 0..before.cables.len();
            all.find(|index| Arc::ptr_eq(before.cables.plugged(*index), cable))
        };
        recorder
            .rewire(&after.cables, &after.plan.topology, index_before)
            .await
    }

    /// After a failure: plugs the removed cables in again, in their previous condition.
    async fn plug_back(
        &self,
        before: &FabricState,
        opener: &CableOpener<'_>,
        taken: &BTreeSet<&str>,
    ) {
        if taken.is_empty() {
            return;
        }
        let mut plugged = Vec::new();
        let back = async {
            plug(opener, &before.plan, &before.cables, taken, &mut plugged).await?;
            let mut state = before.with(&before.plan, &plugged)?;
            state.switches.clone_from(&before.switches);
            self.record(before, &state).await?;
            for index in 0..state.cables.len() {
                let condition = before.cables.condition(index);
                let restoring = CheckedBatch::restoring(index, condition);
                restoring.commit(&state.cables).await?;
            }
            Ok::<_, ChangeError>(state)
        };
        match back.await {
            Ok(state) => self.live.put(Arc::new(state)),
            Err(error) => self.live.notices.add(format!(
                "cables that were taken out could not be plugged in again: {error}; restart the \
                 fabric"
            )),
        }
    }

    fn watch_devices(&self, before: &FabricState, after: &FabricState) {
        let [before, after] = [before, after].map(|it| it.devices().collect::<BTreeSet<_>>());
        let change = WatchedChange {
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
        };
        // Fails only when the fabric is ending, and then the devices are no longer watched.
        let _ = self.change.watched.send(change);
    }

    async fn remove_taps(&self, names: Vec<String>) -> Result<(), ChangeError> {
        self.change_host(move |host| {
            let removed = host.remove_taps(&names);
            removed.map_err(|source| HostChangeError::Undo(vec![source.to_string()]))
        })
        .await
    }

    async fn change_host(
        &self,
        change: impl FnOnce(&mut HostChanges) -> Result<(), HostChangeError> + Send + 'static,
    ) -> Result<(), ChangeError> {
        Ok(self.live.host.change(change).await??)
    }

    /// Reports their carrier to the ends of cables whose state was set. Returns what could not be
    /// reported.
    pub(super) async fn report_carriers(
        &self,
        state: &FabricState,
        prepared: &Prepared,
    ) -> Vec<String> {
        let topology = &state.plan.topology;
        let mut carriers = BTreeMap::new();
        for change in &prepared.difference.settings {
            if let (Some(state), Ok(index)) =
                (change.state, CableNames::cable(topology, &change.cable))
            {
                carriers.insert(index, state != CableState::Down);
            }
        }
        // A switch that is starting is notified once it runs (`report_cuts_to`).
        let is_starting = |owner| {
            matches!(owner, EndOwner::Switch { switch, .. }
                if state.switches.contains_key(&switch)
                    && prepared.starts(&topology.switches[switch].name))
        };
        let ends = carriers.into_iter().flat_map(|(index, up)| {
            let sides = [Side::A, Side::B].into_iter();
            sides
                .filter(move |side| up || !is_starting(topology.cables[index].end(*side).owner))
                .map(move |side| self.live.set_carrier(state, index, side, up))
        });
        let notes = join_all(ends.collect::<Vec<_>>()).await;
        notes.into_iter().flatten().collect()
    }
}

/// Creates folders for the sockets of the switches that start. On failure none of them is left.
fn make_folders(opener: &CableOpener<'_>, prepared: &Prepared) -> Result<(), ChangeError> {
    for switch in prepared.starting() {
        let made = opener.make_folder_of(switch.index);
        made.inspect_err(|_| remove_folders(opener, prepared))?;
    }
    Ok(())
}

fn remove_folders(opener: &CableOpener<'_>, prepared: &Prepared) {
    for switch in prepared.starting() {
        // A folder may be missing if `make_folders` failed half-way.
        files::remove(&opener.folder_of(switch.index));
    }
}

/// Opens the named cables of a plan and plugs them in. `plugged` gets those that succeed, even if a
/// later one fails.
async fn plug(
    opener: &CableOpener<'_>,
    plan: &FabricPlan,
    cables: &Cables,
    names: &BTreeSet<&str>,
    plugged: &mut Vec<Arc<PluggedCable>>,
) -> Result<(), ChangeError> {
    let wanted = plan.topology.cables.iter();
    for cable in wanted.filter(|cable| names.contains(&*cable.name)) {
        let planned = opener.open_one(cable, &mut HostTaps::new())?;
        let result = cables.plug_one(planned).await;
        plugged.push(result.inspect_err(|_| opener.forget(cable))?);
    }
    Ok(())
}

/// Removes the sockets of an unplugged cable.
fn forget(opener: &CableOpener<'_>, plan: &FabricPlan, name: &str) {
    let cables = plan.topology.cables.iter();
    for cable in cables.filter(|cable| cable.name == name) {
        opener.forget(cable);
    }
}

impl Prepared {
    /// Whether this change plugs the cable in.
    fn makes(&self, cable: &str) -> bool {
        self.difference.cables.to_make().any(|made| made == cable)
    }

    fn starts(&self, switch: &str) -> bool {
        self.difference.switches.added.iter().any(|it| it == switch)
    }
}

impl FabricState {
    /// The state that follows from another plan: the cables and switches that stay, and the newly
    /// `plugged` cables.
    fn with(
        &self,
        plan: &FabricPlan,
        plugged: &[Arc<PluggedCable>],
    ) -> Result<FabricState, ChangeError> {
        let mut there: BTreeMap<&str, &Arc<PluggedCable>> = BTreeMap::new();
        for index in 0..self.cables.len() {
            there.insert(self.cables.name(index), self.cables.plugged(index));
        }
        there.extend(plugged.iter().map(|cable| (cable.name(), cable)));
        let cables = plan.topology.cables.iter().map(|cable| {
            let found = there.get(&*cable.name).copied().cloned();
            found.ok_or_else(|| {
                ApiError::failed(format!("cable {} is neither old nor new", cable.name))
            })
        });
        let running = self.switches.values();
        let by_name: BTreeMap<&str, &Arc<Switch>> =
            running.map(|switch| (switch.name(), switch)).collect();
        let switches = plan.switches.iter().filter_map(|index| {
            let switch = by_name.get(&*plan.topology.switches[index].name)?;
            Some((index, Arc::clone(switch)))
        });
        let cables = self.cables.with(cables.collect::<Result<_, _>>()?);
        Ok(FabricState::new(plan.clone(), cables, switches.collect()))
    }
}

//! Devices and cables are exchanged, and with them the [`Whole`]: at once, as seen from the
//! outside, for nobody else gets a turn meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;

use super::{ChangeError, Prepared};
use crate::Fabric;
use crate::bring_up::recorded_names;
use crate::cables::{Cables, CablesError, Entry};
use crate::descriptors::make_room;
use crate::ends::Sockets;
use crate::impair::{CheckedBatch, Names};
use crate::links::Watched;
use crate::look_ahead::taps;
use crate::switch::Switch;
use crate::whole::Whole;
use api::ApiError;
use host::execute::HostTaps;
use host::lock::StatePaths;
use model::cable_change::{CableBatch, CableState};
use model::difference::Plan;
use model::topology::{Side, Topology};

impl Fabric {
    /// Puts another whole in the place of `before`. Returns it, with notes for the user.
    ///
    /// # Errors
    /// The first thing that failed; all is as before then.
    pub(super) fn exchange(
        self: &Arc<Self>,
        before: &Arc<Whole>,
        prepared: &Prepared,
    ) -> Result<(Arc<Whole>, Vec<String>), ChangeError> {
        let (plan, difference) = (&prepared.plan, &prepared.difference);
        let notes: Vec<_> = make_room(plan.topology.cables.len())?.into_iter().collect();
        let wanted = taps(&plan.config, &plan.topology, &plan.switches);
        let added = |tap: &&host::plan::TapPlan| difference.taps.added.contains(&tap.name);
        let added: Vec<_> = wanted.iter().filter(added).cloned().collect();
        if !added.is_empty() {
            self.with_host(|applied| applied.add_taps(&added))?;
        }
        let result = self.exchange_cables(before, prepared);
        let gone = if result.is_ok() {
            &difference.taps.removed
        } else {
            &difference.taps.added
        };
        if let Ok(after) = &result {
            self.watch_devices(before, after);
            for tap in gone {
                self.plugged.forget(tap);
            }
        }
        if !gone.is_empty()
            && let Err(error) = self.remove_taps(gone)
        {
            self.notice(format!("{error}; they are removed when the fabric ends"));
        }
        Ok((result?, notes))
    }

    fn exchange_cables(
        self: &Arc<Self>,
        before: &Arc<Whole>,
        prepared: &Prepared,
    ) -> Result<Arc<Whole>, ChangeError> {
        let (plan, difference) = (&prepared.plan, &prepared.difference);
        let sockets = |plan| Bench::new(plan, &self.paths, self);
        let old_plan = before.plan();
        let (old, new) = (sockets(&old_plan), sockets(plan));
        new.make_folders_of(prepared)?;
        let taken: BTreeSet<&str> = difference.cables.to_take().collect();
        let made: BTreeSet<&str> = difference.cables.to_make().collect();
        self.unplug(before, &old, &taken);
        let mut plugged = Vec::new();
        let after = new
            .plug(&before.cables, &made, &mut plugged)
            .and_then(|()| assemble(before, plan, &plugged))
            .and_then(|after| self.settle(before, after, prepared));
        after.inspect_err(|_| {
            before.cables.unplug(&plugged);
            for entry in &plugged {
                new.forget(entry.name());
            }
            new.remove_folders_of(prepared);
            self.plug_back(before, &old, &taken);
        })
    }

    /// Takes cables out, and nobody is at their ends any more.
    fn unplug(&self, whole: &Whole, sockets: &Bench<'_>, taken: &BTreeSet<&str>) {
        let cables = whole.topology.cables.iter().enumerate();
        let cables: Vec<_> = cables
            .filter(|(_, cable)| taken.contains(&*cable.name))
            .collect();
        let entries = cables.iter().map(|(index, _)| whole.cables.plugged(*index));
        whole.cables.unplug(&entries.cloned().collect::<Vec<_>>());
        for (_, cable) in cables {
            sockets.forget(&cable.name);
            for (_, end) in cable.ends() {
                self.plugged
                    .change(&end.tap, |claims| claims.front_end = false);
            }
        }
    }

    /// Records the cables, makes of them what is configured, and puts the new whole in force.
    fn settle(
        &self,
        before: &Whole,
        after: Whole,
        prepared: &Prepared,
    ) -> Result<Arc<Whole>, ChangeError> {
        let step = CableBatch {
            changes: prepared.difference.settings.clone(),
        };
        let step = CheckedBatch::check(&after.topology, &after.cables, &step)?;
        self.rerecord(before, &after)?;
        if let Err(error) = step.apply(&after.cables) {
            // What is recorded of cables that are gone tells of nothing any more.
            let _ = self.rerecord(&after, before);
            return Err(error.into());
        }
        for (index, cable) in after.topology.cables.iter().enumerate() {
            for (side, end) in cable.ends() {
                if after.is_pluggable(end.owner) && prepared.makes(&cable.name) {
                    let open = self.plugged.of(&end.tap).gate_is_open();
                    after.cables.set_gate(index, side, open);
                }
            }
        }
        for (index, switch) in &after.switches {
            switch.expect(after.selection.sessions(&after.topology, *index));
        }
        let after = Arc::new(after);
        self.put(after.clone());
        Ok(after)
    }

    fn rerecord(&self, before: &Whole, after: &Whole) -> Result<(), CablesError> {
        let Some(recorder) = &self.recorder else {
            return Ok(());
        };
        let place = |index: usize| {
            let entry = after.cables.plugged(index);
            let mut all = 0..before.cables.len();
            all.find(|index| Arc::ptr_eq(before.cables.plugged(*index), entry))
        };
        recorded_names(&after.topology, |names| {
            let named = |name: &str| Names::cable(&after.topology, name);
            recorder.rewire(&after.cables, names, &place, &named)
        })
    }

    /// After a failure: the cables that were taken out are there again, as they were.
    fn plug_back(&self, before: &Whole, sockets: &Bench<'_>, taken: &BTreeSet<&str>) {
        if taken.is_empty() {
            return;
        }
        let mut plugged = Vec::new();
        let back = sockets
            .plug(&before.cables, taken, &mut plugged)
            .and_then(|()| assemble(before, sockets.plan, &plugged))
            .and_then(|mut whole| {
                whole.switches.clone_from(&before.switches);
                self.rerecord(before, &whole)?;
                for index in 0..whole.cables.len() {
                    let condition = before.cables.condition(index);
                    CheckedBatch::again(index, condition).apply(&whole.cables)?;
                }
                Ok(whole)
            });
        match back {
            Ok(whole) => self.put(Arc::new(whole)),
            Err(error) => self.notice(format!(
                "cables that were taken out could not be plugged in again: {error}; restart the \
                 fabric"
            )),
        }
    }

    pub(super) fn put(&self, whole: Arc<Whole>) {
        let current = self.whole.lock();
        *current.expect("no holder of this lock can panic") = whole;
        self.news.notify_waiters();
    }

    fn watch_devices(&self, before: &Whole, after: &Whole) {
        let [before, after] = [before, after].map(|whole| whole.devices().collect::<BTreeSet<_>>());
        let change = Watched {
            added: after.difference(&before).cloned().collect(),
            removed: before.difference(&after).cloned().collect(),
        };
        // Nobody watches when the fabric is ending.
        let _ = self.change.watched.send(change);
    }

    fn remove_taps(&self, names: &[String]) -> Result<(), ChangeError> {
        self.with_host(|applied| {
            let removed = applied.remove_taps(names);
            removed.map_err(|source| host::execute::HostChangeError::Undo(vec![source.to_string()]))
        })
    }

    fn with_host<T>(
        &self,
        act: impl FnOnce(&mut host::execute::HostChanges) -> Result<T, host::execute::HostChangeError>,
    ) -> Result<T, ChangeError> {
        let applied = self.change.applied.lock();
        let mut applied = applied.expect("no holder of this lock can panic");
        let applied = applied.as_mut().ok_or(ChangeError::Ending)?;
        Ok(act(applied)?)
    }

    /// Tells the ends of cables whether they have carrier, where that was set. Returns what could
    /// not be told.
    pub(super) async fn tell_ends(&self, whole: &Whole, prepared: &Prepared) -> Vec<String> {
        let mut told = BTreeMap::new();
        for change in &prepared.difference.settings {
            if let (Some(state), Ok(index)) = (change.state, Names::cable(whole, &change.cable)) {
                told.insert(index, state != CableState::Down);
            }
        }
        let ends = told.into_iter().flat_map(|(index, up)| {
            let sides = [Side::A, Side::B].into_iter();
            sides
                // A switch that starts or changes is told when it is there.
                .filter(move |side| {
                    let end = whole.topology.cables[index].end(*side);
                    up || !matches!(end.owner, model::topology::EndOwner::Switch { switch, .. }
                        if whole.switches.contains_key(&switch)
                            && prepared.starts(&whole.topology.switches[switch].name))
                })
                .map(move |side| self.set_carrier(whole, index, side, up))
        });
        join_all(ends).await.into_iter().flatten().collect()
    }
}

/// The whole that is to be, of what stays and what was plugged in.
fn assemble(before: &Whole, plan: &Plan, plugged: &[Arc<Entry>]) -> Result<Whole, ChangeError> {
    let mut there: BTreeMap<&str, &Arc<Entry>> = BTreeMap::new();
    for index in 0..before.cables.len() {
        there.insert(before.cables.name(index), before.cables.plugged(index));
    }
    there.extend(plugged.iter().map(|entry| (entry.name(), entry)));
    let entries = plan.topology.cables.iter().map(|cable| {
        let entry = there.get(&*cable.name).copied();
        entry
            .cloned()
            .ok_or_else(|| ApiError::failed(format!("cable {} is neither old nor new", cable.name)))
    });
    let cables = before.cables.with(entries.collect::<Result<_, _>>()?);
    Ok(before.succeeded_by(plan, cables))
}

impl Prepared {
    /// Whether a cable is plugged in by this.
    fn makes(&self, cable: &str) -> bool {
        self.difference.cables.to_make().any(|made| made == cable)
    }

    fn starts(&self, switch: &str) -> bool {
        self.difference.switches.added.iter().any(|it| it == switch)
    }
}

impl Whole {
    /// Another one with these cables; the switches that go on are those that there are.
    fn succeeded_by(&self, plan: &Plan, cables: Cables) -> Whole {
        let running = self.switches.values();
        let by_name: BTreeMap<&str, &Arc<Switch>> =
            running.map(|switch| (switch.name(), switch)).collect();
        let switches = plan.switches.iter().filter_map(|index| {
            let switch = by_name.get(&*plan.topology.switches[index].name)?;
            Some((index, Arc::clone(switch)))
        });
        Whole {
            switches: switches.collect(),
            reached: plan.switches.reached(&plan.topology),
            config: plan.config.clone(),
            topology: plan.topology.clone(),
            selection: plan.switches.clone(),
            cables,
        }
    }
}

/// Where cables of a plan are opened.
struct Bench<'p> {
    plan: &'p Plan,
    sockets: Sockets<'p>,
}

impl<'p> Bench<'p> {
    fn new(plan: &'p Plan, paths: &'p StatePaths, fabric: &'p Fabric) -> Self {
        let owner = &fabric.change.owner;
        Bench {
            plan,
            sockets: Sockets::new(&plan.config, &plan.topology, &plan.switches, paths, owner),
        }
    }

    fn topology(&self) -> &'p Topology {
        &self.plan.topology
    }

    /// Folders for the sockets of switches that start.
    fn make_folders_of(&self, prepared: &Prepared) -> Result<(), ChangeError> {
        let starting = prepared.switches.iter().filter(|switch| switch.starts());
        for switch in starting {
            let made = self.sockets.make_folder_of(switch.index);
            made.inspect_err(|_| self.remove_folders_of(prepared))?;
        }
        Ok(())
    }

    fn remove_folders_of(&self, prepared: &Prepared) {
        for switch in prepared.switches.iter().filter(|switch| switch.starts()) {
            // It may not have been made.
            let _ = std::fs::remove_dir_all(self.sockets.folder_of(switch.index));
        }
    }

    /// Plugs cables in, by their names; into `plugged` what is.
    fn plug(
        &self,
        cables: &Cables,
        names: &BTreeSet<&str>,
        plugged: &mut Vec<Arc<Entry>>,
    ) -> Result<(), ChangeError> {
        let wanted = self.topology().cables.iter();
        for cable in wanted.filter(|cable| names.contains(&*cable.name)) {
            let planned = self.sockets.open_one(cable, &mut HostTaps::new())?;
            let entry = cables.plug_one(planned);
            plugged.push(entry.inspect_err(|_| self.sockets.forget(cable))?);
        }
        Ok(())
    }

    /// Removes the sockets of a cable that is unplugged.
    fn forget(&self, name: &str) {
        let cables = self.topology().cables.iter();
        for cable in cables.filter(|cable| cable.name == name) {
            self.sockets.forget(cable);
        }
    }
}

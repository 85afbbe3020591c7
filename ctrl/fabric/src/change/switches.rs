//! Starts, stops and changes switches. Those that need a restart are restarted one after another:
//! each is back, with all its sessions, before the next one stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::control::Comparison;
use super::{ChangeError, LOOK, Prepared};
use crate::fabric::Fabric;
use crate::files;
use crate::off_thread::off_thread;
use crate::progress::duration;
use crate::reconfigure::{LiveChange, SwitchMake, can_be_live, reconfigure};
use crate::state::FabricState;
use crate::switches::displays;
use crate::switches::factory::NewKeys;
use crate::switches::seeds::{SeedsError, SwitchMaker};
use crate::switches::switch::Switch;
use api::{ApiError, NodeState};
use model::difference::FabricPlan;
use model::power::PowerAction;
use vm::VmSpec;
use vm::seed;

/// How long a switch may take to return with all its sessions. Under TCG, while others boot, a
/// minute is usual.
const BACK: Duration = Duration::from_secs(300);

/// A switch as it will be after the change.
pub(super) struct SwitchToBe {
    /// Its index in the new topology.
    pub(super) index: usize,
    pub(super) name: String,
    make: SwitchMake,
    how: How,
}

/// How a switch reaches its new make.
enum How {
    /// It is new and starts.
    Starts,
    /// It changes while it runs.
    Live(Box<LiveChange>),
    /// It is restarted.
    Restarts,
}

impl SwitchToBe {
    /// The switches of `plan` that differ from those that run in `state`. `makers` are those of the
    /// state's plan and of this one.
    fn all(
        state: &FabricState,
        plan: &FabricPlan,
        (old, new): (&SwitchMaker<'_>, &SwitchMaker<'_>),
        number: u32,
    ) -> Result<Vec<Self>, ChangeError> {
        let mut switches = Vec::new();
        for index in plan.switches.iter() {
            let name = &plan.topology.switches[index].name;
            let mut make = new.make(index)?;
            let running = state.switches.iter().find(|(_, it)| it.name() == name);
            let how = match running {
                None => How::Starts,
                Some((before, switch)) => {
                    let before = old.make(*before)?;
                    if before == make {
                        continue;
                    }
                    // Not over the present disk: a QEMU that is restarted meanwhile must still find
                    // the old one.
                    let disk = format!("seed-{number}.tar");
                    make.spec.seed = make.spec.run_dir.join(disk);
                    how(switch, &before, &make)
                }
            };
            switches.push(SwitchToBe {
                index,
                name: name.clone(),
                make,
                how,
            });
        }
        Ok(switches)
    }

    /// Whether it is new.
    pub(super) fn starts(&self) -> bool {
        matches!(self.how, How::Starts)
    }
}

impl Fabric {
    /// Prepares everything that does not touch a running switch. `number` is the number of the
    /// change.
    pub(super) async fn prepare(
        &self,
        state: &Arc<FabricState>,
        asked: Comparison,
        number: u32,
        keys: NewKeys,
    ) -> Result<Prepared, ChangeError> {
        let Comparison {
            plan,
            mut difference,
            ..
        } = asked;
        let (plan, switches) = self.switches_to_be(state, plan, number, keys).await?;
        for switch in switches.iter().filter(|switch| !switch.starts()) {
            let restarts = Some(matches!(switch.how, How::Restarts));
            let mut known = difference.changes.iter_mut();
            if let Some(change) = known.find(|change| change.name == switch.name) {
                change.restarts = restarts;
            } else {
                // The only possible remaining difference is its list of the other switches' names
                // for ssh.
                difference.learns_names(&switch.name, restarts);
            }
        }
        Ok(Prepared {
            plan,
            difference,
            switches,
        })
    }

    async fn switches_to_be(
        &self,
        state: &Arc<FabricState>,
        plan: FabricPlan,
        number: u32,
        keys: NewKeys,
    ) -> Result<(FabricPlan, Vec<SwitchToBe>), ChangeError> {
        let Some(factory) = self.switches.factory() else {
            return Ok((plan, Vec::new()));
        };
        let old = factory.keys(&state.plan, NewKeys::Forget).await?;
        let new = factory.keys(&plan, keys).await?;
        let (factory, state) = (factory.clone(), state.clone());
        // Off the thread: the files of hundreds of switches take seconds.
        let make = move || {
            let old = factory.maker_with(&state.plan, old);
            let new = factory.maker_with(&plan, new);
            let switches = SwitchToBe::all(&state, &plan, (&old, &new), number)?;
            Ok((plan, switches))
        };
        let made = off_thread("plan", make).await;
        made.map_err(|error| ChangeError::Setting(ApiError::failed(error)))?
    }

    /// Stops, starts and changes switches. Returns notes for the user. `touched` gets the switches
    /// that were changed, or that this tried to change.
    ///
    /// # Errors
    /// The first switch that failed or did not return in time.
    pub(super) async fn change_switches(
        &self,
        before: &FabricState,
        after: &Arc<FabricState>,
        prepared: &Prepared,
        touched: &mut BTreeSet<String>,
    ) -> Result<Vec<String>, ChangeError> {
        let Some(factory) = self.switches.factory() else {
            return Ok(Vec::new());
        };
        factory.write_ssh_files(&factory.maker(&after.plan).await?)?;
        // Removed switches stop first: an added one may need their memory and their ports.
        self.stop_removed(before, prepared).await;
        let after = &self.start_added(after, prepared).await?;
        let mut notes = Vec::new();
        // One at a time, so that at most one of them is down.
        for switch in prepared.switches.iter().filter(|switch| !switch.starts()) {
            touched.insert(switch.name.clone());
            notes.extend(self.change_one(after, switch).await?);
        }
        for switch in prepared.starting() {
            self.doing(Some(format!("waits for {}", switch.name)));
            self.wait_for(after, &after.switches[&switch.index], Instant::now())
                .await?;
        }
        Ok(notes)
    }

    async fn stop_removed(&self, before: &FabricState, prepared: &Prepared) {
        let removed = &prepared.difference.switches.removed;
        let gone: Vec<_> = before
            .switches
            .iter()
            .filter(|(_, switch)| removed.iter().any(|name| name == switch.name()))
            .collect();
        if gone.is_empty() {
            return;
        }
        self.doing(Some(format!("stops {}", removed.join(", "))));
        // BMCs before their switches: a BMC could start its switch again.
        if let Some(bmcs) = self.switches.bmcs() {
            join_all(
                gone.iter()
                    .map(|(index, _)| bmcs.remove(&self.live, **index)),
            )
            .await;
        }
        join_all(gone.iter().map(|(_, switch)| switch.vm().stop())).await;
        for (index, switch) in gone {
            displays::forget(&self.live.paths, &before.plan.topology, *index);
            files::remove(&self.live.paths.vms.join(switch.name()));
        }
    }

    /// Starts the new switches. Returns the state that contains them.
    async fn start_added(
        &self,
        after: &Arc<FabricState>,
        prepared: &Prepared,
    ) -> Result<Arc<FabricState>, ChangeError> {
        let (Some(factory), live) = (self.switches.factory(), &self.live) else {
            return Ok(after.clone());
        };
        let plan = &after.plan;
        let mut shown = Vec::new();
        // All disks and displays before the first VM: if one of them fails, no VM has to be stopped
        // again.
        for SwitchToBe { make, index, .. } in prepared.starting() {
            seed::write(&make.spec.seed, &make.files).map_err(SeedsError::from)?;
            let display = displays::open_one(plan, &live.paths, &live.owner, *index)?;
            shown.extend(display);
        }
        for SwitchToBe { make, index, .. } in prepared.starting() {
            let spec = make.spec.clone();
            let started = factory.start(spec, &plan.topology, *index);
            for follower in self.switches.followers(live, &started) {
                tokio::spawn(follower);
            }
            live.add_switch(*index, started);
        }
        let state = live.state();
        if let Some(bmcs) = self.switches.bmcs() {
            for switch in prepared.starting() {
                bmcs.add(live, &state, switch.index).await?;
            }
        }
        // Displays are served last, so that the state already contains the switches that they
        // connect to.
        for display in shown {
            tokio::spawn(self.switches.display_server(live, display));
        }
        Ok(state)
    }

    /// Brings a running switch to its new make. Returns a note for the user, if any.
    async fn change_one(
        &self,
        state: &FabricState,
        to_be: &SwitchToBe,
    ) -> Result<Option<String>, ChangeError> {
        let switch = &state.switches[&to_be.index];
        let SwitchMake { spec, files, .. } = &to_be.make;
        seed::write(&spec.seed, files).map_err(SeedsError::from)?;
        let node = switch.state();
        if let (How::Live(change), NodeState::Running) = (&to_be.how, node)
            && self.change_live(switch, spec, change).await
        {
            return Ok(None);
        }
        let failed = |reason: String| ChangeError::Switch {
            switch: to_be.name.clone(),
            reason,
        };
        // A restart. The supervisor gets the new specification first, so that a QEMU that dies at
        // any moment comes back as the new make.
        let respec = switch.vm().respec(spec.clone()).await;
        respec.map_err(|error| failed(error.to_string()))?;
        forget_other_seeds(spec);
        // A switch that the user has switched off is not started by `apply`.
        if matches!(node, NodeState::Off | NodeState::Failed) {
            return Ok(Some(format!("{} is off and stays off", to_be.name)));
        }
        self.doing(Some(format!("restarts {}", to_be.name)));
        let began = Instant::now();
        let cycled = switch.vm().power(PowerAction::Cycle).await;
        cycled.map_err(|error| failed(error.to_string()))?;
        self.wait_for(state, switch, began).await?;
        let took = duration(began.elapsed());
        Ok(Some(format!(
            "{} was restarted and back after {took}",
            to_be.name
        )))
    }

    /// Changes a switch while it runs. Returns `false` if that failed half-way; the caller then
    /// restarts it.
    async fn change_live(&self, switch: &Switch, spec: &VmSpec, change: &LiveChange) -> bool {
        let name = switch.name();
        self.doing(Some(format!("changes {name}")));
        match reconfigure(switch.vm(), spec.clone(), change).await {
            Ok(()) => {
                forget_other_seeds(spec);
                // A NIC that was just plugged in assumes that it has carrier.
                self.live.report_cuts_to(name).await;
                true
            }
            Err(error) => {
                tracing::warn!(switch = name, %error, "it is restarted");
                let notice = format!("{name} is restarted: {error}");
                self.live.notices.add(notice);
                false
            }
        }
    }

    /// Waits until a switch runs and has every session that is possible now.
    async fn wait_for(
        &self,
        state: &FabricState,
        switch: &Switch,
        began: Instant,
    ) -> Result<(), ChangeError> {
        loop {
            let node = switch.state();
            let is_up = node == NodeState::Running && state.has_possible_sessions(switch.name());
            if is_up {
                return Ok(());
            }
            if began.elapsed() > BACK || node == NodeState::Failed {
                return Err(ChangeError::NotBack {
                    switch: switch.name().into(),
                    after: began.elapsed(),
                });
            }
            // The end of the fabric must not wait for a switch that does not come back.
            self.change.check_ending()?;
            tokio::select! {
                _ = timeout(LOOK, self.live.notices.changed()) => {}
                () = self.change.ending() => {}
            }
        }
    }
}

/// Chooses how a running switch reaches its new make: without a restart if possible.
fn how(switch: &Switch, before: &SwitchMake, after: &SwitchMake) -> How {
    match can_be_live(switch.vm(), before, after) {
        Ok(live) => How::Live(Box::new(live)),
        Err(why) => {
            tracing::debug!(switch = switch.name(), %why, "a restart is needed");
            How::Restarts
        }
    }
}

/// Removes the disks that the VM's next QEMU does not use.
fn forget_other_seeds(spec: &VmSpec) {
    let Ok(entries) = std::fs::read_dir(&spec.run_dir) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("seed") && path != spec.seed {
            // If this fails, the disk is removed with its folder at the end.
            files::remove(&path);
        }
    }
}

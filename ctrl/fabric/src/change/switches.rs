//! Switches start, stop and change. Those that have to be started anew are so one after another:
//! each is back, with all its sessions, before the next one goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{ChangeError, LOOK, Prepared};
use crate::progress::duration;
use crate::reconfigure::{Live, Make, can_be_live, reconfigure};
use crate::switch::Switch;
use crate::whole::Whole;
use crate::{Fabric, displays};
use api::NodeState;
use model::cable_change::CableState;
use model::difference::{Difference, Plan};
use model::power::PowerAction;
use vm::VmSpec;
use vm::seed;

/// For a switch to be there with all its sessions. Under TCG, with others that boot at the same
/// time, a minute is usual.
const BACK: Duration = Duration::from_secs(300);

/// A switch as it is to be.
pub(super) struct SwitchToBe {
    /// Its place in the new topology.
    pub(super) index: usize,
    pub(super) name: String,
    make: Make,
    how: How,
}

/// How a switch becomes what it is to be.
enum How {
    /// It does not run yet.
    Starts,
    /// It goes on running, and is told.
    Live(Box<Live>),
    /// It is started again.
    Restarts,
}

impl SwitchToBe {
    /// Whether it does not run yet.
    pub(super) fn starts(&self) -> bool {
        matches!(self.how, How::Starts)
    }
}

impl Fabric {
    /// Makes everything ready that touches nothing of what runs. `number`: of the change.
    pub(super) fn prepare(
        &self,
        whole: &Whole,
        plan: Plan,
        number: u32,
    ) -> Result<Prepared, ChangeError> {
        let mut difference = Difference::between(&whole.plan(), &plan);
        let switches = self.switches_to_be(whole, &plan, number)?;
        for switch in switches.iter().filter(|switch| !switch.starts()) {
            let restarts = Some(matches!(switch.how, How::Restarts));
            let mut known = difference.changes.iter_mut();
            if let Some(change) = known.find(|change| change.name == switch.name) {
                change.restarts = restarts;
            } else {
                // What it knows of others by ssh is all that is left.
                difference.learns_names(&switch.name, restarts);
            }
        }
        Ok(Prepared {
            plan,
            difference,
            switches,
        })
    }

    fn switches_to_be(
        &self,
        whole: &Whole,
        plan: &Plan,
        number: u32,
    ) -> Result<Vec<SwitchToBe>, ChangeError> {
        let Some(fleet) = &self.fleet else {
            return Ok(Vec::new());
        };
        let old = fleet.common(&whole.config, &whole.topology)?;
        let new = fleet.common(&plan.config, &plan.topology)?;
        let mut switches = Vec::new();
        for index in plan.switches.iter() {
            let name = &plan.topology.switches[index].name;
            let mut make = new.make(index)?;
            let running = whole.switches.iter().find(|(_, it)| it.name() == name);
            let how = match running {
                None => How::Starts,
                Some((before, switch)) => {
                    let before = old.make(*before)?;
                    if before == make {
                        continue;
                    }
                    // The present disk is in use, and stays what a QEMU that dies meanwhile
                    // starts from.
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

    /// Stops, starts and changes switches. Returns what the user should know; into `touched` go
    /// those that were changed, or tried to be.
    ///
    /// # Errors
    /// The first that failed, or that did not come back.
    pub(super) async fn change_switches(
        self: &Arc<Self>,
        before: &Whole,
        after: &Arc<Whole>,
        prepared: &Prepared,
        touched: &mut BTreeSet<String>,
    ) -> Result<Vec<String>, ChangeError> {
        let Some(fleet) = &self.fleet else {
            return Ok(Vec::new());
        };
        fleet.write_ssh_files(&fleet.common(&after.config, &after.topology)?)?;
        self.stop_removed(before, prepared).await;
        let after = &self.start_added(after, prepared)?;
        let mut notes = Vec::new();
        for switch in prepared.switches.iter().filter(|switch| !switch.starts()) {
            touched.insert(switch.name.clone());
            notes.extend(self.change_one(after, switch).await?);
        }
        for switch in prepared.switches.iter().filter(|switch| switch.starts()) {
            self.doing(Some(format!("waits for {}", switch.name)));
            self.wait_for(after, &after.switches[&switch.index], Instant::now())
                .await?;
        }
        Ok(notes)
    }

    async fn stop_removed(&self, before: &Whole, prepared: &Prepared) {
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
        join_all(gone.iter().map(|(index, _)| self.remove_bmc(**index))).await;
        join_all(gone.iter().map(|(_, switch)| switch.vm().stop())).await;
        for (index, switch) in gone {
            displays::forget(&self.paths, &before.topology, *index);
            let folder = self.paths.vms.join(switch.name());
            if let Err(error) = std::fs::remove_dir_all(&folder) {
                tracing::warn!(%error, folder = %folder.display());
            }
        }
    }

    /// Starts those that do not run yet; the whole with them.
    fn start_added(
        self: &Arc<Self>,
        after: &Arc<Whole>,
        prepared: &Prepared,
    ) -> Result<Arc<Whole>, ChangeError> {
        let Some(fleet) = &self.fleet else {
            return Ok(after.clone());
        };
        let starting: Vec<_> = prepared.switches.iter().filter(|it| it.starts()).collect();
        if starting.is_empty() {
            return Ok(after.clone());
        }
        let mut shown = Vec::new();
        for switch in &starting {
            let SwitchToBe { make, index, .. } = switch;
            seed::write(&make.spec.seed, &make.files).map_err(crate::seeds::SeedsError::from)?;
            let display = displays::open_one(
                &after.config,
                &after.topology,
                &self.paths,
                &self.change.owner,
                *index,
            )?;
            shown.extend(display);
        }
        let mut whole = after.same();
        let added: Vec<usize> = starting.iter().map(|switch| switch.index).collect();
        for switch in starting {
            let (spec, index) = (switch.make.spec.clone(), switch.index);
            let started = fleet.start(spec, &after.topology, &after.selection, index);
            for follower in self.followers(&started) {
                tokio::spawn(follower);
            }
            whole.switches.insert(index, started);
        }
        let whole = Arc::new(whole);
        self.put(whole.clone());
        for index in added {
            self.add_bmc(&whole, index)?;
        }
        for display in shown {
            tokio::spawn(self.clone().attend_display(display));
        }
        Ok(whole)
    }

    /// Brings a switch that runs to its new make-up. What the user should know of it.
    async fn change_one(
        self: &Arc<Self>,
        whole: &Whole,
        to_be: &SwitchToBe,
    ) -> Result<Option<String>, ChangeError> {
        let switch = &whole.switches[&to_be.index];
        let failed = |reason: String| ChangeError::Switch {
            switch: to_be.name.clone(),
            reason,
        };
        let Make { spec, files, .. } = &to_be.make;
        seed::write(&spec.seed, files).map_err(crate::seeds::SeedsError::from)?;
        let state = switch.status().state;
        if let (How::Live(live), NodeState::Running) = (&to_be.how, state) {
            self.doing(Some(format!("changes {}", to_be.name)));
            match reconfigure(switch.vm(), spec.clone(), live).await {
                Ok(()) => {
                    forget_other_seeds(spec);
                    // A network card that has come believes in its carrier.
                    self.tell_cut_cables(&to_be.name).await;
                    return Ok(None);
                }
                // What it is now nobody knows; started again it is what it should be.
                Err(error) => {
                    tracing::warn!(switch = to_be.name, %error, "it is restarted");
                    self.notice(format!("{} is restarted: {error}", to_be.name));
                }
            }
        }
        let respec = switch.vm().respec(spec.clone()).await;
        respec.map_err(|error| failed(error.to_string()))?;
        forget_other_seeds(spec);
        if matches!(state, NodeState::Off | NodeState::Failed) {
            return Ok(Some(format!("{} is off and stays so", to_be.name)));
        }
        self.doing(Some(format!("restarts {}", to_be.name)));
        let began = Instant::now();
        let cycled = switch.vm().power(PowerAction::Cycle).await;
        cycled.map_err(|error| failed(error.to_string()))?;
        self.wait_for(whole, switch, began).await?;
        let took = duration(began.elapsed());
        Ok(Some(format!(
            "{} was restarted and back after {took}",
            to_be.name
        )))
    }

    /// Waits until a switch runs and has every session that it can have now.
    async fn wait_for(
        &self,
        whole: &Whole,
        switch: &Switch,
        began: Instant,
    ) -> Result<(), ChangeError> {
        let mut ending = self.change.ending.subscribe();
        loop {
            let status = switch.status();
            let up = status.state == NodeState::Running
                && status.bgp.established >= whole.possible_sessions(switch.name());
            if up {
                return Ok(());
            }
            if began.elapsed() > BACK || status.state == NodeState::Failed {
                return Err(ChangeError::NotBack {
                    switch: switch.name().into(),
                    after: began.elapsed(),
                });
            }
            if *ending.borrow_and_update() {
                return Err(ChangeError::Ending);
            }
            tokio::select! {
                _ = timeout(LOOK, self.news()) => {}
                _ = ending.changed() => {}
            }
        }
    }
}

/// How a switch that runs becomes another one: told, if that can be.
fn how(switch: &Switch, before: &Make, after: &Make) -> How {
    match can_be_live(switch.vm(), before, after) {
        Ok(live) => How::Live(Box::new(live)),
        Err(why) => {
            tracing::debug!(switch = switch.name(), %why, "a restart is needed");
            How::Restarts
        }
    }
}

/// Removes the disks that a VM's next QEMU does not start from.
fn forget_other_seeds(spec: &VmSpec) {
    let Ok(entries) = std::fs::read_dir(&spec.run_dir) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("seed") && path != spec.seed {
            // It goes with the folder at the latest.
            let _ = std::fs::remove_file(&path);
        }
    }
}

impl Whole {
    fn same(&self) -> Whole {
        Whole {
            config: self.config.clone(),
            topology: self.topology.clone(),
            selection: self.selection.clone(),
            reached: self.reached.clone(),
            cables: self.cables.clone(),
            switches: self.switches.clone(),
        }
    }

    /// How many sessions a switch can have: over cables that are up, with switches that are on.
    fn possible_sessions(&self, name: &str) -> usize {
        let on = |index: usize| {
            let state = self.switches.get(&index).map(|it| it.status().state);
            !matches!(state, None | Some(NodeState::Off | NodeState::Failed))
        };
        let Some((index, _)) = self.switches.iter().find(|(_, it)| it.name() == name) else {
            return 0;
        };
        let sessions = self.selection.sessions(&self.topology, *index);
        sessions
            .filter(|port| {
                let cables = self.topology.cables.iter();
                let at = cables.clone().position(|cable| cable.name == port.cable);
                at.is_some_and(|at| self.cables.state(at) == CableState::Up)
                    && self.topology.far_switch(port).is_some_and(on)
            })
            .count()
    }
}

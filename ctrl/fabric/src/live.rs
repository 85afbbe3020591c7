//! What the parts of a running fabric share: [`Live`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;

use crate::accepted::Acceptance;
use crate::cables::names::CableNames;
use crate::events::log::EventLog;
use crate::host::Host;
use crate::notices::Notices;
use crate::occupancy::Occupancies;
use crate::owner::Person;
use crate::state::{FabricState, is_host};
use crate::supervision::EndedTasks;
use crate::switches::switch::Switch;
use crate::upkeep::Upkeep;
use dataplane::Side;
use host::lock::StatePaths;
use model::cable_change::CableState;
use model::topology::EndOwner;

/// The current state of a running fabric, and what its parts share: the host, the occupancy of its
/// ends, and the notices for the user.
pub(crate) struct Live {
    state: Mutex<Arc<FabricState>>,
    /// The files beside the API's socket, as absolute paths.
    pub(crate) paths: StatePaths,
    /// The user who may use the API and plug VMs in.
    pub(crate) owner: Person,
    pub(crate) host: Arc<Host>,
    pub(crate) occupancies: Occupancies,
    pub(crate) notices: Notices,
    pub(crate) events: Arc<EventLog>,
    pub(crate) ended_tasks: EndedTasks,
    pub(crate) upkeep: Upkeep,
    pub(crate) acceptance: Acceptance,
    ready: AtomicBool,
    was_ready: AtomicBool,
    doubts: AtomicU64,
}

impl Live {
    pub(crate) fn new(
        state: FabricState,
        host: Arc<Host>,
        paths: StatePaths,
        owner: Person,
    ) -> Self {
        // A fabric without switches is ready at once.
        let ready = state.plan.switches.is_empty();
        let events = Arc::new(EventLog::default());
        Live {
            ready: AtomicBool::new(ready),
            was_ready: AtomicBool::new(ready),
            state: Mutex::new(Arc::new(state)),
            paths,
            owner,
            host,
            occupancies: Occupancies::default(),
            notices: Notices::written_to(events.clone()),
            events,
            doubts: AtomicU64::new(0),
            ended_tasks: EndedTasks::default(),
            upkeep: Upkeep::default(),
            acceptance: Acceptance::default(),
        }
    }

    /// The state at this moment. A caller that reads several values of it must call this once.
    pub(crate) fn state(&self) -> Arc<FabricState> {
        let state = self.state.lock();
        state.expect("no holder of this lock can panic").clone()
    }

    /// Makes `state` the current one.
    pub(crate) fn put(&self, state: Arc<FabricState>) {
        let current = self.state.lock();
        *current.expect("no holder of this lock can panic") = state;
        self.notices.signal();
    }

    /// Adds a switch that was started to the current state.
    pub(crate) fn add_switch(&self, index: usize, switch: Arc<Switch>) {
        let mut state = FabricState::clone(&self.state());
        state.switches.insert(index, switch);
        self.put(Arc::new(state));
    }

    /// Whether every planned switch runs with all its sessions, and every loopback has answered since
    /// that was last not so.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.state().all_well()
    }

    /// How often the fabric has changed the carrier of a cable between switches. Loopbacks that
    /// answered before say nothing of the time since.
    pub(crate) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::Relaxed)
    }

    /// Whether it is ready, or was ready at any time.
    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.was_ready.fetch_or(ready, Ordering::Relaxed);
        if self.ready.swap(ready, Ordering::Relaxed) != ready {
            self.notices.signal();
        }
    }

    /// Notifies an end whether its cable gives it carrier, which it has only while the switch at the
    /// other end is on. Returns a sentence if that failed.
    pub(crate) async fn set_carrier(
        &self,
        state: &FabricState,
        cable: usize,
        side: Side,
        up: bool,
    ) -> Option<String> {
        let end = state.plan.topology.cables[cable].end(side);
        let up = up && !state.faces_a_switch_without_qemu(cable, side);
        match end.owner {
            owner if is_host(owner) => self.host.set_carrier(&end.tap, up).err(),
            EndOwner::Switch { switch, port } if state.switches.contains_key(&switch) => {
                let result = state.switches[&switch].vm().set_link(port, up).await;
                self.doubt(state, cable, &state.switches[&switch]);
                let error = result.err()?;
                Some(format!("{} has not been notified yet: {error}", end.alias))
            }
            EndOwner::Open => None,
            _ => {
                let front_end = self.occupancies.of(&end.tap).front_end;
                if let Err(error) = state.cables.set_carrier(cable, side, up).await {
                    return Some(format!("{} could not be notified: {error}", end.alias));
                }
                (!up && !front_end).then(|| {
                    format!(
                        "{} ({}) still has carrier, because a tap reports nothing to QEMU: for a \
                         VM that holds it this is a blackhole",
                        end.tap, end.alias
                    )
                })
            }
        }
    }

    /// A carrier of a switch has changed. Until it is asked again, nobody knows what that did to the
    /// session on the cable.
    fn doubt(&self, state: &FabricState, cable: usize, switch: &Switch) {
        state.cables.touch(cable);
        if state.plan.topology.is_between_switches(cable) {
            self.doubts.fetch_add(1, Ordering::Relaxed);
            self.set_ready(false);
        }
        switch.doubt();
    }

    /// Removes the carrier from the ends of cut cables, except from switches, which do not run yet.
    pub(crate) async fn report_cuts_to_devices(&self) {
        let state = self.state();
        self.report_cuts(&state, |owner| is_host(owner) || state.is_pluggable(owner))
            .await;
    }

    /// Removes the carrier from a switch's ports where there is none: QEMU starts with all links up.
    pub(crate) async fn report_cuts_to(&self, switch: &str) {
        let state = self.state();
        self.report_cuts(&state, |owner| is_of(&state, owner, switch))
            .await;
    }

    async fn report_cuts(&self, state: &FabricState, is_meant: impl Fn(EndOwner) -> bool) {
        let ends = state.dark_ends(is_meant);
        let reports = ends.map(|(cable, side)| self.set_carrier(state, cable, side, false));
        join_all(reports.collect::<Vec<_>>()).await;
    }

    /// Takes the carrier from the other ends of a switch's cables when it has gone off, and gives it
    /// back when it is `on`, except at cables that have none.
    pub(crate) async fn report_power_of(&self, switch: &str, on: bool) {
        let state = self.state();
        let its = state.plan.topology.ends();
        let its = its.filter(|found| is_of(&state, found.end.owner, switch));
        let meant = its.filter(|found| {
            let condition = state.cables.condition(found.index);
            !on || (condition.closed.is_none() && condition.state != CableState::Down)
        });
        let reports =
            meant.map(|found| self.set_carrier(&state, found.index, found.side.other(), on));
        join_all(reports.collect::<Vec<_>>()).await;
    }
}

/// Whether an end is a port of this switch.
fn is_of(state: &FabricState, owner: EndOwner, switch: &str) -> bool {
    matches!(owner, EndOwner::Switch { switch: index, .. }
        if state.plan.topology.switches[index].name == switch)
}

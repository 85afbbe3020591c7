//! What a running fabric consists of at one moment: [`FabricState`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cables::Cables;
use crate::switches::sessions::{self, PlannedSession};
use crate::switches::switch::Switch;
use api::{ApiError, NodeState, NodeStatus, Sessions};
use dataplane::Side;
use model::cable_change::CableState;
use model::difference::FabricPlan;
use model::topology::{EndBackend, EndOwner};

/// The plan, and the cables and switches that exist of it.
///
/// It is immutable: `apply` replaces it with another one that shares most cables and switches,
/// perhaps at other indices. So values that are read from one state always match.
#[derive(Clone)]
pub(crate) struct FabricState {
    /// Configuration, topology, and the selection of switches that run as VMs.
    pub(crate) plan: FabricPlan,
    /// By their indices in the topology.
    pub(crate) cables: Cables,
    /// The switches that run, by their indices in the topology.
    pub(crate) switches: BTreeMap<usize, Arc<Switch>>,
    /// The sessions between switches that run, by the switches' indices.
    sessions: Arc<BTreeMap<usize, Vec<PlannedSession>>>,
}

impl FabricState {
    pub(crate) fn new(
        plan: FabricPlan,
        cables: Cables,
        switches: BTreeMap<usize, Arc<Switch>>,
    ) -> Self {
        FabricState {
            sessions: Arc::new(sessions::planned(&plan)),
            plan,
            cables,
            switches,
        }
    }

    /// The running switch of this name.
    ///
    /// # Errors
    /// When the topology has no such switch, or it is not a VM of this fabric.
    pub(crate) fn switch(&self, name: &str) -> Result<Arc<Switch>, ApiError> {
        let planned = self.plan.topology.switch(name).map_err(ApiError::unknown)?;
        let mut switches = self.switches.values();
        let running = switches.find(|switch| switch.name() == planned.name);
        running.cloned().ok_or_else(|| {
            let how = if self.switches.is_empty() {
                "--switches none"
            } else {
                "--only others"
            };
            ApiError::conflict(format!(
                "{name} is not a VM of this fabric: it was started with {how}"
            ))
        })
    }

    fn backend(&self, owner: EndOwner) -> EndBackend {
        EndBackend::of(owner, &self.plan.switches, self.plan.config.vm.nic)
    }

    /// The ends that are network devices on the host.
    pub(crate) fn devices(&self) -> impl Iterator<Item = String> {
        let ends = self.plan.topology.ends();
        ends.filter(|found| self.backend(found.end.owner).has_device())
            .map(|found| found.end.tap.clone())
    }

    /// Whether a user can plug something in at an end.
    pub(crate) fn is_pluggable(&self, owner: EndOwner) -> bool {
        match owner {
            EndOwner::Host | EndOwner::IpmiHost | EndOwner::Open => false,
            EndOwner::Switch { switch, .. } => !self.switches.contains_key(&switch),
            EndOwner::Server { .. } | EndOwner::IpmiPort => true,
        }
    }

    /// The ends without carrier whose owner `is_meant` accepts, as cable and side: the cable is cut, or
    /// the switch at its other end is off.
    pub(crate) fn dark_ends(
        &self,
        is_meant: impl Fn(EndOwner) -> bool,
    ) -> impl Iterator<Item = (usize, Side)> {
        let ends = self.plan.topology.ends();
        ends.filter(move |found| is_meant(found.end.owner))
            .filter(|found| {
                self.cables.state(found.index) == CableState::Down
                    || self.faces_a_switch_without_qemu(found.index, found.side)
            })
            .map(|found| (found.index, found.side))
    }

    /// Whether the switch at the other end of the cable is off.
    pub(crate) fn faces_a_switch_without_qemu(&self, cable: usize, side: Side) -> bool {
        match self.plan.topology.cables[cable].end(side.other()).owner {
            EndOwner::Switch { switch, .. } => {
                let switch = self.switches.get(&switch);
                switch.is_some_and(|switch| switch.has_no_qemu_running())
            }
            _ => false,
        }
    }

    fn sessions(&self, switch: usize) -> &[PlannedSession] {
        self.sessions.get(&switch).map_or(&[], Vec::as_slice)
    }

    /// Whether a session stands: its cable passes frames, and both its switches have said so since the
    /// cable last changed.
    fn stands(&self, switch: &Switch, session: &PlannedSession) -> bool {
        let (far, far_nic) = &session.far;
        let far = self.switches.get(far);
        self.cables
            .passes_since(session.cable)
            .is_some_and(|since| {
                switch.says(&session.nic, since) && far.is_some_and(|far| far.says(far_nic, since))
            })
    }

    /// The sessions between switches that run, each once: its cable, both switches, and whether it stands.
    pub(crate) fn sessions_by_cable(&self) -> impl Iterator<Item = (&str, [&str; 2], bool)> {
        let name = |switch: usize| &*self.plan.topology.switches[switch].name;
        self.sessions.iter().flat_map(move |(index, sessions)| {
            let from_first = sessions.iter().filter(move |it| *index < it.far.0);
            from_first.map(move |session| {
                let switch = self.switches.get(index);
                let stands = switch.is_some_and(|switch| self.stands(switch, session));
                let between = [name(*index), name(session.far.0)];
                (self.cables.name(session.cable), between, stands)
            })
        })
    }

    /// What `status` shows of the switches.
    pub(crate) fn nodes(&self) -> Vec<NodeStatus> {
        let switches = self.switches.iter();
        switches.map(|(index, it)| self.node(*index, it)).collect()
    }

    /// What `status` shows of a switch.
    pub(crate) fn node(&self, index: usize, switch: &Switch) -> NodeStatus {
        let sessions = self.sessions(index);
        let silent = sessions.iter().map(|session| session.cable);
        let silent = silent.filter(|cable| self.cables.passes_since(*cable).is_none());
        let silent: Vec<_> = silent.map(|cable| self.cables.name(cable)).collect();
        let established = sessions.iter().filter(|it| self.stands(switch, it));
        let bgp = Sessions {
            established: established.count(),
            expected: sessions.len(),
        };
        switch.status(bgp, &silent)
    }

    /// Whether the switch of this name runs with all its sessions.
    pub(crate) fn is_well(&self, name: &str) -> bool {
        let mut switches = self.switches.iter();
        let found = switches.find(|(_, switch)| switch.name() == name);
        found.is_some_and(|(index, switch)| self.all_stand(*index, switch))
    }

    /// Whether every switch runs with all its sessions.
    pub(crate) fn all_well(&self) -> bool {
        let mut switches = self.switches.iter();
        switches.all(|(index, switch)| self.all_stand(*index, switch))
    }

    fn all_stand(&self, index: usize, switch: &Switch) -> bool {
        let mut sessions = self.sessions(index).iter();
        switch.state() == NodeState::Running && sessions.all(|it| self.stands(switch, it))
    }

    /// Whether a switch has every session that it can have now: over cables that pass frames, with
    /// switches that are on.
    pub(crate) fn has_possible_sessions(&self, name: &str) -> bool {
        let Some((index, switch)) = self.switches.iter().find(|(_, it)| it.name() == name) else {
            return true;
        };
        let is_possible = |session: &&PlannedSession| {
            let far = self.switches.get(&session.far.0).map(|it| it.state());
            self.cables.passes_since(session.cable).is_some()
                && !matches!(far, None | Some(NodeState::Off | NodeState::Failed))
        };
        let mut possible = self.sessions(*index).iter().filter(is_possible);
        possible.all(|session| self.stands(switch, session))
    }
}

/// Whether an end is one of the host's own devices.
pub(crate) fn is_host(owner: EndOwner) -> bool {
    matches!(owner, EndOwner::Host | EndOwner::IpmiHost)
}

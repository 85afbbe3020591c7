//! What a running fabric consists of at one moment: [`FabricState`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cables::Cables;
use crate::cables::names::CableNames;
use crate::switches::switch::Switch;
use api::{ApiError, NodeState};
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
}

impl FabricState {
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
                    || self.faces_a_dark_switch(found.index, found.side)
            })
            .map(|found| (found.index, found.side))
    }

    /// Whether the switch at the other end of the cable is off.
    pub(crate) fn faces_a_dark_switch(&self, cable: usize, side: Side) -> bool {
        match self.plan.topology.cables[cable].end(side.other()).owner {
            EndOwner::Switch { switch, .. } => {
                let switch = self.switches.get(&switch);
                switch.is_some_and(|switch| switch.is_dark())
            }
            _ => false,
        }
    }

    /// How many sessions a switch can have now: over cables that are not cut, with switches that
    /// are on.
    pub(crate) fn possible_sessions(&self, name: &str) -> usize {
        let topology = &self.plan.topology;
        let is_on = |index: usize| {
            let state = self.switches.get(&index).map(|it| it.status().state);
            !matches!(state, None | Some(NodeState::Off | NodeState::Failed))
        };
        let Some((index, _)) = self.switches.iter().find(|(_, it)| it.name() == name) else {
            return 0;
        };
        let sessions = self.plan.switches.sessions(topology, *index);
        sessions
            .filter(|port| {
                let cable = CableNames::cable(topology, &port.cable);
                cable.is_ok_and(|cable| self.cables.state(cable) == CableState::Up)
                    && topology.far_switch(port).is_some_and(is_on)
            })
            .count()
    }
}

/// Whether an end is one of the host's own devices.
pub(crate) fn is_host(owner: EndOwner) -> bool {
    matches!(owner, EndOwner::Host | EndOwner::IpmiHost)
}

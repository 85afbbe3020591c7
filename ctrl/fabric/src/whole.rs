//! What a running fabric consists of at one moment: [`Whole`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cables::Cables;
use super::impair::Names;
use super::switch::Switch;
use api::ApiError;
use model::config::Config;
use model::topology::EndBackend;
use model::topology::{EndOwner, Selection, Side, Topology};

/// What was planned, and what there is of it. It never changes: `apply` puts another one in its
/// place, that has most of the same cables and switches, at other places maybe. So whoever looks
/// at several things of one whole finds that they fit together.
pub(super) struct Whole {
    /// What was wished for.
    pub(super) config: Config,
    /// What follows from it.
    pub(super) topology: Topology,
    /// Which of its switches run, by their places in it.
    pub(super) selection: Selection,
    /// Those of them that `internet` must reach.
    pub(super) reached: Selection,
    /// By their places in the topology.
    pub(super) cables: Cables,
    /// Those that run, by their places in the topology.
    pub(super) switches: BTreeMap<usize, Arc<Switch>>,
}

impl Whole {
    /// A switch that runs.
    pub(super) fn switch(&self, name: &str) -> Result<Arc<Switch>, ApiError> {
        let planned = self.topology.switch(name).map_err(ApiError::unknown)?;
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

    /// The network devices on the host that ends are.
    pub(super) fn devices(&self) -> impl Iterator<Item = String> {
        let holder = |owner| EndBackend::of(owner, &self.selection, self.config.vm.nic);
        let ends = self.topology.ends();
        ends.filter(move |found| holder(found.end.owner).has_device())
            .map(|found| found.end.tap.clone())
    }

    /// Whether an end waits for whoever plugs in.
    pub(super) fn is_pluggable(&self, owner: EndOwner) -> bool {
        match owner {
            EndOwner::Host | EndOwner::IpmiHost | EndOwner::Open => false,
            EndOwner::Switch { switch, .. } => !self.switches.contains_key(&switch),
            EndOwner::Server { .. } | EndOwner::IpmiPort => true,
        }
    }
}

impl Names for Whole {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        Names::cable(&self.topology, name)
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        Names::end(&self.topology, name)
    }
}

//! The difference between a running fabric and a planned one, as a pure function of both:
//! [`Difference`] lists the changes, [`refusals`] those that a running fabric cannot make. The
//! crate `fabric` carries the changes out.
//!
//! Cables and switches are compared by name. A cable that has the same two ends before and after,
//! with the same backend behind each, is *kept*: the change does not touch it, and it loses no
//! frame.

mod keys;
mod refusals;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cable_change::CableChange;
use crate::config::{Config, HostReach};
use crate::topology::EndBackend;
use crate::topology::{End, Selection, Switch, Topology};

pub use keys::KeyChange;
pub use refusals::{Refusal, refusals};

/// A configuration and the parts of a fabric that follow from it.
#[derive(Debug, Clone)]
pub struct FabricPlan {
    /// The configuration, as checked.
    pub config: Config,
    /// The topology that follows from it.
    pub topology: Topology,
    /// The switches that run as VMs.
    pub switches: Selection,
}

/// The changes from one fabric to another, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// The keys of the configuration whose values differ, also those that change no part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyChange>,
    /// Cables, by their names.
    pub cables: Parts,
    /// Taps on the host into which users plug VMs. They are made and removed, never changed.
    pub taps: Parts,
    /// Switches that run as VMs. A changed switch keeps its VM.
    pub switches: Parts,
    /// The changes of each changed switch, in the order of the new topology.
    pub changes: Vec<SwitchChange>,
    /// States and impairments of cables that are configured differently than before.
    pub settings: Vec<CableChange>,
    /// What the host lets through, if it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reach: Option<HostReach>,
}

/// The names of one kind of part, compared between the old and the new fabric: in the order of the
/// new one, removed parts in that of the old one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parts {
    /// In both fabrics, and equal.
    pub kept: Vec<String>,
    /// In both fabrics, but different.
    pub changed: Vec<String>,
    /// Only in the new fabric.
    pub added: Vec<String>,
    /// Only in the old fabric.
    pub removed: Vec<String>,
}

/// How a switch that runs both before and after the change differs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SwitchChange {
    /// The switch's name, such as `spine1`.
    pub name: String,
    /// How many of its ports are new or differ.
    pub ports_added: usize,
    /// How many of its ports are removed or differ.
    pub ports_removed: usize,
    /// Whether its list of the fabric's switches, their addresses and subnets differs.
    pub names: bool,
    /// Whether the services it offers or its BGP peers differ.
    pub services: bool,
    /// Whether memory or CPUs of its VM differ.
    pub machine: bool,
    /// Whether its VM must be restarted. `None` until `fabric` has compared the running VM with the
    /// planned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<bool>,
}

impl Difference {
    /// Lists the changes that turn `old` into `new`.
    pub fn between(old: &FabricPlan, new: &FabricPlan) -> Self {
        let cables = Parts::between(&old.cables(), &new.cables());
        let changes: Vec<_> = new
            .running()
            .filter_map(|switch| {
                let before = old.running().find(|other| other.name == switch.name)?;
                SwitchChange::between((old, before), (new, switch))
            })
            .collect();
        let is_changed = |name: &str| changes.iter().any(|change| change.name == name);
        let names = |plan: &FabricPlan, after: bool| -> Vec<(String, bool)> {
            let names = plan.running().map(|switch| switch.name.clone());
            names
                .map(|name| (name.clone(), after && is_changed(&name)))
                .collect()
        };
        let [was, is] = [old, new].map(|plan| &plan.topology.host.reach);
        Difference {
            keys: keys::changed(&old.config, &new.config),
            reach: (was != is).then(|| is.clone()),
            settings: settings::settings(old, new, &cables.kept),
            taps: Parts::between(&old.taps(), &new.taps()),
            switches: Parts::between(&names(old, false), &names(new, true)),
            changes,
            cables,
        }
    }

    /// Whether the two fabrics are equal.
    pub fn is_empty(&self) -> bool {
        [&self.cables, &self.taps, &self.switches]
            .iter()
            .all(|parts| parts.is_same())
            && self.settings.is_empty()
            && self.reach.is_none()
    }

    /// Adds a running switch whose list of the fabric's switches changes. The caller finds this
    /// out, because it writes the switch's files.
    pub fn learns_names(&mut self, switch: &str, restarts: Option<bool>) {
        self.switches.kept.retain(|kept| kept != switch);
        self.switches.changed.push(switch.into());
        self.changes.push(SwitchChange {
            name: switch.into(),
            names: true,
            restarts,
            ..SwitchChange::default()
        });
    }

    /// The reason why only root may ask for this change. `None` if every user of the API socket
    /// may.
    pub fn needs_root(&self) -> Option<&'static str> {
        if !self.taps.is_same() {
            Some("it makes or removes network devices")
        } else if !(self.switches.added.is_empty() && self.switches.removed.is_empty())
            || self.changes.iter().any(|change| change.machine)
        {
            Some("it takes memory and CPUs of the host")
        } else if self.reach.is_some() {
            Some("it decides who reaches the host and its neighbours")
        } else {
            None
        }
    }
}

impl Parts {
    /// Compares by name first, then by value.
    fn between<T: PartialEq>(old: &[(String, T)], new: &[(String, T)]) -> Self {
        let before: BTreeMap<&str, &T> = old.iter().map(|(name, it)| (&**name, it)).collect();
        let after: BTreeMap<&str, &T> = new.iter().map(|(name, it)| (&**name, it)).collect();
        let mut parts = Parts::default();
        for (name, it) in new {
            let there = match before.get(&**name) {
                Some(same) if *same == it => &mut parts.kept,
                Some(_) => &mut parts.changed,
                None => &mut parts.added,
            };
            there.push(name.clone());
        }
        let gone = old.iter().filter(|(name, _)| !after.contains_key(&**name));
        parts.removed = gone.map(|(name, _)| name.clone()).collect();
        parts
    }

    /// Whether all parts are kept.
    pub(crate) fn is_same(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.removed.is_empty()
    }

    /// The names of the parts to create: added and changed ones.
    pub fn to_make(&self) -> impl Iterator<Item = &str> {
        self.added.iter().chain(&self.changed).map(String::as_str)
    }

    /// The names of the parts to remove before any is created: removed and changed ones.
    pub fn to_take(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().chain(&self.changed).map(String::as_str)
    }
}

/// The values that must be equal for an end to be kept: name, alias and backend.
type Shape = (String, String, EndBackend);

impl FabricPlan {
    fn holder(&self, end: &End) -> EndBackend {
        EndBackend::of(end.owner, &self.switches, self.config.vm.nic)
    }

    fn cables(&self) -> Vec<(String, [Shape; 2])> {
        let shape = |end: &End| (end.tap.clone(), end.alias.clone(), self.holder(end));
        let cables = self.topology.cables.iter();
        cables
            .map(|cable| (cable.name.clone(), [shape(&cable.a), shape(&cable.b)]))
            .collect()
    }

    fn taps(&self) -> Vec<(String, ())> {
        let ends = self.topology.ends();
        ends.filter(|found| self.holder(found.end).has_waiting_tap())
            .map(|found| (found.end.tap.clone(), ()))
            .collect()
    }

    fn running(&self) -> impl Iterator<Item = &Switch> {
        let switches = &self.topology.switches;
        self.switches.iter().filter_map(|index| switches.get(index))
    }
}

impl SwitchChange {
    fn between(
        (old, before): (&FabricPlan, &Switch),
        (new, after): (&FabricPlan, &Switch),
    ) -> Option<Self> {
        // A name that the switch's files cannot hold is reported later, when the files are written.
        let confs = (
            old.topology.switch_conf(before).ok(),
            new.topology.switch_conf(after).ok(),
        );
        let ports = |of: &Switch, but: &Switch| {
            let ports = of.ports.iter();
            ports
                .filter(|port| !but.ports.iter().any(|other| same_port(port, other)))
                .count()
        };
        let mut change = SwitchChange {
            name: after.name.clone(),
            ports_added: ports(after, before),
            ports_removed: ports(before, after),
            machine: (old.config.vm.memory, old.config.vm.cpus)
                != (new.config.vm.memory, new.config.vm.cpus),
            ..Self::default()
        };
        if let (Some(before), Some(mut after)) = confs {
            let (own, others) = (
                &before.from_servers.own_subnets,
                &mut after.from_servers.own_subnets,
            );
            change.names = before.nodes != after.nodes || own != others;
            after.nodes.clone_from(&before.nodes);
            others.clone_from(own);
            after.nics.clone_from(&before.nics);
            change.services = before != after;
        }
        let unchanged = SwitchChange {
            name: change.name.clone(),
            ..Self::default()
        };
        (change != unchanged).then_some(change)
    }
}

/// Whether the switch sees the same port. It does not see which cable is plugged in.
fn same_port(one: &crate::topology::SwitchPort, other: &crate::topology::SwitchPort) -> bool {
    (&one.nic, one.mac, &one.tap, one.kind, one.mtu)
        == (&other.nic, other.mac, &other.tap, other.kind, other.mtu)
}

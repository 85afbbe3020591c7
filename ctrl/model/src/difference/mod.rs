//! What is to be done to a running fabric so that it becomes another one: pure. [`Difference`]
//! says it, [`refusals`] says what a running fabric cannot do, and `fabric` does the rest.
//!
//! Cables and switches go by their names. A cable that has the same two ends before and after,
//! held in the same way, is *kept*: nobody touches it, and it loses no frame.

mod refusals;
mod settings;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cable_change::CableChange;
use crate::config::Config;
use crate::topology::EndBackend;
use crate::topology::{End, Selection, Switch, Topology};

pub use refusals::{Refusal, refusals};

/// All that a fabric is made from.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What was wished for.
    pub config: Config,
    /// What follows from it.
    pub topology: Topology,
    /// Which of its switches run as VMs.
    pub switches: Selection,
}

/// What has to be done, by names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Cables.
    pub cables: Parts,
    /// Devices on the host that wait for somebody to plug in; none of them is ever changed.
    pub taps: Parts,
    /// Switches that run. Those that are changed keep their VM.
    pub switches: Parts,
    /// What is new about the switches that are changed, in their order.
    pub changes: Vec<SwitchChange>,
    /// What is made of cables: states and impairments that are configured otherwise than before.
    pub settings: Vec<CableChange>,
}

/// Things that are there before and after, or only before, or only after. In the order of the
/// new fabric's, then the old one's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// The same before and after.
    pub kept: Vec<String>,
    /// There before and after, but not the same.
    pub changed: Vec<String>,
    /// There after.
    pub added: Vec<String>,
    /// There before.
    pub removed: Vec<String>,
}

/// What is new about a switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwitchChange {
    /// `spine1`.
    pub name: String,
    /// So many of its ports were not there before, or were others.
    pub ports_added: usize,
    /// So many of its ports are not there any more, or are others.
    pub ports_removed: usize,
    /// It is told of other switches.
    pub names: bool,
    /// What it serves or whom it peers with.
    pub services: bool,
    /// Memory or CPUs of its VM.
    pub machine: bool,
    /// Its VM is started anew for this; else it goes on. Known once somebody has looked at how
    /// it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<bool>,
}

impl Difference {
    /// What makes `new` of `old`.
    pub fn between(old: &Plan, new: &Plan) -> Self {
        let cables = Parts::between(&old.cables(), &new.cables());
        let changes: Vec<_> = new
            .running()
            .filter_map(|switch| {
                let before = old.running().find(|other| other.name == switch.name)?;
                SwitchChange::between((old, before), (new, switch))
            })
            .collect();
        let is_changed = |name: &str| changes.iter().any(|change| change.name == name);
        let names = |plan: &Plan, after: bool| -> Vec<(String, bool)> {
            let names = plan.running().map(|switch| switch.name.clone());
            names
                .map(|name| (name.clone(), after && is_changed(&name)))
                .collect()
        };
        Difference {
            settings: settings::settings(old, new, &cables.kept),
            taps: Parts::between(&old.taps(), &new.taps()),
            switches: Parts::between(&names(old, false), &names(new, true)),
            changes,
            cables,
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        [&self.cables, &self.taps, &self.switches]
            .iter()
            .all(|parts| parts.is_same())
            && self.settings.is_empty()
    }

    /// A switch that goes on is told of others, which only those know who make its files.
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

    /// Why root has to ask for it; `None` if whoever may use the socket may.
    pub fn needs_root(&self) -> Option<&'static str> {
        if !self.taps.is_same() {
            Some("it makes or removes network devices")
        } else if !(self.switches.added.is_empty() && self.switches.removed.is_empty())
            || self.changes.iter().any(|change| change.machine)
        {
            Some("it takes memory and CPUs of the host")
        } else {
            None
        }
    }
}

impl Parts {
    /// Compares by name; things of one name are the same if they are equal.
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

    /// Whether all is as before.
    pub fn is_same(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.removed.is_empty()
    }

    /// What has to be made: all of it, or anew.
    pub fn to_make(&self) -> impl Iterator<Item = &str> {
        self.added.iter().chain(&self.changed).map(String::as_str)
    }

    /// What has to go first.
    pub fn to_take(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().chain(&self.changed).map(String::as_str)
    }
}

/// An end as the panel sees it.
type Shape = (String, String, EndBackend);

impl Plan {
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
    fn between((old, before): (&Plan, &Switch), (new, after): (&Plan, &Switch)) -> Option<Self> {
        // A name that no file of a switch can hold is found when its files are made.
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
            change.names = before.nodes != after.nodes;
            after.nodes.clone_from(&before.nodes);
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

/// As the switch sees it: which cable is plugged in is none of its business.
fn same_port(one: &crate::topology::SwitchPort, other: &crate::topology::SwitchPort) -> bool {
    (&one.nic, one.mac, &one.tap, one.kind, one.mtu)
        == (&other.nic, other.mac, &other.tap, other.kind, other.mtu)
}

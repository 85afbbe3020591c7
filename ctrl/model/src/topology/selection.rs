//! Selects which of the planned switches run as VMs. The ends of all others are free to plug into.

use std::collections::BTreeSet;

use super::{EndOwner, PortKind, Role, SwitchPort, Topology, UnknownName};

/// A set of a topology's switches, by their indices in [`Topology::switches`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(BTreeSet<usize>);

/// How switches are selected. Applied to a topology, it yields a [`Selection`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Every switch of the topology.
    #[default]
    All,
    /// No switch: the fabric is a patch panel only.
    None,
    /// The switches of these names; `rack1` means its two leaves.
    Only(Vec<String>),
}

impl Choice {
    /// Applies the choice to a topology.
    ///
    /// # Errors
    /// When a name is neither a switch's nor a rack's.
    pub fn of(&self, topology: &Topology) -> Result<Selection, UnknownName> {
        match self {
            Choice::All => Ok(Selection::all(topology)),
            Choice::None => Ok(Selection::none()),
            Choice::Only(names) => Selection::of(topology, names),
        }
    }
}

impl Selection {
    /// The empty selection, for a patch panel only.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every switch of the topology.
    pub fn all(topology: &Topology) -> Self {
        Self((0..topology.switches.len()).collect())
    }

    /// The switches of these names; `rack1` means its two leaves.
    ///
    /// # Errors
    /// When a name is neither a switch's nor a rack's.
    pub fn of(
        topology: &Topology,
        names: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, UnknownName> {
        let racks: Vec<String> = topology
            .racks
            .iter()
            .map(|rack| format!("rack{}", rack.number))
            .collect();
        let mut chosen = BTreeSet::new();
        for name in names {
            let name = name.as_ref();
            let switch = topology.switches.iter().position(|it| it.name == name);
            let rack = racks.iter().position(|it| it == name);
            if let Some(rack) = rack {
                chosen.extend(topology.racks[rack].leaves);
            } else if let Some(switch) = switch {
                chosen.insert(switch);
            } else {
                let switches = topology.switches.iter().map(|switch| &switch.name);
                let known = switches.chain(&racks).map(String::as_str);
                let example = "internet, spine1, leaf1, rack1";
                return Err(UnknownName::new("switch or rack", name, known, example));
            }
        }
        Ok(Self(chosen))
    }

    /// Whether the switch at this index is selected.
    pub fn contains(&self, switch: usize) -> bool {
        self.0.contains(&switch)
    }

    /// Whether no switch is selected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of selected switches.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The selected indices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// The ports of `switch` that lead to other selected switches, where BGP sessions are expected.
    pub fn sessions<'t>(
        &self,
        topology: &'t Topology,
        switch: usize,
    ) -> impl Iterator<Item = &'t SwitchPort> {
        let to_running = move |port: &&SwitchPort| {
            // A user's own cable may join two ports that are for servers; these have no session.
            let for_switches = !matches!(port.kind, PortKind::Server { .. });
            for_switches
                && topology
                    .far_switch(port)
                    .is_some_and(|far| self.contains(far))
        };
        let ports = topology.switches[switch].ports.iter();
        ports.filter(to_running).collect::<Vec<_>>().into_iter()
    }

    /// The selected switches that `internet` reaches through other selected ones, including itself.
    /// Empty if `internet` is not selected.
    #[must_use]
    pub fn reached(&self, topology: &Topology) -> Self {
        let internet = |switch: &usize| topology.switches[*switch].role == Role::Internet;
        let mut reached: BTreeSet<usize> = self.iter().filter(internet).collect();
        let mut to_visit: Vec<usize> = reached.iter().copied().collect();
        while let Some(switch) = to_visit.pop() {
            for port in self.sessions(topology, switch) {
                let far = topology.far_switch(port);
                to_visit.extend(far.filter(|far| reached.insert(*far)));
            }
        }
        Self(reached)
    }
}

impl Topology {
    /// The switch at the far end of a port's cable. `None` if the far end is not at a switch.
    pub fn far_switch(&self, port: &SwitchPort) -> Option<usize> {
        let cable = self.cables.iter().find(|cable| cable.name == port.cable)?;
        let far = if cable.a.tap == port.tap {
            &cable.b
        } else {
            &cable.a
        };
        match far.owner {
            EndOwner::Switch { switch, .. } => Some(switch),
            EndOwner::Host
            | EndOwner::IpmiHost
            | EndOwner::IpmiPort
            | EndOwner::Server { .. }
            | EndOwner::Open => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::topology::build;

    fn default() -> Topology {
        build(&Config::default()).unwrap()
    }

    fn names(topology: &Topology, selection: &Selection) -> Vec<String> {
        let name = |switch: usize| topology.switches[switch].name.clone();
        selection.iter().map(name).collect()
    }

    #[test]
    fn all_have_ikvswitchs_sessions_and_are_reached() {
        let topology = default();
        let all = Selection::all(&topology);
        let expected: Vec<usize> = all
            .iter()
            .map(|switch| all.sessions(&topology, switch).count())
            .collect();
        assert_eq!(expected, [2, 7, 7, 2, 2, 2, 2, 2, 2]);
        assert_eq!(all.reached(&topology), all);
        assert!(Selection::none().reached(&topology).is_empty());
    }

    #[test]
    fn one_rack_under_one_spine() {
        let topology = default();
        let some = Selection::of(&topology, ["rack1", "spine1", "internet", "leaf1"]).unwrap();
        assert_eq!(
            names(&topology, &some),
            ["internet", "spine1", "leaf1", "leaf2"]
        );
        let aliases: Vec<&str> = some
            .iter()
            .flat_map(|switch| some.sessions(&topology, switch))
            .map(|port| &*port.alias)
            .collect();
        assert_eq!(
            aliases,
            [
                "internet:2",
                "spine1:1",
                "spine1:2",
                "spine1:3",
                "leaf1:1",
                "leaf2:1"
            ]
        );
        assert_eq!(some.reached(&topology), some);
    }

    #[test]
    fn what_nothing_leads_to_is_not_waited_for() {
        let topology = default();
        let some = Selection::of(&topology, ["internet", "leaf3", "rack1"]).unwrap();
        assert_eq!(names(&topology, &some.reached(&topology)), ["internet"]);
        let headless = Selection::of(&topology, ["spine1", "leaf3"]).unwrap();
        assert!(headless.reached(&topology).is_empty());
    }

    #[test]
    fn unknown_names() {
        let topology = default();
        let says = |name: &str| Selection::of(&topology, [name]).unwrap_err().to_string();
        assert_eq!(
            says("rack4"),
            "there is no switch or rack \"rack4\" in this fabric; did you mean rack1 or rack2 or \
             rack3?"
        );
        assert!(says("").contains("internet, spine1, leaf1, rack1"));
    }
}

//! Resolves the names on the command line to a [`Plan`]; a function of the topology.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};

use super::observation::Ends;
use model::topology::{NodeJson, TopologyJson};

/// What to cut and what to observe.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Cables to cut, as the user named them; if empty, the first one that the flow takes.
    pub(super) cables: Vec<String>,
    /// The flow, if one is watched.
    pub(super) ends: Option<Ends>,
    /// The switch that is to ping; `None` if the flow runs already.
    pub(super) pinger: Option<String>,
}

impl Plan {
    /// Resolves the names. `topology` is `None` for a patch.
    pub(super) fn new(
        cut: &[String],
        flow: Option<[&str; 2]>,
        topology: Option<&TopologyJson>,
    ) -> anyhow::Result<Self> {
        let nodes = topology.map_or(&[][..], |topology| &topology.nodes);
        let switch = |name: &str| nodes.iter().find(|node| node.name == name);
        let mut cables = Vec::new();
        for name in cut {
            match switch(name) {
                Some(node) => cables.extend(between_switches(node, nodes)),
                None => cables.push(name.clone()),
            }
        }
        let mut plan = Plan {
            cables,
            ends: None,
            pinger: None,
        };
        if let Some([from, to]) = flow {
            let address = |name: &str| -> anyhow::Result<IpAddr> {
                match switch(name) {
                    Some(node) => Ok(node.loopback.into()),
                    None => name.parse().with_context(|| {
                        format!(
                            "--flow: \"{name}\" is neither a switch of this fabric nor an address"
                        )
                    }),
                }
            };
            let ends = Ends {
                source: address(from)?,
                destination: address(to)?,
            };
            ensure!(
                ends.source != ends.destination,
                "--flow: both ends are {from}: name two"
            );
            plan.ends = Some(ends);
            plan.pinger = switch(from).map(|node| node.name.clone());
        }
        Ok(plan)
    }
}

/// The cables that join a switch to other switches.
fn between_switches(node: &NodeJson, nodes: &[NodeJson]) -> Vec<String> {
    let others = nodes.iter().filter(|other| other.name != node.name);
    let theirs: Vec<_> = others
        .flat_map(|other| other.ports.iter().map(|port| port.cable.as_str()))
        .collect();
    let own = node.ports.iter().map(|port| &port.cable);
    own.filter(|cable| theirs.contains(&cable.as_str()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::Config;
    use model::topology::build;

    fn plan(cut: &[&str], flow: Option<[&str; 2]>) -> anyhow::Result<Plan> {
        let topology = build(&Config::default()).unwrap();
        let cut: Vec<_> = cut.iter().map(ToString::to_string).collect();
        Plan::new(&cut, flow, Some(&TopologyJson::from(&topology)))
    }

    #[test]
    fn switches_stand_for_their_cables_and_loopbacks() {
        let found = plan(&["spine1", "leaf6:u3"], Some(["leaf1", "192.168.98.6"])).unwrap();
        assert_eq!(found.cables.len(), 8);
        assert_eq!(found.cables.last().unwrap(), "leaf6:u3");
        assert!(found.cables.contains(&"iksb12".to_owned()));
        assert_eq!(found.pinger.as_deref(), Some("leaf1"));
        let ends = found.ends.unwrap();
        assert_eq!(ends.source.to_string(), "192.168.98.4");
        assert_eq!(ends.destination.to_string(), "192.168.98.6");
        let leaf = plan(&["leaf1"], None).unwrap();
        assert_eq!(leaf.cables, ["iksb12", "iksb22"]);
    }

    #[test]
    fn a_flow_between_addresses_runs_already() {
        let found = plan(&[], Some(["10.0.0.1", "leaf1"])).unwrap();
        assert_eq!(found.pinger, None);
        for wrong in [["leaf9", "leaf1"], ["leaf1", "192.168.98.4"]] {
            assert!(plan(&[], Some(wrong)).is_err());
        }
    }
}

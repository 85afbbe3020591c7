//! Resolves names to cables.

use std::collections::BTreeMap;

use super::expand::{Cables, names};
use super::file::Scenario;
use api::{CableReport, Client};
use model::topology::{NodeJson, Topology, TopologyJson};

/// Resolves names in a configuration's topology, without a running fabric.
pub(super) fn planned(topology: &Topology, scenario: &Scenario) -> anyhow::Result<Cables> {
    let (targets, ports) = names(scenario);
    let nodes = TopologyJson::from(topology).nodes;
    let mut cables = BTreeMap::new();
    for name in targets {
        let found = match switch_or_rack(&nodes, &name)? {
            Some(found) => found,
            None => vec![topology.cable(&name)?.name.clone()],
        };
        cables.insert(name, found);
    }
    for port in ports {
        topology.end(&port)?;
    }
    Ok(cables)
}

/// Resolves names in the running fabric.
pub(super) async fn running(client: &Client, scenario: &Scenario) -> anyhow::Result<Cables> {
    let (targets, ports) = names(scenario);
    // A patch has no topology, but its cable has a name.
    let topology = client.topology().await.ok();
    let nodes = topology.map_or_else(Vec::new, |topology| topology.nodes);
    let mut cables = BTreeMap::new();
    for name in targets {
        let found = match switch_or_rack(&nodes, &name)? {
            Some(found) => found,
            None => vec![one(client, &name).await?.name],
        };
        cables.insert(name, found);
    }
    for port in ports {
        one(client, &port).await?;
    }
    Ok(cables)
}

/// The cables of a switch, or of the leaves of a rack; `None` if `name` is neither.
fn switch_or_rack(nodes: &[NodeJson], name: &str) -> anyhow::Result<Option<Vec<String>>> {
    let cables = |node: &NodeJson| -> Vec<String> {
        node.ports.iter().map(|port| port.cable.clone()).collect()
    };
    if let Some(node) = nodes.iter().find(|node| node.name == name) {
        return Ok(Some(cables(node)));
    }
    let Some(number) = rack(name) else {
        return Ok(None);
    };
    let leaves = [2 * number - 1, 2 * number].map(|leaf| format!("leaf{leaf}"));
    let found = nodes.iter().filter(|node| leaves.contains(&node.name));
    let found: Vec<_> = found.flat_map(cables).collect();
    let racks = nodes.iter().filter(|node| node.role == "leaf").count() / 2;
    anyhow::ensure!(
        !found.is_empty(),
        "there is no {name} in this fabric: it has {racks} racks"
    );
    Ok(Some(found))
}

/// Finds a cable by any of its names.
pub(super) async fn one(client: &Client, name: &str) -> anyhow::Result<CableReport> {
    let found = client.cables(&[name.to_owned()]).await?;
    let found = found.into_iter().next();
    found.ok_or_else(|| anyhow::anyhow!("the fabric has no cable \"{name}\""))
}

/// The number of a rack: 2 of `rack2`.
fn rack(name: &str) -> Option<usize> {
    let number: u16 = name.strip_prefix("rack")?.parse().ok()?;
    (number > 0).then_some(number.into())
}

//! Resolves names to cables.

use std::collections::BTreeMap;

use super::expand::Cables;
use api::{CableReport, Client};
use model::topology::{Role, Topology};

/// Resolves names in a plan, without a running fabric.
pub(super) fn planned(
    topology: &Topology,
    targets: &[String],
    ports: &[String],
) -> anyhow::Result<Cables> {
    let mut cables = BTreeMap::new();
    for name in targets {
        let found = match (topology.switch(name), rack(name)) {
            (Ok(switch), _) => switch.ports.iter().map(|port| port.cable.clone()).collect(),
            (_, Some(number)) => {
                let leaves = topology.switches.iter().filter(|switch| {
                    switch.role == Role::Leaf && switch.rack.map(usize::from) == Some(number)
                });
                let ports = leaves.flat_map(|switch| &switch.ports);
                let found: Vec<_> = ports.map(|port| port.cable.clone()).collect();
                anyhow::ensure!(!found.is_empty(), no_rack(name, topology.racks.len()));
                found
            }
            _ => vec![topology.cable(name)?.name.clone()],
        };
        cables.insert(name.clone(), found);
    }
    for port in ports {
        topology.end(port)?;
    }
    Ok(cables)
}

/// Resolves names in the running fabric.
pub(super) async fn running(
    client: &Client,
    targets: &[String],
    ports: &[String],
) -> anyhow::Result<Cables> {
    // A bare patch has none.
    let topology = client.topology().await.ok();
    let nodes = topology.map_or_else(Vec::new, |topology| topology.nodes);
    let of = |name: &str| {
        let node = nodes.iter().find(|node| node.name == name);
        node.map(|node| node.ports.iter().map(|port| port.cable.clone()))
    };
    let mut cables = BTreeMap::new();
    for name in targets {
        let found: Vec<String> = match (of(name), rack(name)) {
            (Some(ports), _) => ports.collect(),
            (None, Some(number)) => {
                let leaves = [2 * number - 1, 2 * number].map(|leaf| format!("leaf{leaf}"));
                let found: Vec<_> = leaves
                    .iter()
                    .filter_map(|leaf| of(leaf))
                    .flatten()
                    .collect();
                let racks = nodes.iter().filter(|node| node.role == "leaf").count() / 2;
                anyhow::ensure!(!found.is_empty(), no_rack(name, racks));
                found
            }
            (None, None) => vec![one(client, name).await?.name],
        };
        cables.insert(name.clone(), found);
    }
    for port in ports {
        one(client, port).await?;
    }
    Ok(cables)
}

/// Finds a cable by any of its names.
pub(super) async fn one(client: &Client, name: &str) -> anyhow::Result<CableReport> {
    let found = client.cables(&[name.to_owned()]).await?;
    let found = found.into_iter().next();
    found.ok_or_else(|| anyhow::anyhow!("the fabric has no cable \"{name}\""))
}

/// `rack2` -> 2.
fn rack(name: &str) -> Option<usize> {
    let number = name.strip_prefix("rack")?.parse().ok()?;
    (number > 0).then_some(number)
}

fn no_rack(name: &str, racks: usize) -> String {
    format!("there is no {name} in this fabric: it has {racks} racks")
}

//! Resolves names to cables.

use std::collections::BTreeMap;

use super::expand::{Cables, names};
use super::file::Scenario;
use api::{CableReport, Client};
use model::topology::Topology;

/// Resolves names in a configuration's topology, without a running fabric.
pub(super) fn planned(topology: &Topology, scenario: &Scenario) -> anyhow::Result<Cables> {
    let (targets, ports) = names(scenario);
    let mut cables = BTreeMap::new();
    for name in targets {
        let found = topology.cables_named(&name)?.into_iter();
        let found = found.map(|index| topology.cables[index].name.clone());
        cables.insert(name, found.collect());
    }
    for port in ports {
        topology.end(&port)?;
    }
    Ok(cables)
}

/// Resolves names in the running fabric.
pub(super) async fn running(client: &Client, scenario: &Scenario) -> anyhow::Result<Cables> {
    let (targets, ports) = names(scenario);
    let mut cables = BTreeMap::new();
    for name in targets {
        let found = client.cables(std::slice::from_ref(&name)).await?;
        cables.insert(name, found.into_iter().map(|cable| cable.name).collect());
    }
    for port in ports {
        one(client, &port).await?;
    }
    Ok(cables)
}

/// Finds a cable by any of its names.
pub(super) async fn one(client: &Client, name: &str) -> anyhow::Result<CableReport> {
    let found = client.cables(&[name.to_owned()]).await?;
    anyhow::ensure!(
        found.len() == 1,
        "{name} stands for {} cables: name one of them",
        found.len()
    );
    Ok(found.into_iter().next().expect("it was counted"))
}

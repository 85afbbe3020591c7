//! `ikv-fabric topology`: the plan, without touching anything.

use std::process::ExitCode;

use clap::Args;

use super::configuration::ConfigArgs;
use super::{print, print_json};
use crate::topology::TopologyJson;

/// Shows the datacenter that a configuration describes: switches, cables, names, addresses.
#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As a graph for Graphviz: ikv-fabric topology --dot | dot -Tsvg
    #[arg(long)]
    dot: bool,
}

/// `json` is the global option; it and `--dot` exclude each other.
///
/// # Errors
/// What is wrong with the configuration.
pub fn run(json: bool, args: &TopologyArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !(json && args.dot),
        "--json and --dot are two forms: give one of them"
    );
    let topology = args.config.topology()?;
    match (json, args.dot) {
        (true, _) => print_json(&TopologyJson::from(&topology))?,
        (_, true) => print(&topology.dot())?,
        _ => print(&topology.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

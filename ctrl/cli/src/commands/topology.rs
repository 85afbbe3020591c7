//! `ikv-fabric topology`: shows what a configuration describes.

use clap::Args;

use super::configuration::ConfigArgs;
use super::{print, print_json, screen};
use model::topology::TopologyJson;

/// Shows the datacenter that a configuration describes: switches, cables, names, addresses.
#[derive(Debug, Args)]
pub(crate) struct TopologyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print a graph for Graphviz: ikv-fabric topology --dot | dot -Tsvg
    #[arg(long)]
    dot: bool,
    /// With --dot: a node for each server, instead of one for all of a rack.
    #[arg(long, requires = "dot")]
    servers: bool,
}

/// `json` is the global option; it and `--dot` exclude each other.
///
/// # Errors
/// When the configuration is wrong.
pub(crate) fn run(json: bool, args: &TopologyArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !(json && args.dot),
        "--json and --dot exclude each other: give one of them"
    );
    let topology = args.config.topology()?;
    match (json, args.dot) {
        (true, _) => print_json(&TopologyJson::from(&topology))?,
        (_, true) => print(&topology.dot(args.servers))?,
        _ => print(&topology.text(screen::columns()))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: TopologyArgs,
    }

    fn line(words: &[&str]) -> TopologyArgs {
        Line::parse_from(["topology"].iter().chain(words)).args
    }

    #[test]
    fn the_options_reach_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fabric.toml");
        std::fs::write(&file, "[topology]\nracks = 4\nspines = 4\n").unwrap();
        let args = line(&["-c", file.to_str().unwrap(), "--set", "topology.spines=1"]);
        let topology = args.config.topology().unwrap();
        assert_eq!(
            (topology.racks.len(), topology.switches.len()),
            (4, 1 + 1 + 8)
        );
    }

    #[test]
    fn a_bad_value_and_two_forms_are_refused() {
        let says = |json, words: &[&str]| run(json, &line(words)).unwrap_err().to_string();
        assert_eq!(
            says(false, &["--set", "topology.racks=0"]),
            "--set topology.racks: 0 is out of bounds; it takes 1 to 255 racks"
        );
        let both = "--json and --dot exclude each other: give one of them";
        assert_eq!(says(true, &["--dot"]), both);
    }
}

//! `ikv-fabric config example|schema`: what a configuration file may hold.

use clap::{Args, Subcommand};

use super::{print, print_json};
use model::config;

/// Shows what a configuration file may hold. Reads and changes nothing.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// A commented file with every key and its default.
    Example,
    /// The file's JSON Schema, by which editors complete and check it.
    Schema,
}

/// # Errors
/// When standard output fails.
pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    match args.command {
        ConfigCommand::Example => print(&config::example())?,
        ConfigCommand::Schema => print_json(&config::json_schema())?,
    }
    Ok(())
}

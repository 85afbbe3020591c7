//! `ikv-fabric completions`: the script by which a shell completes this program.

use std::io::stdout;

use clap::Args;

use super::print::write_to_reader;
use crate::completion::{Shell, script};

/// Prints the script by which a shell completes ikv-fabric, with the names of the running fabric's switches,
/// cables, ports and positions. Debian's package has installed it already.
#[derive(Debug, Args)]
#[command(
    after_help = "bash:  source <(ikv-fabric completions bash)     in ~/.bashrc\n\
zsh:   source <(ikv-fabric completions zsh)      in ~/.zshrc, after compinit\n\
fish:  ikv-fabric completions fish > ~/.config/fish/completions/ikv-fabric.fish"
)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to load it.
    shell: Shell,
}

/// # Errors
/// When standard output fails.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    write_to_reader(&mut stdout().lock(), &script(args.shell)?)?;
    Ok(())
}

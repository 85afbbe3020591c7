//! `ikv-fabric ssh`: opens an ssh session with the fabric's key and the switches' host keys.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;

use super::Context;
use host::rootless::inside::{self, Place};

/// Opens an ssh session on a switch, through the datacenter's own routing. Needs no
/// password and asks no questions.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// A switch, such as leaf3.
    node: String,
    /// A command instead of a shell, as ssh takes it.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

/// # Errors
/// When no fabric answers or ssh cannot be started. Otherwise this process becomes ssh, so that
/// the function does not return.
pub(crate) async fn run(context: &Context, args: &SshArgs) -> anyhow::Result<()> {
    let access = context.client.ssh().await?;
    // Only from within its namespaces are the switches of a fabric without root reached.
    let mut ssh = match inside::place(context.client.socket()) {
        Place::Inside { pid } => inside::enter(pid, "ssh"),
        _ => Command::new("ssh"),
    };
    let error = ssh
        .arg("-F")
        .arg(access.config)
        .arg("--")
        .arg(&args.node)
        .args(&args.command)
        .exec();
    anyhow::bail!("cannot start ssh: {error}; install it with `apt-get install openssh-client`")
}

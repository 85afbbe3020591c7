//! `ikv-fabric ssh`: opens an ssh session with the fabric's key and the switches' host keys.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::Context;
use crate::completion::switch_names;
use api::NodeState;
use fabric::progress::say;
use host::packages;
use host::rootless::inside::{self, Place};

/// How often a switch that boots is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Opens an ssh session on a switch, through the datacenter's own routing. Needs no
/// password and asks no questions.
#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    /// A switch, such as leaf3.
    #[arg(add = switch_names())]
    node: String,
    /// A command instead of a shell, as ssh takes it.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    command: Vec<String>,
}

/// Waits for a switch that boots, and says so: ssh would wait in silence. Does nothing if `name` is no
/// switch: ssh_config(5) may know it.
async fn wait_until_it_runs(context: &Context, name: &str) -> anyhow::Result<()> {
    let mut said = false;
    loop {
        let status = context.client.status().await?;
        let Some(node) = status.nodes.iter().find(|node| node.name == name) else {
            return Ok(());
        };
        match node.state {
            NodeState::Running => {
                if node.bgp.established == 0 && node.bgp.expected > 0 {
                    say(&format!(
                        "{name} has no BGP session yet, so that ssh may have to wait: `ikv-fabric \
                         exec {name}` and `console {name}` need no network"
                    ));
                }
                return Ok(());
            }
            NodeState::Booting | NodeState::Restarting if !said => {
                said = true;
                say(&format!(
                    "{name} is {}: waits until it runs (`ikv-fabric console {name}` shows how far it is)",
                    node.state.name()
                ));
            }
            NodeState::Booting | NodeState::Restarting => {}
            NodeState::Off | NodeState::Failed => anyhow::bail!(
                "{name} is {}: `ikv-fabric power {name} on` starts it",
                node.state.name()
            ),
        }
        sleep(LOOK).await;
    }
}

/// # Errors
/// When no fabric answers or ssh cannot be started. Otherwise this process becomes ssh, so that
/// the function does not return.
pub(crate) async fn run(context: &Context, args: &SshArgs) -> anyhow::Result<()> {
    let access = context.client.ssh().await?;
    wait_until_it_runs(context, &args.node).await?;
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
    let install = packages::install(&["openssh-client"]);
    anyhow::bail!("cannot start ssh: {error}; `{install}`")
}

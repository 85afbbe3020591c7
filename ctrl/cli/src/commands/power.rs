//! `ikv-fabric power`: a switch's power button, with the actions of ipmitool(1).

use std::process::ExitCode;

use clap::Args;

use super::{Context, print, print_json};
use model::power::PowerAction;

/// Switches a switch on or off, resets it, or takes its power away and gives it back.
#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// A switch: leaf1.
    node: String,
    /// What to do.
    action: PowerAction,
}

/// # Errors
/// When no fabric answers, the name is unknown, or QEMU refuses.
pub(crate) async fn run(context: &Context, args: &PowerArgs) -> anyhow::Result<ExitCode> {
    let node = context.client.power(&args.node, args.action).await?;
    if context.json {
        print_json(&node)?;
    } else {
        print(&format!("{} is {}\n", node.name, node.state.name()))?;
    }
    Ok(ExitCode::SUCCESS)
}

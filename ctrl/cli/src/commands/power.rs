//! `ikv-fabric power`: a switch's power button, with the actions of ipmitool(1).

use clap::Args;

use super::Context;
use crate::completion::switch_names;
use model::power::PowerAction;

/// Turns a switch on or off, resets it, or cuts its power and restores it.
#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// A switch, such as leaf1.
    #[arg(add = switch_names())]
    node: String,
    /// What to do to its power.
    action: PowerAction,
}

/// # Errors
/// When no fabric answers, the name is unknown, or QEMU refuses.
pub(crate) async fn run(context: &Context, args: &PowerArgs) -> anyhow::Result<()> {
    let node = context.client.power(&args.node, args.action).await?;
    context.report(&node, || {
        format!("{} is {}\n", node.name, node.state.name())
    })?;
    Ok(())
}

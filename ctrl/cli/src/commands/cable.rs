//! `ikv-fabric cable`: cuts a cable, lets its frames vanish, or mends it.

use clap::Args;

use super::{Context, print, print_json};
use crate::completion::cable_names;
use fabric::progress::say;
use model::cable_change::CableState;

/// Cuts a cable (`down`), lets its frames vanish (`blackhole`), or mends it (`up`).
#[derive(Debug, Args)]
pub(crate) struct CableArgs {
    /// The cable, by name or either end: iksb12, spine1:2, rack1:u3:1. A switch, rack or server
    /// stands for all its cables: spine1, rack1, rack1:u3.
    #[arg(add = cable_names())]
    cable: String,
    /// The new state of the cable.
    state: CableState,
}

/// # Errors
/// When no fabric answers or the name is unknown.
pub(crate) async fn run(context: &Context, args: &CableArgs) -> anyhow::Result<()> {
    let client = &context.client;
    let changed = client.set_cable_state(&args.cable, args.state).await?;
    if context.json {
        print_json(&changed)?;
    } else {
        print(&format!("{} is {}\n", changed.name, changed.state.name()))?;
        for note in &changed.notes {
            say(&format!("note: {note}"));
        }
    }
    Ok(())
}

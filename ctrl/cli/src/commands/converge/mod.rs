//! `ikv-fabric converge`: how fast the fabric finds another way when a cable is cut.
//!
//! All cables are captured while it happens. `observation` turns each frame into observations, `report`
//! and `flow` evaluate those: both are functions of their input.

mod flow;
mod measure;
mod observation;
mod ping;
mod plan;
mod report;
mod table;
#[cfg(test)]
mod tests;
mod watcher;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::capture::duration;
use super::{Context, print, print_json};
use fabric::progress::say;
use measure::Meter;
use model::cable_change::CableState;
use plan::Plan;

/// Cuts cables, reads BGP and BFD on the wire, and reports how fast the fabric finds another way:
/// times to the first withdraw and the last update, and of a flow its paths before and after, and
/// the packets that it lost. Then it mends the cables.
#[derive(Debug, Args)]
#[command(after_help = "ikv-fabric converge --cut iksb12 --flow leaf1 leaf3\n\
ikv-fabric converge --flow leaf1 leaf3 --by blackhole      cuts a cable that the flow takes\n\
--json prints one object; with --repeat a list of them.")]
pub(crate) struct ConvergeArgs {
    /// Cables by name or either end, or switches: all their cables to other switches. Without it, the
    /// first cable that the flow takes.
    #[arg(long, value_name = "CABLE", num_args = 1.., required_unless_present = "flow")]
    cut: Vec<String>,
    /// Follow a flow from A to B: switches, then A pings B's loopback meanwhile; or the addresses of
    /// a flow that runs already.
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    flow: Option<Vec<String>>,
    /// How to cut: `down`, the ends lose carrier; or `blackhole`, they do not notice.
    #[arg(long, value_name = "STATE", value_enum, default_value_t = By::Down)]
    by: By,
    /// Converged when no UPDATE came for this long.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s")]
    settle: Duration,
    /// Wait no longer than this.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    limit: Duration,
    /// Time between two pings, 1ms or more.
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "10ms")]
    interval: Duration,
    /// Repeat this many times; the cables are mended and the sessions back in between.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: Option<u32>,
    /// Leave the cables cut.
    #[arg(long, conflicts_with = "repeat")]
    leave: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(1) {
        return Err(format!("{text} is too short for ping: write 1ms or more"));
    }
    Ok(time)
}

/// How to cut a cable; see [`CableState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum By {
    Down,
    Blackhole,
}

impl From<By> for CableState {
    fn from(by: By) -> Self {
        match by {
            By::Down => CableState::Down,
            By::Blackhole => CableState::Blackhole,
        }
    }
}

/// # Errors
/// When no fabric answers, a name is unknown, or the flow does not run.
pub(crate) async fn run(context: &Context, args: &ConvergeArgs) -> anyhow::Result<ExitCode> {
    let topology = context.client.topology().await.ok();
    let flow = match args.flow.as_deref() {
        Some([from, to]) => Some([from.as_str(), to.as_str()]),
        _ => None,
    };
    let meter = Meter {
        client: context.client.clone(),
        plan: Plan::new(&args.cut, flow, topology.as_ref())?,
        state: args.by.into(),
        settle: args.settle,
        limit: args.limit,
        interval: args.interval,
        leave: args.leave,
    };
    let turns = args.repeat.unwrap_or(1);
    let mut reports = Vec::new();
    for turn in 1..=turns {
        let report = meter.measure(turn < turns).await?;
        if !context.json {
            print(&format!("{}\n", table::table(&report)))?;
        }
        reports.push(report);
    }
    match (context.json, args.repeat) {
        (true, Some(_)) => print_json(&reports)?,
        (true, None) => print_json(&reports[0])?,
        (false, Some(_)) => print(&table::spread(&reports))?,
        (false, None) => {}
    }
    if args.leave {
        say("the cables stay cut: `ikv-fabric cable CABLE up` mends one");
    }
    Ok(ExitCode::SUCCESS)
}

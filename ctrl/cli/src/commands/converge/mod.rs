//! `ikv-fabric converge`: measures how fast the fabric finds another path when a cable is cut.
//!
//! `watcher` captures on all cables meanwhile. `observation` turns each frame into observations;
//! `report` and `flow`, which are functions of their input, evaluate those.

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

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::capture::duration;
use super::number::whole;
use super::{Context, print, print_json};
use crate::completion::{cable_names, switch_names};
use fabric::progress::{Progress, say};
use measure::Meter;
use model::cable_change::CableState;
use plan::Plan;

/// Cuts cables, reads BGP and BFD on the wire, and reports how fast the fabric finds another path:
/// the times to the first withdraw and the last update, and for a flow its paths before and after
/// and the packets that it lost. Then it mends the cables.
#[derive(Debug, Args)]
#[command(
    override_usage = "ikv-fabric converge [OPTIONS] --cut <CABLE>...\n       \
                      ikv-fabric converge [OPTIONS] --flow <A> <B>"
)]
#[command(after_help = "ikv-fabric converge --cut iksb12 --flow leaf1 leaf3\n\
ikv-fabric converge --flow leaf1 leaf3 --by blackhole      cuts a cable that the flow takes\n\
--json prints one object; with --repeat a list of them.")]
pub(crate) struct ConvergeArgs {
    /// What to cut: cables by name or either end; a switch stands for all its cables to other
    /// switches. Without it, the first cable that the flow takes.
    #[arg(long, value_name = "CABLE", num_args = 1.., required_unless_present = "flow", add = cable_names())]
    cut: Vec<String>,
    /// Follow a flow from A to B: between two switches, A pings B's loopback meanwhile; two addresses
    /// are those of a flow that runs already.
    #[arg(long, value_names = ["A", "B"], num_args = 2, add = switch_names())]
    flow: Option<Vec<String>>,
    /// How to cut: with `down` the ends lose carrier, with `blackhole` they do not notice.
    #[arg(long, value_name = "STATE", value_parser = cut_state(), default_value = "down")]
    by: CableState,
    /// Count the fabric as converged when no UPDATE came for this long.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s")]
    settle: Duration,
    /// Wait no longer than this.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    limit: Duration,
    /// Time between two pings, 1ms or more.
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "10ms")]
    interval: Duration,
    /// Repeat this many times; in between, mend the cables and wait until the sessions are back.
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, u64::MAX))]
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

/// Parses a state in which a cable is cut: every one but `up`.
fn cut_state() -> impl TypedValueParser<Value = CableState> {
    PossibleValuesParser::new(["down", "blackhole"]).map(|name| match &*name {
        "down" => CableState::Down,
        _ => CableState::Blackhole,
    })
}

/// # Errors
/// When no fabric answers, a name is unknown, or the flow does not run.
pub(crate) async fn run(context: &Context, args: &ConvergeArgs) -> anyhow::Result<()> {
    // A patch has no topology, but its cable can be cut too.
    let topology = context.client.topology().await.ok();
    let flow = match args.flow.as_deref() {
        Some([from, to]) => Some([from.as_str(), to.as_str()]),
        _ => None,
    };
    let has_switches = !context.client.status().await?.nodes.is_empty();
    let meter = Meter {
        client: &context.client,
        plan: Plan::new(&args.cut, flow, topology.as_ref())?,
        args,
        has_switches,
        progress: Progress::new(),
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
    // Where a flow was followed, something was measured all the same.
    let nothing = |report: &report::Report| !report.settled && flow.is_none();
    anyhow::ensure!(
        !reports.iter().any(nothing),
        "no UPDATE came, or they did not end, within {} s of the cut",
        args.limit.as_secs_f64()
    );
    if args.leave {
        say("the cables stay cut: `ikv-fabric cable CABLE up` mends one");
    }
    Ok(())
}

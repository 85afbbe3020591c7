//! `ikv-fabric impair`: makes a cable delay, lose or change frames.

pub(super) mod report;

use std::path::PathBuf;

use clap::Args;

use super::capture::compile;
use super::{Context, print, print_json, scenario};
use crate::completion::{cable_names, port_names};
use api::{CableReport, LaneImpairment};
use model::cable_change::{CableBatch, ImpairmentChange};
use model::impairment::{ImpairKeys, KeyError};

/// Delays, loses, duplicates, corrupts, reorders frames of a cable or limits its rate, as tc-netem
/// does. Keys that are left out keep their value; the value 0 or `none` removes a key. Frames that
/// wait keep their time when keys change; once no key is left they are sent at once, in their order.
#[derive(Debug, Args)]
#[command(override_usage = "ikv-fabric impair [OPTIONS] <CABLE>\n       \
                      ikv-fabric impair [OPTIONS] --report\n       \
                      ikv-fabric impair [OPTIONS] --list")]
pub(crate) struct ImpairArgs {
    /// The cable, by name or either end: iksb12, spine1:2, rack1:u3:1. A switch, rack or server
    /// stands for all its cables. Without options, shows the keys that are set.
    #[arg(value_name = "CABLE", required_unless_present_any = ["list", "report"], add = cable_names())]
    cable: Option<String>,
    /// Impair only frames that enter at this port [default: both lanes, each on its own].
    #[arg(long, value_name = "PORT", requires = "cable", add = port_names())]
    from: Option<String>,
    /// Remove all keys first, then set those given here. If none is given, frames that wait are sent
    /// at once, in their order.
    #[arg(long, requires = "cable")]
    clear: bool,
    /// Show the keys that are set; for all impaired cables if none is named.
    #[arg(long)]
    list: bool,
    /// Show the requested and the achieved values.
    #[arg(long)]
    report: bool,
    /// Change this cable over time, by this scenario.
    #[arg(long, value_name = "FILE", requires = "cable", conflicts_with_all = ["clear", "list", "report"])]
    script: Option<PathBuf>,
    #[command(flatten)]
    keys: ImpairKeys,
}

/// # Errors
/// When no fabric answers, a name is unknown, or the keys contradict each other.
pub(crate) async fn run(context: &Context, args: &ImpairArgs) -> anyhow::Result<()> {
    if let (Some(script), Some(cable)) = (&args.script, &args.cable) {
        anyhow::ensure!(
            args.keys.is_empty(),
            "--script changes the keys over time: write {} into {}",
            args.keys.words(),
            script.display()
        );
        return scenario::run_script(context, script, cable, args.from.as_deref()).await;
    }
    let changes = args.clear || !args.keys.is_empty();
    if let (Some(cable), true) = (&args.cable, changes) {
        let set = ImpairmentChange {
            from: args.from.clone(),
            clear: args.clear,
            set: complete(args.keys.clone())?,
        };
        // The lists below show the new keys.
        let batch = CableBatch::of(cable, set);
        context.client.change_cables(&batch).await?;
    }
    anyhow::ensure!(
        args.cable.is_some() || !changes,
        "name a cable before the options"
    );
    let mut cables = context.client.cables(args.cable.as_slice()).await?;
    if args.cable.is_none() {
        let impaired =
            |cable: &CableReport| cable.lanes.iter().any(|lane| lane.impairment.is_some());
        cables.retain(impaired);
    }
    if args.report {
        context.report(&cables, || report::text(&cables))?;
    } else {
        show(context, &lanes(&cables))?;
    }
    Ok(())
}

/// Reads the distribution table and compiles the filter, both of which only the client can do: the
/// fabric opens no file for a client and has no libpcap.
///
/// # Errors
/// When the table cannot be read or the filter is not a tcpdump expression.
pub(crate) fn complete(keys: ImpairKeys) -> Result<ImpairKeys, KeyError> {
    keys.resolve(|expression| compile(expression).map_err(|error| error.to_string()))
}

fn lanes(cables: &[CableReport]) -> Vec<LaneImpairment> {
    let lanes = cables.iter().flat_map(|cable| {
        cable.lanes.iter().map(|lane| LaneImpairment {
            cable: cable.name.clone(),
            from: lane.from.clone(),
            to: lane.to.clone(),
            impairment: lane.impairment.clone().unwrap_or_default(),
        })
    });
    lanes.collect()
}

fn show(context: &Context, lanes: &[LaneImpairment]) -> std::io::Result<()> {
    if context.json {
        let shown = lanes.iter().map(|lane| LaneImpairment {
            impairment: lane.impairment.shown(),
            ..lane.clone()
        });
        return print_json(&shown.collect::<Vec<_>>());
    }
    let rows = lanes.iter().map(|lane| {
        let words = match lane.impairment.words() {
            none if none.is_empty() => "not impaired".into(),
            words => words,
        };
        let seed = lane.impairment.seed.map(|seed| format!("  (seed {seed})"));
        format!(
            "{:<10} {:>26}  {words}{}\n",
            lane.cable,
            format!("{} > {}", lane.from, lane.to),
            seed.unwrap_or_default()
        )
    });
    let text: String = rows.collect();
    print(if text.is_empty() {
        "no cable is impaired\n"
    } else {
        &text
    })
}

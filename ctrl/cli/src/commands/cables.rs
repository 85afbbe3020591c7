//! `ikv-fabric cables`: shows cables, their counters and rates.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::impair::report;
use super::{Context, print_to_reader};
use api::{CableReport, LaneReport};

/// Shows cables and their counters.
#[derive(Debug, Args)]
pub(crate) struct CablesArgs {
    /// Cables by name or either end: iksb12, spine1:2, rack1:u3:1. All if none is named.
    #[arg(value_name = "CABLE")]
    cables: Vec<String>,
    /// Show rates, every second, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// # Errors
/// When no fabric answers or a name is unknown.
pub(crate) async fn run(context: &Context, args: &CablesArgs) -> anyhow::Result<()> {
    if args.watch {
        watch(context, &args.cables).await?;
    } else {
        let cables = context.client.cables(&args.cables).await?;
        context.report(&cables, || table(&cables))?;
    }
    Ok(())
}

async fn watch(context: &Context, names: &[String]) -> anyhow::Result<()> {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Instant, Vec<CableReport>)> = None;
    loop {
        ticks.tick().await;
        let cables = context.client.cables(names).await?;
        let now = Instant::now();
        let text = if context.json {
            format!("{}\n", serde_json::to_string(&cables)?)
        } else if let Some((then, before)) = &before {
            // ECMA-48: clears the screen and moves the cursor to the top left.
            format!("\x1b[2J\x1b[H{}", rates(before, &cables, now - *then))
        } else {
            String::new()
        };
        if !print_to_reader(&text)? {
            return Ok(());
        }
        before = Some((now, cables));
    }
}

pub(super) fn table(cables: &[CableReport]) -> String {
    let mut text = format!(
        "{:<10} {:<10} {:>26} {:>12} {:>14} {:>12}  DROPS\n",
        "CABLE", "STATE", "LANE", "FRAMES IN", "BYTES IN", "FRAMES OUT"
    );
    for cable in cables {
        for (index, lane) in cable.lanes.iter().enumerate() {
            let (name, state) = if index == 0 {
                (cable.name.as_str(), state(cable))
            } else {
                ("", "")
            };
            let row = format!(
                "{name:<10} {state:<10} {:>26} {:>12} {:>14} {:>12}  {}",
                ends(lane),
                lane.frames_in,
                lane.bytes_in,
                lane.frames_out,
                drops(lane)
            );
            text += row.trim_end();
            text.push('\n');
            if lane.throttled > 0 {
                text += &format!(
                    "{:<21} throttled {} times: it used up its share of a worker while other lanes had frames\n",
                    "", lane.throttled
                );
            }
            for line in report::lines(lane) {
                text += &format!("{:<21} {line}\n", "");
            }
        }
        if let Some(reason) = &cable.closed {
            text += &format!("{:<10} ! {reason}\n", "");
        }
    }
    text
}

fn rates(before: &[CableReport], now: &[CableReport], time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let mut text = format!(
        "{:<10} {:<10} {:>26} {:>12} {:>12}  DROPS/s\n",
        "CABLE", "STATE", "LANE", "FRAMES/s", "Mbit/s"
    );
    for (old, new) in before.iter().zip(now) {
        for (old_lane, lane) in old.lanes.iter().zip(&new.lanes) {
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let frames = per_second(lane.frames_in, old_lane.frames_in);
            if frames == 0.0 {
                continue;
            }
            let bits = per_second(lane.bytes_in, old_lane.bytes_in) * 8.0 / 1e6;
            let dropped = per_second(lane.drops.values().sum(), old_lane.drops.values().sum());
            text += &format!(
                "{:<10} {:<10} {:>26} {frames:>12.0} {bits:>12.3}  {dropped:.0}\n",
                new.name,
                state(new),
                ends(lane)
            );
        }
    }
    text
}

fn state(cable: &CableReport) -> &'static str {
    match cable.closed {
        Some(_) => "closed",
        None => cable.state.name(),
    }
}

fn ends(lane: &LaneReport) -> String {
    format!("{} > {}", lane.from, lane.to)
}

fn drops(lane: &LaneReport) -> String {
    let reasons: Vec<_> = lane
        .drops
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    reasons.join(", ")
}

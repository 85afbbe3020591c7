//! `ikv-fabric cables`: shows cables, their counters and rates.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::impair::report;
use super::{Context, print_to_reader, screen};
use crate::completion::cable_names;
use api::{CableReport, LaneReport};

/// Shows cables and their counters.
#[derive(Debug, Args)]
pub(crate) struct CablesArgs {
    /// Cables by name or either end: iksb12, spine1:2, rack1:u3:1. A switch, rack or server stands
    /// for all its cables: spine1, rack1, rack1:u3. All cables if none is named.
    #[arg(value_name = "CABLE", add = cable_names())]
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
        context.report(&cables, || table(&cables, screen::columns()))?;
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
            let rates = rates(before, &cables, now - *then, screen::columns());
            match screen::lines() {
                Some(lines) => {
                    screen::redrawn(&rates, lines, "name cables, or make the window taller")
                }
                None => rates,
            }
        } else {
            String::new()
        };
        if !print_to_reader(&text)? {
            return Ok(());
        }
        before = Some((now, cables));
    }
}

/// A table for a screen of `columns`.
pub(super) fn table(cables: &[CableReport], columns: usize) -> String {
    let titles = [
        "CABLE",
        "STATE",
        "LANE",
        "FRAMES IN",
        "BYTES IN",
        "FRAMES OUT",
    ];
    let mut rows = Rows::new(&titles, "DROPS");
    for cable in cables {
        for (index, lane) in cable.lanes.iter().enumerate() {
            let (name, state) = if index == 0 {
                (cable.name.as_str(), state(cable))
            } else {
                ("", "")
            };
            let cells = [
                name.to_owned(),
                state.to_owned(),
                ends(lane),
                lane.frames_in.to_string(),
                lane.bytes_in.to_string(),
                lane.frames_out.to_string(),
            ];
            rows.add(cells.to_vec(), drops(lane));
            if lane.throttled > 0 {
                rows.below(format!(
                    "throttled {} times: it used up its share of a worker while other lanes had frames",
                    lane.throttled
                ));
            }
            for line in report::lines(lane) {
                rows.below(line);
            }
        }
        if let Some(reason) = &cable.closed {
            rows.below(format!("! {reason}"));
        }
    }
    rows.text(columns)
}

fn rates(before: &[CableReport], now: &[CableReport], time: Duration, columns: usize) -> String {
    let seconds = time.as_secs_f64();
    let titles = ["CABLE", "STATE", "LANE", "FRAMES/s", "Mbit/s"];
    let mut rows = Rows::new(&titles, "DROPS/s");
    for (old, new) in before.iter().zip(now) {
        for (old_lane, lane) in old.lanes.iter().zip(&new.lanes) {
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            let frames = per_second(lane.frames_in, old_lane.frames_in);
            if frames == 0.0 {
                continue;
            }
            let bits = per_second(lane.bytes_in, old_lane.bytes_in) * 8.0 / 1e6;
            let dropped = per_second(lost(lane), lost(old_lane));
            let cells = [
                new.name.clone(),
                state(new).to_owned(),
                ends(lane),
                format!("{frames:.0}"),
                format!("{bits:.3}"),
            ];
            rows.add(cells.to_vec(), format!("{dropped:.0}"));
        }
    }
    rows.text(columns)
}

/// Columns that are as wide as what is in them. The first three are texts, then come numbers, then the
/// last one, which goes on in a line of its own where it has no room.
struct Rows {
    /// Each with its last column and the lines below it.
    rows: Vec<(Vec<String>, String, Vec<String>)>,
}

/// How many columns are texts.
const TEXTS: usize = 3;

impl Rows {
    fn new(titles: &[&str], last: &str) -> Self {
        let titles = titles.iter().map(|title| (*title).to_owned());
        Rows {
            rows: vec![(titles.collect(), last.to_owned(), Vec::new())],
        }
    }

    fn add(&mut self, cells: Vec<String>, last: String) {
        self.rows.push((cells, last, Vec::new()));
    }

    /// Adds a line below the last row.
    fn below(&mut self, line: String) {
        let (.., below) = self.rows.last_mut().expect("there are the titles");
        below.push(line);
    }

    fn text(&self, columns: usize) -> String {
        let length = |text: &String| text.chars().count();
        let mut widths = vec![0; self.rows[0].0.len()];
        for (cells, ..) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = length(cell).max(*width);
            }
        }
        let mut text = String::new();
        for (cells, last, below) in &self.rows {
            let cells = cells.iter().zip(&widths).enumerate();
            let cells = cells.map(|(index, (cell, &width))| {
                if index < TEXTS {
                    format!("{cell:<width$}  ")
                } else {
                    format!("{cell:>width$}  ")
                }
            });
            let row = cells.collect::<String>();
            if length(&row) + length(last) <= columns {
                text += (row + last).trim_end();
            } else {
                text += &format!("{}\n    {last}", row.trim_end());
            }
            text.push('\n');
            for line in below {
                text += &format!("    {line}\n");
            }
        }
        text
    }
}

/// The word for what a cable does.
pub(super) fn state(cable: &CableReport) -> &'static str {
    match cable.closed {
        Some(_) => "closed",
        None => cable.state.name(),
    }
}

fn ends(lane: &LaneReport) -> String {
    format!("{} > {}", lane.from, lane.to)
}

/// The reason of frames to an end where nobody is: they are no loss.
const NOBODY: &str = "unplugged";

/// Frames that were dropped on their way to somebody.
pub(super) fn lost(lane: &LaneReport) -> u64 {
    let drops = lane.drops.iter();
    drops
        .filter(|(reason, _)| *reason != NOBODY)
        .map(|(_, count)| count)
        .sum()
}

/// The drops by their reasons; last, apart from them, the frames to an end where nobody is.
fn drops(lane: &LaneReport) -> String {
    let reasons = lane.drops.iter().filter(|(reason, _)| *reason != NOBODY);
    let reasons: Vec<_> = reasons
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    let nobody = lane.drops.get(NOBODY).copied().unwrap_or_default();
    match (reasons.is_empty(), nobody) {
        (_, 0) => reasons.join(", "),
        (true, nobody) => format!("- ({nobody} to nobody: unplugged)"),
        (false, nobody) => format!("{} ({nobody} to nobody: unplugged)", reasons.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed_and_the_last_goes_on_below() {
        let mut rows = Rows::new(&["CABLE", "STATE", "LANE", "FRAMES IN"], "DROPS");
        let row = |lane: &str| ["c", "up", lane, "1"].map(String::from).to_vec();
        rows.add(
            row("ikst12 > iklt11"),
            "7 loss, 8 rate-limit, 9 unplugged".into(),
        );
        rows.add(row("b > a"), String::new());
        rows.below("throttled".into());
        let lines = [
            "CABLE  STATE  LANE             FRAMES IN  DROPS",
            "c      up     ikst12 > iklt11          1",
            "    7 loss, 8 rate-limit, 9 unplugged",
            "c      up     b > a                    1",
            "    throttled",
        ];
        assert_eq!(rows.text(60), lines.join("\n") + "\n");
        assert_eq!(rows.text(200).lines().count(), 4);
    }

    #[test]
    fn frames_to_nobody_stand_apart_from_drops() {
        let lane = |drops: &[(&str, u64)]| {
            LaneReport {
            drops: drops.iter().map(|(reason, count)| ((*reason).into(), *count)).collect(),
            ..serde_json::from_str("{\"from\":\"a\",\"to\":\"b\",\"frames_in\":0,\"bytes_in\":0,\"frames_out\":0,\"held\":0,\"drops\":{}}").unwrap()
        }
        };
        assert_eq!(drops(&lane(&[])), "");
        assert_eq!(
            drops(&lane(&[("unplugged", 90)])),
            "- (90 to nobody: unplugged)"
        );
        let both = lane(&[("cable-down", 7), ("unplugged", 90)]);
        assert_eq!(drops(&both), "7 cable-down (90 to nobody: unplugged)");
        assert_eq!(lost(&both), 7);
    }
}

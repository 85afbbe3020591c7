//! `ikv-fabric probe` checks whether the fabric is healthy.
//!
//! Hosts (smoltcp) in this process plug into free positions as a VM would, by their vhost-user
//! sockets: no root, no VM, nothing of the fabric's own. `choose` says where, `lab` holds the
//! hosts and tries everything, `matrix` prints the results.

mod choose;
mod device;
mod flow;
mod host;
mod lab;
mod matrix;
mod report;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use tokio::time::sleep;

use super::capture::duration;
use super::run::StopSignals;
use super::{Context, print, print_json, print_to_reader};
use api::Client;
use choose::{Choice, Wish, choose};
use fabric::progress::Progress;
use lab::{Lab, Plan};
use model::impairment::{BitRate, Percent};
use report::Report;

/// The time between two probes of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells whether the fabric is healthy: plugs a small host into a free position of each rack, and
/// has each get a DHCP lease, ping the others, its gateway, the host and all switches, and send
/// TCP and UDP to the others. No VM is booted, and no root needed.
#[derive(Debug, Args)]
#[command(after_help = "Exit status 0 when all is green, else 1.\n\
ikv-fabric probe --outside 1.1.1.1\n\
ikv-fabric probe --watch --quick      and break something meanwhile")]
pub(crate) struct ProbeArgs {
    /// Only in these racks: 1 or rack1.
    #[arg(long, value_name = "RACK", num_args = 1.., value_parser = rack)]
    rack: Vec<u16>,
    /// At these positions, such as rack1:u3, instead of the highest free one of each rack.
    /// Positions with a VM are skipped.
    #[arg(long, value_name = "POSITION", num_args = 1.., conflicts_with = "rack")]
    position: Vec<String>,
    /// Ping this address too, beyond the fabric and its host.
    #[arg(long, value_name = "ADDRESS")]
    outside: Option<Ipv4Addr>,
    /// No TCP and UDP.
    #[arg(long, conflicts_with = "time")]
    quick: bool,
    /// Length of each transfer [default: all together 4 s, each 100ms at least].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// What TCP must carry to be green.
    #[arg(long, value_name = "RATE", default_value = "1mbit")]
    at_least: BitRate,
    /// Share of the UDP datagrams that may be lost. They are sent at half of TCP's rate.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    tolerance: Percent,
    /// Again and again, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// # Errors
/// When no fabric answers, a name is unknown, or there are no switches.
pub(crate) async fn run(context: &Context, args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    let (choice, plan) = prepare(&context.client, args).await?;
    let Choice {
        places,
        skipped,
        troubles,
    } = choice;
    let mut lab = Lab::new(places);
    // Of the last probe that was not interrupted.
    let mut status = ExitCode::FAILURE;
    loop {
        let now = context.client.positions().await?;
        lab.look_again(&now.places);
        let (back, found) = watched(lab, plan.clone(), &mut stop).await?;
        lab = back;
        let Some(mut report) = found else {
            return Ok(status);
        };
        report.skipped.clone_from(&skipped);
        report.troubles.clone_from(&troubles);
        let report = report.judged();
        status = if report.green {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
        if !show(context, args.watch, &report)? || !args.watch {
            return Ok(status);
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            () = stop.wait() => return Ok(status),
        }
    }
}

/// Decides where to plug in and what to try.
async fn prepare(client: &Client, args: &ProbeArgs) -> anyhow::Result<(Choice, Plan)> {
    let places = client.positions().await?;
    let status = client.status().await?;
    let topology = client.topology().await?;
    let running: BTreeSet<_> = status.nodes.into_iter().map(|node| node.name).collect();
    let wish = Wish {
        racks: args.rack.clone(),
        positions: args.position.clone(),
    };
    let choice = choose(&places.places, &running, &wish)?;
    let nodes = topology.nodes.into_iter();
    let nodes = nodes.filter(|node| running.contains(&node.name));
    let mut targets = vec![("host".to_owned(), places.host)];
    targets.extend(nodes.map(|node| (node.name, node.loopback)));
    targets.extend(args.outside.map(|address| ("outside".to_owned(), address)));
    let plan = Plan {
        targets,
        transfers: !args.quick,
        time: args.time,
        least: args.at_least.0 as f64,
        tolerance: args.tolerance.share(),
    };
    Ok((choice, plan))
}

/// Probes on a thread of its own and shows the progress; `None` if it was interrupted.
async fn watched(
    mut lab: Lab,
    plan: Plan,
    stop: &mut StopSignals,
) -> anyhow::Result<(Lab, Option<Report>)> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let mut probing = tokio::task::spawn_blocking(move || {
        let progress = Progress::new();
        let report = lab.probe(&plan, &flag, &|what| progress.live(what));
        progress.quiet();
        (lab, report)
    });
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => interrupted.store(true, Ordering::Relaxed),
            result = &mut probing => {
                let (lab, report) = result?;
                let report = report.context("cannot wait for frames")?;
                let report = (!interrupted.load(Ordering::Relaxed)).then_some(report);
                return Ok((lab, report));
            }
        }
    }
}

/// Prints a report; `false` if the reader of our output is gone.
fn show(context: &Context, watch: bool, report: &Report) -> anyhow::Result<bool> {
    let terminal = std::io::stdout().is_terminal();
    if context.json && !watch {
        print_json(report)?;
        return Ok(true);
    }
    if context.json {
        return Ok(print_to_reader(&format!(
            "{}\n",
            serde_json::to_string(report)?
        ))?);
    }
    let table = matrix::table(report, terminal && std::env::var_os("NO_COLOR").is_none());
    if !watch {
        print(&table)?;
        return Ok(true);
    }
    let text = if terminal {
        // Clears the screen and goes to its first corner.
        format!("\x1b[2J\x1b[H{table}")
    } else {
        format!("{table}\n")
    };
    Ok(print_to_reader(&text)?)
}

fn rack(text: &str) -> Result<u16, String> {
    let number = text.strip_prefix("rack").unwrap_or(text);
    let number = number.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("\"{text}\" is no rack: write 1 or rack1"))
}

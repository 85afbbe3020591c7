//! `ikv-fabric probe`: checks whether the fabric is healthy.
//!
//! Hosts (smoltcp) in this process plug into free positions through their vhost-user sockets, as a
//! VM would. That needs no root and no VM, and uses nothing that a user's VM could not use. `choose`
//! selects the positions, `lab` holds the hosts and makes the checks, `refused` reads what leaves
//! refused to take from servers, `matrix` prints the results.

mod choose;
mod device;
mod flow;
mod host;
mod lab;
mod matrix;
mod refused;
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
use super::{Context, exit_status, print_to_reader};
use crate::completion::position_names;
use crate::signals::StopSignals;
use api::Client;
use choose::{Choice, ProbedPositions, choose};
use fabric::progress::Progress;
use lab::{Lab, Plan};
use model::impairment::{BitRate, Percent};
use report::Report;

/// The time between two probes of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// Checks whether the fabric is healthy: plugs a small host into a free position of each rack. Each
/// gets a DHCP lease, pings the others, its gateway, the host and all switches, and sends TCP and
/// UDP to the others. Boots no VM and needs no root. Also says which BGP announcements of servers
/// the leaves refused lately, and why.
#[derive(Debug, Args)]
#[command(after_help = "Exit status 0 if everything is green, otherwise 1.\n\
ikv-fabric probe --outside 1.1.1.1\n\
ikv-fabric probe --watch --quick      while you break something")]
pub(crate) struct ProbeArgs {
    /// Plug in only in these racks: 1 or rack1.
    #[arg(long, value_name = "RACK", num_args = 1.., value_parser = rack)]
    rack: Vec<u16>,
    /// Plug in at these positions, such as rack1:u3, instead of the highest free one of each rack.
    /// Skips positions with a VM.
    #[arg(long, value_name = "POSITION", num_args = 1.., conflicts_with = "rack", add = position_names())]
    position: Vec<String>,
    /// Also ping this address, outside of the fabric and its host.
    #[arg(long, value_name = "ADDRESS")]
    outside: Option<Ipv4Addr>,
    /// Leave out TCP and UDP.
    #[arg(long, conflicts_with = "time")]
    quick: bool,
    /// Length of each transfer [default: 4s for all together, at least 100ms each].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// The rate that TCP must reach to be green.
    #[arg(long, value_name = "RATE", default_value = "1mbit")]
    at_least: BitRate,
    /// Share of the UDP datagrams that may be lost; they are sent at half of TCP's rate.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    tolerance: Percent,
    /// Probe again and again, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// # Errors
/// When no fabric answers, a name is unknown, or there are no switches.
pub(crate) async fn run(context: &Context, args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignals::with_hangup()?;
    let (choice, plan) = prepare(&context.client, args).await?;
    let mut lab = Lab::new(choice.positions);
    // The result of the last probe that was not interrupted.
    let mut status = ExitCode::FAILURE;
    loop {
        let now = context.client.positions().await?;
        lab.refresh(&now.places);
        let (back, found) = watched(lab, plan.clone(), &mut stop).await?;
        lab = back;
        let Some(mut report) = found else {
            return Ok(status);
        };
        report.skipped.clone_from(&choice.skipped);
        report.troubles.clone_from(&choice.troubles);
        report.troubles.extend(context.client.status().await?.host);
        report.refused = refused::look(&context.client, &plan.leaves).await;
        let report = report.judged();
        status = exit_status(report.green);
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
    let positions = client.positions().await?;
    let status = client.status().await?;
    let topology = client.topology().await?;
    let running: BTreeSet<_> = status.nodes.into_iter().map(|node| node.name).collect();
    let wanted = ProbedPositions {
        racks: args.rack.clone(),
        positions: args.position.clone(),
    };
    let choice = choose(&positions.places, &running, &wanted)?;
    let nodes = topology.nodes.into_iter();
    let nodes: Vec<_> = nodes.filter(|node| running.contains(&node.name)).collect();
    let leaves = nodes.iter().filter(|node| node.role == "leaf").cloned();
    let leaves = leaves.collect();
    let mut targets = vec![("host".to_owned(), positions.host)];
    targets.extend(nodes.into_iter().map(|node| (node.name, node.loopback)));
    targets.extend(args.outside.map(|address| ("outside".to_owned(), address)));
    let plan = Plan {
        leaves,
        targets,
        transfers: !args.quick,
        time: args.time,
        least: args.at_least.0 as f64,
        tolerance: args.tolerance.share(),
    };
    Ok((choice, plan))
}

/// Probes on a thread of its own, because smoltcp's hosts block it while they wait for frames.
/// Returns no report if a signal interrupted the probe.
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

/// Prints a report; returns `false` if the reader of standard output has closed it.
fn show(context: &Context, watch: bool, report: &Report) -> anyhow::Result<bool> {
    let terminal = std::io::stdout().is_terminal();
    let colours = terminal && std::env::var_os("NO_COLOR").is_none();
    let table = || matrix::table(report, colours);
    if !watch {
        context.report(report, table)?;
        return Ok(true);
    }
    let text = if context.json {
        format!("{}\n", serde_json::to_string(report)?)
    } else if terminal {
        // ECMA-48: clears the screen and moves the cursor to the top left.
        format!("\x1b[2J\x1b[H{}", table())
    } else {
        format!("{}\n", table())
    };
    Ok(print_to_reader(&text)?)
}

fn rack(text: &str) -> Result<u16, String> {
    let number = text.strip_prefix("rack").unwrap_or(text);
    let number = number.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("\"{text}\" is not a rack: write 1 or rack1"))
}

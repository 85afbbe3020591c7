//! `ikv-fabric run`: the fabric itself, in the foreground.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::FutureExt;
use tokio::time::timeout;

use super::configuration::{ConfigArgs, SwitchArgs};
use super::metrics::MetricsArgs;
use super::panel::PanelArgs;
use super::traffic::Traffic;
use super::web::PageArgs;
use super::{Context, recorder};
use crate::service_manager::ServiceManager;
use crate::signals::StopSignals;
use api::{Backend, NodeState, NodeStatus};
use fabric::progress::{Progress, Stage, duration};
use fabric::{Fabric, Options, Running, bring_up};
use host::rootless;
use model::difference::FabricPlan;
use model::{printable, topology};
use vm::image::WantedImage;

/// The most workers unless `--workers` asks for more.
const MOST_WORKERS: usize = 4;

/// The time between two updates of the live line.
const REFRESH: Duration = Duration::from_secs(1);

/// Characters of a problem in the live line.
const PROBLEM: usize = 50;

/// Brings the virtual datacenter up and keeps it running in the foreground. Ctrl-C (SIGINT)
/// or SIGTERM ends it, as `ikv-fabric stop` does, and undoes everything; the exit status is 0 if it had been ready by then,
/// otherwise 1. Without root all of it is in namespaces of the user, which `ikv-fabric shell` enters.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    switches: SwitchArgs,
    /// Boot every switch instead of starting it from a saved state (key: vm.warm).
    #[arg(long)]
    cold: bool,
    #[command(flatten)]
    panel: PanelArgs,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
    #[command(flatten)]
    pub(super) page: PageArgs,
}

/// What a fabric without root does before this process has a second thread: it builds the image, if
/// there is none, where the network is, and moves into namespaces of its own. Nothing for root.
///
/// # Errors
/// When the image cannot be built, or the machine refuses the namespaces.
pub(crate) fn leave_without_root(args: &RunArgs) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // A configuration that is wrong is reported by `run`.
    let config = args.config.config();
    let wanted = config.map(|config| (topology::build(&config), config));
    if let Ok((Ok(topology), config)) = wanted
        && args
            .switches
            .selection(&topology)
            .is_ok_and(|switches| !switches.is_empty())
        && WantedImage::new(&config.image)?.built().is_none()
    {
        args.config.build_image()?;
    }
    rootless::enter()?;
    Ok(())
}

/// # Errors
/// When the fabric cannot be brought up or taken down. What was made has been undone by then.
pub(crate) async fn run(context: &Context, args: &RunArgs) -> anyhow::Result<()> {
    let mut config = args.config.completed()?;
    if args.cold {
        config.vm.warm = false;
        config = config.marked(["vm.warm".to_owned()]);
    }
    let topology = topology::build(&config)?;
    let choice = args.switches.choice()?;
    let switches = choice.of(&topology)?;
    let recorder = recorder::options(&config.recorder)?;
    // From here on a signal ends the run in order, so nothing stays behind on the host.
    let mut stop = StopSignals::with_hangup()?;
    let mut panel = args.panel.options(MOST_WORKERS)?;
    panel.hold_memory = config.impair.memory.map(|bytes| bytes.0);
    let options = Options {
        plan: FabricPlan {
            config,
            topology,
            switches,
        },
        socket: context.own_socket.clone(),
        choice,
        panel,
        recorder,
        page: args.page.take(),
    };
    let progress = Progress::log();
    let mut manager = ServiceManager::of_environment();
    manager.report(false, "coming up");
    let mut running = Running::default();
    let outcome = tokio::select! {
        result = bring_up(&options, &mut running, &progress) => result.map(Some),
        () = stop.wait() => Ok(None),
    };
    let mut failed = false;
    if let Ok(Some(fabric)) = &outcome {
        let shown = async { tokio::join!(show(fabric, &progress), inform(&mut manager, fabric)) };
        tokio::select! {
            never = args.metrics.serve(fabric, &progress) => match never {},
            // A fault in what is only shown must not keep the host from being restored.
            _ = AssertUnwindSafe(shown).catch_unwind() => failed = true,
            () = fabric.stop_asked() => show_notices(fabric, &progress),
            () = stop.wait() => {}
        }
    }
    progress.quiet();
    manager.stopping();
    let was_ready = matches!(&outcome, Ok(Some(fabric)) if fabric.was_ready());
    let began = Instant::now();
    let undone = running.take_down().await;
    // If both failed, the cause of the failure is what helps the user.
    outcome?;
    undone?;
    anyhow::ensure!(
        !failed,
        "a fault of this program ended the fabric, and everything was taken away: please report it"
    );
    anyhow::ensure!(
        was_ready,
        "stopped before the fabric was ready; everything was taken away"
    );
    progress.note(&format!(
        "  ✓ everything taken away  ({})",
        duration(began.elapsed())
    ));
    Ok(())
}

/// Shows the progress until the fabric is ready, then the live line until dropped.
async fn show(fabric: &Fabric, progress: &Progress) {
    if let Ok(page) = fabric.page() {
        // Whoever has the link controls the fabric, and many may read a log.
        let link = if progress.is_terminal() {
            page.link
        } else {
            "`ikv-fabric web` prints the link".to_owned()
        };
        progress.note(&format!("  · page: {link}"));
    }
    let nodes = fabric.status().nodes.into_iter();
    let mut lines: Vec<_> = nodes
        .map(|node| {
            let line = Some(progress.stage(&node.name));
            (node.name, line)
        })
        .collect();
    while !fabric.is_ready() {
        show_switches(&mut lines, fabric);
        if !lines.is_empty() && lines.iter().all(|(_, line)| line.is_none()) {
            progress.live("waiting until every loopback answers");
        }
        show_notices(fabric, progress);
        let _ = timeout(REFRESH, fabric.changed()).await;
    }
    show_switches(&mut lines, fabric);
    progress.note(&format!(
        "  ✓ ready  (after {})",
        duration(progress.elapsed())
    ));
    // Users plug their VMs into leaves, so it names a leaf if one runs.
    let nodes = fabric.status().nodes;
    let leaf = nodes.iter().find(|node| node.role == "leaf");
    let log_in = leaf.or(nodes.first()).map_or(String::new(), |node| {
        format!(" · log in: ikv-fabric ssh {}", node.name)
    });
    progress.note(&format!(
        "    plug a VM in: ikv-fabric vm-args rack1:u3{log_in} · Ctrl-C takes everything away"
    ));
    watch(fabric, progress).await;
}

/// Reports to the service manager, until dropped.
async fn inform(manager: &mut ServiceManager, fabric: &Fabric) {
    while manager.exists() {
        manager.report(fabric.is_ready(), &standing(fabric).join(" · "));
        let _ = timeout(manager.pause(REFRESH), fabric.changed()).await;
    }
}

fn show_notices(fabric: &Fabric, progress: &Progress) {
    for notice in fabric.notices() {
        progress.notice('!', &notice);
    }
}

/// Updates each switch's line. It finds switches by name, because an `apply` may have added or
/// removed some.
fn show_switches(lines: &mut [(String, Option<Stage<'_>>)], fabric: &Fabric) {
    let nodes = fabric.status().nodes;
    for (name, line) in lines {
        match nodes.iter().find(|node| node.name == *name) {
            Some(node) => show_switch(line, node),
            None => drop(line.take()),
        }
    }
}

/// Updates a switch's line; finishes it once the switch runs with all its BGP sessions.
fn show_switch(line: &mut Option<Stage<'_>>, node: &NodeStatus) {
    let sessions = format!("{}/{} sessions", node.bgp.established, node.bgp.expected);
    if node.state == NodeState::Running && node.bgp.established == node.bgp.expected {
        if let Some(stage) = line.take() {
            stage.done(&sessions);
        }
    } else if let Some(stage) = line {
        let how_far = match node.state {
            NodeState::Running => format!("{sessions}  {}", node.note),
            state => format!("{}  {}", state.name(), node.note),
        };
        stage.update(how_far.trim_end());
    }
}

/// Shows notices, changes of readiness and, on a terminal, the live line, until dropped.
async fn watch(fabric: &Fabric, progress: &Progress) {
    let mut traffic = Traffic::new(fabric.traffic());
    let mut was_ready = true;
    loop {
        show_notices(fabric, progress);
        let _ = timeout(REFRESH, fabric.changed()).await;
        if fabric.is_ready() != was_ready {
            was_ready = !was_ready;
            if was_ready {
                progress.notice('✓', "ready again");
            } else {
                progress.notice('!', "not ready: `ikv-fabric status` shows why");
            }
        }
        // A change of the fabric ends the wait early; rates over so short a time would jump.
        if progress.is_terminal() && traffic.seconds() >= REFRESH.as_secs_f64() {
            let rates = traffic.rates(fabric.traffic());
            progress.live(&live_line(fabric, rates, progress.elapsed()));
        }
    }
}

/// The first problem, cut to what a line has room for, and how many others there are.
fn problems(problems: &[String]) -> Option<String> {
    let (first, others) = problems.split_first()?;
    let first = printable::head(first.as_bytes(), PROBLEM);
    Some(match others.len() {
        0 => format!("! {first}"),
        more => format!("! {first} and {more} more"),
    })
}

fn live_line(fabric: &Fabric, rates: String, up: Duration) -> String {
    let mut parts = standing(fabric);
    parts.push(rates);
    parts.push(format!(
        "up {}",
        duration(Duration::from_secs(up.as_secs()))
    ));
    parts.join(" · ")
}

/// The parts of the live line that change only when something happens.
fn standing(fabric: &Fabric) -> Vec<String> {
    let status = fabric.status();
    let mut parts = vec![if status.ready { "ready" } else { "NOT READY" }.to_owned()];
    let applying = status.applying.as_ref();
    parts.extend(applying.map(|what| format!("apply {what}")));
    parts.extend(problems(&status.problems));
    if !status.nodes.is_empty() {
        let nodes = status.nodes.iter();
        let running = nodes.filter(|node| node.state == NodeState::Running);
        let running = running.count();
        let established: usize = status.nodes.iter().map(|node| node.bgp.established).sum();
        let expected: usize = status.nodes.iter().map(|node| node.bgp.expected).sum();
        parts.push(format!("{running}/{} switches", status.nodes.len()));
        parts.push(format!("{established}/{expected} sessions"));
    }
    parts.push(format!("{} plugged in", fabric.plugged()));
    parts
}

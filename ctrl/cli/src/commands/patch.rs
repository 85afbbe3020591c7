//! `ikv-fabric patch`: one cable between two ports, without a datacenter.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dataplane::PanelOptions;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::panel::PanelArgs;
use super::traffic::Traffic;
use super::{Context, need_root};
use crate::signals::StopSignals;
use api::recorder::Trigger;
use fabric::progress::Progress;
use fabric::{Patch, Person, PortSpec, RecorderOptions, listen};
use host::execute::{self, HostChanges};
use host::lock::{Lock, StatePaths};
use host::plan::{Filter, HostStep};

/// Joins two ports by one cable called `wire`, in the foreground, without a datacenter around
/// it. SIGINT or SIGTERM ends it. `cables`, `cable` and `status` work on it.
#[derive(Debug, Args)]
#[command(override_usage = "ikv-fabric patch [OPTIONS] <PORT> <PORT>")]
pub(crate) struct PatchArgs {
    /// tap:NAME (made if absent, then removed at the end; keeps working when moved to another
    /// namespace), netdev:NAME (must exist; may be down), vhost-user:PATH (this command listens
    /// there; removed at the end) or vhost-user-client:PATH (the front end listens).
    #[arg(value_name = "PORT", num_args = 2, required = true)]
    ports: Vec<PortSpec>,
    #[command(flatten)]
    panel: PanelArgs,
    /// Keep the last frames in a flight recorder of 64 MiB.
    #[arg(long)]
    record: bool,
}

/// # Errors
/// When a port cannot be opened, or another fabric uses the socket.
pub(crate) async fn run(context: &Context, args: &PatchArgs) -> anyhow::Result<()> {
    let ports: &[PortSpec; 2] = args.ports.as_slice().try_into()?;
    if ports.iter().any(|port| port.socket().is_none()) {
        need_root("patch", "it opens network devices")?;
    }
    anyhow::ensure!(
        ports[0] != ports[1],
        "both ends of the wire are {}: name two different ports",
        ports[0].name()
    );
    let options = args.panel.options(1)?;
    let mut stop = StopSignals::with_hangup()?;
    let paths = StatePaths::beside(&context.own_socket);
    let mut lock = Lock::acquire(&paths)?;
    let record = args.record.then(|| RecorderOptions {
        triggers: vec![Trigger::Down {}],
        ..RecorderOptions::default()
    });
    let result = wire(ports, &options, record, &mut lock, &mut stop).await;
    lock.release()?;
    result
}

async fn wire(
    ports: &[PortSpec; 2],
    options: &PanelOptions,
    record: Option<RecorderOptions>,
    lock: &mut Lock,
    stop: &mut StopSignals,
) -> anyhow::Result<()> {
    // A killed fabric may have left its devices and tables here.
    execute::clean(lock)?;
    let paths = lock.paths().clone();
    let socket = &paths.socket;
    let owner = Person::caller();
    let mut changes = execute::execute(&guard(ports), lock, |_| {})?;
    changes.will_create(socket)?;
    if record.is_some() {
        changes.will_create(&paths.recorder)?;
    }
    let listener = listen(socket, &owner)?;
    let noticed = Arc::new(Notify::new());
    let notifier = noticed.clone();
    let notify = move || notifier.notify_one();
    let patch = Patch::plug(ports, options, &owner, &paths, record, notify).await?;
    let patch = Arc::new(patch);
    let progress = Progress::log();
    progress.note(&format!(
        "  ✓ wire  {} – {}",
        ports[0].name(),
        ports[1].name()
    ));
    tokio::select! {
        never = api::serve(listener, patch.clone()) => match never {},
        () = show_rates(&patch, &progress) => {}
        () = report_notices(&patch, &progress, &noticed) => {}
        () = patch.watch_triggers(|notice| progress.notice('!', &notice)) => {}
        () = patch.look_after_workers(|notice| progress.notice('!', &notice)) => {}
        () = patch.stop_asked() => {}
        () = stop.wait() => {}
    }
    progress.quiet();
    patch.stop().await;
    Ok(HostChanges::undo(changes)?)
}

/// Reports what happens at the ports, until dropped.
async fn report_notices(patch: &Patch, progress: &Progress, noticed: &Notify) {
    loop {
        noticed.notified().await;
        while let Some(notice) = patch.notice().await {
            progress.notice('!', &notice);
        }
    }
}

/// The host's own stack must neither see nor answer frames that come out of a device at one end of
/// the wire.
fn guard(ports: &[PortSpec; 2]) -> Vec<HostStep> {
    let netdevs: Vec<_> = ports
        .iter()
        .filter(|port| matches!(port, PortSpec::Netdev(_)))
        .map(|port| port.name().to_owned())
        .collect();
    if netdevs.is_empty() {
        return Vec::new();
    }
    vec![HostStep::Tables {
        guard: netdevs,
        nat: None,
        filter: Filter::default(),
    }]
}

/// Shows the wire's rates until dropped.
async fn show_rates(patch: &Patch, progress: &Progress) {
    let mut traffic = Traffic::new(patch.traffic());
    loop {
        sleep(Duration::from_secs(1)).await;
        progress.live(&traffic.rates(patch.traffic()));
    }
}

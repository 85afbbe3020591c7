//! `ikv-fabric patch`: the wire alone.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use dataplane::PanelOptions;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::run::{PanelArgs, StopSignals};
use super::{Context, need_root};
use api::recorder::Trigger;
use fabric::progress::Progress;
use fabric::{Patch, Person, PortSpec, RecorderOptions, listen};
use host::execute::{self, HostChanges};
use host::lock::{Lock, StatePaths};
use host::plan::HostStep;

/// Joins two ports by one cable called `wire`, in the foreground, without a datacenter around
/// it. SIGINT or SIGTERM ends it. `cables`, `cable` and `status` work on it.
#[derive(Debug, Args)]
pub(crate) struct PatchArgs {
    /// tap:NAME (made if absent, then removed at the end; keeps working when moved to another
    /// namespace), netdev:NAME (exists; may be down), vhost-user:PATH (we listen; removed at the
    /// end) or vhost-user-client:PATH (the front end listens).
    #[arg(value_name = "PORT", num_args = 2, required = true)]
    ports: Vec<PortSpec>,
    #[command(flatten)]
    panel: PanelArgs,
    /// With a flight recorder of the last frames, 64 MiB.
    #[arg(long)]
    record: bool,
}

/// # Errors
/// When a port cannot be opened, or another fabric uses the socket.
pub(crate) async fn run(context: &Context, args: &PatchArgs) -> anyhow::Result<ExitCode> {
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
    let mut stop = StopSignals::new()?;
    let paths = StatePaths::beside(&context.own_socket);
    let mut lock = Lock::acquire(&paths)?;
    let record = args.record.then(|| RecorderOptions {
        triggers: vec![Trigger::Down],
        ..RecorderOptions::default()
    });
    let result = wire(ports, &options, record, &mut lock, &mut stop).await;
    lock.release()?;
    result.map(|()| ExitCode::SUCCESS)
}

async fn wire(
    ports: &[PortSpec; 2],
    options: &PanelOptions,
    record: Option<RecorderOptions>,
    lock: &mut Lock,
    stop: &mut StopSignals,
) -> anyhow::Result<()> {
    execute::clean(lock)?;
    let paths = lock.paths().clone();
    let socket = &paths.socket;
    let owner = Person::find(None)?;
    let mut applied = execute::execute(&guard(ports), lock, |_| {})?;
    applied.will_create(socket)?;
    if record.is_some() {
        applied.will_create(&paths.recorder)?;
    }
    let listener = listen(socket, &owner)?;
    let bell = Arc::new(Notify::new());
    let ring = bell.clone();
    let ring = move || ring.notify_one();
    let patch = Patch::plug(ports, options, &owner, &paths, record, ring).await?;
    let patch = Arc::new(patch);
    let progress = Progress::new();
    progress.note(&format!(
        "  ✓ wire  {} – {}",
        ports[0].name(),
        ports[1].name()
    ));
    tokio::select! {
        never = api::serve(listener, patch.clone()) => match never {},
        () = show(&patch, &progress) => {}
        () = tell(&patch, &progress, &bell) => {}
        () = patch.watch_triggers(|notice| progress.note(&format!("  ! {notice}"))) => {}
        () = stop.wait() => {}
    }
    progress.quiet();
    patch.stop().await;
    Ok(HostChanges::undo(applied)?)
}

/// Tells what happens at the ports, for ever.
async fn tell(patch: &Patch, progress: &Progress, bell: &Notify) {
    loop {
        bell.notified().await;
        while let Some(notice) = patch.notice() {
            progress.note(&format!("  ! {notice}"));
        }
    }
}

/// The host's own stack must not see, let alone answer, what comes out of a device that is
/// one end of a wire.
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
        ipmi: None,
    }]
}

async fn show(patch: &Patch, progress: &Progress) {
    let mut before = (Instant::now(), patch.traffic());
    loop {
        sleep(Duration::from_secs(1)).await;
        let (seconds, now) = (before.0.elapsed().as_secs_f64(), patch.traffic());
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let (frames, bytes, drops) = before.1;
        progress.live(&format!(
            "{:.0} frames/s · {:.1} Mbit/s · {:.0} dropped/s",
            rate(now.0, frames),
            rate(now.1, bytes) * 8.0 / 1e6,
            rate(now.2, drops)
        ));
        before = (Instant::now(), now);
    }
}

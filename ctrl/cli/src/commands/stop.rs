//! `ikv-fabric stop`: ends a fabric from another terminal.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::Context;
use api::ClientError;
use fabric::progress::{Progress, duration};
use host::lock::{Lock, StatePaths};

/// How often to look whether the fabric is still there.
const LOOK: Duration = Duration::from_millis(50);

/// After this time it says what it waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// The longest wait. A fabric ends its switches within seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// Ends a fabric, as Ctrl-C does in the terminal where it runs, and waits until everything is taken away.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {}

/// # Errors
/// When no fabric runs there, this user may not end it, or it does not end.
pub(crate) async fn run(context: &Context, _: &StopArgs) -> anyhow::Result<()> {
    let paths = StatePaths::beside(context.client.socket());
    let socket = paths.socket.display();
    let began = Instant::now();
    match context.client.stop().await {
        // It may have ended before its answer was out.
        Ok(_) | Err(ClientError::Broken { .. }) => {}
        Err(ClientError::NotRunning(_)) => match Lock::holder(&paths) {
            Some(pid) => anyhow::bail!(
                "the fabric at {socket} (pid {pid}) is starting or ending, and takes no requests: try \
                 again, or press Ctrl-C where it runs"
            ),
            None => anyhow::bail!(
                "no fabric runs at {socket}: nothing to stop; name the socket of another one with --socket"
            ),
        },
        Err(error) => return Err(error.into()),
    }
    wait_until_gone(context, &paths, began).await?;
    if let Some(pid) = Lock::left_by(&paths) {
        anyhow::bail!(
            "the fabric at {socket} (pid {pid}) has ended and could not take everything away: \
             `ikv-fabric clean` tries again"
        );
    }
    let took = began.elapsed();
    context.report(
        &json!({ "ended": true, "seconds": took.as_secs_f64() }),
        || format!("the fabric at {socket} has ended  ({})\n", duration(took)),
    )?;
    Ok(())
}

async fn wait_until_gone(
    context: &Context,
    paths: &StatePaths,
    began: Instant,
) -> anyhow::Result<()> {
    let progress = Progress::new();
    let mut stage = None;
    while !is_gone(context, paths).await {
        anyhow::ensure!(
            began.elapsed() < LIMIT,
            "the fabric at {} has not ended within {}: its own output says what it does",
            paths.socket.display(),
            duration(LIMIT)
        );
        if began.elapsed() >= SILENCE {
            let stage = stage.get_or_insert_with(|| progress.stage("stop"));
            stage.update("waits until the fabric has taken everything away");
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Whether the fabric has ended: nobody holds its lock, which it gives back last. Where the kernel does
/// not show its locks, as from another container, its socket must be closed, too.
async fn is_gone(context: &Context, paths: &StatePaths) -> bool {
    Lock::holder(paths).is_none()
        && matches!(
            context.client.status().await,
            Err(ClientError::NotRunning(_))
        )
}

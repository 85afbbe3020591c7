//! `ikv-fabric status`: shows whether the fabric is ready, and what each switch does.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Context, exit_status};
use api::{NodeStatus, Status};

/// How often `--wait` asks: often enough for a person, seldom enough for the machine.
const INTERVAL: Duration = Duration::from_millis(200);

/// Shows whether the fabric is ready, and what each switch does. Exit status 0 once it is
/// ready, otherwise 1.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait up to this time until the fabric has started and is ready.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300")]
    wait: Option<u64>,
}

/// # Errors
/// When no fabric answers in time.
pub(crate) async fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let status = ask(context, args.wait.map(Duration::from_secs)).await?;
    context.report(&status, || table(&status))?;
    Ok(exit_status(status.ready))
}

async fn ask(context: &Context, wait: Option<Duration>) -> anyhow::Result<Status> {
    let deadline = Instant::now() + wait.unwrap_or_default();
    loop {
        // If the fabric hangs, the command still ends: after the wait, or after 5 s without one.
        let limit = deadline.max(Instant::now() + Duration::from_secs(5));
        let last = timeout_at(limit, context.client.status()).await;
        let ready = matches!(&last, Ok(Ok(status)) if status.ready);
        if ready || Instant::now() + INTERVAL > deadline {
            return Ok(last.map_err(|_| anyhow::anyhow!("the fabric does not answer in time"))??);
        }
        sleep_until(Instant::now() + INTERVAL).await;
    }
}

fn table(status: &Status) -> String {
    let mut text = format!(
        "{}   {} cables, {} worker{}\n",
        if status.ready { "ready" } else { "not ready" },
        status.cables,
        status.workers,
        if status.workers == 1 { "" } else { "s" },
    );
    for problem in &status.problems {
        text += &format!("! {problem}\n");
    }
    text += &format!(
        "frames that impairments hold back take {} of at most {} MiB of memory\n",
        status.hold_memory_taken.div_ceil(1 << 20),
        status.hold_memory >> 20
    );
    if let Some(what) = &status.applying {
        text += &format!("an apply is under way: {what}\n");
    }
    if !status.nodes.is_empty() {
        text += &format!("\n{:<12} {:<9} {:<11} BGP\n", "SWITCH", "ROLE", "STATE");
    }
    for node in &status.nodes {
        text += &row(node);
    }
    text
}

fn row(node: &NodeStatus) -> String {
    let sessions = format!("{}/{}", node.bgp.established, node.bgp.expected);
    let (name, role, state, note) = (&node.name, &node.role, node.state.name(), &node.note);
    let row = format!("{name:<12} {role:<9} {state:<11} {sessions:<6} {note}");
    row.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{NodeState, Sessions};

    #[test]
    fn the_table_has_every_switch_with_its_note() {
        let node = |name: &str, state, established, note: &str| NodeStatus {
            name: name.into(),
            role: "leaf".into(),
            state,
            bgp: Sessions {
                established,
                expected: 2,
            },
            note: note.into(),
        };
        let status = Status {
            ready: false,
            problems: vec!["worker 0 makes no progress".into()],
            host: Vec::new(),
            nodes: vec![
                node("leaf1", NodeState::Running, 2, ""),
                node(
                    "leaf2",
                    NodeState::Restarting,
                    0,
                    "QEMU was killed by signal 9; again in 4 s",
                ),
            ],
            cables: 141,
            workers: 1,
            hold_memory: 6000 << 20,
            hold_memory_taken: (2 << 20) + 1,
            applying: Some("restarts leaf2".into()),
        };
        insta::assert_snapshot!(table(&status), @r"
        not ready   141 cables, 1 worker
        ! worker 0 makes no progress
        frames that impairments hold back take 3 of at most 6000 MiB of memory
        an apply is under way: restarts leaf2

        SWITCH       ROLE      STATE       BGP
        leaf1        leaf      running     2/2
        leaf2        leaf      restarting  0/2    QEMU was killed by signal 9; again in 4 s
        ");
    }
}

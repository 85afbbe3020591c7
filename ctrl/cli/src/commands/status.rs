//! `ikv-fabric status`: shows whether the fabric is ready, and what each switch does.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::number::whole;
use super::{Context, exit_status};
use api::{ClientError, NodeStatus, Status};
use fabric::progress::say;
use host::lock::{Lock, StatePaths};

/// How often `--wait` asks: often enough for a person, seldom enough for the machine.
const INTERVAL: Duration = Duration::from_millis(200);

/// After this time of silence, `--wait` says what it waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a fabric that was there may be gone before `--wait` takes it for ended.
const GONE: Duration = Duration::from_millis(400);

/// How long a killed fabric's files may lie there before `--wait` no longer expects that another
/// fabric is just taking their place.
const KILLED: Duration = Duration::from_secs(2);

/// Shows whether the fabric is ready, and what each switch does. Exit status 0 once it is
/// ready, otherwise 1.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Wait up to this time until the fabric has started and is ready; not if it ends meanwhile.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "300",
          value_parser = whole::<u64>(0, u64::MAX))]
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
    let began = Instant::now();
    let deadline = began + wait.unwrap_or_default();
    let paths = StatePaths::beside(context.client.socket());
    let mut wait = Wait::default();
    let mut said = false;
    loop {
        // If the fabric hangs, the command still ends: after the wait, or after 5 s without one.
        let limit = deadline.max(Instant::now() + Duration::from_secs(5));
        let last = timeout_at(limit, context.client.status()).await;
        let ready = matches!(&last, Ok(Ok(status)) if status.ready);
        let now = Instant::now();
        if ready || now + INTERVAL > deadline {
            return Ok(last.map_err(|_| anyhow::anyhow!("the fabric does not answer in time"))??);
        }
        let seen = Seen::of(&last, &paths);
        if let Some(why) = wait.is_vain(&seen, now - began) {
            anyhow::bail!("the fabric at {} {why}", paths.socket.display());
        }
        if !said && now - began >= SILENCE {
            said = true;
            let socket = paths.socket.display();
            say(&match seen {
                Seen::Answers => format!("waits until the fabric at {socket} is ready"),
                Seen::Starts => format!("waits for the fabric at {socket}, which is starting"),
                Seen::Killed(_) | Seen::Nothing => format!("waits for a fabric at {socket}"),
            });
        }
        sleep_until(now + INTERVAL).await;
    }
}

/// What is at a socket at one moment.
#[derive(Debug)]
enum Seen {
    /// A fabric that answers, or is too busy to.
    Answers,
    /// A fabric that does not listen yet, or no longer.
    Starts,
    /// What a killed fabric has left, with its pid.
    Killed(String),
    /// No trace of a fabric.
    Nothing,
}

impl Seen {
    fn of<T>(answer: &Result<Result<Status, ClientError>, T>, paths: &StatePaths) -> Self {
        match answer {
            Ok(Err(ClientError::NotRunning(_))) if Lock::holder(paths).is_some() => Seen::Starts,
            Ok(Err(ClientError::NotRunning(_))) => match Lock::left_by(paths) {
                Some(pid) => Seen::Killed(pid),
                None => Seen::Nothing,
            },
            _ => Seen::Answers,
        }
    }
}

/// Decides when it is vain to wait on.
#[derive(Debug, Default)]
struct Wait {
    was_there: bool,
    /// Since when no fabric has been there, by the time of the wait.
    gone: Option<Duration>,
}

impl Wait {
    /// Why it is vain to wait on after `time` of waiting, if it is.
    fn is_vain(&mut self, seen: &Seen, time: Duration) -> Option<String> {
        if matches!(seen, Seen::Answers | Seen::Starts) {
            self.was_there = true;
            self.gone = None;
            return None;
        }
        let gone = time.saturating_sub(*self.gone.get_or_insert(time));
        match seen {
            Seen::Killed(pid) if gone >= KILLED => Some(format!(
                "was killed (pid {pid}): `ikv-fabric run` starts another and takes away what it left"
            )),
            _ if self.was_there && gone >= GONE => {
                Some("ended before it was ready; its own output says why".into())
            }
            _ => None,
        }
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

    const STEP: Duration = Duration::from_millis(200);

    /// How many steps of waiting it takes until it is vain, at most a hundred.
    fn vain_after(steps: impl Fn(u32) -> Seen) -> Option<u32> {
        let mut wait = Wait::default();
        (0..100).find(|step| wait.is_vain(&steps(*step), STEP * *step).is_some())
    }

    #[test]
    fn only_a_fabric_that_may_still_become_ready_is_waited_for() {
        assert_eq!(vain_after(|_| Seen::Nothing), None, "it may be started yet");
        assert_eq!(vain_after(|_| Seen::Starts), None);
        assert_eq!(vain_after(|_| Seen::Answers), None);
        let ends = |there: fn() -> Seen| {
            vain_after(move |step| if step < 5 { there() } else { Seen::Nothing })
        };
        assert_eq!(ends(|| Seen::Starts), Some(7));
        assert_eq!(ends(|| Seen::Answers), Some(7));
        assert_eq!(vain_after(|_| Seen::Killed("7".into())), Some(10));
        let taken_over = |step| match step {
            0..8 => Seen::Killed("7".into()),
            _ => Seen::Starts,
        };
        assert_eq!(vain_after(taken_over), None);
    }

    #[test]
    fn the_table_has_every_switch_with_its_note() {
        let node = |name: &str, state, established, note: &str| NodeStatus {
            name: name.into(),
            role: "leaf".into(),
            state,
            since_ns: None,
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

//! A QEMU that runs: its process, its monitor, and what it has reported.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::bmc_line::BmcLine;
use super::console::Console;
use super::launch::Launched;
use super::qemu::{AGENT_ID, nic_index};
use super::qmp::{Event, Qmp, QmpError};
use super::stderr::Stderr;

/// Time for QEMU to greet. Nine at once on two busy cores took under a second.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// What QEMU has reported, as a state, so that a flood of events needs no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) guest_shutdown: bool,
    pub(super) agent_open: bool,
    pub(super) resets: u64,
    /// How often each NIC has gone; a NIC that never did is not in here.
    deleted: BTreeMap<usize, u64>,
}

impl Seen {
    fn take(&mut self, event: Event) {
        match event {
            Event::Shutdown { guest } => self.guest_shutdown = guest,
            Event::Reset => self.resets += 1,
            Event::Port { id, open } if id == AGENT_ID => self.agent_open = open,
            Event::Deleted { id } => {
                if let Some(index) = nic_index(&id) {
                    *self.deleted.entry(index).or_default() += 1;
                }
            }
            Event::Port { .. } | Event::Other(_) => {}
        }
    }

    /// How often NIC `index` has gone.
    pub(super) fn deletions(&self, index: usize) -> u64 {
        self.deleted.get(&index).copied().unwrap_or_default()
    }
}

/// A QEMU.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) stderr: Stderr,
    greeting: Option<JoinHandle<Result<Qmp, QmpError>>>,
    pub(super) monitor: Option<Arc<Qmp>>,
    pub(super) seen: watch::Receiver<Seen>,
    pub(super) resets: u64,
    /// It was started from a make-up that the VM has no more.
    pub(super) outdated: bool,
}

/// Something happened to the QEMU.
pub(super) enum Happened {
    Exited(io::Result<ExitStatus>),
    Greeted(Result<Qmp, QmpError>),
    Reported,
}

impl Process {
    pub(super) fn new(launched: Launched, console: &Console, line: &BmcLine) -> Self {
        let Launched {
            child,
            monitor,
            console: serial,
            bmc,
            stderr,
            ..
        } = launched;
        console.connect(serial);
        if let Some(bmc) = bmc {
            line.connect(bmc);
        }
        let (report, seen) = watch::channel(Seen::default());
        let on_event = move |event| report.send_modify(|seen| seen.take(event));
        let greeting = tokio::spawn(Qmp::open(monitor, GREETING_LIMIT, on_event));
        Self {
            child,
            stderr,
            greeting: Some(greeting),
            monitor: None,
            seen,
            resets: 0,
            outdated: false,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(greeting) = &self.greeting {
            greeting.abort();
        }
    }
}

/// Never resolves without a QEMU.
pub(super) async fn next(process: &mut Option<Process>) -> Happened {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let Process {
        child,
        greeting,
        seen,
        ..
    } = process;
    let greeted = async {
        match greeting {
            Some(task) => match task.await {
                Ok(outcome) => outcome,
                Err(_) => Err(QmpError::Closed),
            },
            None => std::future::pending().await,
        }
    };
    let happened = tokio::select! {
        status = child.wait() => Happened::Exited(status),
        outcome = greeted => Happened::Greeted(outcome),
        Ok(()) = seen.changed() => Happened::Reported,
    };
    if matches!(happened, Happened::Greeted(_)) {
        *greeting = None;
    }
    happened
}

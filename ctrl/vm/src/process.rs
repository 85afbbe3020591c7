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

/// Time for QEMU to read a saved state of its guest.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

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
    pub(super) restored: Option<Restored>,
}

/// A guest that was restored from a saved state and is not yet a switch.
pub(super) struct Restored {
    /// The state's.
    pub(super) key: String,
    pub(super) waking: Option<JoinHandle<Result<(), String>>>,
}

/// Something happened to the QEMU.
pub(super) enum Happened {
    Exited(io::Result<ExitStatus>),
    Greeted(Result<Qmp, QmpError>),
    Woken(Result<(), String>),
    Reported,
}

impl Process {
    /// `state`: the key of the saved state that it starts from.
    pub(super) fn new(
        launched: Launched,
        console: &Console,
        line: &BmcLine,
        state: Option<String>,
    ) -> Self {
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
        let resumes = state.is_some();
        let greeting = tokio::spawn(async move {
            let monitor = Qmp::open(monitor, GREETING_LIMIT, on_event).await?;
            if resumes {
                monitor.resume(RESTORE_LIMIT).await?;
            }
            Ok(monitor)
        });
        Self {
            child,
            stderr,
            greeting: Some(greeting),
            monitor: None,
            seen,
            resets: 0,
            outdated: false,
            restored: state.map(|key| Restored { key, waking: None }),
        }
    }

    /// Whether an answer of the guest agent would say that the guest has booted. That of one that
    /// was restored has been running ever since.
    pub(super) fn may_answer(&self) -> bool {
        self.restored.is_none() && self.seen.borrow().agent_open
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(waking) = &self.waking {
            waking.abort();
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
        restored,
        ..
    } = process;
    let waking = restored
        .as_mut()
        .and_then(|restored| restored.waking.as_mut());
    let woken = async {
        match waking {
            Some(task) => task
                .await
                .unwrap_or_else(|error| Err(format!("it could not be woken: {error}"))),
            None => std::future::pending().await,
        }
    };
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
        outcome = woken => Happened::Woken(outcome),
        Ok(()) = seen.changed() => Happened::Reported,
    };
    if matches!(happened, Happened::Greeted(_)) {
        *greeting = None;
    }
    happened
}

//! A running QEMU: its process, its monitor, and the next thing that happens to it.

use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use host::cgroup::Cgroup;
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::bmc_line::BmcLine;
use crate::console::Console;
use crate::launch::Launched;
use crate::qmp::{Qmp, QmpError};
use crate::reports::Reports;
use crate::stderr::Stderr;

/// Time for QEMU to greet. Nine at once on two busy cores took under a second.
const GREETING_LIMIT: Duration = Duration::from_secs(30);

/// Time for QEMU to read the saved state of its guest.
const RESTORE_LIMIT: Duration = Duration::from_secs(60);

/// A running QEMU.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Removed after the child has ended.
    _cgroup: Option<Cgroup>,
    pub(crate) stderr: Stderr,
    greeting: Option<JoinHandle<Result<Qmp, QmpError>>>,
    pub(crate) monitor: Option<Arc<Qmp>>,
    pub(crate) reports: watch::Receiver<Reports>,
    /// How many of its resets have been handled.
    pub(crate) resets: u64,
    /// It was started from a specification that the VM no longer has.
    pub(crate) outdated: bool,
    pub(crate) restored: Option<Restored>,
}

/// A guest that was restored from a saved state and is not yet a switch.
pub(crate) struct Restored {
    /// Of the state.
    pub(crate) key: String,
    /// Turns it into a switch, once QEMU has greeted.
    pub(crate) waking: Option<JoinHandle<Result<(), String>>>,
}

/// What happened to a QEMU.
pub(crate) enum ProcessEvent {
    Exited(io::Result<ExitStatus>),
    /// Its monitor takes commands, or will not.
    Greeted(Result<Qmp, QmpError>),
    /// The restored guest is a switch, or the reason why not.
    Woken(Result<(), String>),
    /// [`Process::reports`] has changed.
    Reported,
}

impl Process {
    /// `state`: the key of the saved state that it starts from.
    pub(crate) fn new(
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
            cgroup,
            ..
        } = launched;
        console.connect(serial);
        if let Some(bmc) = bmc {
            line.connect(bmc);
        }
        let (sender, reports) = watch::channel(Reports::default());
        let on_event = move |event| sender.send_modify(|reports| reports.add(event));
        let resumes = state.is_some();
        // A task of its own: while QEMU starts, the supervisor still handles requests.
        let greeting = tokio::spawn(async move {
            let monitor = Qmp::open(monitor, GREETING_LIMIT, on_event).await?;
            if resumes {
                monitor.resume(RESTORE_LIMIT).await?;
            }
            Ok(monitor)
        });
        Self {
            child,
            _cgroup: cgroup,
            stderr,
            greeting: Some(greeting),
            monitor: None,
            reports,
            resets: 0,
            outdated: false,
            restored: state.map(|key| Restored { key, waking: None }),
        }
    }

    /// Whether an answer of the guest agent shows that the guest has booted. In a restored guest the
    /// agent runs from the start.
    pub(crate) fn agent_shows_boot(&self) -> bool {
        self.restored.is_none() && self.reports.borrow().agent_open
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

/// The next event of the QEMU. Never resolves without a QEMU. May be dropped and called again.
pub(crate) async fn next_event(process: &mut Option<Process>) -> ProcessEvent {
    let Some(process) = process else {
        return std::future::pending().await;
    };
    let Process {
        child,
        greeting,
        reports,
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
    let event = tokio::select! {
        status = child.wait() => ProcessEvent::Exited(status),
        outcome = greeted => ProcessEvent::Greeted(outcome),
        outcome = woken => ProcessEvent::Woken(outcome),
        Ok(()) = reports.changed() => ProcessEvent::Reported,
    };
    if matches!(event, ProcessEvent::Greeted(_)) {
        // A finished task must not be awaited again.
        *greeting = None;
    }
    event
}

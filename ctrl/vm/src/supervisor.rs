//! One task per VM: starts its QEMU, watches it, starts it again, handles `power`.
//!
//! `lifecycle.rs` decides what to do; this module does it.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use model::power::PowerAction;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use crate::agent::Agent;
use crate::bmc_line::BmcLine;
use crate::console::Console;
use crate::launch::{Launcher, SavedState};
use crate::lifecycle::{Action, Exit, Lifecycle, PowerError, VmState};
use crate::live::{self, SharedLiveSpec};
use crate::plug::{self, CannotPlug, PlugError};
use crate::process::{Process, ProcessEvent, next_event};
use crate::qmp::{Qmp, QmpError};
use crate::spec::VmSpec;
use crate::template;

/// Time for QEMU to quit when asked, before it is killed.
const QUIT_LIMIT: Duration = Duration::from_millis(700);
/// Time for the kernel to remove a killed QEMU.
const KILL_LIMIT: Duration = Duration::from_millis(1500);
/// Time for a monitor command: QEMU's main loop is busy at most this long.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// Time for the agent's first answer, and the pause after a failed attempt.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(500));
/// signal(7).
const SIGKILL: i32 = 9;
/// Time to read a dead QEMU's last events.
const LAST_EVENTS: Duration = Duration::from_millis(200);
/// Characters of the console shown for a guest that does not come up.
const CONSOLE_TAIL: usize = 500;

/// What is known of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmStatus {
    /// Whether it boots, runs, is off, or has failed.
    pub state: VmState,
    /// QEMU's pid, if there is one.
    pub pid: Option<u32>,
    /// How often its QEMU has been started again after a death.
    pub restarts: u32,
    /// Why it last died, failed or could not be started, with the end of QEMU's stderr.
    pub last_error: Option<String>,
    /// QEMU takes commands: links can be set, and displays handed to it.
    pub commanded: bool,
    /// Why the saved state that it was to start from does not work, so that it boots instead. Only the
    /// first of the VMs that start from the same state reports this.
    pub bad_state: Option<String>,
}

/// A request of a VM's handle, with the sender of its answer.
#[derive(Debug)]
pub(crate) enum Request {
    Power(PowerAction, oneshot::Sender<Result<(), PowerError>>),
    Respec(Box<VmSpec>, oneshot::Sender<()>),
    Plug(Box<VmSpec>, oneshot::Sender<Result<(), PlugError>>),
    Stop(oneshot::Sender<()>),
}

/// What the supervisor and the handles of a VM share; it outlives each QEMU.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The present QEMU's monitor, once it has greeted.
    monitor: Arc<Mutex<Option<Arc<Qmp>>>>,
    pub(crate) live: SharedLiveSpec,
    pub(crate) agent: Arc<Agent>,
    pub(crate) console: Console,
    pub(crate) bmc: BmcLine,
}

impl Shared {
    pub(crate) fn new(spec: &VmSpec) -> Self {
        Self {
            monitor: Arc::default(),
            live: SharedLiveSpec::default(),
            agent: Arc::new(Agent::new(spec.agent_socket())),
            console: Console::default(),
            bmc: BmcLine::default(),
        }
    }

    pub(crate) fn monitor(&self) -> Option<Arc<Qmp>> {
        self.lock_monitor().clone()
    }

    fn lock_monitor(&self) -> MutexGuard<'_, Option<Arc<Qmp>>> {
        self.monitor
            .lock()
            .expect("no holder of this lock can panic")
    }

    /// From now on the handles reach no QEMU.
    fn disconnect(&self) {
        *self.lock_monitor() = None;
        *live::lock(&self.live) = None;
    }
}

/// The task of one VM.
pub(crate) struct Supervisor {
    /// For the next QEMU; the present one may have been started from another.
    spec: VmSpec,
    launcher: Launcher,
    life: Lifecycle,
    process: Option<Process>,
    last_error: Option<String>,
    bad_state: Option<String>,
    status: watch::Sender<VmStatus>,
    shared: Shared,
}

impl Supervisor {
    pub(crate) fn new(
        spec: VmSpec,
        launcher: Launcher,
        shared: Shared,
    ) -> (Self, watch::Receiver<VmStatus>) {
        let life = Lifecycle::new(Instant::now());
        let (status, watcher) = watch::channel(VmStatus {
            state: life.state(),
            pid: None,
            restarts: 0,
            last_error: None,
            commanded: false,
            bad_state: None,
        });
        let supervisor = Self {
            spec,
            launcher,
            life,
            process: None,
            last_error: None,
            bad_state: None,
            status,
            shared,
        };
        (supervisor, watcher)
    }

    /// Runs until [`Request::Stop`], or until every handle is dropped.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            if self.life.due(Instant::now()).is_some() {
                self.launch();
            }
            self.publish();
            let deadline = self.life.deadline();
            let probing = self.life.state() == VmState::Booting
                && self.process.as_ref().is_some_and(Process::agent_shows_boot);
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Power(power, answer)) => {
                        let outcome = self.power(power).await;
                        self.publish();
                        let _ = answer.send(outcome);
                    }
                    Some(Request::Respec(spec, done)) => {
                        self.respec(*spec);
                        let _ = done.send(());
                    }
                    Some(Request::Plug(spec, answer)) => {
                        let _ = answer.send(self.plug(*spec).await);
                    }
                    Some(Request::Stop(done)) => {
                        self.halt().await;
                        let _ = self.life.power(PowerAction::Off, Instant::now());
                        self.publish();
                        let _ = done.send(());
                        return;
                    }
                    // Every handle is dropped, so no request can arrive any more.
                    None => return self.halt().await,
                },
                event = next_event(&mut self.process) => self.handle(event).await,
                () = self.shared.agent.answers(PING), if probing => self.life.ready(),
                () = until(deadline), if deadline.is_some() => {}
            }
        }
    }

    /// See [`crate::Vm::respec`].
    fn respec(&mut self, spec: VmSpec) {
        self.spec = spec;
        if let Some(process) = &mut self.process {
            process.outdated = true;
        }
    }

    /// See [`crate::Vm::plug`].
    async fn plug(&mut self, spec: VmSpec) -> Result<(), PlugError> {
        let process = self.process.as_ref().ok_or(CannotPlug::NotRunning)?;
        let monitor = process.monitor.as_ref().ok_or(CannotPlug::NotRunning)?;
        if self.life.state() != VmState::Running {
            return Err(CannotPlug::NotRunning.into());
        }
        let (reports, open_tap) = (process.reports.clone(), self.launcher.open_tap());
        plug::execute(&self.shared.live, &spec, monitor, reports, open_tap).await?;
        self.respec(spec);
        Ok(())
    }

    /// Starts a QEMU, from a saved state if there is one.
    fn launch(&mut self) {
        let saved = self.launcher.saved_state(&self.spec);
        self.launch_from(saved);
    }

    fn launch_from(&mut self, saved: Option<SavedState>) {
        debug_assert!(self.process.is_none(), "one QEMU at most");
        let key = saved.as_ref().map(|saved| saved.key.clone());
        match self.launcher.launch(&self.spec, saved) {
            Ok(launched) => {
                self.shared.agent.forget();
                *live::lock(&self.shared.live) = Some(launched.live.clone());
                let (console, bmc) = (&self.shared.console, &self.shared.bmc);
                self.process = Some(Process::new(launched, console, bmc, key));
            }
            Err(error) => {
                self.last_error = Some(error.to_string());
                self.life.exited(Exit::Refused, Instant::now());
            }
        }
    }

    async fn handle(&mut self, event: ProcessEvent) {
        match event {
            ProcessEvent::Exited(status) => self.exited(status).await,
            ProcessEvent::Greeted(Ok(monitor)) => self.greeted(Arc::new(monitor)),
            ProcessEvent::Greeted(Err(error)) => self.did_not_greet(error).await,
            ProcessEvent::Woken(Ok(())) => {
                if let Some(process) = &mut self.process {
                    process.restored = None;
                }
                self.life.ready();
            }
            ProcessEvent::Woken(Err(reason)) => self.boot_instead(&reason).await,
            ProcessEvent::Reported => self.reported().await,
        }
    }

    fn greeted(&mut self, monitor: Arc<Qmp>) {
        *self.shared.lock_monitor() = Some(Arc::clone(&monitor));
        self.life.greeted();
        let Some(process) = &mut self.process else {
            return;
        };
        process.monitor = Some(monitor);
        if let Some(restored) = &mut process.restored {
            let waking = template::wake(Arc::clone(&self.shared.agent));
            restored.waking = Some(tokio::spawn(waking));
        }
    }

    async fn did_not_greet(&mut self, error: QmpError) {
        let Some(process) = &mut self.process else {
            return;
        };
        // A QEMU that ends before it greets says why on stderr: leave that to its exit.
        if timeout(QUIT_LIMIT, process.child.wait()).await.is_ok() {
            return;
        }
        if process.restored.is_some() {
            return self.boot_instead(&error.to_string()).await;
        }
        // One that runs but does not greet cannot be controlled.
        self.last_error = Some(error.to_string());
        let _ = process.child.start_kill();
    }

    /// QEMU has reported something; only resets need an action.
    async fn reported(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        let resets = process.reports.borrow_and_update().resets;
        // Two resets between two looks count as one: a slow observer must not see a boot loop.
        if std::mem::replace(&mut process.resets, resets) == resets {
            return;
        }
        // Even a guest that was restored boots after a reset.
        process.restored = None;
        if process.outdated {
            // The guest would boot from the disk of an old specification.
            if let Err(error) = self.power(PowerAction::Cycle).await {
                tracing::warn!(vm = self.spec.name, %error, "it could not be replaced");
            }
        } else if self.life.was_reset() {
            self.halt().await;
            let tail = self.shared.console.tail_escaped(CONSOLE_TAIL);
            let error =
                format!("the guest resets itself before it is up; its console says:\n{tail}");
            self.died(Exit::Died, error);
        }
    }

    async fn exited(&mut self, status: io::Result<ExitStatus>) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.shared.disconnect();
        if let Some(monitor) = &process.monitor {
            let _ = timeout(LAST_EVENTS, monitor.closed()).await;
        }
        let status = match status {
            Ok(status) => status,
            Err(error) => return self.died(Exit::Died, format!("QEMU is lost: {error}")),
        };
        // A QEMU that was killed from outside says nothing about the saved state.
        if process.restored.is_some() && status.signal() != Some(SIGKILL) {
            let words = process.stderr.last_words().await;
            // boot_instead() needs to know which state it was.
            self.process = Some(process);
            let reason = format!("QEMU ended with {status}: {words}");
            return self.boot_instead(&reason).await;
        }
        if status.success() && process.reports.borrow().guest_shutdown {
            self.life.exited(Exit::PoweredOff, Instant::now());
            return;
        }
        let greeted = process.monitor.is_some();
        // A signal is not a refusal: the kernel kills a QEMU when memory runs out.
        let exit = if greeted || status.code().is_none() {
            Exit::Died
        } else {
            Exit::Refused
        };
        let words = process.stderr.last_words().await;
        self.died(
            exit,
            format!("QEMU ended with {status}: {words}")
                .trim_end_matches(": ")
                .into(),
        );
    }

    /// Drops the saved state that the present QEMU was started from, because it does not work, and boots
    /// the VM. This does not count as a death.
    async fn boot_instead(&mut self, reason: &str) {
        let restored = (self.process.as_mut()).and_then(|process| process.restored.take());
        self.halt().await;
        tracing::warn!(vm = self.spec.name, reason, "its saved state does not work");
        if restored.is_some_and(|restored| self.launcher.drop_state(&restored.key)) {
            self.bad_state = Some(reason.to_owned());
        }
        self.launch_from(None);
    }

    /// Records a death that is to be shown and logged.
    fn died(&mut self, exit: Exit, error: String) {
        self.life.exited(exit, Instant::now());
        tracing::warn!(vm = self.spec.name, state = ?self.life.state(), error);
        self.last_error = Some(error);
    }

    async fn power(&mut self, power: PowerAction) -> Result<(), PowerError> {
        let outdated = (self.process.as_ref()).is_some_and(|process| process.outdated);
        let power = match power {
            // A reset would boot the guest from the disk of an old specification.
            PowerAction::Reset if outdated => PowerAction::Cycle,
            power => power,
        };
        let Some(action) = self.life.power(power, Instant::now())? else {
            return Ok(());
        };
        if action == Action::Reset {
            let monitor = self.shared.monitor().ok_or(PowerError::Unresponsive)?;
            let reset = monitor.execute("system_reset", None, COMMAND_LIMIT).await;
            reset.map_err(|_| PowerError::Unresponsive)?;
            return Ok(());
        }
        self.halt().await;
        if action == Action::Stop {
            return Ok(());
        }
        self.launch();
        match (&self.process, &self.last_error) {
            (None, Some(error)) => Err(PowerError::NotStarted(error.clone())),
            _ => Ok(()),
        }
    }

    /// Ends the QEMU, if there is one, in bounded time.
    async fn halt(&mut self) {
        self.shared.disconnect();
        let Some(mut process) = self.process.take() else {
            return;
        };
        let quit = async {
            if let Some(monitor) = &process.monitor {
                // QEMU may end before it answers; only its exit counts.
                let _ = monitor.execute("quit", None, QUIT_LIMIT).await;
                let _ = process.child.wait().await;
                return true;
            }
            false
        };
        if !timeout(QUIT_LIMIT, quit).await.unwrap_or(false) {
            let _ = process.child.start_kill();
            if timeout(KILL_LIMIT, process.child.wait()).await.is_err() {
                tracing::error!(vm = self.spec.name, "a killed QEMU does not end");
            }
        }
    }

    /// Shows the status to the handles, if it has changed.
    fn publish(&self) {
        let status = VmStatus {
            state: self.life.state(),
            pid: self.process.as_ref().and_then(|process| process.child.id()),
            restarts: self.life.restarts(),
            last_error: self.last_error.clone(),
            commanded: self.shared.monitor().is_some(),
            bad_state: self.bad_state.clone(),
        };
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }
}

/// Never resolves without a deadline.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

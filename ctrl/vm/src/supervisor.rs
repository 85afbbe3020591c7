//! One task per VM: starts its QEMU, watches it, starts it again, obeys `power`.
//!
//! What to do is decided by `lifecycle.rs`; here it is done.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use model::power::PowerAction;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::agent::Agent;
use super::bmc_line::BmcLine;
use super::console::Console;
use super::launch::{Launcher, Saved};
use super::lifecycle::{Action, Exit, Lifecycle, PowerError, VmState};
use super::plug::{self, CannotPlug, PlugError, SharedShape};
use super::process::{Happened, Process, next};
use super::qemu;
use super::qmp::{Qmp, QmpError};
use super::spec::VmSpec;
use super::template;

/// Time for QEMU to quit when asked, before it is killed.
const QUIT_LIMIT: Duration = Duration::from_millis(700);
/// Time for the kernel to take a killed QEMU away.
const KILL_LIMIT: Duration = Duration::from_millis(1500);
/// Time for a monitor command: QEMU's main loop is busy at most this long.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);
/// Time for the agent's first answer, and the pause after a failed try.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(500));
/// signal(7).
const SIGKILL: i32 = 9;
/// Time to read a dead QEMU's last events.
const LAST_EVENTS: Duration = Duration::from_millis(200);
/// Characters of the console shown for a guest that does not come up.
const CONSOLE_TAIL: usize = 500;
/// `power` commands that may wait.
const REQUESTS: usize = 16;

/// What is known of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VmStatus {
    /// What it is doing.
    pub state: VmState,
    /// QEMU's pid, if there is one.
    pub pid: Option<u32>,
    /// How often its QEMU has been started again after a death.
    pub restarts: u32,
    /// Why it last died, failed or could not be started; with QEMU's last words.
    pub last_error: Option<String>,
    /// QEMU takes commands: links can be set, and displays handed to it.
    pub commanded: bool,
    /// The saved state that it was to start from is of no use, so that it boots plainly: told by
    /// the first of those that start from the same.
    pub bad_state: Option<String>,
}

/// A supervised VM; cheap to clone. The QEMU lives until [`Vm::stop`], or until the runtime ends.
#[derive(Debug, Clone)]
pub struct Vm {
    name: Arc<str>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<VmStatus>,
    monitor: Monitor,
    shape: SharedShape,
    agent: Arc<Agent>,
    console: Console,
    bmc: BmcLine,
}

/// The present QEMU's monitor, for callers from outside.
type Monitor = Arc<Mutex<Option<Arc<Qmp>>>>;

#[derive(Debug)]
enum Request {
    Power(PowerAction, oneshot::Sender<Result<(), PowerError>>),
    Respec(Box<VmSpec>, oneshot::Sender<()>),
    Plug(Box<VmSpec>, oneshot::Sender<Result<(), PlugError>>),
    Stop(oneshot::Sender<()>),
}

impl Vm {
    /// Starts to supervise a VM; its QEMU starts at the next turn of the runtime.
    ///
    /// Call it on a current-thread runtime on the process's main thread (see `launch.rs`).
    pub fn start(spec: VmSpec, launcher: Launcher) -> Self {
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let life = Lifecycle::new(Instant::now());
        let first = VmStatus {
            state: life.state(),
            pid: None,
            restarts: 0,
            last_error: None,
            commanded: false,
            bad_state: None,
        };
        let (status, watcher) = watch::channel(first);
        let vm = Self {
            name: spec.name.as_str().into(),
            requests,
            status: watcher,
            monitor: Monitor::default(),
            shape: SharedShape::default(),
            agent: Arc::new(Agent::new(spec.agent_socket())),
            console: Console::default(),
            bmc: BmcLine::default(),
        };
        let supervisor = Supervisor {
            spec,
            launcher,
            life,
            process: None,
            last_error: None,
            bad_state: None,
            status,
            monitor: Arc::clone(&vm.monitor),
            shape: Arc::clone(&vm.shape),
            agent: Arc::clone(&vm.agent),
            console: vm.console.clone(),
            bmc: vm.bmc.clone(),
        };
        tokio::spawn(supervisor.run(incoming));
        vm
    }

    /// Node name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known now.
    pub fn status(&self) -> VmStatus {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<VmStatus> {
        self.status.clone()
    }

    /// The guest agent's client.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The line to its BMC, if [`VmSpec::bmc`] says that it has one.
    pub fn bmc_line(&self) -> &BmcLine {
        &self.bmc
    }

    /// Switches the VM. Returns once it is done: off means that QEMU is gone, on that it has been
    /// spawned.
    ///
    /// # Errors
    /// See [`PowerError`].
    pub async fn power(&self, power: PowerAction) -> Result<(), PowerError> {
        let (sender, answer) = oneshot::channel();
        let request = Request::Power(power, sender);
        self.requests
            .send(request)
            .await
            .map_err(|_| PowerError::Stopped)?;
        answer.await.unwrap_or(Err(PowerError::Stopped))
    }

    /// Gives the VM another make-up, from its next QEMU on: after a death, by `power`, and when
    /// the guest resets itself, which its present QEMU would do with the old disk. What runs
    /// goes on unchanged until then; [`PowerAction::Cycle`] brings the change about.
    ///
    /// # Errors
    /// [`PowerError::Stopped`].
    ///
    /// # Panics
    /// If name or run folder are others: these are the VM's identity.
    pub async fn respec(&self, spec: VmSpec) -> Result<(), PowerError> {
        assert_eq!(spec.name, *self.name, "a VM keeps its name");
        assert_eq!(spec.agent_socket(), self.agent.socket(), "and its folder");
        let (sender, answer) = oneshot::channel();
        let request = Request::Respec(Box::new(spec), sender);
        self.requests
            .send(request)
            .await
            .map_err(|_| PowerError::Stopped)?;
        answer.await.map_err(|_| PowerError::Stopped)
    }

    /// Whether [`Vm::plug`] would be tried.
    ///
    /// # Errors
    /// Why not; [`Vm::respec`] and [`PowerAction::Cycle`] then bring the change about.
    pub fn can_plug(&self, spec: &VmSpec) -> Result<(), CannotPlug> {
        if self.status().state != VmState::Running {
            return Err(CannotPlug::NotRunning);
        }
        match &*plug::lock(&self.shape) {
            Some(shape) => plug::plan(shape, spec).map(drop),
            None => Err(CannotPlug::NotRunning),
        }
    }

    /// Gives the VM another make-up, as [`Vm::respec`] does, and the running QEMU the NICs of it.
    /// The sockets and taps of those that come must be there. The guest must have stopped using
    /// those that go, and still has to set up those that come.
    ///
    /// # Errors
    /// See [`PlugError`]; the VM then keeps its make-up, but may have some of the NICs.
    pub async fn plug(&self, spec: VmSpec) -> Result<(), PlugError> {
        let (sender, answer) = oneshot::channel();
        let request = Request::Plug(Box::new(spec), sender);
        let sent = self.requests.send(request).await;
        sent.map_err(|_| PlugError::Stopped)?;
        answer.await.unwrap_or(Err(PlugError::Stopped))
    }

    /// Sets the carrier of NIC `index` (0-based, order of [`VmSpec::nics`]) as the guest sees
    /// it. It does not outlive the QEMU.
    ///
    /// # Errors
    /// See [`QmpError`]; `Closed` while there is no QEMU.
    pub async fn set_link(&self, index: usize, up: bool) -> Result<(), QmpError> {
        let monitor = lock(&self.monitor).clone();
        let monitor = monitor.ok_or(QmpError::Closed)?;
        monitor
            .set_link(&qemu::nic_id(index), up, COMMAND_LIMIT)
            .await
    }

    /// Hands the QEMU a VNC client's connection, which has to know `password`, if there is one.
    /// [`VmSpec::display`] must allow for it.
    ///
    /// # Errors
    /// See [`QmpError`]; `Closed` while there is no QEMU.
    pub async fn add_display(
        &self,
        client: OwnedFd,
        password: Option<&str>,
    ) -> Result<(), QmpError> {
        let monitor = lock(&self.monitor).clone();
        let monitor = monitor.ok_or(QmpError::Closed)?;
        monitor
            .add_vnc_client(client.as_fd(), password, COMMAND_LIMIT)
            .await
    }

    /// Ends the QEMU (quit, then SIGKILL: 2.2 s at worst) and the supervision. Stop all VMs at
    /// once with `join_all`, so that a fabric takes no longer than its slowest VM.
    pub async fn stop(&self) {
        let (sender, done) = oneshot::channel();
        if self.requests.send(Request::Stop(sender)).await.is_ok() {
            let _ = done.await;
        }
    }
}

fn lock(monitor: &Monitor) -> std::sync::MutexGuard<'_, Option<Arc<Qmp>>> {
    monitor.lock().expect("no holder of this lock can panic")
}

struct Supervisor {
    spec: VmSpec,
    launcher: Launcher,
    life: Lifecycle,
    process: Option<Process>,
    last_error: Option<String>,
    bad_state: Option<String>,
    status: watch::Sender<VmStatus>,
    monitor: Monitor,
    shape: SharedShape,
    agent: Arc<Agent>,
    console: Console,
    bmc: BmcLine,
}

impl Supervisor {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        loop {
            if self.life.due(Instant::now()).is_some() {
                self.launch();
            }
            self.publish();
            let deadline = self.life.deadline();
            let probing = self.life.state() == VmState::Booting
                && self.process.as_ref().is_some_and(Process::may_answer);
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
                    // Every handle is gone: nobody could ever stop it.
                    None => return self.halt().await,
                },
                happened = next(&mut self.process) => self.happened(happened).await,
                () = answers(&self.agent), if probing => self.life.ready(),
                () = until(deadline), if deadline.is_some() => {}
            }
        }
    }

    fn respec(&mut self, spec: VmSpec) {
        self.spec = spec;
        if let Some(process) = &mut self.process {
            process.outdated = true;
        }
    }

    async fn plug(&mut self, spec: VmSpec) -> Result<(), PlugError> {
        let process = self.process.as_ref().ok_or(CannotPlug::NotRunning)?;
        let monitor = process.monitor.as_ref().ok_or(CannotPlug::NotRunning)?;
        if self.life.state() != VmState::Running {
            return Err(CannotPlug::NotRunning.into());
        }
        let (seen, open_tap) = (process.seen.clone(), self.launcher.open_tap());
        plug::carry_out(&self.shape, &spec, monitor, seen, open_tap).await?;
        self.respec(spec);
        Ok(())
    }

    /// Starts a QEMU, from a saved state if there is one.
    fn launch(&mut self) {
        let saved = self.launcher.saved(&self.spec);
        self.launch_from(saved);
    }

    fn launch_from(&mut self, saved: Option<Saved>) {
        debug_assert!(self.process.is_none(), "one QEMU at most");
        let key = saved.as_ref().map(|saved| saved.key.clone());
        match self.launcher.launch(&self.spec, saved) {
            Ok(launched) => {
                self.agent.forget();
                *plug::lock(&self.shape) = Some(launched.shape.clone());
                self.process = Some(Process::new(launched, &self.console, &self.bmc, key));
            }
            Err(error) => {
                self.last_error = Some(error.to_string());
                self.life.exited(Exit::Refused, Instant::now());
            }
        }
    }

    async fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Exited(status) => self.exited(status).await,
            Happened::Greeted(Ok(monitor)) => {
                let monitor = Arc::new(monitor);
                *lock(&self.monitor) = Some(Arc::clone(&monitor));
                self.life.greeted();
                if let Some(process) = &mut self.process {
                    process.monitor = Some(monitor);
                    if let Some(restored) = &mut process.restored {
                        let waking = template::wake(Arc::clone(&self.agent));
                        restored.waking = Some(tokio::spawn(waking));
                    }
                }
            }
            // A QEMU that ends before it greets says why on stderr: wait for its exit. One that
            // lives and does not greet is of no use.
            Happened::Greeted(Err(error)) => {
                let Some(process) = &mut self.process else {
                    return;
                };
                if timeout(QUIT_LIMIT, process.child.wait()).await.is_ok() {
                    return;
                }
                if process.restored.is_some() {
                    return self.boot_instead(&error.to_string()).await;
                }
                self.last_error = Some(error.to_string());
                let _ = process.child.start_kill();
            }
            Happened::Woken(Ok(())) => {
                if let Some(process) = &mut self.process {
                    process.restored = None;
                }
                self.life.ready();
            }
            Happened::Woken(Err(reason)) => self.boot_instead(&reason).await,
            Happened::Reported => {
                let Some(process) = &mut self.process else {
                    return;
                };
                let resets = process.seen.borrow_and_update().resets;
                // Two at once are one to the state machine: a slow observer is no boot loop.
                if std::mem::replace(&mut process.resets, resets) == resets {
                    return;
                }
                // Whatever it was restored from, it boots now.
                process.restored = None;
                if process.outdated {
                    // The guest would boot from a disk that is not its own any more.
                    if let Err(error) = self.power(PowerAction::Cycle).await {
                        tracing::warn!(vm = self.spec.name, %error, "it could not be replaced");
                    }
                } else if self.life.was_reset() {
                    self.halt().await;
                    let tail = self.console.tail_escaped(CONSOLE_TAIL);
                    let error = format!(
                        "the guest resets itself before it is up; its console says:\n{tail}"
                    );
                    self.died(Exit::Died, error);
                }
            }
        }
    }

    async fn exited(&mut self, status: io::Result<ExitStatus>) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.forget();
        if let Some(monitor) = &process.monitor {
            let _ = timeout(LAST_EVENTS, monitor.closed()).await;
        }
        let status = match status {
            Ok(status) => status,
            Err(error) => return self.died(Exit::Died, format!("QEMU is lost: {error}")),
        };
        // Who kills it does not mean its state.
        if process.restored.is_some() && status.signal() != Some(SIGKILL) {
            let words = process.stderr.last_words().await;
            self.process = Some(process);
            return self
                .boot_instead(&format!("QEMU ended with {status}: {words}"))
                .await;
        }
        if status.success() && process.seen.borrow().guest_shutdown {
            self.life.exited(Exit::PoweredOff, Instant::now());
            return;
        }
        let greeted = process.monitor.is_some();
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

    /// The state that the present QEMU was started from does not make a switch: it is dropped, and
    /// the VM boots. That is no death.
    async fn boot_instead(&mut self, reason: &str) {
        let restored = (self.process.as_mut()).and_then(|process| process.restored.take());
        self.halt().await;
        tracing::warn!(vm = self.spec.name, reason, "its saved state is of no use");
        if restored.is_some_and(|restored| self.launcher.drop_state(&restored.key)) {
            self.bad_state = Some(reason.to_owned());
        }
        self.launch_from(None);
    }

    fn died(&mut self, exit: Exit, error: String) {
        self.life.exited(exit, Instant::now());
        tracing::warn!(vm = self.spec.name, state = ?self.life.state(), error);
        self.last_error = Some(error);
    }

    async fn power(&mut self, power: PowerAction) -> Result<(), PowerError> {
        let outdated = (self.process.as_ref()).is_some_and(|process| process.outdated);
        let power = match power {
            PowerAction::Reset if outdated => PowerAction::Cycle,
            power => power,
        };
        let Some(action) = self.life.power(power, Instant::now())? else {
            return Ok(());
        };
        if action == Action::Reset {
            let monitor = lock(&self.monitor)
                .clone()
                .ok_or(PowerError::Unresponsive)?;
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

    /// Nobody can ask the QEMU any more.
    fn forget(&self) {
        *lock(&self.monitor) = None;
        *plug::lock(&self.shape) = None;
    }

    /// Ends the QEMU, if there is one, in bounded time.
    async fn halt(&mut self) {
        self.forget();
        let Some(mut process) = self.process.take() else {
            return;
        };
        let quit = async {
            if let Some(monitor) = &process.monitor {
                // QEMU may end before the answer is out; its exit is what counts.
                let _ = monitor.execute("quit", None, QUIT_LIMIT).await;
                let _ = process.child.wait().await;
                return true;
            }
            false
        };
        if !timeout(QUIT_LIMIT, quit).await.unwrap_or(false) {
            let _ = process.child.start_kill();
            if timeout(KILL_LIMIT, process.child.wait()).await.is_err() {
                tracing::error!(vm = self.spec.name, "a killed QEMU does not go away");
            }
        }
    }

    fn publish(&self) {
        let status = VmStatus {
            state: self.life.state(),
            pid: self.process.as_ref().and_then(|process| process.child.id()),
            restarts: self.life.restarts(),
            last_error: self.last_error.clone(),
            commanded: lock(&self.monitor).is_some(),
            bad_state: self.bad_state.clone(),
        };
        self.status.send_if_modified(|known| {
            let changed = *known != status;
            *known = status;
            changed
        });
    }
}

/// Resolves once the guest agent has answered.
async fn answers(agent: &Agent) {
    while agent.ping(PING.0).await.is_err() {
        sleep(PING.1).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

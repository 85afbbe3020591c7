//! A VM as the rest of the program sees it: it asks the VM's supervisor, or QEMU's monitor.

use model::power::PowerAction;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot, watch};

use crate::agent::Agent;
use crate::bmc_line::BmcLine;
use crate::console::Console;
use crate::launch::Launcher;
use crate::lifecycle::{PowerError, VmState};
use crate::live;
use crate::plug::{self, CannotPlug, PlugError};
use crate::qemu;
use crate::qmp::{Qmp, QmpError};
use crate::spec::VmSpec;
use crate::supervisor::{COMMAND_LIMIT, Request, Shared, Supervisor, VmStatus};

/// How many requests may wait for the supervisor.
const REQUESTS: usize = 16;

/// A supervised VM; cheap to clone. Its QEMU runs until [`Vm::stop`], or until the runtime ends.
#[derive(Debug, Clone)]
pub struct Vm {
    name: Arc<str>,
    abandoned: Arc<AtomicBool>,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<VmStatus>,
    shared: Shared,
}

impl Vm {
    /// Starts to supervise a VM. Its QEMU starts when the runtime next runs its tasks.
    ///
    /// Call it on a current-thread runtime on the process's main thread (see `launch.rs`).
    pub fn start(spec: VmSpec, launcher: Launcher) -> Self {
        let (requests, incoming) = mpsc::channel(REQUESTS);
        let name = spec.name.as_str().into();
        let shared = Shared::new(&spec);
        let (supervisor, status) = Supervisor::new(spec, launcher, shared.clone());
        let abandoned = Arc::new(AtomicBool::new(false));
        let failed = abandoned.clone();
        let supervising = AssertUnwindSafe(supervisor.run(incoming)).catch_unwind();
        tokio::spawn(async move {
            // The status ends afterwards, with the supervisor that was moved in here.
            if supervising.await.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        });
        Self {
            name,
            abandoned,
            requests,
            status,
            shared,
        }
    }

    /// The node's name, as `leaf1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a fault of this program ended the supervision: nobody follows or restarts its QEMU.
    pub fn was_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// The present status.
    pub fn status(&self) -> VmStatus {
        self.status.borrow().clone()
    }

    /// The present state.
    pub fn state(&self) -> VmState {
        self.status.borrow().state
    }

    /// Follows the status.
    pub fn watch(&self) -> watch::Receiver<VmStatus> {
        self.status.clone()
    }

    /// The guest agent's client.
    pub fn agent(&self) -> &Arc<Agent> {
        &self.shared.agent
    }

    /// The serial console.
    pub fn console(&self) -> &Console {
        &self.shared.console
    }

    /// The line to its BMC. It leads to a QEMU only if [`VmSpec::bmc`] is set.
    pub(crate) fn bmc_line(&self) -> &BmcLine {
        &self.shared.bmc
    }

    /// Switches the VM. Returns once that is done: for `off` when QEMU has ended, for `on` when QEMU
    /// has been spawned.
    ///
    /// # Errors
    /// See [`PowerError`].
    pub async fn power(&self, power: PowerAction) -> Result<(), PowerError> {
        let answer = self.ask(|answer| Request::Power(power, answer)).await;
        answer.unwrap_or(Err(PowerError::Stopped))
    }

    /// Gives the VM another specification, which counts from its next QEMU on: after a death, a `power`
    /// command, or a reset by the guest, for which the present QEMU would use the old disk. Until then
    /// the VM runs on unchanged; [`PowerAction::Cycle`] brings the change about.
    ///
    /// # Errors
    /// [`PowerError::Stopped`].
    ///
    /// # Panics
    /// If the name or the run folder differ: they are the VM's identity.
    pub async fn respec(&self, spec: VmSpec) -> Result<(), PowerError> {
        assert_eq!(spec.name, *self.name, "a VM keeps its name");
        let socket = self.shared.agent.socket();
        assert_eq!(spec.agent_socket(), socket, "a VM keeps its folder");
        let done = self.ask(|done| Request::Respec(Box::new(spec), done)).await;
        done.ok_or(PowerError::Stopped)
    }

    /// Whether [`Vm::plug`] would be tried.
    ///
    /// # Errors
    /// Why not; [`Vm::respec`] and [`PowerAction::Cycle`] then bring the change about.
    pub fn can_plug(&self, spec: &VmSpec) -> Result<(), CannotPlug> {
        if self.status().state != VmState::Running {
            return Err(CannotPlug::NotRunning);
        }
        match &*live::lock(&self.shared.live) {
            Some(live) => plug::plan(live, spec).map(drop),
            None => Err(CannotPlug::NotRunning),
        }
    }

    /// Gives the VM another specification, as [`Vm::respec`] does, and the running QEMU its NICs. The
    /// sockets and taps of added NICs must exist. The guest must no longer use the NICs that are
    /// removed, and has yet to set up those that are added.
    ///
    /// # Errors
    /// See [`PlugError`]. The VM then keeps its specification, but some NICs may have been exchanged.
    pub async fn plug(&self, spec: VmSpec) -> Result<(), PlugError> {
        let spec = Box::new(spec);
        let answer = self.ask(|answer| Request::Plug(spec, answer)).await;
        answer.unwrap_or(Err(PlugError::Stopped))
    }

    /// Sets the carrier of NIC `index` (0-based, order of [`VmSpec::nics`]) as the guest sees it. The
    /// setting ends with the QEMU.
    ///
    /// # Errors
    /// See [`QmpError`]; `Closed` while there is no QEMU.
    pub async fn set_link(&self, index: usize, up: bool) -> Result<(), QmpError> {
        let id = qemu::nic_id(index);
        self.monitor()?.set_link(&id, up, COMMAND_LIMIT).await
    }

    /// Hands the connection of a VNC client to QEMU. If there is a `password`, the client must know
    /// it. [`VmSpec::display`] must allow for a display.
    ///
    /// # Errors
    /// See [`QmpError`]; `Closed` while there is no QEMU.
    pub async fn add_display(
        &self,
        client: OwnedFd,
        password: Option<&str>,
    ) -> Result<(), QmpError> {
        let monitor = self.monitor()?;
        let added = monitor.add_vnc_client(client.as_fd(), password, COMMAND_LIMIT);
        added.await
    }

    /// Ends the QEMU (by `quit`, then by SIGKILL: 2.2 s at worst) and the supervision. Stop all VMs
    /// at once with `join_all`, so that a fabric takes no longer than its slowest VM.
    pub async fn stop(&self) {
        // If there is no answer the supervisor has ended, and its QEMU with it.
        let _: Option<()> = self.ask(Request::Stop).await;
    }

    fn monitor(&self) -> Result<Arc<Qmp>, QmpError> {
        self.shared.monitor().ok_or(QmpError::Closed)
    }

    /// Sends a request to the supervisor and waits for the answer. `None` if the supervisor has ended.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.ok()?;
        answer.await.ok()
    }
}

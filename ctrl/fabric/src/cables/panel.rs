//! The threads that carry the cables: [`PatchPanel`] owns them.

use std::sync::Arc;
use std::time::Duration;

use dataplane::rights::{CapabilitySet, keep, leave_root};
use dataplane::vhost_sockets::VhostUserSockets;
use dataplane::{HoldMemory, Panel, PanelError, PanelOptions, Reply, clock};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::error::CablesError;
use super::supervision::WorkerTroubles;
use crate::off_thread::off_thread;

/// A thread of the dataplane answers within microseconds, or within milliseconds if it has to wait
/// for its CPU. One that has not answered after this time is stuck.
const LIMIT: Duration = Duration::from_secs(2);

/// What the threads of a panel may do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ThreadRights {
    /// Nothing that this user may not, whom nobody else is.
    User(u32),
    /// What this process's user may do, with these rights of root.
    Keep(CapabilitySet),
}

/// The workers and the thread that serves the vhost-user sockets.
///
/// This is a handle: clones refer to the same threads, which end at [`PatchPanel::stop`] or with
/// the last clone.
#[derive(Clone)]
pub(crate) struct PatchPanel {
    pub(super) panel: Panel,
    pub(super) sockets: VhostUserSockets,
    pub(super) troubles: WorkerTroubles,
    workers: usize,
    wall_offset: u64,
    /// Held from the check of a change until its result is recorded, so that no two changes mix.
    changing: Arc<Mutex<()>>,
}

impl PatchPanel {
    /// Starts the threads with `rights`. `notifier` is called when an event is available from [`Cables::event`](super::Cables::event).
    ///
    /// # Errors
    /// When a thread cannot be started; those already started are ended.
    pub(crate) fn start(
        options: &PanelOptions,
        rights: ThreadRights,
        notifier: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        // A thread inherits the rights of the thread that starts it. So a helper thread gives them
        // up and then starts the others.
        let start = || {
            match rights {
                ThreadRights::User(uid) => leave_root(uid),
                ThreadRights::Keep(rights) => keep(rights),
            }
            .map_err(CablesError::Rights)?;
            let panel = Panel::start(options, notifier.clone())?;
            let sockets = VhostUserSockets::start(panel.clone(), notifier)
                .map_err(CablesError::VhostUserSockets)?;
            Ok::<_, CablesError>((panel, sockets))
        };
        let started = std::thread::scope(|scope| scope.spawn(start).join());
        let (panel, sockets) = started.expect("nothing in there panics")?;
        Ok(PatchPanel {
            workers: panel.workers(),
            panel,
            sockets,
            troubles: WorkerTroubles::default(),
            wall_offset: clock::wall_offset(),
            changing: Arc::default(),
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// How long each worker has moved frames since it started.
    pub(crate) fn busy(&self) -> Vec<Duration> {
        self.panel.busy()
    }

    /// The budget for frames that the impairments of all lanes hold.
    pub(crate) fn hold_memory(&self) -> &HoldMemory {
        self.panel.hold_memory()
    }

    /// What to add to the dataplane's clock to get ns since 1970. It stays constant while the
    /// fabric runs, even if the host's clock is set, so that the times of all captures agree.
    pub(crate) fn wall_offset(&self) -> u64 {
        self.wall_offset
    }

    /// Waits until no other change is under way, and admits none until the guard is dropped.
    pub(crate) async fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Moves a busy cable to an idle worker if that would help.
    ///
    /// # Errors
    /// When the move that the previous call began has failed.
    pub(crate) fn balance(&self) -> Result<(), PanelError> {
        self.panel.balance().map(drop)
    }

    /// Stops forwarding and closes every port. Calls that wait for an answer return
    /// [`PanelError::Stopped`]. A thread that is still stuck after a second is left behind.
    pub(crate) async fn stop(&self) {
        let PatchPanel { panel, sockets, .. } = self.clone();
        // Joining a thread blocks, and may take a second if that thread is stuck.
        let stop = move || {
            sockets.stop();
            panel.stop();
        };
        if let Err(error) = off_thread("stopping", stop).await {
            tracing::debug!(%error, "the workers end with their last handle");
        }
    }
}

/// Waits for the answer to a command, without blocking the thread.
///
/// # Errors
/// Those of the command; [`PanelError::Silent`] when the worker does not answer in time.
pub(crate) async fn answer<T: Send + 'static>(reply: Reply<T>) -> Result<T, PanelError> {
    answer_within(LIMIT, reply).await
}

/// As [`answer`], with a limit of the caller's choice.
pub(crate) async fn answer_within<T: Send + 'static>(
    limit: Duration,
    mut reply: Reply<T>,
) -> Result<T, PanelError> {
    let limit = if reply.is_from_hanging() {
        Duration::ZERO
    } else {
        limit
    };
    match timeout(limit, &mut reply).await {
        Ok(result) => result,
        // Returns at once. Only the reply can name the thread that does not answer.
        Err(_) => reply.wait_for(Duration::ZERO),
    }
}

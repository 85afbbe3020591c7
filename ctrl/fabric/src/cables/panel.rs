//! The threads that carry the cables: [`PatchPanel`] owns them.

use std::sync::Arc;
use std::time::Duration;

use dataplane::rights::{CapabilitySet, keep};
use dataplane::vhost_sockets::VhostUserSockets;
use dataplane::{Panel, PanelError, PanelOptions, Reply, clock};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::error::CablesError;
use crate::off_thread::off_thread;

/// A thread of the dataplane answers within microseconds, or some milliseconds while it is kept
/// from its CPU. One that has not answered after this is stuck.
const LIMIT: Duration = Duration::from_secs(2);

/// The workers and the thread of the vhost-user sockets.
///
/// A handle: clones are the same threads, which end with [`PatchPanel::stop`] or the last clone.
#[derive(Clone)]
pub(crate) struct PatchPanel {
    pub(super) panel: Panel,
    pub(super) sockets: VhostUserSockets,
    workers: usize,
    wall_offset: u64,
    /// Held from the check of a change until it is recorded what it made of the cables.
    changing: Arc<Mutex<()>>,
}

impl PatchPanel {
    /// Starts the threads. They keep no rights of root but `rights`. `notifier` is called when an
    /// event has become available from [`Cables::event`](super::Cables::event).
    ///
    /// # Errors
    /// When a thread cannot be started; none is left then.
    pub(crate) fn start(
        options: &PanelOptions,
        rights: CapabilitySet,
        notifier: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        // A thread has the rights of the thread that starts it: so one that has given them up does.
        let start = || {
            keep(rights).map_err(CablesError::Rights)?;
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
            wall_offset: clock::wall_offset(),
            changing: Arc::default(),
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// What to add to the dataplane's clock for the time since 1970, in ns. It stays the same
    /// while the fabric runs, even if the host's clock is set: all captures agree.
    pub(crate) fn wall_offset(&self) -> u64 {
        self.wall_offset
    }

    /// Keeps others from changing cables until the guard is dropped.
    pub(crate) async fn lock_changes(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Gives a busy cable to an idle worker, if that helps.
    ///
    /// # Errors
    /// When the move that the last call began has failed.
    pub(crate) fn balance(&self) -> Result<(), PanelError> {
        self.panel.balance().map(drop)
    }

    /// Stops forwarding and closes every port. Whoever waits for an answer gets
    /// [`PanelError::Stopped`]. A thread that is stuck is left behind after a second.
    pub(crate) async fn stop(&self) {
        let PatchPanel { panel, sockets, .. } = self.clone();
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

/// As [`answer`], with another limit.
pub(crate) async fn answer_within<T: Send + 'static>(
    limit: Duration,
    mut reply: Reply<T>,
) -> Result<T, PanelError> {
    match timeout(limit, &mut reply).await {
        Ok(result) => result,
        // Does not wait, but knows which thread it is that does not answer.
        Err(_) => reply.wait_for(Duration::ZERO),
    }
}

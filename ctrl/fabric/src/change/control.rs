//! Admits one change at a time, and none once the fabric is ending: [`ChangeControl`].

use std::sync::Mutex;

use tokio::sync::{MutexGuard, mpsc, watch};

use crate::host::Ending;
use crate::links::WatchedChange;
use api::{ApiError, ApplyRequest};
use model::difference::FabricPlan;
use model::topology::{self, Choice};

/// Admits changes to a fabric.
pub(crate) struct ChangeControl {
    choice: Choice,
    /// Receives the devices that a change adds or removes.
    pub(super) watched: mpsc::UnboundedSender<WatchedChange>,
    /// Number of changes so far. The change that is under way holds the lock.
    under_way: tokio::sync::Mutex<u32>,
    doing: Mutex<Option<String>>,
    ending: watch::Sender<bool>,
}

impl ChangeControl {
    pub(crate) fn new(choice: Choice, watched: mpsc::UnboundedSender<WatchedChange>) -> Self {
        ChangeControl {
            choice,
            watched,
            under_way: tokio::sync::Mutex::new(0),
            doing: Mutex::default(),
            ending: watch::Sender::new(false),
        }
    }

    /// What the change that is under way is doing, as shown by `status`.
    pub(crate) fn doing(&self) -> Option<String> {
        let doing = self.doing.lock();
        doing.expect("no holder of this lock can panic").clone()
    }

    pub(super) fn set_doing(&self, what: Option<String>) {
        let doing = self.doing.lock();
        *doing.expect("no holder of this lock can panic") = what;
    }

    /// Admits a change. The guard holds the number of earlier changes.
    ///
    /// # Errors
    /// While another change is under way, or when the fabric is ending.
    pub(super) fn begin(&self) -> Result<MutexGuard<'_, u32>, ApiError> {
        let number = self.under_way.try_lock().map_err(|_| {
            ApiError::conflict(
                "another apply is under way: try again when it has ended (`ikv-fabric status` \
                 shows what it does)",
            )
        })?;
        self.check_ending().map_err(ApiError::conflict)?;
        Ok(number)
    }

    /// Makes the change that is under way stop waiting, and admits no others. Returns once it has
    /// stopped. The journal contains what it has done so far.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        // Waits for the guard of the change that is under way.
        let _ = self.under_way.lock().await;
    }

    /// # Errors
    /// When the fabric is ending.
    pub(super) fn check_ending(&self) -> Result<(), Ending> {
        if *self.ending.borrow() {
            Err(Ending)
        } else {
            Ok(())
        }
    }

    /// Waits until the fabric is ending.
    pub(super) async fn ending(&self) {
        // Fails only after the sender is dropped, and `self` owns it.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Builds the plan that a request asks for.
    ///
    /// # Errors
    /// When the configuration is invalid, or lacks a switch that `--only` named.
    pub(super) fn plan(&self, request: &ApplyRequest) -> Result<FabricPlan, ApiError> {
        let config = request.config.clone();
        let topology = topology::build(&config).map_err(ApiError::conflict)?;
        let switches = self.choice.of(&topology).map_err(|error| {
            ApiError::conflict(format!(
                "this fabric was started with --only, and {error}; restart it with other names"
            ))
        })?;
        Ok(FabricPlan {
            config,
            topology,
            switches,
        })
    }
}

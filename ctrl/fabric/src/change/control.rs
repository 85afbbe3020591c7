//! One change at a time, and none once the fabric ends: [`ChangeControl`].

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
    /// Devices that come and go by a change are reported here.
    pub(super) watched: mpsc::UnboundedSender<WatchedChange>,
    /// Number of changes so far; held by the one that is under way.
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

    /// What the change that is under way does, in words.
    pub(crate) fn doing(&self) -> Option<String> {
        let doing = self.doing.lock();
        doing.expect("no holder of this lock can panic").clone()
    }

    pub(super) fn set_doing(&self, what: Option<String>) {
        let doing = self.doing.lock();
        *doing.expect("no holder of this lock can panic") = what;
    }

    /// Admits a change. The guard holds the number of changes before it.
    ///
    /// # Errors
    /// While another change is under way, and once the fabric is ending.
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

    /// Makes the change that is under way stop waiting, and admits no others. Returns when it has
    /// stopped; what it has done so far is in the journal.
    pub(crate) async fn end(&self) {
        self.ending.send_replace(true);
        let _ = self.under_way.lock().await;
    }

    /// # Errors
    /// Once the fabric is ending.
    pub(super) fn check_ending(&self) -> Result<(), Ending> {
        if *self.ending.borrow() {
            Err(Ending)
        } else {
            Ok(())
        }
    }

    /// Waits until the fabric is ending.
    pub(super) async fn ending(&self) {
        // Fails only when the sender, which is `self`, is gone.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// The plan that a request asks for.
    ///
    /// # Errors
    /// When the configuration makes no fabric.
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

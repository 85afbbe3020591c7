//! Admits one change at a time, and none once the fabric is ending: [`ChangeControl`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{MutexGuard, Semaphore, mpsc, watch};
use tokio::time::timeout;

use crate::host::Ending;
use crate::links::WatchedChange;
use crate::off_thread::off_thread;
use crate::progress::duration;
use crate::state::FabricState;
use api::{ApiError, ApplyRequest};
use model::config::Config;
use model::difference::{Difference, FabricPlan, Refusal, refusals};
use model::topology::{self, Choice};

/// How long a requested fabric may take to be planned.
const LONGEST_PLANNING: Duration = Duration::from_secs(10);

/// Admits changes to a fabric.
pub(crate) struct ChangeControl {
    choice: Choice,
    /// Receives the devices that a change adds or removes.
    pub(super) watched: mpsc::UnboundedSender<WatchedChange>,
    /// Number of changes so far. The change that is under way holds the lock.
    under_way: tokio::sync::Mutex<u32>,
    doing: Mutex<Option<String>>,
    /// One plan is made at a time.
    planning: Arc<Semaphore>,
    ending: watch::Sender<bool>,
}

impl ChangeControl {
    pub(crate) fn new(choice: Choice, watched: mpsc::UnboundedSender<WatchedChange>) -> Self {
        ChangeControl {
            choice,
            watched,
            under_way: tokio::sync::Mutex::new(0),
            doing: Mutex::default(),
            planning: Arc::new(Semaphore::new(1)),
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

    /// Compares what a request asks for with the state `before`.
    ///
    /// # Errors
    /// When the configuration is invalid, lacks a switch that `--only` named, or takes too long.
    pub(super) async fn compare(
        &self,
        request: ApplyRequest,
        before: Arc<FabricState>,
    ) -> Result<Comparison, ApiError> {
        let choice = self.choice.clone();
        let planning = self.planning.clone().try_acquire_owned().map_err(|_| {
            ApiError::conflict(
                "an earlier apply, which took too long, is still being planned: try again later",
            )
        })?;
        // Off the thread: the largest fabrics take seconds.
        let compare = move || {
            let plan = plan(&choice, &before.plan.config, request)?;
            let compared = Comparison::between(&before.plan, plan);
            // Held until here even if nobody waits any longer, so that requests cannot pile up.
            drop(planning);
            Ok(compared)
        };
        let compared = self.in_time(off_thread("plan", compare)).await?;
        compared.map_err(ApiError::failed)?
    }

    /// Waits for a part of the planning.
    ///
    /// # Errors
    /// When it takes too long, or the fabric is ending.
    pub(super) async fn in_time<T>(
        &self,
        planning: impl Future<Output = T>,
    ) -> Result<T, ApiError> {
        tokio::select! {
            planned = timeout(LONGEST_PLANNING, planning) => planned.map_err(|_| {
                ApiError::conflict(format!(
                    "it takes longer than {} to plan a fabric of this size: ask for fewer racks, \
                     spines or positions",
                    duration(LONGEST_PLANNING)
                ))
            }),
            () = self.ending() => Err(ApiError::conflict(Ending)),
        }
    }
}

/// A plan, set beside that of the running fabric.
pub(super) struct Comparison {
    pub(super) plan: FabricPlan,
    pub(super) difference: Difference,
    /// What of it cannot be changed while the fabric runs.
    pub(super) refused: Vec<Refusal>,
}

impl Comparison {
    pub(super) fn between(before: &FabricPlan, plan: FabricPlan) -> Self {
        Comparison {
            difference: Difference::between(before, &plan),
            refused: refusals(before, &plan),
            plan,
        }
    }
}

/// Builds the plan that a request asks for. Where it says only some keys, the others are as they run.
fn plan(choice: &Choice, running: &Config, request: ApplyRequest) -> Result<FabricPlan, ApiError> {
    let config = match &request.said {
        Some(said) => request.config.over(running, said),
        None => Ok(request.config),
    };
    let config = config.map_err(ApiError::conflict)?;
    let topology = topology::build(&config).map_err(ApiError::conflict)?;
    let switches = choice.of(&topology).map_err(|error| {
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

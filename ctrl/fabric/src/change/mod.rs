//! A running fabric becomes another one: `apply`.
//!
//! [`Difference`] says what is to be done. First everything is prepared that touches nothing
//! ([`Prepared`]); then devices and cables are exchanged in one go, and with them the [`Whole`]
//! (`exchange.rs`); last, switches start, stop and change one after another (`switches.rs`).
//! What fails takes back what was done before it.

mod exchange;
mod switches;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;

use super::Fabric;
use super::cables::CablesError;
use super::links::{SharedHostChanges, Watched};
use super::options::{BringUpError, Options};
use super::owner::Person;
use super::seeds::SeedsError;
use super::whole::Whole;
use crate::progress::duration;
use api::{ApiError, ApplyAnswer, ApplyRequest, Peer};
use host::execute::HostChangeError;
use model::difference::{Difference, Plan, refusals};
use model::topology::{self, Choice};
use switches::SwitchToBe;

/// Questions about sessions that switches may be asked at the same time.
const QUESTIONS: usize = 2;

/// For the routes to follow the sessions.
const ROUTES: Duration = Duration::from_secs(20);

/// Between two looks, should the ring have been missed.
const LOOK: Duration = Duration::from_secs(1);

/// What changing a fabric takes, besides the fabric itself.
pub(super) struct Change {
    applied: SharedHostChanges,
    owner: Person,
    choice: Choice,
    /// Lets so many ask their switches at the same time.
    turn: Semaphore,
    watched: mpsc::UnboundedSender<Watched>,
    /// How many changes there were; held by the one that is under way.
    under_way: tokio::sync::Mutex<u32>,
    doing: Mutex<Option<String>>,
    ending: watch::Sender<bool>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Host(#[from] HostChangeError),
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    #[error(transparent)]
    Cables(#[from] CablesError),
    #[error(transparent)]
    Setting(#[from] ApiError),
    #[error("{0}")]
    Display(String),
    #[error("{switch} has not come back within {}: `ikv-fabric console {switch}` shows why", duration(*.after))]
    NotBack { switch: String, after: Duration },
    #[error("{switch}: {reason}")]
    Switch { switch: String, reason: String },
    #[error("the fabric is being taken down")]
    Ending,
}

impl From<BringUpError> for ChangeError {
    fn from(error: BringUpError) -> Self {
        ChangeError::Display(error.to_string())
    }
}

/// A change with all that can be made ready for it.
struct Prepared {
    plan: Plan,
    difference: Difference,
    /// Those that start or change, in the topology's order.
    switches: Vec<SwitchToBe>,
}

impl Change {
    pub(super) fn new(
        applied: &SharedHostChanges,
        options: &Options,
        owner: &Person,
        watched: mpsc::UnboundedSender<Watched>,
    ) -> Self {
        Change {
            applied: applied.clone(),
            owner: owner.clone(),
            choice: options.choice.clone(),
            turn: Semaphore::new(QUESTIONS),
            watched,
            under_way: tokio::sync::Mutex::new(0),
            doing: Mutex::default(),
            ending: watch::Sender::new(false),
        }
    }

    /// See [`super::Switch::follow`].
    pub(super) fn turn(&self) -> &Semaphore {
        &self.turn
    }

    /// What a change that is under way does.
    pub(super) fn doing(&self) -> Option<String> {
        let doing = self.doing.lock();
        doing.expect("no holder of this lock can panic").clone()
    }

    /// Makes a change that is under way stop waiting, and keeps others from beginning. What it
    /// has done so far is in the journal.
    pub(super) async fn end(&self) {
        self.ending.send_replace(true);
        let _ = self.under_way.lock().await;
    }

    fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }
}

impl Fabric {
    /// Makes this fabric the one that is asked for, or says what that would take.
    ///
    /// # Errors
    /// What is wrong with it, or what failed; the fabric is as it was then.
    pub(super) async fn change_to(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> Result<ApplyAnswer, ApiError> {
        let Ok(mut number) = self.change.under_way.try_lock() else {
            return Err(ApiError::conflict(
                "another apply is under way: try again when it has ended (`ikv-fabric status` \
                 shows what it does)",
            ));
        };
        if self.change.is_ending() {
            return Err(ApiError::conflict(ChangeError::Ending));
        }
        let whole = self.whole();
        let plan = self.change.plan(&request)?;
        let refused = refusals(&whole.plan(), &plan);
        *number += 1;
        let prepared = self
            .prepare(&whole, plan, *number)
            .map_err(ApiError::conflict)?;
        let mut answer = ApplyAnswer {
            difference: prepared.difference.clone(),
            refused,
            ..ApplyAnswer::default()
        };
        if request.dry_run || !answer.refused.is_empty() {
            return Ok(answer);
        }
        may(peer, &prepared.difference)?;
        let began = Instant::now();
        let done = self.carry_out(&whole, prepared).await;
        self.doing(None);
        match done {
            Ok(notes) => answer.notes = notes,
            Err(error) => return Err(self.failed(&error)),
        }
        answer.applied = true;
        if !answer.difference.is_empty() {
            self.tell_of(&answer.difference, began.elapsed());
        }
        Ok(answer)
    }

    /// Does it all. When a switch fails, what was done before is taken back.
    async fn carry_out(
        self: &Arc<Self>,
        before: &Arc<Whole>,
        prepared: Prepared,
    ) -> Result<Vec<String>, ChangeError> {
        let was_ready = self.is_ready();
        self.doing(Some("exchanges cables".into()));
        let (after, mut notes) = self.exchange(before, &prepared)?;
        notes.extend(self.tell_ends(&after, &prepared).await);
        let mut touched = BTreeSet::new();
        let changed = self.change_switches(before, &after, &prepared, &mut touched);
        match changed.await {
            Ok(told) => {
                notes.extend(told);
                if was_ready {
                    self.wait_until_ready().await;
                }
                Ok(notes)
            }
            Err(ChangeError::Ending) => Err(ChangeError::Ending),
            Err(error) => {
                self.doing(Some(format!("takes back what was done: {error}")));
                match self.go_back(before, &touched).await {
                    Ok(()) => Err(error),
                    Err(second) => Err(ChangeError::Switch {
                        switch: error.to_string(),
                        reason: format!("and it could not be taken back: {second}"),
                    }),
                }
            }
        }
    }

    /// Routes lag behind sessions. A loopback that does not answer is no failure of the change.
    async fn wait_until_ready(&self) {
        self.doing(Some("waits until every loopback answers".into()));
        let mut ending = self.change.ending.subscribe();
        let ready = async {
            while !(self.is_ready() && self.whole().switches.values().all(|it| it.is_well())) {
                let _ = timeout(LOOK, self.news()).await;
            }
        };
        tokio::select! {
            _ = timeout(ROUTES, ready) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    }

    /// Makes what was before of what is now; of the switches that go on only some were `touched`.
    async fn go_back(
        self: &Arc<Self>,
        before: &Arc<Whole>,
        touched: &BTreeSet<String>,
    ) -> Result<(), ChangeError> {
        let now = self.whole();
        let mut back = self.prepare(&now, before.plan(), 0)?;
        back.switches
            .retain(|switch| switch.starts() || touched.contains(&switch.name));
        let (again, _) = self.exchange(&now, &back)?;
        self.tell_ends(&again, &back).await;
        let mut touched = BTreeSet::new();
        let changed = self.change_switches(&now, &again, &back, &mut touched);
        changed.await.map(drop)
    }

    fn doing(&self, what: Option<String>) {
        let doing = self.change.doing.lock();
        *doing.expect("no holder of this lock can panic") = what;
        self.news.notify_waiters();
    }

    fn failed(&self, error: &ChangeError) -> ApiError {
        self.notice(format!("nothing was applied: {error}"));
        ApiError::failed(format!("nothing was applied: {error}"))
    }

    fn tell_of(&self, difference: &Difference, took: Duration) {
        let text = difference.to_string();
        let lines: Vec<_> = text.lines().map(|line| format!("\n      {line}")).collect();
        self.notice(format!(
            "another configuration was applied within {}:{}",
            duration(took),
            lines.concat()
        ));
    }
}

impl Change {
    /// What is asked for, as far as it makes a fabric at all.
    fn plan(&self, request: &ApplyRequest) -> Result<Plan, ApiError> {
        let config = request.config.clone();
        let topology = topology::build(&config).map_err(ApiError::conflict)?;
        let switches = self.choice.of(&topology).map_err(|error| {
            ApiError::conflict(format!(
                "this fabric was started with --only, and {error}; restart it with other names"
            ))
        })?;
        Ok(Plan {
            config,
            topology,
            switches,
        })
    }
}

impl Whole {
    /// What it was made from.
    fn plan(&self) -> Plan {
        Plan {
            config: self.config.clone(),
            topology: self.topology.clone(),
            switches: self.selection.clone(),
        }
    }
}

/// The host belongs to root; cables belong to whoever may use the socket.
fn may(peer: Peer, difference: &Difference) -> Result<(), ApiError> {
    match difference.needs_root() {
        Some(why) if peer.uid != Some(0) => Err(ApiError::conflict(format!(
            "this apply needs root, because {why}: use `sudo ikv-fabric apply`"
        ))),
        _ => Ok(()),
    }
}

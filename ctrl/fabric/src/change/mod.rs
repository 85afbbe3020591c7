//! Turns a running fabric into another one: `apply`.
//!
//! [`Difference`] lists what must be done. First, everything is prepared that touches nothing
//! ([`Prepared`]). Then devices and cables are exchanged, and with them the [`FabricState`]
//! (`exchange.rs`). Last, switches start, stop and change, one after another (`switches.rs`). A
//! change that fails undoes what it has done.

pub(crate) mod control;
mod exchange;
mod switches;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::cables::error::CablesError;
use crate::fabric::Fabric;
use crate::files::FileError;
use crate::host::Ending;
use crate::options::BringUpError;
use crate::progress::duration;
use crate::state::FabricState;
use crate::switches::factory::NewKeys;
use crate::switches::seeds::SeedsError;
use crate::upkeep;
use api::{ApiError, ApplyAnswer, ApplyRequest, Peer};
use control::Comparison;
use host::execute::HostChangeError;
use model::difference::{Difference, FabricPlan};
use switches::SwitchToBe;

/// How long to wait for routes once all sessions are established.
const ROUTES: Duration = Duration::from_secs(20);

/// How long a change can go unnoticed if its signal was missed.
const LOOK: Duration = Duration::from_secs(1);

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
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    BringUp(String),
    #[error("{switch} has not come back within {}: `ikv-fabric console {switch}` shows why", duration(*.after))]
    NotBack { switch: String, after: Duration },
    #[error("{switch}: {reason}")]
    Switch { switch: String, reason: String },
    #[error(transparent)]
    Ending(#[from] Ending),
}

impl From<BringUpError> for ChangeError {
    fn from(error: BringUpError) -> Self {
        ChangeError::BringUp(error.to_string())
    }
}

/// A change with everything prepared that needs no change to what runs.
struct Prepared {
    plan: FabricPlan,
    difference: Difference,
    /// The switches that start or change, in the topology's order.
    switches: Vec<SwitchToBe>,
}

impl Fabric {
    /// Turns this fabric into the requested one or, for a dry run, reports what that would take.
    ///
    /// # Errors
    /// When the request is invalid or a step failed. The fabric is then as it was before.
    pub(crate) async fn change_to(
        &self,
        request: ApplyRequest,
        peer: Peer,
    ) -> Result<ApplyAnswer, ApiError> {
        // The guard is held until the answer: the difference must still be that of the running
        // fabric when it is carried out.
        let mut number = self.change.begin()?;
        let before = self.live.state();
        *number += 1;
        let dry_run = request.dry_run;
        let asked = Box::pin(self.change.compare(request, before.clone())).await?;
        let refused = asked.refused.clone();
        let dry = dry_run || !refused.is_empty();
        if !dry {
            // Before anything is written. Only now is it known whether the change touches the host.
            authorize(peer, &asked.difference)?;
        }
        let keys = if dry { NewKeys::Forget } else { NewKeys::Save };
        let prepared = Box::pin(self.prepare(&before, asked, *number, keys));
        let prepared = self.change.in_time(prepared).await?;
        let prepared = prepared.map_err(ApiError::conflict)?;
        let mut answer = ApplyAnswer {
            difference: prepared.difference.clone(),
            refused,
            ..ApplyAnswer::default()
        };
        if dry {
            return Ok(answer);
        }
        let began = Instant::now();
        if peer.uid == Some(0) {
            // Whoever applies wants what was put back once, and is gone again, too.
            upkeep::look(&self.live, true).await;
        }
        let done = self.carry_out(&before, &prepared).await;
        self.doing(None);
        match done {
            Ok(notes) => answer.notes = notes,
            Err(error) => return Err(self.failed(&error)),
        }
        answer.applied = true;
        if !answer.difference.is_empty() {
            self.report(&answer.difference, began.elapsed());
        }
        Ok(answer)
    }

    /// Carries out all steps. When a switch fails, the steps before are undone. Returns notes for
    /// the user.
    async fn carry_out(
        &self,
        before: &FabricState,
        prepared: &Prepared,
    ) -> Result<Vec<String>, ChangeError> {
        let was_ready = self.live.is_ready();
        self.doing(Some("exchanges cables".into()));
        let (after, mut notes) = self.exchange(before, prepared).await?;
        notes.extend(self.report_carriers(&after, prepared).await);
        let mut touched = BTreeSet::new();
        let changed = self.change_switches(before, &after, prepared, &mut touched);
        match changed.await {
            Ok(more) => {
                notes.extend(more);
                if was_ready {
                    self.wait_until_ready().await;
                }
                Ok(notes)
            }
            // Nothing is undone: the end of the fabric removes everything.
            Err(error @ ChangeError::Ending(_)) => Err(error),
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

    /// Waits until every loopback answers. Routes lag behind sessions; if a loopback does not
    /// answer in time, the change has still succeeded.
    async fn wait_until_ready(&self) {
        self.doing(Some("waits until every loopback answers".into()));
        let ready = async {
            while !self.live.is_ready() {
                let _ = timeout(LOOK, self.live.notices.changed()).await;
            }
        };
        tokio::select! {
            _ = timeout(ROUTES, ready) => {}
            () = self.change.ending() => {}
        }
    }

    /// Returns from the present state to the one before. Of the switches that stay, only those in
    /// `touched` change.
    async fn go_back(
        &self,
        before: &FabricState,
        touched: &BTreeSet<String>,
    ) -> Result<(), ChangeError> {
        let now = self.live.state();
        // The way back is an ordinary change, computed from the present state.
        let back = Comparison::between(&now.plan, before.plan.clone());
        let mut back = self.prepare(&now, back, 0, NewKeys::Save).await?;
        back.switches
            .retain(|switch| switch.starts() || touched.contains(&switch.name));
        let (again, _) = self.exchange(&now, &back).await?;
        self.report_carriers(&again, &back).await;
        let mut touched = BTreeSet::new();
        let changed = self.change_switches(&now, &again, &back, &mut touched);
        changed.await.map(drop)
    }

    /// Sets what `status` shows of the change that is under way.
    fn doing(&self, what: Option<String>) {
        self.change.set_doing(what);
        self.live.notices.signal();
    }

    fn failed(&self, error: &ChangeError) -> ApiError {
        let sentence = format!("nothing was applied: {error}");
        self.live.notices.add(sentence.clone());
        ApiError::failed(sentence)
    }

    fn report(&self, difference: &Difference, took: Duration) {
        let text = difference.to_string();
        let lines: Vec<_> = text.lines().map(|line| format!("\n      {line}")).collect();
        self.live.notices.add(format!(
            "another configuration was applied within {}:{}",
            duration(took),
            lines.concat()
        ));
    }
}

impl Prepared {
    /// The switches that start.
    fn starting(&self) -> impl Iterator<Item = &SwitchToBe> {
        self.switches.iter().filter(|switch| switch.starts())
    }
}

/// Requires root for changes to the host. Every user of the socket may change cables.
fn authorize(peer: Peer, difference: &Difference) -> Result<(), ApiError> {
    match difference.needs_root() {
        Some(why) if peer.uid != Some(0) => Err(ApiError::conflict(format!(
            "this apply needs root, because {why}: use `sudo ikv-fabric apply`"
        ))),
        _ => Ok(()),
    }
}

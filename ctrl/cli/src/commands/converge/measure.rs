//! One measurement: observe, cut, observe, mend.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use dataplane::clock;
use tokio::io::AsyncRead;

use super::ping::Pings;
use super::plan::Plan;
use super::report::{Cut, Report};
use super::watcher::{Watcher, watch};
use super::{ConvergeArgs, flow};
use crate::signals::StopSignals;
use api::{CableBatchDone, Client};
use fabric::progress::{Progress, say};
use model::cable_change::{CableBatch, CableChange, CableState};

/// How long before the cut the flow must have been running without an UPDATE.
const QUIET: Duration = Duration::from_secs(1);

/// How long to wait for that [`QUIET`].
const QUIET_LIMIT: Duration = Duration::from_secs(30);

/// How long to look for BGP where no switch of the fabric runs: KEEPALIVEs come every 5 s, and by
/// FRR's default every 60 s, but most labs set less.
const SPEAKS: Duration = Duration::from_secs(12);

/// How long to wait for the sessions after a cable was mended.
const SESSIONS_LIMIT: Duration = Duration::from_secs(180);

/// Cuts the cables of a plan and measures what happens.
pub(super) struct Meter<'a> {
    pub(super) client: &'a Client,
    pub(super) plan: Plan,
    pub(super) args: &'a ConvergeArgs,
    /// Whether switches of the fabric run; otherwise only the user's own machines can speak BGP.
    pub(super) has_switches: bool,
    /// Shows what it waits for.
    pub(super) progress: Progress,
}

impl Meter<'_> {
    /// Measures once. Afterwards it ends the flow and mends the cables, even if the measurement fails
    /// or is interrupted, but not if `--leave` keeps them cut. With `again` it also waits until the
    /// sessions are back, so that the next measurement begins like this one.
    pub(super) async fn measure(&self, again: bool) -> anyhow::Result<Report> {
        let mut signals = StopSignals::new()?;
        let mut cut = self.cables().await?;
        let mut watcher = watch(self.client, self.plan.ends).await?;
        let mut pings = self.pings();
        let mut measured = tokio::select! {
            measured = self.observe_cut(&mut watcher, &mut cut) => measured,
            error = ended(&mut pings) => Err(error),
            () = signals.wait() => Err(anyhow::anyhow!("interrupted; nothing was measured")),
        };
        if !self.args.leave || measured.is_err() {
            // Only messages from after this time show that a session is back.
            let mended = clock::now();
            self.set(&cut, CableState::Up).await?;
            if again && measured.is_ok() {
                tokio::select! {
                    back = wait_until_back(&mut watcher, &cut, mended) => back?,
                    () = signals.wait() => measured = Err(anyhow::anyhow!("interrupted")),
                }
            }
        }
        if let Some(pings) = pings {
            pings.stop().await;
        }
        self.progress.quiet();
        measured
    }

    /// Where no switch runs and no flow is followed, somebody else must speak BGP over the cables:
    /// otherwise there is nothing to measure.
    async fn somebody_speaks(
        &self,
        watcher: &mut Watcher<impl AsyncRead + Unpin>,
        cables: &[String],
    ) -> anyhow::Result<()> {
        if self.has_switches || self.plan.ends.is_some() {
            return Ok(());
        }
        say("no switch of this fabric runs: looks for BGP on the cables");
        let began = clock::now();
        let heard = watcher.until(SPEAKS, |watcher, _| {
            cables.iter().any(|cable| watcher.established(cable, began))
        });
        ensure!(
            heard.await?,
            "no BGP session runs over the cables to cut, so nothing would find another path; nothing \
             was cut"
        );
        Ok(())
    }

    /// The names of the cables to cut.
    async fn cables(&self) -> anyhow::Result<Vec<String>> {
        if self.plan.cables.is_empty() {
            return Ok(Vec::new());
        }
        let cables = self.client.cables(&self.plan.cables).await?;
        if let Some(cable) = cables.iter().find(|cable| cable.state != CableState::Up) {
            let (name, state) = (&cable.name, cable.state.name());
            bail!("{name} is {state} already: `ikv-fabric cable {name} up` mends it");
        }
        Ok(cables.into_iter().map(|cable| cable.name).collect())
    }

    fn pings(&self) -> Option<Pings> {
        let (node, ends) = (self.plan.pinger.as_ref()?, self.plan.ends?);
        let ends = [ends.source, ends.destination];
        Some(Pings::start(self.client, node, ends, self.args.interval))
    }

    /// Waits until all is quiet, cuts the cables and observes until BGP has settled. If `cables` is
    /// empty, it adds the first one that the flow takes.
    async fn observe_cut(
        &self,
        watcher: &mut Watcher<impl AsyncRead + Unpin>,
        cables: &mut Vec<String>,
    ) -> anyhow::Result<Report> {
        self.somebody_speaks(watcher, cables).await?;
        let began = clock::now();
        self.progress.live("waits until BGP is quiet");
        let calm = watcher.until(QUIET_LIMIT, |watcher, now| {
            let flows = self.plan.ends.is_none() || watcher.flow_seen() >= QUIET;
            flows && is_quiet(watcher, began, now)
        });
        if !calm.await? {
            ensure!(
                self.plan.ends.is_none() || watcher.flow_seen() >= QUIET,
                "no packet of the flow passes any cable: is there a path between its ends?"
            );
            say("note: BGP is not quiet even before the cut");
        }
        if cables.is_empty() {
            let path = flow::path(&watcher.observations, &watcher.lanes);
            let first = path.first().context("the flow arrives nowhere")?;
            cables.push(watcher.lanes[*first].cable.clone());
        }
        let done = self.set(cables, self.args.by).await?;
        // The fabric reports Unix time; records carry its own clock, which this process shares.
        let at = done.at_ns.saturating_sub(watcher.start.wall_offset);
        let took = clock::now().saturating_sub(at);
        for note in &done.notes {
            say(&format!("note: {note}"));
        }
        let settle = self.args.settle.as_nanos() as u64;
        self.progress
            .live("cut; waits until no UPDATE comes any more");
        let settled = watcher.until(self.args.limit, |watcher, now| {
            let last = watcher.last_update.filter(|last| *last > at);
            last.is_some_and(|last| now.saturating_sub(last) >= settle)
        });
        let settled = settled.await?;
        let cut = Cut {
            cables: cables.clone(),
            state: self.args.by.name().into(),
            at,
            took,
        };
        Ok(Report {
            settled,
            missed: watcher.missed,
            ..Report::of(watcher.observations.clone(), &watcher.lanes, &cut)
        })
    }

    /// Sets the state of all cables at the same instant.
    async fn set(&self, cables: &[String], state: CableState) -> anyhow::Result<CableBatchDone> {
        let change = |cable: &String| CableChange {
            cable: cable.clone(),
            state: Some(state),
            ..CableChange::default()
        };
        let changes = cables.iter().map(change).collect();
        Ok(self.client.change_cables(&CableBatch { changes }).await?)
    }
}

/// Whether no UPDATE came for the last [`QUIET`].
fn is_quiet<S>(watcher: &Watcher<S>, began: u64, now: u64) -> bool {
    let last = watcher.last_update.unwrap_or(began).max(began);
    now.saturating_sub(last) >= QUIET.as_nanos() as u64
}

/// Waits until every session over these cables is established again and has announced all its
/// routes.
async fn wait_until_back(
    watcher: &mut Watcher<impl AsyncRead + Unpin>,
    cables: &[String],
    mended: u64,
) -> anyhow::Result<()> {
    let back = watcher.until(SESSIONS_LIMIT, |watcher, now| {
        let established = |cable: &String| watcher.established(cable, mended);
        cables.iter().all(established) && is_quiet(watcher, mended, now)
    });
    ensure!(
        back.await?,
        "no session over the mended cable came back within {} s",
        SESSIONS_LIMIT.as_secs()
    );
    Ok(())
}

/// Waits until ping ends by itself, which it should not; without one, forever.
async fn ended(pings: &mut Option<Pings>) -> anyhow::Error {
    match pings {
        Some(pings) => pings.ended().await,
        None => std::future::pending().await,
    }
}

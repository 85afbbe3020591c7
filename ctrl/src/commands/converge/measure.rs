//! One measurement: look on, cut, look on, mend.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use dataplane::clock;
use futures_util::future::try_join_all;
use tokio::io::AsyncRead;
use tokio::time::{Instant, sleep};

use super::flow;
use super::ping::Pings;
use super::plan::Plan;
use super::report::{Cut, Report};
use super::watcher::{Watcher, watch};
use crate::api::{CableChanged, CableState, Client, SetCable, Status, segment};
use crate::commands::capture::session::Signals;
use crate::progress::say;

/// Before the cut, no UPDATE for so long, and the flow running for so long.
const QUIET: Duration = Duration::from_secs(1);

/// For that to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// For sessions to come back after a cable was mended.
const BACK: Duration = Duration::from_secs(180);

/// What is measured, and how.
pub(super) struct Meter {
    pub(super) client: Client,
    pub(super) plan: Plan,
    pub(super) state: CableState,
    pub(super) settle: Duration,
    pub(super) limit: Duration,
    pub(super) interval: Duration,
    pub(super) leave: bool,
}

impl Meter {
    /// Measures once. Whatever happens, the flow is ended and the cables are mended.
    pub(super) async fn measure(&self) -> anyhow::Result<Report> {
        let mut signals = Signals::new()?;
        let mut watcher = watch(&self.client, self.plan.ends).await?;
        let mut pings = self.pings();
        let mut cut = Vec::new();
        let measured = tokio::select! {
            measured = self.look_on(&mut watcher, &mut cut) => measured,
            error = ended(&mut pings) => Err(error),
            () = signals.next() => Err(anyhow::anyhow!("interrupted; nothing was measured")),
        };
        if !self.leave || measured.is_err() {
            self.set(&cut, CableState::Up).await?;
        }
        if let Some(pings) = pings {
            pings.stop().await;
        }
        measured
    }

    fn pings(&self) -> Option<Pings> {
        let (node, ends) = (self.plan.pinger.as_ref()?, self.plan.ends?);
        let ends = [ends.source, ends.destination];
        Some(Pings::start(&self.client, node, ends, self.interval))
    }

    /// `cut` is filled in before anything is cut.
    async fn look_on(
        &self,
        watcher: &mut Watcher<impl AsyncRead + Unpin>,
        cut: &mut Vec<String>,
    ) -> anyhow::Result<Report> {
        let quiet = QUIET.as_nanos() as u64;
        let began = clock::now();
        let calm = watcher.until(PATIENCE, |watcher, now| {
            let since = watcher.last_update().unwrap_or(began).max(began);
            let flows = self.plan.ends.is_none() || watcher.flow_seen() >= QUIET;
            flows && now - since >= quiet
        });
        if !calm.await? {
            ensure!(
                self.plan.ends.is_none() || watcher.flow_seen() >= QUIET,
                "no packet of the flow passes any cable: is there a way between its ends?"
            );
            say("note: BGP is not quiet even before the cut");
        }
        *cut = self.plan.cables.clone();
        if cut.is_empty() {
            let path = flow::path(watcher.sightings(), watcher.lanes());
            let first = path.first().context("the flow arrives nowhere")?;
            cut.push(watcher.lanes()[*first].cable.clone());
        }
        let began = clock::now();
        let changed = self.set(cut, self.state).await?;
        let done = clock::now();
        for note in changed.iter().flat_map(|changed| &changed.notes) {
            say(&format!("note: {note}"));
        }
        let settle = self.settle.as_nanos() as u64;
        let settled = watcher.until(self.limit, |watcher, now| {
            let last = watcher.last_update().filter(|last| *last > began);
            last.is_some_and(|last| now.saturating_sub(last) >= settle)
        });
        let settled = settled.await?;
        let cut = Cut {
            cables: changed.into_iter().map(|changed| changed.name).collect(),
            state: self.state.name().into(),
            began,
            done,
        };
        Ok(Report {
            settled,
            missed: watcher.missed(),
            ..Report::of(watcher.sightings().to_vec(), watcher.lanes(), &cut)
        })
    }

    async fn set(&self, cables: &[String], state: CableState) -> anyhow::Result<Vec<CableChanged>> {
        let set = cables.iter().map(|cable| async move {
            let path = format!("/v1/cables/{}/state", segment(cable));
            self.client.put(&path, &SetCable { state }).await
        });
        Ok(try_join_all(set).await?)
    }

    /// Waits until every switch has its sessions again.
    pub(super) async fn wait_until_back(&self) -> anyhow::Result<()> {
        let limit = Instant::now() + BACK;
        loop {
            let status: Status = self.client.get("/v1/status").await?;
            if status.ready {
                return Ok(());
            }
            if Instant::now() > limit {
                bail!("the fabric is not ready again: `ikv-fabric status` tells what it lacks");
            }
            sleep(QUIET / 4).await;
        }
    }
}

async fn ended(pings: &mut Option<Pings>) -> anyhow::Error {
    match pings {
        Some(pings) => pings.ended().await,
        None => std::future::pending().await,
    }
}

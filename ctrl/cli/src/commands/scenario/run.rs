//! Plays a timeline.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::expand::Moment;
use super::targets;
use crate::commands::run::StopSignals;
use crate::commands::{Context, print};
use api::{CableBatchDone, Client};
use fabric::progress::Progress;
use model::cable_change::{CableBatch, CableChange, ImpairmentChange};
use model::impairment::ImpairKeys;

/// The time between two updates of the progress line.
const REFRESH: Duration = Duration::from_millis(200);

/// The most notes of a moment that are shown.
const MOST_NOTES: usize = 3;

/// Does everything at its time. A signal ends it early.
pub(super) async fn play(
    context: &Context,
    moments: &[Moment],
    restore: bool,
) -> anyhow::Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    let before = if restore {
        Some(Before::remember(&context.client, moments).await?)
    } else {
        None
    };
    let progress = Progress::new();
    let clock = Clock::start();
    let outcome = tokio::select! {
        outcome = play_all(context, moments, &clock, &progress) => outcome,
        () = stop.wait() => {
            progress.note("  ! interrupted");
            Ok(())
        }
    };
    progress.quiet();
    let restored = match before {
        Some(before) => before.restore(context, &clock).await,
        None => Ok(()),
    };
    outcome?;
    restored?;
    Ok(ExitCode::SUCCESS)
}

async fn play_all(
    context: &Context,
    moments: &[Moment],
    clock: &Clock,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut shown = BTreeSet::new();
    for (index, moment) in moments.iter().enumerate() {
        let due = clock.began + moment.at;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            progress.live(&format!(
                "{} of {} in {:.1} s: {}",
                index + 1,
                moments.len(),
                left.as_secs_f64(),
                moment.words.join("; ")
            ));
            sleep_until(due.min(Instant::now() + REFRESH)).await;
        }
        let step = CableBatch {
            changes: moment.changes.clone(),
        };
        let done = context.client.change_cables(&step).await?;
        clock.log(context, Some(moment.at), &moment.words, &done)?;
        // A cable that flaps would repeat a note with each flap, a rack with each server.
        let news: Vec<_> = done
            .notes
            .iter()
            .filter(|note| shown.insert((*note).clone()))
            .collect();
        for note in news.iter().take(MOST_NOTES) {
            progress.note(&format!("  ! {note}"));
        }
        if let Some(more) = news.len().checked_sub(MOST_NOTES + 1) {
            progress.note(&format!(
                "  ! and {} more of this kind (--json has all)",
                more + 1
            ));
        }
    }
    Ok(())
}

/// The start of the timeline.
struct Clock {
    began: Instant,
    wall: SystemTime,
}

impl Clock {
    fn start() -> Self {
        Clock {
            began: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Prints a line: when it was planned, when it was done, what it was.
    fn log(
        &self,
        context: &Context,
        planned: Option<Duration>,
        words: &[String],
        done: &CableBatchDone,
    ) -> anyhow::Result<()> {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(done.at_ns);
        let since = at.duration_since(self.wall).unwrap_or_default();
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let line = if context.json {
            let report = json!({
                "planned_ms": planned.map(ms),
                "done_ms": ms(since),
                "at_ns": done.at_ns,
                "what": words,
                "notes": done.notes,
            });
            format!("{report}\n")
        } else {
            let seconds = |time: Duration| format!("{:.4} s", time.as_secs_f64());
            let planned = planned.map_or("at the end".into(), seconds);
            format!(
                "{planned:>12} {:>12}  {}\n",
                seconds(since),
                words.join("; ")
            )
        };
        Ok(print(&line)?)
    }
}

/// The state of the cables before the scenario.
struct Before(Vec<CableChange>);

impl Before {
    async fn remember(client: &Client, moments: &[Moment]) -> anyhow::Result<Self> {
        let changes = moments.iter().flat_map(|moment| &moment.changes);
        let mut states = BTreeSet::new();
        let mut lanes = BTreeSet::new();
        for change in changes {
            if change.state.is_some() {
                states.insert(change.cable.clone());
            }
            if change.impair.is_some() {
                lanes.insert(change.cable.clone());
            }
        }
        let mut before = Vec::new();
        for cable in &states {
            before.push(CableChange {
                cable: cable.clone(),
                state: Some(targets::one(client, cable).await?.state),
                impair: None,
            });
        }
        let impaired = client.impairments().await?;
        for cable in lanes {
            let clear = |from: Option<String>, set| CableChange {
                cable: cable.clone(),
                state: None,
                impair: Some(ImpairmentChange {
                    from,
                    clear: true,
                    set,
                }),
            };
            before.push(clear(None, ImpairKeys::default()));
            let own = impaired.iter().filter(|lane| lane.cable == cable);
            before.extend(own.map(|lane| clear(Some(lane.from.clone()), lane.impairment.clone())));
        }
        Ok(Before(before))
    }

    async fn restore(self, context: &Context, clock: &Clock) -> anyhow::Result<()> {
        let count = self.0.iter().map(|change| &change.cable);
        let count = count.collect::<BTreeSet<_>>().len();
        let step = CableBatch { changes: self.0 };
        // Whoever interrupts does not wait for long.
        let limit = Instant::now() + Duration::from_secs(30);
        let done = timeout_at(limit, context.client.change_cables(&step)).await??;
        let words = [format!(
            "{count} cable{} as before",
            if count == 1 { "" } else { "s" }
        )];
        clock.log(context, None, &words, &done)
    }
}

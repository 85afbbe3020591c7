//! Plays a timeline.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::expand::Moment;
use super::targets;
use crate::commands::{Context, print};
use crate::signals::StopSignals;
use api::{CableBatchDone, Client};
use fabric::progress::Progress;
use model::cable_change::{CableBatch, CableChange, ImpairmentChange};
use model::impairment::ImpairKeys;

/// The time between two updates of the progress line.
const REFRESH: Duration = Duration::from_millis(200);

/// The most notes of a moment that are shown.
const MOST_NOTES: usize = 3;

/// Makes the changes of each moment at its time; a signal ends it early. Afterwards restores the
/// cables if `restore` is set.
pub(super) async fn play(
    context: &Context,
    moments: &[Moment],
    restore: bool,
) -> anyhow::Result<()> {
    let mut stop = StopSignals::with_hangup()?;
    let before = if restore {
        Some(EarlierState::read(&context.client, moments).await?)
    } else {
        None
    };
    let progress = Progress::new();
    let clock = Clock::start();
    // Signals do not end the restoration below: without it, cables would stay cut.
    let outcome = tokio::select! {
        outcome = play_all(context, moments, &clock, &progress) => outcome,
        () = stop.wait() => Err(anyhow::anyhow!(if restore {
            "interrupted before its end; the cables were restored"
        } else {
            "interrupted before its end; the cables stay as they are"
        })),
    };
    progress.quiet();
    let restored = match before {
        Some(before) => before.restore(context, &clock).await,
        None => Ok(()),
    };
    // A cable that was not restored is worse news than the reason for the end.
    restored?;
    outcome
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
        let batch = CableBatch {
            changes: moment.changes.clone(),
        };
        let done = context.client.change_cables(&batch).await?;
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

/// When the timeline started, on both clocks: the fabric reports Unix time.
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

    /// Prints a line: when the changes were due, when they took effect, and what they were.
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

/// The changes that bring the cables back to their state before the scenario.
struct EarlierState(Vec<CableChange>);

impl EarlierState {
    async fn read(client: &Client, moments: &[Moment]) -> anyhow::Result<Self> {
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
                ..CableChange::default()
            });
        }
        let impaired = client.impairments().await?;
        for cable in lanes {
            let clear = |from: Option<String>, set| CableChange {
                cable: cable.clone(),
                impair: Some(ImpairmentChange {
                    from,
                    clear: true,
                    set,
                }),
                ..CableChange::default()
            };
            before.push(clear(None, ImpairKeys::default()));
            let own = impaired.iter().filter(|lane| lane.cable == cable);
            before.extend(own.map(|lane| clear(Some(lane.from.clone()), lane.impairment.clone())));
        }
        Ok(EarlierState(before))
    }

    async fn restore(self, context: &Context, clock: &Clock) -> anyhow::Result<()> {
        let count = self.0.iter().map(|change| &change.cable);
        let count = count.collect::<BTreeSet<_>>().len();
        let batch = CableBatch { changes: self.0 };
        // A user who has interrupted the scenario does not want to wait for a fabric that hangs.
        let limit = Instant::now() + Duration::from_secs(30);
        let done = timeout_at(limit, context.client.change_cables(&batch)).await??;
        let words = [format!(
            "{count} cable{} as before",
            if count == 1 { "" } else { "s" }
        )];
        clock.log(context, None, &words, &done)
    }
}

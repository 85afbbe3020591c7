//! `ikv-fabric top`: switches, cables and places on the whole terminal, once a second.
//!
//! | file | what is in it |
//! |---|---|
//! | `app` | [`App`]: what is shown, and what a key does to it |
//! | `rows`, `details` | what a row says of a switch, a cable or a place |
//! | `rates`, `list`, `columns`, `prompt` | arithmetic: rates, order and selection, widths, the words of an impairment |
//! | `draw`, `help` | the picture |
//! | `terminal` | the terminal, which is given back on every way out |
//! | `tasks` | what is asked of the fabric |
//!
//! The fabric is asked by tasks while the screen goes on; no answer is waited for.

mod app;
mod columns;
mod details;
mod draw;
mod help;
mod list;
mod prompt;
mod rates;
mod rows;
mod tasks;
mod terminal;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Context;
use crate::signals::StopSignals;
use api::ClientError;
use app::{App, Effect};
use rows::View;
use tasks::{Done, Tasks};
use terminal::{Screen, need_terminal};

/// The time between two questions.
const REFRESH: Duration = Duration::from_secs(1);

/// The time between two questions to the leaves, while the places are shown.
const ASK_LEAVES: Duration = Duration::from_secs(5);

/// How long the file of a capture may take to be complete after the end.
const COMPLETE: Duration = Duration::from_secs(2);

/// Shows switches, cables and places on the whole terminal, once a second; cuts, mends, impairs and
/// captures cables by a key. `?` shows all keys, q leaves.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {}

/// # Errors
/// When there is no terminal, no fabric answers, or the fabric ends meanwhile.
pub(crate) async fn run(context: &Context, _: &TopArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !context.json,
        "top is for a terminal, and has no JSON: use `ikv-fabric --json cables --watch`"
    );
    need_terminal()?;
    let mut stop = StopSignals::with_hangup()?;
    let first = tasks::ask(&context.client, true).await?;
    let mut app = App::new(first);
    let mut tasks = Tasks::new(&context.client);
    let mut screen = Screen::take()?;
    let outcome = show(&mut screen, &mut app, &mut tasks, &mut stop).await;
    // The terminal first: what follows may take a moment, and the outcome may be a sentence.
    drop(screen);
    // A second signal, or the limit, leaves the file as far as it is.
    tokio::select! {
        _ = timeout(COMPLETE, tasks.end_capture()) => {}
        () = stop.wait() => {}
    }
    outcome
}

/// When the fabric was last asked, and whether a question is open.
struct Asked {
    answered: Instant,
    open: bool,
    leaves: Option<Instant>,
    leaves_open: bool,
}

/// Until the user leaves.
async fn show(
    screen: &mut Screen,
    app: &mut App,
    tasks: &mut Tasks,
    stop: &mut StopSignals,
) -> anyhow::Result<()> {
    let mut events = EventStream::new();
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Asked {
        answered: Instant::now(),
        open: false,
        leaves: None,
        leaves_open: false,
    };
    // The first comes at once, and there is a report already.
    ticks.tick().await;
    screen.show(app)?;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                    match app.press(key) {
                        Some(Effect::Leave) => return Ok(()),
                        Some(Effect::Ask) => ask(app, tasks, &mut asked),
                        Some(effect) => tasks.begin(effect, app),
                        None => {}
                    }
                }
                Some(Ok(_)) => {}
                // The terminal has gone.
                Some(Err(_)) | None => return Ok(()),
            },
            _ = ticks.tick() => {
                ask(app, tasks, &mut asked);
                continue;
            }
            done = tasks.next() => take_in(app, tasks, &mut asked, done)?,
            () = stop.wait() => return Ok(()),
        }
        screen.show(app)?;
    }
}

/// Asks for what the view shows, unless the answer to the last question has not come yet.
fn ask(app: &App, tasks: &mut Tasks, asked: &mut Asked) {
    let places = app.view == View::Places;
    if !asked.open {
        asked.open = true;
        tasks.ask(places);
    }
    let due = asked.leaves.is_none_or(|last| last.elapsed() >= ASK_LEAVES);
    if places && due && !asked.leaves_open && app.data.places.is_some() {
        asked.leaves = Some(Instant::now());
        asked.leaves_open = true;
        tasks.ask_leaves();
    }
}

/// # Errors
/// When the fabric has ended.
fn take_in(app: &mut App, tasks: &mut Tasks, asked: &mut Asked, done: Done) -> anyhow::Result<()> {
    match done {
        Done::Answered(Ok(data)) => {
            asked.open = false;
            let now = Instant::now();
            app.learn(data, now - asked.answered);
            asked.answered = now;
        }
        Done::Answered(Err(error)) => {
            asked.open = false;
            if matches!(error, ClientError::NotRunning(_)) {
                anyhow::bail!(
                    "the fabric at {} has ended: `ikv-fabric run` starts another",
                    tasks.client().socket().display()
                );
            }
            app.message = error.to_string();
        }
        Done::Silent => {
            asked.open = false;
            "the fabric does not answer: `ikv-fabric status` shows why"
                .clone_into(&mut app.message);
        }
        Done::Learned(places) => {
            asked.leaves_open = false;
            if let Ok(places) = places {
                app.learn_guests(places);
            }
        }
        Done::Changed(said) => {
            app.message = said;
            // Its effect is shown at once.
            ask(app, tasks, asked);
        }
        Done::Captured(said) => {
            app.capturing = None;
            app.message = said;
        }
    }
    Ok(())
}

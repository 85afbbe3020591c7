//! What `top` asks of the fabric, and does there: [`Tasks`] that go on while the screen does.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::app::{App, Data, Effect};
use crate::commands::{capture, impair, places};
use api::{Client, ClientError, Position};
use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::utc;

/// After this time the fabric is taken for silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Characters of a cable's name in the name of a file.
const LONGEST_NAME: usize = 64;

/// What came of a task.
pub(super) enum Done {
    /// An answer to [`ask`].
    Answered(Result<Data, ClientError>),
    /// None came in time.
    Silent,
    /// What leaves know of those who are plugged in.
    Learned(Result<Vec<Position>, ClientError>),
    /// A change was made, or not: a sentence about it.
    Changed(String),
    /// The capture has ended: a sentence about it.
    Captured(String),
}

/// The tasks that are under way.
pub(super) struct Tasks {
    client: Client,
    running: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    /// Ends the capture, if there is one.
    capture: Option<Arc<Notify>>,
}

impl Tasks {
    pub(super) fn new(client: &Client) -> Self {
        Tasks {
            client: client.clone(),
            running: FuturesUnordered::new(),
            capture: None,
        }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The next task that is done; waits as long as there is none.
    pub(super) async fn next(&mut self) -> Done {
        match self.running.next().await {
            Some(done) => {
                if matches!(done, Done::Captured(_)) {
                    self.capture = None;
                }
                done
            }
            None => std::future::pending().await,
        }
    }

    fn add(&self, task: impl Future<Output = Done> + 'static) {
        self.running.push(Box::pin(task));
    }

    /// Asks for a report, of places too if they are shown.
    pub(super) fn ask(&self, places: bool) {
        let client = self.client.clone();
        self.add(async move {
            match timeout(PATIENCE, ask(&client, places)).await {
                Ok(answer) => Done::Answered(answer),
                Err(_) => Done::Silent,
            }
        });
    }

    /// Asks the leaves who is plugged in.
    pub(super) fn ask_leaves(&self) {
        let client = self.client.clone();
        self.add(async move {
            let learned = client.learned_positions().await;
            Done::Learned(learned.map(|learned| places::taken(learned).places))
        });
    }

    /// Begins what a key asks for.
    pub(super) fn begin(&mut self, effect: Effect, app: &mut App) {
        let client = self.client.clone();
        match effect {
            Effect::SetState(cable, state) => {
                self.add(async move { Done::Changed(set_state(&client, &cable, state).await) });
            }
            Effect::Impair(cable, change) => {
                self.add(async move { Done::Changed(impaired(&client, &cable, *change).await) });
            }
            Effect::StartCapture(cable) => {
                let file = file_name(&cable, SystemTime::now());
                let stop = Arc::new(Notify::new());
                self.capture = Some(stop.clone());
                app.capturing = Some(file.clone());
                self.add(
                    async move { Done::Captured(captured(&client, &cable, &file, stop).await) },
                );
            }
            Effect::StopCapture => {
                if let Some(stop) = &self.capture {
                    stop.notify_one();
                }
            }
            Effect::Leave | Effect::Ask => {}
        }
    }

    /// Ends the capture, if there is one, and waits until its file is complete.
    pub(super) async fn end_capture(&mut self) {
        if let Some(stop) = self.capture.take() {
            stop.notify_one();
            while let Some(done) = self.running.next().await {
                if let Done::Captured(said) = done {
                    fabric::progress::say(&said);
                    return;
                }
            }
        }
    }
}

/// Asks for everything that is shown.
///
/// # Errors
/// When no fabric answers. One without places is none.
pub(super) async fn ask(client: &Client, places: bool) -> Result<Data, ClientError> {
    let positions = async {
        if !places {
            return Ok(None);
        }
        match client.positions().await {
            Ok(positions) => Ok(Some(places::taken(positions).places)),
            Err(ClientError::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let (status, cables, places) =
        tokio::try_join!(client.status(), client.cables(&[]), positions)?;
    Ok(Data {
        status,
        cables,
        rates: Vec::new(),
        places,
        now: utc::now_ns(),
    })
}

async fn set_state(client: &Client, cable: &str, state: CableState) -> String {
    match client.set_cable_state(cable, state).await {
        Ok(changed) => {
            let notes = changed.notes.iter().map(|note| format!("; {note}"));
            let notes: String = notes.collect();
            format!("{} is {}{notes}", changed.name, changed.state.name())
        }
        Err(error) => error.to_string(),
    }
}

async fn impaired(client: &Client, cable: &str, mut change: ImpairmentChange) -> String {
    let set = match impair::complete(change.set) {
        Ok(set) => set,
        Err(error) => return error.to_string(),
    };
    let words = set.words();
    change.set = set;
    match client.change_cables(&CableBatch::of(cable, change)).await {
        Ok(_) if words.is_empty() => format!("{cable} has no impairment"),
        Ok(_) => format!("{cable}: {words}"),
        Err(error) => error.to_string(),
    }
}

async fn captured(client: &Client, cable: &str, file: &str, stop: Arc<Notify>) -> String {
    match capture::into_new_file(client, cable, Path::new(file), stop).await {
        Ok(frames) => format!("{file}: {frames} frames"),
        Err(error) => format!("{file}: {error:#}"),
    }
}

/// The name of a new file in the present folder: `iksb12-20261130T203507Z.pcapng`.
fn file_name(cable: &str, now: SystemTime) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let cable: String = cable.chars().take(LONGEST_NAME).map(plain).collect();
    let time = utc::date_and_time(now).replace(['-', ':'], "");
    format!("{cable}-{time}.pcapng")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_plain_name() {
        let at = utc::at_ns(0);
        assert_eq!(file_name("ikeb1-3", at), "ikeb1-3-19700101T000000Z.pcapng");
        let odd = file_name("../a b\u{1b}", at);
        assert_eq!(odd, "---a-b--19700101T000000Z.pcapng");
        assert!(file_name(&"a".repeat(1000), at).len() < 100);
    }
}

//! The flight recorder: it always keeps the last frames of every cable in memory. When a trigger
//! fires, it keeps the frames from before as a dump ([`Store`]).
//!
//! The workers record, at the cost of one copy per frame. This module reads the records:
//! [`Recorder::dump`] on request, [`Triggers`] five times a second.

mod bgp_tap;
pub(crate) mod options;
pub(crate) mod requests;
mod schedule;
mod sessions;
mod store;
mod stream;
mod triggers;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::capture::RecorderReader;
use dataplane::clock;
use tokio::sync::Mutex;

use crate::cables::Cables;
use crate::cables::error::CablesError;
use crate::cables::names::CableNames;
use crate::capture::{CHUNK, interface};
use crate::off_thread::off_thread;
use api::ApiError;
use api::capture::{CaptureInterface, CaptureStart, CaptureStream};
use api::recorder::{DumpRequest, RecorderStatus, Trigger};
use dataplane::Side;
use options::RecorderOptions;
use schedule::Due;
use store::Store;
use stream::{Messages, stream};
use triggers::Triggers;

/// Interval between two checks of the triggers.
const LOOK: Duration = Duration::from_millis(200);

/// A cable between two switches gets this many times the memory of another cable, because its BGP
/// session is the most informative.
const SHARE: u64 = 4;

/// The recorder of all cables.
pub(crate) struct Recorder {
    options: RecorderOptions,
    wall_offset: u64,
    store: Arc<Store>,
    /// Locked while workers are asked, so that two requests do not mix.
    recorded: Mutex<Recorded>,
}

/// What is recorded at present; `apply` replaces it.
struct Recorded {
    cables: Cables,
    lanes: Vec<RecordedLane>,
    triggers: Triggers,
}

#[derive(Clone)]
struct RecordedLane {
    cable: usize,
    side: Side,
    interface: CaptureInterface,
    reader: RecorderReader,
}

impl Recorder {
    /// Records every lane. Dumps are kept in `folder`, unless the options name another; the first
    /// dump creates it.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub(crate) async fn start(
        cables: &Cables,
        options: RecorderOptions,
        names: &impl CableNames,
        folder: &Path,
    ) -> Result<Self, CablesError> {
        let lanes = lanes(cables, &options, names, |_| None).await?;
        let mut triggers = Triggers::new(between_switches(cables, names));
        triggers
            .set(cables, options.triggers.clone(), names)
            .await
            .map_err(|error| CablesError::Recorder(error.to_string()))?;
        let recorded = Recorded {
            cables: cables.clone(),
            lanes,
            triggers,
        };
        Ok(Recorder {
            wall_offset: cables.wall_offset(),
            store: Arc::new(Store::new(options.folder.as_deref().unwrap_or(folder))),
            recorded: Mutex::new(recorded),
            options,
        })
    }

    /// Records these cables from now on. Cables that existed before keep their recording; `before`
    /// gives a cable's previous index. A new cable gets as much memory as if it had existed from
    /// the start. Triggers stay, except those on removed cables.
    ///
    /// # Errors
    /// When a worker does not answer; nothing changes then.
    pub(crate) async fn rewire(
        &self,
        cables: &Cables,
        names: &impl CableNames,
        before: impl Fn(usize) -> Option<usize>,
    ) -> Result<(), CablesError> {
        let mut recorded = self.recorded.lock().await;
        let old_lanes = recorded.lanes.clone();
        let known = |(index, side)| {
            let old = before(index)?;
            let mut lanes = old_lanes.iter();
            let lane = lanes.find(|lane| (lane.cable, lane.side) == (old, side));
            lane.map(|lane| lane.reader.clone())
        };
        // Everything that can fail comes before the assignments: an error leaves the old recording
        // whole.
        let lanes = lanes(cables, &self.options, names, known).await?;
        let inner = between_switches(cables, names);
        recorded
            .triggers
            .rewire(cables, inner, names)
            .await
            .map_err(|error| CablesError::Recorder(error.to_string()))?;
        recorded.lanes = lanes;
        recorded.cables = cables.clone();
        Ok(())
    }

    /// Replaces all triggers with these.
    ///
    /// # Errors
    /// When a cable is unknown or a filter is not a valid program; the old triggers stay then.
    pub(crate) async fn set_triggers(
        &self,
        triggers: Vec<Trigger>,
        names: &impl CableNames,
    ) -> Result<(), ApiError> {
        let recorded = &mut *self.recorded.lock().await;
        let cables = &recorded.cables;
        recorded.triggers.set(cables, triggers, names).await
    }

    pub(crate) async fn status(&self) -> RecorderStatus {
        let recorded = self.recorded.lock().await;
        RecorderStatus {
            memory: self.options.memory,
            snap: self.options.snap,
            lanes: recorded.lanes.len(),
            triggers: recorded.triggers.list().to_vec(),
            dumps: self.store.list(),
        }
    }

    /// A dump of what is recorded of the requested cables, as a stream.
    ///
    /// # Errors
    /// When a cable is unknown, or the process cannot start another thread.
    pub(crate) async fn dump(
        &self,
        request: &DumpRequest,
        names: &impl CableNames,
    ) -> Result<CaptureStream, ApiError> {
        let cables = names.all_named(&request.cables)?;
        let mut lanes = self.lanes().await;
        lanes.retain(|lane| cables.is_empty() || cables.contains(&lane.cable));
        let since = request.last_ms.map_or(0, |last| {
            clock::now().saturating_sub(last.saturating_mul(1_000_000))
        });
        let start = self.first_line(&lanes, since);
        stream(start, move |each| {
            Messages::of(readers(&lanes), since).send(each)
        })
    }

    /// The content of a kept dump, as a stream.
    ///
    /// # Errors
    /// When no dump has this name, or its file cannot be read.
    pub(crate) fn kept(&self, name: &str) -> Result<CaptureStream, ApiError> {
        let file = self.store.open(name).map_err(ApiError::failed)?;
        let file = file.ok_or_else(|| {
            ApiError::unknown(format!(
                "no dump \"{name}\" is kept; `ikv-fabric recorder list` shows those that are"
            ))
        })?;
        let mut file = io::BufReader::with_capacity(CHUNK, file);
        let mut line = Vec::new();
        let start = io::BufRead::read_until(&mut file, b'\n', &mut line)
            .and_then(|_| Ok(serde_json::from_slice(&line)?))
            .map_err(ApiError::failed)?;
        stream(start, move |each| {
            loop {
                let chunk = io::BufRead::fill_buf(&mut file)?.to_vec();
                if chunk.is_empty() {
                    return Ok(0);
                }
                io::BufRead::consume(&mut file, chunk.len());
                each(chunk)?;
            }
        })
    }

    fn first_line(&self, lanes: &[RecordedLane], since: u64) -> CaptureStart {
        CaptureStart {
            interfaces: lanes.iter().map(|lane| lane.interface.clone()).collect(),
            wall_offset: self.wall_offset,
            began: since.max(1),
            wire: false,
        }
    }

    /// Checks the triggers until dropped, and keeps a dump when one fires. `notify` is called with
    /// a sentence for each dump.
    pub(crate) async fn watch(&self, notify: impl Fn(String)) {
        loop {
            tokio::time::sleep(LOOK).await;
            // The lock is released before the dump is written, which can take seconds.
            let due = {
                let recorded = &mut *self.recorded.lock().await;
                recorded.triggers.look(&recorded.cables, clock::now())
            };
            let Some(due) = due else { continue };
            match self.keep(due).await {
                Ok(name) => notify(name),
                Err(reason) => notify(format!(
                    "the flight recorder could not keep a dump: {reason}"
                )),
            }
        }
    }

    /// Keeps a dump of all cables. Returns a sentence with its name.
    async fn keep(&self, due: Due) -> io::Result<String> {
        let now = clock::now();
        let since = now.saturating_sub(self.options.last.as_nanos() as u64);
        let lanes = self.lanes().await;
        let start = serde_json::to_vec(&self.first_line(&lanes, since))?;
        let at_ms = (now + self.wall_offset) / 1_000_000;
        let first = due.why.first().cloned().unwrap_or_default();
        let store = self.store.clone();
        // On a thread of its own: this copies and writes as much as the recorder's whole memory.
        let keep = move || {
            let messages = Messages::of(readers(&lanes), since);
            store.keep(due, at_ms, |file| {
                file.write_all(&start)?;
                file.write_all(b"\n")?;
                messages.send(&mut |chunk| file.write_all(&chunk))
            })
        };
        let name = off_thread("dump", keep).await??.name;
        Ok(format!(
            "{first}: the flight recorder kept {name} (`ikv-fabric recorder get {name} -w FILE`)"
        ))
    }

    async fn lanes(&self) -> Vec<RecordedLane> {
        self.recorded.lock().await.lanes.clone()
    }
}

fn readers(lanes: &[RecordedLane]) -> impl ExactSizeIterator<Item = &RecorderReader> {
    lanes.iter().map(|lane| &lane.reader)
}

/// Both lanes of every cable, each with its `known` recording or a new one.
async fn lanes(
    cables: &Cables,
    options: &RecorderOptions,
    names: &impl CableNames,
    known: impl Fn((usize, Side)) -> Option<RecorderReader>,
) -> Result<Vec<RecordedLane>, CablesError> {
    let share = |cable| {
        if names.is_between_switches(cable) {
            SHARE
        } else {
            1
        }
    };
    let shares = 2 * (0..cables.len()).map(share).sum::<u64>();
    let mut lanes = Vec::with_capacity(2 * cables.len());
    for cable in 0..cables.len() {
        for side in [Side::A, Side::B] {
            let bytes = (options.memory * share(cable) / shares.max(1)) as usize;
            let reader = match known((cable, side)) {
                Some(reader) => reader,
                None => cables.record(cable, side, bytes, options.snap).await?,
            };
            lanes.push(RecordedLane {
                cable,
                side,
                interface: interface(cables, names, (cable, side), false),
                reader,
            });
        }
    }
    Ok(lanes)
}

fn between_switches(cables: &Cables, names: &impl CableNames) -> Vec<usize> {
    let all = 0..cables.len();
    all.filter(|cable| names.is_between_switches(*cable))
        .collect()
}

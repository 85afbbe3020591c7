//! The flight recorder: the last frames of every cable are always there, and what happened before
//! a trigger is kept as a dump ([`Store`]).
//!
//! The recording itself is the workers' and costs them a copy. Everything here looks at what they
//! left: [`Recorder::dump`] when somebody asks, [`Watch`] a few times a second.

mod bgp_tap;
mod schedule;
mod sessions;
mod store;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane::capture::RecorderReader;
use dataplane::clock;
use tokio::sync::{mpsc, oneshot};

use super::cables::{Cables, CablesError};
use super::capture::{CHUNK, Merge, interface};
use super::rights;
use crate::api::ApiError;
use crate::api::capture::{CaptureCount, CaptureInterface, CaptureStart, CaptureStream, Message};
use crate::api::recorder::{DumpRequest, RecorderStatus, Trigger};
use crate::topology::Side;
use schedule::Due;
use store::Store;
use watch::Watch;

/// Between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(200);

/// Chunks that may wait for a client.
const CHUNKS: usize = 4;

/// How to record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecorderOptions {
    /// Memory of all lanes' recorders together, bytes.
    pub memory: u64,
    /// Bytes of each frame that are kept, at most.
    pub snap: u32,
    /// How far back a kept dump goes.
    pub last: Duration,
    /// What makes it keep one, on any cable.
    pub triggers: Vec<Trigger>,
    /// Where kept dumps go; none: beside the API's socket, and away when the fabric ends.
    pub folder: Option<PathBuf>,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        RecorderOptions {
            memory: 64 << 20,
            snap: 256,
            last: Duration::from_secs(30),
            triggers: vec![Trigger::Down, Trigger::Bgp],
            folder: None,
        }
    }
}

/// What a cable is, and what it is called.
pub(super) struct Named<'n> {
    /// An end's alias.
    pub(super) alias: &'n dyn Fn(usize, Side) -> String,
    /// Whether a cable joins two switches: these have BGP sessions, and most to tell.
    pub(super) between_switches: &'n dyn Fn(usize) -> bool,
}

/// A cable between switches gets so many times the memory of another.
const SHARE: u64 = 4;

/// The recorder of all cables.
pub(super) struct Recorder {
    options: RecorderOptions,
    lanes: Vec<Lane>,
    wall_offset: u64,
    store: Store,
    watch: Mutex<Watch>,
}

#[derive(Clone)]
struct Lane {
    cable: usize,
    interface: CaptureInterface,
    reader: RecorderReader,
}

impl Recorder {
    /// Records every lane. Dumps are kept in `folder`, unless the options name another; it is made
    /// when the first one is.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub(super) fn start(
        cables: &Cables,
        options: RecorderOptions,
        names: &Named<'_>,
        folder: &Path,
    ) -> Result<Self, CablesError> {
        let share = |cable| {
            if (names.between_switches)(cable) {
                SHARE
            } else {
                1
            }
        };
        let shares = 2 * (0..cables.len()).map(share).sum::<u64>();
        let mut lanes = Vec::with_capacity(2 * cables.len());
        for cable in 0..cables.len() {
            for side in [Side::A, Side::B] {
                let bytes = options.memory * share(cable) / shares.max(1);
                lanes.push(Lane {
                    cable,
                    interface: interface(cables, cable, side, false, &names.alias),
                    reader: cables.record(cable, side, bytes as usize, options.snap)?,
                });
            }
        }
        let inner = (0..cables.len()).filter(|cable| (names.between_switches)(*cable));
        let mut watch = Watch::new(inner.collect());
        watch
            .arm(cables, options.triggers.clone(), &|name| {
                Err(ApiError::unknown(format!("there is no cable \"{name}\"")))
            })
            .map_err(|error| CablesError::Recorder(error.to_string()))?;
        Ok(Recorder {
            lanes,
            wall_offset: cables.wall_offset(),
            store: Store::new(options.folder.as_deref().unwrap_or(folder)),
            watch: Mutex::new(watch),
            options,
        })
    }

    /// Keeps dumps on these triggers, and on no others. `cable` finds a cable by its name.
    ///
    /// # Errors
    /// A name that nothing has, a filter that is no program; all stays as it was then.
    pub(super) fn arm(
        &self,
        cables: &Cables,
        triggers: Vec<Trigger>,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<(), ApiError> {
        self.watch().arm(cables, triggers, cable)
    }

    pub(super) fn status(&self) -> RecorderStatus {
        RecorderStatus {
            memory: self.options.memory,
            snap: self.options.snap,
            lanes: self.lanes.len(),
            triggers: self.watch().triggers().to_vec(),
            dumps: self.store.list(),
        }
    }

    /// What is recorded of these cables. `cable` finds one by its name.
    ///
    /// # Errors
    /// A name that nothing has, or when there can be no thread.
    pub(super) fn dump(
        &self,
        request: &DumpRequest,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<CaptureStream, ApiError> {
        let cables = request.cables.iter().map(|name| cable(name));
        let cables = cables.collect::<Result<Vec<_>, _>>()?;
        let lanes = self.lanes.iter();
        let wanted = lanes.filter(|lane| cables.is_empty() || cables.contains(&lane.cable));
        let lanes: Vec<_> = wanted.cloned().collect();
        let since = request.last_ms.map_or(0, |last| {
            clock::now().saturating_sub(last.saturating_mul(1_000_000))
        });
        let start = self.first_line(&lanes, since);
        stream(start, move |each| Messages::of(&lanes, since).send(each))
    }

    /// A dump that was kept.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn kept(&self, name: &str) -> Result<CaptureStream, ApiError> {
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

    fn first_line(&self, lanes: &[Lane], since: u64) -> CaptureStart {
        CaptureStart {
            interfaces: lanes.iter().map(|lane| lane.interface.clone()).collect(),
            wall_offset: self.wall_offset,
            began: since.max(1),
            wire: false,
        }
    }

    /// Looks for triggers, for ever, and keeps a dump when one fires. `tell` is told of it.
    pub(super) async fn attend(&self, cables: &Cables, tell: impl Fn(String)) {
        loop {
            tokio::time::sleep(LOOK).await;
            let due = self.watch().look(cables, clock::now());
            let Some(due) = due else { continue };
            match self.keep(due).await {
                Ok(told) | Err(told) => tell(told),
            }
        }
    }

    /// Keeps a dump of everything; what to tell of it, or of why there is none.
    async fn keep(&self, due: Due) -> Result<String, String> {
        let now = clock::now();
        let since = now.saturating_sub(self.options.last.as_nanos() as u64);
        let start = serde_json::to_vec(&self.first_line(&self.lanes, since));
        let lanes = self.lanes.clone();
        // Copies as much as the recorder's memory, so not on the thread that answers questions.
        let (done, messages) = oneshot::channel();
        let put_together = move || _ = done.send(Messages::of(&lanes, since));
        let failed = |reason: String| format!("the flight recorder could keep no dump: {reason}");
        rights::thread("dump", put_together).map_err(|error| failed(error.to_string()))?;
        let (Ok(start), Ok(messages)) = (start, messages.await) else {
            return Err(failed("it could not be put together".into()));
        };
        let at_ms = (now + self.wall_offset) / 1_000_000;
        let first = due.why.first().cloned().unwrap_or_default();
        let kept = self.store.keep(due.kind, at_ms, due.why, |file| {
            file.write_all(&start)?;
            file.write_all(b"\n")?;
            messages.send(&mut |chunk| file.write_all(&chunk))
        });
        let dump = kept.map_err(|error| failed(error.to_string()))?;
        let name = dump.name;
        Ok(format!(
            "{first}: the flight recorder kept {name} (`ikv-fabric recorder get {name} -w FILE`)"
        ))
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().expect("no holder of this lock can panic")
    }
}

/// The recorder, if there is one.
pub(super) fn running(recorder: Option<&Recorder>) -> Result<&Recorder, ApiError> {
    recorder.ok_or_else(|| {
        ApiError::conflict(
            "nothing is recorded: start `patch` with --record, or `run` without \
             `recorder.enabled = false`",
        )
    })
}

/// What lanes have recorded, copied, in order of time.
struct Messages {
    merge: Merge,
    frames: Vec<u64>,
}

impl Messages {
    fn of(lanes: &[Lane], since: u64) -> Self {
        let mut merge = Merge::new(lanes.len());
        let mut frames = vec![0; lanes.len()];
        for (number, lane) in lanes.iter().enumerate() {
            lane.reader.dump(since, |record, bytes| {
                merge.push(number, record, bytes);
                frames[number] += 1;
            });
        }
        Messages { merge, frames }
    }

    /// Hands everything on, with the counts at the end; returns the number of frames.
    fn send(mut self, each: &mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<u64> {
        let mut more = true;
        while more {
            let mut chunk = Vec::with_capacity(CHUNK);
            more = self.merge.emit(u64::MAX, CHUNK, &mut chunk);
            if !more {
                let count = |received: &u64| CaptureCount {
                    received: *received,
                    lost: 0,
                };
                let counts = self.frames.iter().map(count).collect();
                Message::Statistics(counts).write(&mut chunk);
            }
            each(chunk)?;
        }
        Ok(self.frames.iter().sum())
    }
}

/// A stream whose chunks come from a thread of its own.
fn stream(
    start: CaptureStart,
    send: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<u64> + Send + 'static,
) -> Result<CaptureStream, ApiError> {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let work = move || {
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        let sent = send(&mut |chunk| sender.blocking_send(chunk).map_err(gone));
        if let Err(error) = sent {
            tracing::debug!(%error, "a dump was not sent to its end");
        }
    };
    rights::thread("dump", work).map_err(ApiError::failed)?;
    Ok(CaptureStream {
        start,
        chunks,
        stop: Arc::new(AtomicBool::new(false)),
    })
}

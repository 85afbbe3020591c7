//! The flight recorder: the last frames of every cable are always there, and what happened before
//! a trigger is kept as a dump ([`Store`]).
//!
//! The recording itself is the workers' and costs them a copy. Everything here looks at what they
//! left: [`Recorder::dump`] when somebody asks, [`Watch`] a few times a second.

mod asked;
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
use api::ApiError;
use api::capture::{CaptureCount, CaptureInterface, CaptureStart, CaptureStream, Message};
use api::recorder::{DumpRequest, RecorderStatus, Trigger};
pub(super) use asked::Asked;
use model::topology::Side;
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
    wall_offset: u64,
    store: Store,
    wiring: Mutex<Wiring>,
}

/// What is recorded. `apply` makes another one of it.
struct Wiring {
    cables: Cables,
    lanes: Vec<Lane>,
    watch: Watch,
}

#[derive(Clone)]
struct Lane {
    cable: usize,
    side: Side,
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
        let lanes = lanes(cables, &options, names, &|_| None)?;
        let mut watch = Watch::new(between_switches(cables, names));
        watch
            .arm(cables, options.triggers.clone(), &|name| {
                Err(ApiError::unknown(format!("there is no cable \"{name}\"")))
            })
            .map_err(|error| CablesError::Recorder(error.to_string()))?;
        let wiring = Wiring {
            cables: cables.clone(),
            lanes,
            watch,
        };
        Ok(Recorder {
            wall_offset: cables.wall_offset(),
            store: Store::new(options.folder.as_deref().unwrap_or(folder)),
            wiring: Mutex::new(wiring),
            options,
        })
    }

    /// Records these cables from now on. Those that were there before keep what is recorded of
    /// them; `before` says where one was. Each that is new gets the memory that it would have
    /// had from the start. Triggers wait as before, but for cables that are gone.
    ///
    /// # Errors
    /// When a worker does not answer; all stays as it was then.
    pub(super) fn rewire(
        &self,
        cables: &Cables,
        names: &Named<'_>,
        before: &dyn Fn(usize) -> Option<usize>,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<(), CablesError> {
        let mut wiring = self.wiring();
        let known = |index, side| {
            let old = before(index)?;
            let mut lanes = wiring.lanes.iter();
            let lane = lanes.find(|lane| (lane.cable, lane.side) == (old, side));
            lane.map(|lane| lane.reader.clone())
        };
        let lanes = lanes(cables, &self.options, names, &|lane| known(lane.0, lane.1))?;
        let inner = between_switches(cables, names);
        wiring
            .watch
            .rewire(cables, inner, cable)
            .map_err(|error| CablesError::Recorder(error.to_string()))?;
        wiring.lanes = lanes;
        wiring.cables = cables.clone();
        Ok(())
    }

    /// Keeps dumps on these triggers, and on no others. `cable` finds a cable by its name.
    ///
    /// # Errors
    /// A name that nothing has, a filter that is no program; all stays as it was then.
    pub(super) fn arm(
        &self,
        triggers: Vec<Trigger>,
        cable: &dyn Fn(&str) -> Result<usize, ApiError>,
    ) -> Result<(), ApiError> {
        let Wiring { cables, watch, .. } = &mut *self.wiring();
        watch.arm(cables, triggers, cable)
    }

    pub(super) fn status(&self) -> RecorderStatus {
        let wiring = self.wiring();
        RecorderStatus {
            memory: self.options.memory,
            snap: self.options.snap,
            lanes: wiring.lanes.len(),
            triggers: wiring.watch.triggers().to_vec(),
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
        let mut lanes = self.lanes();
        lanes.retain(|lane| cables.is_empty() || cables.contains(&lane.cable));
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
    pub(super) async fn attend(&self, tell: impl Fn(String)) {
        loop {
            tokio::time::sleep(LOOK).await;
            let due = {
                let Wiring { cables, watch, .. } = &mut *self.wiring();
                watch.look(cables, clock::now())
            };
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
        let lanes = self.lanes();
        let start = serde_json::to_vec(&self.first_line(&lanes, since));
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

    fn wiring(&self) -> std::sync::MutexGuard<'_, Wiring> {
        let wiring = self.wiring.lock();
        wiring.expect("no holder of this lock can panic")
    }

    fn lanes(&self) -> Vec<Lane> {
        self.wiring().lanes.clone()
    }
}

/// Both lanes of every cable: as they are `known`, or recorded from now on.
fn lanes(
    cables: &Cables,
    options: &RecorderOptions,
    names: &Named<'_>,
    known: &dyn Fn((usize, Side)) -> Option<RecorderReader>,
) -> Result<Vec<Lane>, CablesError> {
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
            let reader = match known((cable, side)) {
                Some(reader) => reader,
                None => cables.record(cable, side, bytes as usize, options.snap)?,
            };
            lanes.push(Lane {
                cable,
                side,
                interface: interface(cables, cable, side, false, &names.alias),
                reader,
            });
        }
    }
    Ok(lanes)
}

fn between_switches(cables: &Cables, names: &Named<'_>) -> Vec<usize> {
    let all = 0..cables.len();
    all.filter(|cable| (names.between_switches)(*cable))
        .collect()
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

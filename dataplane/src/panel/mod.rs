//! The patch panel as control sees it: [`Panel`] starts the workers and sends them their commands.
//!
//! No call waits for a worker: each sends its command and returns a [`Reply`], to be awaited or
//! waited for. The panel's lock is held only while commands are sent; workers never take it.

mod balance;
mod batch;
mod error;
mod supervision;
mod taps;
mod workers;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use crate::cable::Cable;
use crate::cable_state::CableState;
use crate::command::{Answer, CableId, Command, Event};
use crate::hold::HoldMemory;
use crate::port::Port;
use crate::reply::{NumberedWorker, Pending, Reply, one_shot};
use crate::side::Side;
use crate::stats::LaneStats;
use crate::worker::{Idle, Notifier};

pub use batch::PanelChange;
pub use error::{Answerer, PanelError};
pub use supervision::WorkerState;
pub use taps::Capture;
use workers::WorkerHandle;
pub use workers::close_cables;

/// Events that may wait for control.
const EVENTS: usize = 1024;

/// How to forward.
#[derive(Debug, Clone, Default)]
pub struct PanelOptions {
    /// Forwarding threads; 0 counts as 1.
    pub workers: usize,
    /// CPUs that the workers are bound to, in turn. Empty: wherever the process may run.
    pub cpus: Vec<usize>,
    /// What a worker does when no frame waits.
    pub idle: Idle,
    /// Bytes of memory that frames held by the impairments of all lanes may take together. `None`: a
    /// quarter of the machine's RAM.
    pub hold_memory: Option<u64>,
}

/// The patch panel: the workers, and which of them owns which cable.
///
/// A handle: clones are the same panel. Its workers end when [`Panel::stop`] is called or the last
/// clone is dropped, whichever comes first.
#[derive(Clone)]
pub struct Panel {
    inner: Arc<Mutex<Inner>>,
    events: Receiver<Event>,
    hold_memory: Arc<HoldMemory>,
}

struct Inner {
    /// Empty once it has been stopped.
    workers: Vec<WorkerHandle>,
    cables: BTreeMap<CableId, Entry>,
    next: u32,
    next_tap: u64,
    balance: balance::State,
    /// Captures that were dropped and whose memory is to come back from the workers.
    ending: Vec<Reply<()>>,
    /// Captures that were dropped while their worker took no more commands.
    unended: Vec<(CableId, Side, u64)>,
}

struct Entry {
    worker: usize,
    lanes: [Arc<LaneStats>; 2],
    /// Frames in, both lanes, when [`Panel::balance`] looked last.
    frames_before: u64,
}

/// A cable that is plugged in.
#[derive(Debug, Clone)]
pub struct CableHandle {
    /// Names the cable in commands to the [`Panel`].
    pub id: CableId,
    /// The counters of its lanes, by the [`Side`] that a lane begins at.
    pub lanes: [Arc<LaneStats>; 2],
}

impl Panel {
    /// Starts the workers. `notifier` is called on a worker's thread whenever an event has
    /// become available from [`Panel::event`]; it must not block.
    ///
    /// # Errors
    /// When a thread cannot be started or bound to its CPU; those that were started have ended.
    pub fn start(
        options: &PanelOptions,
        notifier: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, PanelError> {
        let (event_sender, events) = bounded(EVENTS);
        let notifier: Notifier = Arc::new(notifier);
        let workers = (0..options.workers.max(1))
            .map(|worker| {
                WorkerHandle::start(worker, options, event_sender.clone(), notifier.clone())
                    .map_err(|source| PanelError::Start { worker, source })
            })
            .collect::<Result<_, _>>()?;
        let inner = Inner {
            workers,
            cables: BTreeMap::new(),
            next: 0,
            next_tap: 0,
            balance: balance::State::new(Instant::now()),
            ending: Vec::new(),
            unended: Vec::new(),
        };
        Ok(Panel {
            inner: Arc::new(Mutex::new(inner)),
            events,
            hold_memory: Arc::new(HoldMemory::new(options.hold_memory)),
        })
    }

    /// The budget for frames that the impairments of all lanes hold.
    pub fn hold_memory(&self) -> &HoldMemory {
        &self.hold_memory
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.lock().workers.len()
    }

    /// Plugs a cable in: it goes to the worker with the fewest.
    ///
    /// # Errors
    /// [`PanelError::Refused`] when the worker cannot watch its ports,
    /// [`PanelError::Stopped`].
    pub fn add(&self, cable: Cable) -> Reply<CableHandle> {
        let mut inner = self.lock();
        let worker = inner.idlest();
        let id = CableId(inner.next);
        inner.next += 1;
        let lanes = [cable.stats(Side::A), cable.stats(Side::B)];
        let handle = CableHandle {
            id,
            lanes: lanes.clone(),
        };
        let cable = Box::new(cable);
        let sent = inner.send(worker, |done| Command::Add { id, cable, done });
        if sent.answer.is_ok() {
            // Known at once, so that commands may follow before the worker has answered.
            let entry = Entry {
                worker,
                lanes,
                frames_before: 0,
            };
            inner.cables.insert(id, entry);
        }
        drop(inner);
        let panel = Arc::downgrade(&self.inner);
        sent.then(move |added| added.map(|()| handle).inspect_err(|_| forget(&panel, id)))
    }

    /// Takes a cable out: no frame of it is handled once the reply is there. Frames that wait in it
    /// are gone with it, and dropping it closes its ports, which may take long
    /// ([`close_cables`] takes many at a time).
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn remove(&self, id: CableId) -> Reply<Box<Cable>> {
        let mut inner = self.lock();
        let sent = inner.send_to_owner(id, |done| Command::Release { id, done });
        inner.cables.remove(&id);
        drop(inner);
        sent.reply()
    }

    /// Cuts a cable, lets its frames vanish, or mends it.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn set_state(&self, id: CableId, state: CableState) -> Reply<()> {
        self.send_to_owner(id, |done| Command::SetState { id, state, done })
            .reply()
    }

    /// Puts another port in place of one end of a cable; `None` takes it out. The result is the port
    /// that was there: dropping it closes it.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], or [`PanelError::Refused`]; the old port stays then.
    pub fn exchange(&self, id: CableId, side: Side, port: Option<Port>) -> Reply<Option<Port>> {
        let command = |done| Command::Exchange {
            id,
            side,
            port,
            done,
        };
        self.send_to_owner(id, command).reply()
    }

    /// The worker that owns a cable, counted from 0. While the cable is on its way to another worker,
    /// that one.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn owner(&self, id: CableId) -> Result<usize, PanelError> {
        self.lock().owner(id)
    }

    /// The next event, if one waits.
    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Stops forwarding and closes every port. Commands to a clone fail afterwards.
    ///
    /// Returns the numbers of the workers that did not end within a second. Such a worker is left
    /// behind with its cables: their ports are closed when it ends after all, or with the process.
    pub fn stop(&self) -> Vec<usize> {
        let mut inner = self.lock();
        let workers = std::mem::take(&mut inner.workers);
        inner.cables.clear();
        // Without the lock: a call on another thread must not wait until the workers have ended.
        drop(inner);
        workers::stop(workers)
    }

    fn send_to_owner<R>(&self, id: CableId, command: impl FnOnce(Answer<R>) -> Command) -> Sent<R> {
        self.lock().send_to_owner(id, command)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().expect("no holder of this lock can panic")
}

/// A cable that its worker does not have after all.
fn forget(panel: &Weak<Mutex<Inner>>, id: CableId) {
    if let Some(panel) = panel.upgrade() {
        lock(&panel).cables.remove(&id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        workers::stop(std::mem::take(&mut self.workers));
    }
}

/// What a worker will answer.
type Answered<T> = Pending<io::Result<T>>;

/// A command that was sent, or could not be.
struct Sent<R> {
    worker: usize,
    /// The worker, for [`Reply::is_from_hanging`].
    stats: Option<NumberedWorker>,
    answer: Result<Answered<R>, PanelError>,
}

impl Inner {
    /// The worker with the fewest cables, of those that work.
    fn idlest(&self) -> usize {
        let mut counts = vec![0; self.workers.len()];
        for entry in self.cables.values() {
            counts[entry.worker] += 1;
        }
        let numbers = 0..self.workers.len();
        let idlest = numbers.min_by_key(|worker| (!self.workers[*worker].works(), counts[*worker]));
        idlest.unwrap_or(0)
    }

    fn owner(&self, id: CableId) -> Result<usize, PanelError> {
        let entry = self.cables.get(&id).ok_or(PanelError::NoSuchCable)?;
        Ok(entry.worker)
    }

    fn send<R>(&self, worker: usize, command: impl FnOnce(Answer<R>) -> Command) -> Sent<R> {
        let (done, answer) = one_shot();
        let answer = match self.workers.get(worker) {
            None => Err(PanelError::Stopped),
            Some(handle) => match handle.mailbox.send(command(done)) {
                Ok(()) => Ok(answer),
                Err(_) => Err(PanelError::Silent(Answerer::Worker(worker))),
            },
        };
        let stats = self.workers.get(worker);
        let stats = stats.map(|handle| (worker, handle.stats.clone()));
        Sent {
            worker,
            stats,
            answer,
        }
    }

    /// Sends a command to the worker that owns its cable.
    fn send_to_owner<R>(&self, id: CableId, command: impl FnOnce(Answer<R>) -> Command) -> Sent<R> {
        match self.owner(id) {
            Ok(worker) => self.send(worker, command),
            Err(error) => Sent {
                worker: 0,
                stats: None,
                answer: Err(error),
            },
        }
    }
}

impl<R: Send + 'static> Sent<R> {
    fn reply(self) -> Reply<R> {
        self.then(|answer| answer)
    }

    /// `finish` makes the result of the answer. To be called without the panel's lock, which `finish`
    /// may take, and so may what it owns when it is dropped.
    fn then<T: Send + 'static>(
        self,
        finish: impl FnOnce(Result<R, PanelError>) -> Result<T, PanelError> + Send + 'static,
    ) -> Reply<T> {
        let Sent {
            worker,
            stats,
            answer,
        } = self;
        let from = Answerer::Worker(worker);
        match answer {
            Ok(answer) => Reply::new(from, async move { finish(result(worker, answer.await)) })
                .unless_hanging(stats.into_iter().collect()),
            Err(error) => Reply::ready(from, finish(Err(error))),
        }
    }
}

fn result<R>(worker: usize, answer: Option<io::Result<R>>) -> Result<R, PanelError> {
    match answer {
        Some(Ok(result)) => Ok(result),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(PanelError::NoSuchCable),
        Some(Err(source)) => Err(PanelError::Refused { worker, source }),
        None => Err(PanelError::Stopped),
    }
}

//! The patch panel as the control side sees it: [`Panel`] starts the workers and sends
//! them their commands.

mod error;
mod onlook;
mod step;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::balance::{Load, Move, OVERLOADED, choose};
use crate::cable::{Cable, CableState, Side};
use crate::command::{Answer, CableId, Command, Event};
use crate::port::Port;
use crate::stats::{LaneStats, WorkerStats};
use crate::worker::{Bell, Idle, WAKE, Wires, Worker};

pub use error::PanelError;
pub use onlook::Capture;
pub use step::Change;

/// Commands that may wait for one worker.
const COMMANDS: usize = 64;

/// Events that may wait for control.
const EVENTS: usize = 1024;

/// A worker answers within one round of bursts. If it has not after this, it is gone.
const ANSWER: Duration = Duration::from_secs(5);

/// Threads that close ports at the end: closing a packet socket waits for an RCU grace
/// period (12 ms here), which all that wait at the same time share.
const CLOSERS: usize = 64;

/// How to forward.
#[derive(Debug, Clone, Default)]
pub struct PanelOptions {
    /// Forwarding threads, at least 1.
    pub workers: usize,
    /// CPUs that the workers are bound to, in turn. Empty: wherever the process may run.
    pub cpus: Vec<usize>,
    /// What to do when no frame waits.
    pub idle: Idle,
}

struct WorkerHandle {
    commands: Sender<Command>,
    waker: Waker,
    thread: JoinHandle<Vec<Cable>>,
    cables: usize,
    stats: Arc<WorkerStats>,
    /// Its busy time when [`Panel::balance`] looked last.
    busy_before: Duration,
}

/// The patch panel: workers, and which of them owns which cable. A handle: clones are the
/// same panel. Its lock is the control side's; no worker takes it.
#[derive(Clone)]
pub struct Panel {
    inner: Arc<Mutex<Inner>>,
    events: Receiver<Event>,
}

struct Inner {
    /// Empty once it has been stopped.
    workers: Vec<WorkerHandle>,
    cables: BTreeMap<CableId, Entry>,
    next: u32,
    next_tap: u64,
    balanced: Instant,
    /// Whether the cables were looked at the last time too.
    measuring: bool,
}

struct Entry {
    worker: usize,
    lanes: [Arc<LaneStats>; 2],
    /// Frames in, both lanes, when [`Panel::balance`] looked last.
    frames_before: u64,
}

impl Entry {
    fn frames(&self) -> u64 {
        let lanes = self.lanes.iter();
        lanes.map(|lane| lane.snapshot().frames_in).sum()
    }
}

/// A cable's counters, and what to call it by.
#[derive(Debug, Clone)]
pub struct CableHandle {
    /// For commands to the [`Panel`].
    pub id: CableId,
    /// By the [`Side`] that the lane begins at.
    pub lanes: [Arc<LaneStats>; 2],
}

impl Panel {
    /// Starts the workers. `bell` is called on a worker's thread whenever an event has
    /// become available from [`Panel::event`]; it must not block.
    ///
    /// # Errors
    /// When a thread cannot be started or bound to its CPU.
    pub fn start(
        options: &PanelOptions,
        bell: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, PanelError> {
        let (event_sender, events) = bounded(EVENTS);
        let bell: Bell = Arc::new(bell);
        let workers = (0..options.workers.max(1))
            .map(|worker| {
                start_worker(worker, options, event_sender.clone(), bell.clone())
                    .map_err(|source| PanelError::Start { worker, source })
            })
            .collect::<Result<_, _>>()?;
        let inner = Inner {
            workers,
            cables: BTreeMap::new(),
            next: 0,
            next_tap: 0,
            balanced: Instant::now(),
            measuring: false,
        };
        Ok(Panel {
            inner: Arc::new(Mutex::new(inner)),
            events,
        })
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
    pub fn add(&self, cable: Cable) -> Result<CableHandle, PanelError> {
        let mut inner = self.lock();
        let workers = 0..inner.workers.len();
        let worker = workers.min_by_key(|worker| inner.workers[*worker].cables);
        let worker = worker.ok_or(PanelError::Stopped)?;
        let id = CableId(inner.next);
        inner.next += 1;
        let lanes = [cable.stats(Side::A), cable.stats(Side::B)];
        inner.plug(worker, id, Box::new(cable))?;
        let entry = Entry {
            worker,
            lanes: lanes.clone(),
            frames_before: 0,
        };
        inner.cables.insert(id, entry);
        Ok(CableHandle { id, lanes })
    }

    /// Takes a cable out: no frame of it is handled when this returns. Those that wait in it are
    /// gone with it, and dropping it closes its ports, which may take long
    /// ([`close_cables`] takes many at a time).
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn remove(&self, id: CableId) -> Result<Box<Cable>, PanelError> {
        let mut inner = self.lock();
        let worker = inner.owner(id)?;
        let cable = inner.tell(worker, |done| Command::Release { id, done })?;
        inner.workers[worker].cables -= 1;
        inner.cables.remove(&id);
        Ok(cable)
    }

    /// Cuts a cable, lets its frames vanish, or mends it. In force when this returns.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn set_state(&self, id: CableId, state: CableState) -> Result<(), PanelError> {
        let inner = self.lock();
        let worker = inner.owner(id)?;
        inner.tell(worker, |done| Command::SetState { id, state, done })
    }

    /// Puts another port in place of one end of a cable; `None` takes it out. Returns what
    /// was there: dropping it closes it.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], or [`PanelError::Refused`]; the old port stays then.
    pub fn exchange(
        &self,
        id: CableId,
        side: Side,
        port: Option<Port>,
    ) -> Result<Option<Port>, PanelError> {
        let inner = self.lock();
        let worker = inner.owner(id)?;
        inner.tell(worker, |done| Command::Exchange {
            id,
            side,
            port,
            done,
        })
    }

    /// Gives a cable to another worker. Frames that come meanwhile wait in its ports: none
    /// is lost and none overtakes another.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], or [`PanelError::Refused`] by the new worker: the cable
    /// is taken out of the panel then.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn move_cable(&self, id: CableId, to: usize) -> Result<(), PanelError> {
        self.lock().move_cable(id, to)
    }

    /// The worker that owns a cable, counted from 0.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn owner(&self, id: CableId) -> Result<usize, PanelError> {
        self.lock().owner(id)
    }

    /// Moves one busy cable from an overloaded worker to an idle one, if that helps. To be
    /// called a few times a second; what is measured is the time since the last call.
    ///
    /// # Errors
    /// As [`Panel::move_cable`].
    pub fn balance(&self) -> Result<Option<CableId>, PanelError> {
        let mut inner = self.lock();
        let Some(Move { cable, to }) = inner.measure() else {
            return Ok(None);
        };
        inner.move_cable(cable, to)?;
        Ok(Some(cable))
    }

    /// The next event, if one waits.
    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Stops forwarding and closes every port. Whatever a clone is told afterwards fails.
    pub fn stop(&self) {
        let mut inner = self.lock();
        let workers = std::mem::take(&mut inner.workers);
        inner.cables.clear();
        drop(inner);
        for worker in &workers {
            // Both fail only when the worker has ended already.
            let _ = worker.commands.send(Command::Stop);
            let _ = worker.waker.wake();
        }
        let cables: Vec<_> = workers
            .into_iter()
            .filter_map(|worker| worker.thread.join().ok())
            .flatten()
            .collect();
        close_cables(cables);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock can panic")
    }
}

impl Inner {
    fn owner(&self, id: CableId) -> Result<usize, PanelError> {
        let entry = self.cables.get(&id).ok_or(PanelError::NoSuchCable)?;
        Ok(entry.worker)
    }

    fn plug(&mut self, worker: usize, id: CableId, cable: Box<Cable>) -> Result<(), PanelError> {
        self.tell(worker, |done| Command::Add { id, cable, done })?;
        self.workers[worker].cables += 1;
        Ok(())
    }

    fn move_cable(&mut self, id: CableId, to: usize) -> Result<(), PanelError> {
        let from = self.owner(id)?;
        if from == to {
            return Ok(());
        }
        let cable = self.tell(from, |done| Command::Release { id, done })?;
        self.workers[from].cables -= 1;
        if let Err(error) = self.plug(to, id, cable) {
            self.cables.remove(&id);
            return Err(error);
        }
        if let Some(entry) = self.cables.get_mut(&id) {
            entry.worker = to;
        }
        Ok(())
    }

    /// The load since the last call, and what to do about it. Cables are looked at only when
    /// a worker is overloaded: an idle fabric of a thousand costs nothing.
    fn measure(&mut self) -> Option<Move> {
        let elapsed = std::mem::replace(&mut self.balanced, Instant::now()).elapsed();
        let mut loads = Vec::with_capacity(self.workers.len());
        for worker in &mut self.workers {
            let busy = worker.stats.busy();
            let before = std::mem::replace(&mut worker.busy_before, busy);
            let spent = busy.saturating_sub(before);
            loads.push(Load {
                busy: (spent.as_secs_f64() / elapsed.as_secs_f64()).min(1.0),
                cables: Vec::new(),
            });
        }
        let overloaded = loads.iter().any(|load| load.busy >= OVERLOADED);
        let measured = std::mem::replace(&mut self.measuring, overloaded);
        if !overloaded {
            return None;
        }
        for (id, entry) in &mut self.cables {
            let frames = entry.frames();
            let carried = frames - std::mem::replace(&mut entry.frames_before, frames);
            loads[entry.worker].cables.push((*id, carried));
        }
        // What they carried is known from the second look on.
        if measured { choose(&loads) } else { None }
    }

    fn tell<T>(
        &self,
        worker: usize,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, PanelError> {
        let answer = self.send(worker, command)?;
        await_answer(worker, &answer)
    }

    fn send<T>(
        &self,
        worker: usize,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<Receiver<io::Result<T>>, PanelError> {
        let (done, answer) = bounded(1);
        let handle = self.workers.get(worker).ok_or(PanelError::Stopped)?;
        if handle.commands.send_timeout(command(done), ANSWER).is_err()
            || handle.waker.wake().is_err()
        {
            return Err(PanelError::Silent(worker));
        }
        Ok(answer)
    }
}

fn await_answer<T>(worker: usize, answer: &Receiver<io::Result<T>>) -> Result<T, PanelError> {
    match answer.recv_timeout(ANSWER) {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(PanelError::NoSuchCable),
        Ok(Err(source)) => Err(PanelError::Refused { worker, source }),
        Err(_) => Err(PanelError::Silent(worker)),
    }
}

fn start_worker(
    number: usize,
    options: &PanelOptions,
    events: Sender<Event>,
    bell: Bell,
) -> io::Result<WorkerHandle> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let (commands, inbox) = bounded(COMMANDS);
    let stats = Arc::new(WorkerStats::default());
    let wires = Wires {
        commands: inbox,
        events,
        bell,
        stats: stats.clone(),
    };
    let worker = Worker::new(poll, wires, options.idle)?;
    let cpu = options
        .cpus
        .get(number % options.cpus.len().max(1))
        .copied();
    let (bound, binding) = bounded(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker{number}"))
        .spawn(move || {
            let result = cpu.map_or(Ok(()), bind_to);
            let go_on = result.is_ok();
            let _ = bound.send(result);
            if go_on { worker.run() } else { Vec::new() }
        })?;
    binding.recv().map_err(io::Error::other)??;
    Ok(WorkerHandle {
        commands,
        waker,
        thread,
        cables: 0,
        stats,
        busy_before: Duration::ZERO,
    })
}

fn bind_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Closes the ports of cables, many at the same time, and returns when it is done.
pub fn close_cables(cables: Vec<Cable>) {
    let mut piles: Vec<Vec<Cable>> = (0..CLOSERS.min(cables.len())).map(|_| Vec::new()).collect();
    for (index, cable) in cables.into_iter().enumerate() {
        piles[index % CLOSERS].push(cable);
    }
    std::thread::scope(|scope| {
        for pile in piles {
            scope.spawn(move || drop(pile));
        }
    });
}

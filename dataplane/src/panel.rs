//! The patch panel as the control side sees it: [`Panel`] starts the workers and sends
//! them their commands.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::{Poll, Waker};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cable::{Cable, CableState, Side};
use crate::command::{CableId, Command, Event};
use crate::port::Port;
use crate::stats::LaneStats;
use crate::worker::{Bell, Idle, WAKE, Worker};

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

/// Why the panel could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum PanelError {
    /// A worker could not be started.
    #[error("cannot start worker {worker}: {source}")]
    Start {
        /// Counted from 0.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// No worker has this cable.
    #[error("the cable is not in the panel")]
    NoSuchCable,
    /// The worker refused, most likely for lack of descriptors.
    #[error("worker {worker} cannot take the cable: {source}")]
    Refused {
        /// Counted from 0.
        worker: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A worker does not answer.
    #[error("worker {0} does not answer: end the fabric with SIGTERM and report this")]
    Silent(usize),
}

struct WorkerHandle {
    commands: Sender<Command>,
    waker: Waker,
    thread: JoinHandle<Vec<Cable>>,
    cables: usize,
}

/// The patch panel: workers, and which of them owns which cable.
pub struct Panel {
    workers: Vec<WorkerHandle>,
    owner: BTreeMap<CableId, usize>,
    events: Receiver<Event>,
    next: u32,
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
        Ok(Panel {
            workers,
            owner: BTreeMap::new(),
            events,
            next: 0,
        })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Plugs a cable in: it goes to the worker with the fewest.
    ///
    /// # Errors
    /// [`PanelError::Refused`] when the worker cannot watch its ports.
    pub fn add(&mut self, cable: Cable) -> Result<CableHandle, PanelError> {
        let id = CableId(self.next);
        self.next += 1;
        let lanes = [cable.stats(Side::A), cable.stats(Side::B)];
        let worker = (0..self.workers.len())
            .min_by_key(|worker| self.workers[*worker].cables)
            .expect("a panel has at least one worker");
        self.tell(worker, |done| Command::Add {
            id,
            cable: Box::new(cable),
            done,
        })?;
        self.workers[worker].cables += 1;
        self.owner.insert(id, worker);
        Ok(CableHandle { id, lanes })
    }

    /// Cuts a cable, lets its frames vanish, or mends it. In force when this returns.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`].
    pub fn set_state(&mut self, id: CableId, state: CableState) -> Result<(), PanelError> {
        let worker = *self.owner.get(&id).ok_or(PanelError::NoSuchCable)?;
        self.tell(worker, |done| Command::SetState { id, state, done })
    }

    /// Puts another port in place of one end of a cable; `None` takes it out.
    ///
    /// # Errors
    /// [`PanelError::NoSuchCable`], or [`PanelError::Refused`]; the old port stays then.
    pub fn replace_port(
        &mut self,
        id: CableId,
        side: Side,
        port: Option<Port>,
    ) -> Result<(), PanelError> {
        let worker = *self.owner.get(&id).ok_or(PanelError::NoSuchCable)?;
        self.tell(worker, |done| Command::Replace {
            id,
            side,
            port,
            done,
        })
    }

    /// The next event, if one waits.
    pub fn event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }

    /// Stops forwarding and closes every port.
    pub fn stop(self) {
        for worker in &self.workers {
            // Both fail only when the worker has ended already.
            let _ = worker.commands.send(Command::Stop);
            let _ = worker.waker.wake();
        }
        let cables: Vec<_> = self
            .workers
            .into_iter()
            .filter_map(|worker| worker.thread.join().ok())
            .flatten()
            .collect();
        close_together(cables);
    }

    fn tell(
        &self,
        worker: usize,
        command: impl FnOnce(Sender<io::Result<()>>) -> Command,
    ) -> Result<(), PanelError> {
        let (done, answer) = bounded(1);
        let silent = PanelError::Silent(worker);
        let handle = &self.workers[worker];
        if handle.commands.send_timeout(command(done), ANSWER).is_err()
            || handle.waker.wake().is_err()
        {
            return Err(silent);
        }
        match answer.recv_timeout(ANSWER) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(PanelError::NoSuchCable)
            }
            Ok(Err(source)) => Err(PanelError::Refused { worker, source }),
            Err(_) => Err(silent),
        }
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
    let worker = Worker::new(poll, inbox, events, bell, options.idle);
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

fn close_together(cables: Vec<Cable>) {
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

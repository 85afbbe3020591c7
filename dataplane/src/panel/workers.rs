//! The workers' threads as the panel holds them: [`WorkerHandle`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::Poll;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::PanelOptions;
use super::supervision::Progress;
use crate::cable::Cable;
use crate::command::{Command, Event};
use crate::mailbox::{Ended, Mailbox, Running, mailbox};
use crate::seccomp;
use crate::sys::eventfd;
use crate::worker::{Notifier, WAKE, Worker, WorkerChannels, WorkerStats};

/// A worker ends within a round of bursts; one that has not after this is stuck.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// As [`STOP_LIMIT`], for a worker that has made no progress for a second already.
const HANGING_LIMIT: Duration = Duration::from_millis(50);

/// Threads that close ports at the end: closing a packet socket waits for an RCU grace
/// period (12 ms here), which all that wait at the same time share.
const CLOSERS: usize = 64;

/// One worker. It ends when this is dropped.
pub(super) struct WorkerHandle {
    pub(super) mailbox: Arc<Mailbox<Command>>,
    pub(super) stats: Arc<WorkerStats>,
    /// Its busy time when [`Panel::balance`](super::Panel::balance) looked last.
    pub(super) busy_before: Duration,
    pub(super) progress: Progress,
    pub(super) running: Running<Vec<Cable>>,
}

impl WorkerHandle {
    /// # Errors
    /// When the thread cannot be started or bound to its CPU.
    pub(super) fn start(
        number: usize,
        options: &PanelOptions,
        events: Sender<Event>,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (mailbox, inbox) = mailbox(poll.registry(), WAKE)?;
        let stats = Arc::new(WorkerStats::default());
        let channels = WorkerChannels {
            commands: inbox,
            events,
            notifier,
            stats: stats.clone(),
        };
        let worker = Worker::new(poll, channels, options.idle)?;
        let cpus = &options.cpus;
        let cpu = cpus.get(number % cpus.len().max(1)).copied();
        let prepare = move || cpu.map_or(Ok(()), bind_to).and_then(|()| prepare());
        let running = Running::spawn_prepared(format!("worker{number}"), prepare, || worker.run())?;
        Ok(WorkerHandle {
            mailbox: Arc::new(mailbox),
            stats,
            busy_before: Duration::ZERO,
            progress: Progress::default(),
            running,
        })
    }
}

/// Opens what the worker needs for itself; after this it can open nothing.
fn prepare() -> io::Result<()> {
    eventfd::prepare().map_err(|error| {
        let text = format!(
            "it cannot signal guests: {error}; the kernel needs CONFIG_AIO and room below \
             `sysctl fs.aio-max-nr`"
        );
        io::Error::new(error.kind(), text)
    })?;
    seccomp::workers()
}

fn bind_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Ends the workers and closes their cables. Returns the numbers of those that did not end within
/// a second: they are left behind with their cables.
pub(super) fn stop(workers: Vec<WorkerHandle>) -> Vec<usize> {
    // All are asked to end before any is waited for.
    let running: Vec<_> = workers
        .into_iter()
        .map(|WorkerHandle { running, stats, .. }| (running, stats))
        .collect();
    let now = Instant::now();
    let (mut cables, mut stuck) = (Vec::new(), Vec::new());
    for (number, (running, stats)) in running.into_iter().enumerate() {
        // One that hangs already gets no further second.
        let limit = if stats.hangs() {
            HANGING_LIMIT
        } else {
            STOP_LIMIT
        };
        match running.finish(now + limit) {
            Ended::With(left) => cables.extend(left),
            Ended::Panicked => {}
            Ended::Detached => stuck.push(number),
        }
    }
    close_cables(cables);
    stuck
}

/// Closes the ports of cables, many at the same time, and returns when it is done.
pub fn close_cables(cables: Vec<Cable>) {
    let mut shares: Vec<Vec<Cable>> = (0..CLOSERS.min(cables.len())).map(|_| Vec::new()).collect();
    for (index, cable) in cables.into_iter().enumerate() {
        shares[index % CLOSERS].push(cable);
    }
    std::thread::scope(|scope| {
        for share in shares {
            scope.spawn(move || drop(share));
        }
    });
}

//! How control reaches a thread that sleeps in epoll, and how that thread ends: [`Mailbox`],
//! [`Inbox`] and [`Running`].
//!
//! A thread ends when its mailbox is dropped: the channel closes, the thread is woken, and finds
//! that no command can come any more. So nothing that owns a mailbox can leave its thread behind.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use mio::{Registry, Token, Waker};

/// Commands that may wait for one thread. A capture of every cable sends one for each lane in one
/// go, before a thread that shares its CPU has read any: this is room for both lanes of 2,000
/// cables. A thread that leaves more unread is stuck.
const COMMANDS: usize = 4096;

/// Sends commands to a thread and wakes it. None of it ever blocks.
#[derive(Debug)]
pub(crate) struct Mailbox<C> {
    /// Taken out only by `drop`.
    commands: Option<Sender<C>>,
    waker: Arc<Waker>,
}

/// What the thread takes its commands from.
pub(crate) struct Inbox<C> {
    commands: Receiver<C>,
    /// Dropping the last handle of a waker takes it out of epoll, with a wake-up that it has just
    /// made: so the thread holds one, too.
    waker: Arc<Waker>,
}

/// Makes a mailbox for the thread that polls `registry`; its wake-ups come as `token`.
///
/// # Errors
/// When the process is out of descriptors.
pub(crate) fn mailbox<C>(registry: &Registry, token: Token) -> io::Result<(Mailbox<C>, Inbox<C>)> {
    let waker = Arc::new(Waker::new(registry, token)?);
    let (sender, receiver) = bounded(COMMANDS);
    let mailbox = Mailbox {
        commands: Some(sender),
        waker: waker.clone(),
    };
    let commands = receiver;
    Ok((mailbox, Inbox { commands, waker }))
}

impl<C> Mailbox<C> {
    /// Sends a command. Returns it if the thread has ended, or must be stuck because its queue of
    /// unread commands is full.
    pub(crate) fn send(&self, command: C) -> Result<(), C> {
        let Some(commands) = &self.commands else {
            return Err(command);
        };
        commands
            .try_send(command)
            .map_err(crossbeam_channel::TrySendError::into_inner)?;
        // A failure (the kernel is out of memory) leaves the command to the next wake-up.
        let _ = self.waker.wake();
        Ok(())
    }
}

impl<C> Drop for Mailbox<C> {
    fn drop(&mut self) {
        // In this order: the thread that wakes up is to find the channel closed.
        self.commands = None;
        let _ = self.waker.wake();
    }
}

impl<C> Inbox<C> {
    /// The next command.
    ///
    /// # Errors
    /// Whether none waits now, or none will ever come.
    pub(crate) fn next(&self) -> Result<C, TryRecvError> {
        self.commands.try_recv()
    }

    /// Wakes this thread itself, from another one.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }
}

/// A thread, and what it leaves behind when it ends.
#[derive(Debug)]
pub(crate) struct Running<T> {
    thread: JoinHandle<()>,
    result: Receiver<T>,
}

/// What became of a thread that was asked to end.
pub(crate) enum Ended<T> {
    With(T),
    /// It panicked.
    Panicked,
    /// It did not end in time and goes on by itself. What it holds is closed when it ends, or with
    /// the process.
    Detached,
}

impl<T: Send + 'static> Running<T> {
    /// # Errors
    /// When the process is out of threads.
    pub(crate) fn spawn(
        name: String,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, result) = bounded(1);
        let thread = Builder::new().name(name).spawn(move || {
            // Fails when the thread was detached: then its result is dropped here.
            let _ = sender.send(work());
        })?;
        Ok(Running { thread, result })
    }

    /// As [`Running::spawn`], once the new thread has prepared itself.
    ///
    /// # Errors
    /// Those of `prepare`; then `work` is not done.
    pub(crate) fn spawn_prepared(
        name: String,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self>
    where
        T: Default,
    {
        let (sender, prepared) = bounded(1);
        let running = Running::spawn(name, move || {
            let result = prepare();
            let is_prepared = result.is_ok();
            let _ = sender.send(result);
            if is_prepared { work() } else { T::default() }
        })?;
        prepared.recv().map_err(io::Error::other)??;
        Ok(running)
    }

    /// Whether it has ended, for whatever reason.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the thread, whose mailbox was dropped, has ended, but not beyond `deadline`.
    pub(crate) fn finish(self, deadline: Instant) -> Ended<T> {
        match self.result.recv_deadline(deadline) {
            Ok(result) => {
                // It has nothing left to do.
                let _ = self.thread.join();
                Ended::With(result)
            }
            Err(RecvTimeoutError::Disconnected) => Ended::Panicked,
            Err(RecvTimeoutError::Timeout) => Ended::Detached,
        }
    }
}

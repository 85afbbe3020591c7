//! Where a capture is written to: [`Sink`], a thread of its own. A slow disk or pipe makes nobody
//! wait who could listen to a signal meanwhile.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{mpsc, oneshot};

/// Chunks that may wait for a reader: what nobody has read yet is still to be shown at the end.
const FOR_READERS: usize = 4;

/// And for a file, because disks stop for a moment now and then. A chunk has some 200 KiB under
/// load.
const FOR_FILES: usize = 256;

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Write this.
    Write(Vec<u8>),
    /// Write to another file from now on.
    Turn(File),
}

/// Writes to a file, or to whatever standard output is.
#[derive(Debug)]
pub(crate) struct Sink {
    orders: mpsc::Sender<Order>,
    done: oneshot::Receiver<io::Result<()>>,
}

/// Nothing can be written any more; [`Sink::finish`] says why.
#[derive(Debug)]
pub(crate) struct Closed;

impl Sink {
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(file: File) -> io::Result<Self> {
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        let chunks = if is_file { FOR_FILES } else { FOR_READERS };
        let (orders, mut inbox) = mpsc::channel(chunks);
        let (sender, done) = oneshot::channel();
        let mut file = file;
        let mut work = move || {
            while let Some(order) = inbox.blocking_recv() {
                match order {
                    Order::Write(bytes) => file.write_all(&bytes)?,
                    Order::Turn(next) => file = next,
                }
            }
            Ok(())
        };
        std::thread::Builder::new()
            .name("sink".into())
            // Where nobody waits for the result, the command has ended.
            .spawn(move || _ = sender.send(work()))?;
        Ok(Sink { orders, done })
    }

    /// Hands over what is pending as there is room for it. Given up half-way, the rest stays.
    ///
    /// # Errors
    /// When writing has failed.
    pub(crate) async fn hand_over(&self, pending: &mut VecDeque<Order>) -> Result<(), Closed> {
        while !pending.is_empty() {
            let room = self.orders.reserve().await.map_err(|_| Closed)?;
            if let Some(order) = pending.pop_front() {
                room.send(order);
            }
        }
        Ok(())
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Why not everything was. A pipe that was closed is none.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.orders);
        match self.done.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// The reading end of a pipe that is written to, as far as the writing end knows of it.
#[derive(Debug)]
pub(crate) struct Reader(Option<OwnedFd>);

impl Reader {
    /// Whoever reads what is written to `file`.
    pub(crate) fn of(file: &File) -> Self {
        Reader(file.as_fd().try_clone_to_owned().ok())
    }

    /// Whether it has closed its end. A file is never gone.
    pub(crate) fn is_gone(&self) -> bool {
        let Some(pipe) = &self.0 else { return false };
        let mut ends = [PollFd::new(pipe, PollFlags::empty())];
        let closed = PollFlags::ERR | PollFlags::HUP;
        poll(&mut ends, Some(&Timespec::default())).is_ok() && ends[0].revents().intersects(closed)
    }
}

/// Standard output, without a buffer in between.
///
/// # Errors
/// When it is closed.
pub(crate) fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// A new file, or an old one emptied.
///
/// # Errors
/// With its path.
pub(crate) fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

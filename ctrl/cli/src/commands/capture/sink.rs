//! [`Sink`] writes a capture in a thread of its own, so that the command still reacts to signals
//! while a disk or a pipe is slow.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{Notify, mpsc, oneshot};

/// Chunks that may wait for the reader of a pipe or terminal. Few, because all of them are still
/// shown after the capture has ended.
const QUEUE_FOR_READERS: usize = 4;

/// Chunks that may wait for a file; disks pause now and then. A chunk has about 200 KiB under load.
const QUEUE_FOR_FILES: usize = 256;

/// What the sink's thread does next.
#[derive(Debug)]
pub(super) enum SinkCommand {
    /// Write these bytes.
    Write(Vec<u8>),
    /// From now on write to this file.
    SwitchTo(File),
}

/// The thread that writes to a file, or to standard output.
#[derive(Debug)]
pub(super) struct Sink {
    commands: mpsc::Sender<SinkCommand>,
    done: oneshot::Receiver<io::Result<()>>,
    ended: Arc<Notify>,
}

impl Sink {
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn start(file: File) -> io::Result<Self> {
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        let chunks = if is_file {
            QUEUE_FOR_FILES
        } else {
            QUEUE_FOR_READERS
        };
        let (commands, mut inbox) = mpsc::channel(chunks);
        let (sender, done) = oneshot::channel();
        let mut file = file;
        let mut work = move || {
            while let Some(command) = inbox.blocking_recv() {
                match command {
                    SinkCommand::Write(bytes) => file.write_all(&bytes)?,
                    SinkCommand::SwitchTo(next) => file = next,
                }
            }
            Ok(())
        };
        let ended = Arc::new(Notify::new());
        let tell = ended.clone();
        std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || {
                // Sending fails only when the command has ended without waiting for the result.
                let _ = sender.send(work());
                tell.notify_one();
            })?;
        Ok(Sink {
            commands,
            done,
            ended,
        })
    }

    /// Notified when it writes no more: writing has failed, or everything is written. On a cable
    /// without frames nothing else would tell.
    pub(super) fn ended(&self) -> Arc<Notify> {
        self.ended.clone()
    }

    /// Hands over what is pending, as the queue has room for it. If the future is dropped before its
    /// end, the rest stays in `pending`. Returns `false` if writing has failed; [`Sink::finish`]
    /// reports why.
    pub(super) async fn hand_over(&self, pending: &mut VecDeque<SinkCommand>) -> bool {
        while !pending.is_empty() {
            // The slot comes first, so that no command is lost if the future is dropped here.
            let Ok(slot) = self.commands.reserve().await else {
                return false;
            };
            if let Some(command) = pending.pop_front() {
                slot.send(command);
            }
        }
        true
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// When writing has failed, unless its reader has closed the pipe.
    pub(super) async fn finish(self) -> io::Result<()> {
        drop(self.commands);
        match self.done.await {
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// The program that reads from a pipe, as seen from the writing end.
#[derive(Debug)]
pub(super) struct Reader(Option<OwnedFd>);

impl Reader {
    /// The program that reads what is written to `file`.
    pub(super) fn of(file: &File) -> Self {
        Reader(file.as_fd().try_clone_to_owned().ok())
    }

    /// Whether it has closed its end; always `false` for a file.
    pub(super) fn is_gone(&self) -> bool {
        let Some(pipe) = &self.0 else { return false };
        let mut ends = [PollFd::new(pipe, PollFlags::empty())];
        let closed = PollFlags::ERR | PollFlags::HUP;
        poll(&mut ends, Some(&Timespec::default())).is_ok() && ends[0].revents().intersects(closed)
    }
}

/// Standard output, without a buffer.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn standard_output() -> io::Result<File> {
    Ok(io::stdout().as_fd().try_clone_to_owned()?.into())
}

/// Creates a file, or empties an existing one.
///
/// # Errors
/// When that fails; the error names the path.
pub(crate) fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_is_full_ends_it_at_once() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let sink = Sink::start(full).unwrap();
        let ended = sink.ended();
        let mut pending = VecDeque::from([SinkCommand::Write(vec![7])]);
        assert!(sink.hand_over(&mut pending).await);
        timeout(Duration::from_secs(10), ended.notified())
            .await
            .unwrap();
        let error = sink.finish().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

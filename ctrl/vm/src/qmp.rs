//! The QEMU monitor protocol, as far as a switch needs it (QEMU, docs/interop/qmp-spec.txt).
//!
//! One connection for the life of a QEMU. A reader task hands answers to their callers by id and
//! events to a callback, which must not block. QEMU is trusted no more than its guest: lines are
//! bounded, and so is every wait.

mod commands;

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::line;
use model::printable;

/// Longest line taken from QEMU, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Why a monitor command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection has ended: QEMU ended, or sent something that is not QMP.
    #[error("QEMU's monitor is closed")]
    Closed,
    /// No answer in time.
    #[error("QEMU's monitor did not answer {command} within {limit:?}")]
    Timeout {
        /// The command, or `greeting`.
        command: &'static str,
        /// The time given.
        limit: Duration,
    },
    /// QEMU refused.
    #[error("QEMU refused {command}: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's own message, escaped.
        reason: String,
    },
    /// The greeting is not QMP; its beginning, escaped.
    #[error("QEMU's monitor does not speak QMP: {0}")]
    Protocol(String),
    /// The monitor's socket failed.
    #[error("QEMU's monitor: {0}")]
    Io(#[from] io::Error),
}

/// What QEMU reports without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The VM ends.
    Shutdown {
        /// The guest powered itself off (QEMU's `ShutdownCause` is `guest-shutdown`).
        guest: bool,
    },
    /// The VM was reset, by the guest or by us.
    Reset,
    /// A program in the guest opened or closed a virtio-serial port.
    Port {
        /// QEMU's id of the port.
        id: String,
        /// Whether it opened it.
        open: bool,
    },
    /// A device that has an id was unplugged, as we asked.
    Deleted {
        /// QEMU's id of the device.
        id: String,
    },
    /// Any other event, by name.
    Other(String),
}

/// An open monitor. Dropping it closes the connection; QEMU runs on.
#[derive(Debug)]
pub(crate) struct Qmp {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    calls: Arc<Mutex<Calls>>,
    closed: watch::Receiver<()>,
    reader: tokio::task::AbortHandle,
}

#[derive(Debug, Default)]
struct Calls {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Value, String>>>,
    closed: bool,
}

#[derive(Deserialize)]
struct Message {
    id: Option<u64>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    desc: String,
}

impl Qmp {
    /// Waits for the greeting on a connected monitor socket, then negotiates capabilities.
    ///
    /// # Errors
    /// When greeting and negotiation are not done within `limit`, or are not QMP.
    pub(crate) async fn open(
        stream: UnixStream,
        limit: Duration,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, QmpError> {
        timeout(limit, Self::negotiate(stream, limit, on_event))
            .await
            .unwrap_or(Err(QmpError::Timeout {
                command: "greeting",
                limit,
            }))
    }

    async fn negotiate(
        stream: UnixStream,
        limit: Duration,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, QmpError> {
        let (read, write) = stream.into_split();
        let mut reader = BufReader::new(read);
        let greeting = line::read(&mut reader, b'\n', MAX_LINE)
            .await?
            .ok_or(QmpError::Closed)?;
        let is_qmp = serde_json::from_slice::<Value>(&greeting)
            .is_ok_and(|greeting| greeting.get("QMP").is_some());
        if !is_qmp {
            return Err(QmpError::Protocol(printable::head(&greeting, 80)));
        }
        let calls = Arc::new(Mutex::new(Calls::default()));
        let (open, closed) = watch::channel(());
        let task = tokio::spawn(receive(reader, Arc::clone(&calls), on_event, open));
        let qmp = Self {
            writer: tokio::sync::Mutex::new(write),
            calls,
            closed,
            reader: task.abort_handle(),
        };
        qmp.execute("qmp_capabilities", None, limit).await?;
        Ok(qmp)
    }

    /// Runs one command and returns its `return` value.
    ///
    /// # Errors
    /// See [`QmpError`]. An answer that arrives after the limit is dropped.
    pub(crate) async fn execute(
        &self,
        command: &'static str,
        arguments: Option<Value>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None, limit).await
    }

    /// Runs one command and sends a descriptor with it.
    async fn execute_with(
        &self,
        command: &'static str,
        arguments: Option<Value>,
        descriptor: Option<BorrowedFd<'_>>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let (id, answer) = self.register()?;
        let mut request = json!({"execute": command, "id": id});
        if let Some(arguments) = arguments {
            request["arguments"] = arguments;
        }
        let request = format!("{request}\n");
        let exchange = async {
            // Held for the whole request: the bytes of two requests must not mix.
            let mut writer = self.writer.lock().await;
            let sent = match descriptor {
                Some(descriptor) => send_with(&writer, request.as_bytes(), descriptor).await?,
                None => 0,
            };
            writer.write_all(&request.as_bytes()[sent..]).await?;
            drop(writer);
            answer
                .await
                .map_err(|_| QmpError::Closed)?
                .map_err(|reason| QmpError::Refused { command, reason })
        };
        let outcome = timeout(limit, exchange).await;
        self.lock().waiting.remove(&id);
        outcome.unwrap_or(Err(QmpError::Timeout { command, limit }))
    }

    /// Resolves once the connection has ended and every event before its end has been delivered.
    pub(crate) async fn closed(&self) {
        let mut closed = self.closed.clone();
        while closed.changed().await.is_ok() {}
    }

    fn register(&self) -> Result<(u64, oneshot::Receiver<Result<Value, String>>), QmpError> {
        let mut calls = self.lock();
        // The reader has ended, so no answer would ever wake the caller.
        if calls.closed {
            return Err(QmpError::Closed);
        }
        let (sender, receiver) = oneshot::channel();
        calls.last += 1;
        let id = calls.last;
        calls.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().expect("no holder of this lock can panic")
    }
}

/// Sends a descriptor with the beginning of `request`. Returns how many bytes were sent, at least one.
async fn send_with(
    writer: &OwnedWriteHalf,
    request: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let stream: &UnixStream = writer.as_ref();
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        // The space is for one, so this cannot fail.
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let bytes = [IoSlice::new(request)];
        Ok(sendmsg(stream, &bytes, &mut control, SendFlags::NOSIGNAL)?)
    };
    stream.async_io(Interest::WRITABLE, send).await
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads until the stream ends or is not QMP. Dropping `_open` then wakes [`Qmp::closed`].
async fn receive(
    mut reader: BufReader<OwnedReadHalf>,
    calls: Arc<Mutex<Calls>>,
    mut on_event: impl FnMut(Event) + Send,
    _open: watch::Sender<()>,
) {
    while let Ok(Some(line)) = line::read(&mut reader, b'\n', MAX_LINE).await {
        let Ok(message) = serde_json::from_slice::<Message>(&line) else {
            break;
        };
        if let Some(name) = message.event {
            on_event(event(name, &message.data.unwrap_or_default()));
            continue;
        }
        let Some(id) = message.id else { continue };
        let caller = calls
            .lock()
            .expect("no holder of this lock can panic")
            .waiting
            .remove(&id);
        let outcome = match message.error {
            Some(refusal) => Err(printable::head(refusal.desc.as_bytes(), 200)),
            None => Ok(message.answer.unwrap_or_default()),
        };
        if let Some(caller) = caller {
            let _ = caller.send(outcome);
        }
    }
    let mut calls = calls.lock().expect("no holder of this lock can panic");
    calls.closed = true;
    calls.waiting.clear();
}

fn event(name: String, data: &Value) -> Event {
    match name.as_str() {
        "SHUTDOWN" => Event::Shutdown {
            guest: data["reason"] == "guest-shutdown",
        },
        "RESET" => Event::Reset,
        "VSERPORT_CHANGE" => Event::Port {
            id: data["id"].as_str().unwrap_or_default().into(),
            open: data["open"] == true,
        },
        // An event without an id is about a part of a device.
        "DEVICE_DELETED" if data["device"].is_string() => Event::Deleted {
            id: data["device"].as_str().unwrap_or_default().into(),
        },
        _ => Event::Other(name),
    }
}

#[cfg(test)]
mod tests;

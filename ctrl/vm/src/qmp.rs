//! The QEMU monitor protocol, as much as a switch needs (QEMU, docs/interop/qmp-spec.txt).
//!
//! One connection for the life of a QEMU. A reader task hands answers to their callers by id and
//! events to a callback, which must not block. QEMU is not trusted more than its guest: lines
//! are bounded, and so is every wait.

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
use tokio::time::{sleep, timeout};

use super::line;
use model::printable;

/// Longest line taken from QEMU, in bytes.
const MAX_LINE: usize = 1 << 20;

/// Between two questions whether a state has been written or read.
const SAVING: Duration = Duration::from_millis(20);

/// Why a monitor command failed.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection is gone: QEMU ended, or it sent what no QEMU sends.
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
        /// QEMU's words, escaped.
        reason: String,
    },
    /// Not QMP at all.
    #[error("QEMU's monitor speaks no QMP: {0}")]
    Protocol(String),
    /// The socket failed.
    #[error("QEMU's monitor: {0}")]
    Io(#[from] io::Error),
}

/// What QEMU reports of its own accord.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The VM ends. `guest` if it powered itself off.
    Shutdown {
        /// QEMU's `ShutdownCause` is `guest-shutdown`.
        guest: bool,
    },
    /// The VM was reset, by the guest or by us.
    Reset,
    /// A program in the guest opened or closed a virtio-serial port.
    Port {
        /// QEMU's id of the port.
        id: String,
        /// Opened.
        open: bool,
    },
    /// A device that has an id is gone, because we took it away.
    Deleted {
        /// QEMU's id of it.
        id: String,
    },
    /// Any other, by name.
    Other(String),
}

/// An open monitor. Dropping it closes the connection; QEMU goes on.
#[derive(Debug)]
pub struct Qmp {
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
    pub async fn open(
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
    /// See [`QmpError`]. After a timeout the answer, should it still come, is dropped.
    pub async fn execute(
        &self,
        command: &'static str,
        arguments: Option<Value>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None, limit).await
    }

    /// The same for a command that a descriptor goes with.
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

    /// Sets the carrier of a NIC as the guest sees it.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn set_link(&self, id: &str, up: bool, limit: Duration) -> Result<(), QmpError> {
        self.execute("set_link", Some(json!({"name": id, "up": up})), limit)
            .await
            .map(drop)
    }

    /// Stops the guest and writes its state to `file`. Whether all of it could be written.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn save(
        &self,
        file: BorrowedFd<'_>,
        limit: Duration,
        command: Duration,
    ) -> Result<bool, QmpError> {
        self.execute("stop", None, command).await?;
        // 0 is no limit.
        let unlimited = json!({"max-bandwidth": 0});
        self.execute("migrate-set-parameters", Some(unlimited), command)
            .await?;
        let name = "state";
        self.execute_with("getfd", Some(json!({"fdname": name})), Some(file), command)
            .await?;
        let to = json!({"uri": format!("fd:{name}")});
        self.execute("migrate", Some(to), command).await?;
        let ended = async {
            loop {
                let told = self.execute("query-migrate", None, command).await?;
                match told["status"].as_str() {
                    Some("completed") => return Ok(true),
                    Some("failed" | "cancelled") | None => return Ok(false),
                    Some(_) => sleep(SAVING).await,
                }
            }
        };
        timeout(limit, ended).await.unwrap_or(Ok(false))
    }

    /// Lets a guest go on whose state QEMU has been reading since it started, once that is done.
    /// A QEMU that cannot make use of the state ends.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn resume(&self, limit: Duration) -> Result<(), QmpError> {
        let read = async {
            loop {
                let told = self.execute("query-status", None, limit).await?;
                if told["status"] != "inmigrate" {
                    return Ok(());
                }
                sleep(SAVING).await;
            }
        };
        timeout(limit, read)
            .await
            .unwrap_or(Err(QmpError::Timeout {
                command: "query-status",
                limit,
            }))?;
        self.execute("cont", None, limit).await.map(drop)
    }

    /// Hands QEMU the connection of a VNC client, which has to know `password`, if there is one
    /// (only its first 8 bytes count, RFC 6143 section 7.2.2).
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn add_vnc_client(
        &self,
        client: BorrowedFd<'_>,
        password: Option<&str>,
        limit: Duration,
    ) -> Result<(), QmpError> {
        if let Some(password) = password {
            let arguments = json!({"protocol": "vnc", "password": password});
            self.execute("set_password", Some(arguments), limit).await?;
        }
        let name = "vnc-client";
        self.hand_over(name, client, limit).await?;
        let arguments = json!({"protocol": "vnc", "fdname": name, "skipauth": password.is_none()});
        self.execute("add_client", Some(arguments), limit).await?;
        Ok(())
    }

    /// Hands QEMU a descriptor, for a command that takes one by name. Another one of that name
    /// that was not taken is closed by QEMU.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn hand_over(
        &self,
        name: &str,
        descriptor: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<(), QmpError> {
        let arguments = json!({"fdname": name});
        self.execute_with("getfd", Some(arguments), Some(descriptor), limit)
            .await
            .map(drop)
    }

    /// Resolves once the connection has ended and every event before that has been handed on.
    pub async fn closed(&self) {
        let mut closed = self.closed.clone();
        while closed.changed().await.is_ok() {}
    }

    fn register(&self) -> Result<(u64, oneshot::Receiver<Result<Value, String>>), QmpError> {
        let mut calls = self.lock();
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

/// Sends the beginning of `request`, at least a byte, and a descriptor with it; how much.
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
        // There is room for the one.
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

/// Reads until the stream ends or makes no sense; `_open` is dropped then, which is the sign.
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
        // Parts of a device have a path only.
        "DEVICE_DELETED" if data["device"].is_string() => Event::Deleted {
            id: data["device"].as_str().unwrap_or_default().into(),
        },
        _ => Event::Other(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncBufReadExt;
    use tokio::sync::mpsc;

    const LIMIT: Duration = Duration::from_secs(5);
    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";

    /// A QEMU that greets, accepts the capabilities, then sends `script` after each further
    /// request and closes at the end of it.
    async fn fake(mut stream: UnixStream, script: Vec<String>) {
        stream.write_all(GREETING.as_bytes()).await.unwrap();
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        lines.next_line().await.unwrap();
        write
            .write_all(b"{\"return\": {}, \"id\": 1}\r\n")
            .await
            .unwrap();
        for reply in script {
            if lines.next_line().await.unwrap().is_none() {
                return;
            }
            let _ = write.write_all(reply.as_bytes()).await;
        }
        let _ = lines.next_line().await;
    }

    async fn open(script: &[&str]) -> (Qmp, mpsc::UnboundedReceiver<Event>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(fake(
            theirs,
            script.iter().map(|s| (*s).to_owned()).collect(),
        ));
        let (sender, events) = mpsc::unbounded_channel();
        let qmp = Qmp::open(ours, LIMIT, move |event| drop(sender.send(event)))
            .await
            .unwrap();
        (qmp, events)
    }

    #[tokio::test]
    async fn answers_and_events_find_their_way() {
        let (qmp, mut events) = open(&[concat!(
            "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\r\n",
            "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": false, \"reason\": \"host-signal\"}}\r\n",
            "{\"event\": \"RESET\", \"data\": {}}\r\n{\"event\": \"NEW\"}\r\n",
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"path\": \"/machine/x\"}}\r\n",
            "{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"nic7\", \"path\": \"/machine/y\"}}\r\n",
            "{\"event\": \"VSERPORT_CHANGE\", \"data\": {\"id\": \"agent\", \"open\": true}}\r\n",
            "{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n"
        ), "{\"id\": 3, \"error\": {\"class\": \"GenericError\", \"desc\": \"no \\u001b[1m\"}}\r\n"]).await;
        let answer = qmp.execute("query-status", None, LIMIT).await.unwrap();
        assert_eq!(answer["status"], "running");
        let expected = [
            Event::Shutdown { guest: true },
            Event::Shutdown { guest: false },
            Event::Reset,
            Event::Other("NEW".into()),
            Event::Other("DEVICE_DELETED".into()),
            Event::Deleted { id: "nic7".into() },
            Event::Port {
                id: "agent".into(),
                open: true,
            },
        ];
        for event in expected {
            assert_eq!(events.recv().await, Some(event));
        }
        let refused = qmp.set_link("nic9", false, LIMIT).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused set_link: no \\u{1b}[1m");
    }

    #[tokio::test]
    async fn a_silent_qemu_times_out_and_a_dead_one_fails_at_once() {
        let (qmp, _) = open(&[
            "",
            "{\"return\": {}, \"id\": 2}\n{\"return\": 7, \"id\": 3}\n",
        ])
        .await;
        let silent = qmp
            .execute("stop", None, Duration::from_millis(30))
            .await
            .unwrap_err();
        assert!(
            matches!(
                silent,
                QmpError::Timeout {
                    command: "stop",
                    ..
                }
            ),
            "{silent}"
        );
        assert_eq!(
            qmp.execute("cont", None, LIMIT).await.unwrap(),
            7,
            "late answers are dropped"
        );
        assert!(matches!(
            qmp.execute("quit", None, LIMIT).await.unwrap_err(),
            QmpError::Closed
        ));
        timeout(LIMIT, qmp.closed()).await.unwrap();
        assert!(matches!(
            qmp.execute("quit", None, LIMIT).await.unwrap_err(),
            QmpError::Closed
        ));
    }

    #[tokio::test]
    async fn nonsense_and_endless_lines_end_the_connection() {
        let deep = format!("{}\n", "[".repeat(100_000));
        let long = format!("{}\n", "x".repeat(MAX_LINE + 1));
        for hostile in ["not json\n", &deep, &long, "{\"id\": \"two\"}\n"] {
            let (qmp, _) = open(&[hostile, ""]).await;
            let error = qmp.execute("stop", None, LIMIT).await.unwrap_err();
            assert!(matches!(error, QmpError::Closed), "{error}");
        }
    }

    #[tokio::test]
    async fn a_stranger_on_the_socket_is_no_monitor() {
        for (says, error) in [
            (
                "SSH-2.0-\u{1b}OpenSSH\n",
                "speaks no QMP: SSH-2.0-\\u{1b}OpenSSH",
            ),
            ("", "closed"),
        ] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(says.as_bytes()).await.unwrap();
            drop(theirs);
            let found = Qmp::open(ours, LIMIT, drop).await.unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
        }
        let (ours, _silent) = UnixStream::pair().unwrap();
        let found = Qmp::open(ours, Duration::from_millis(20), drop)
            .await
            .unwrap_err();
        assert!(matches!(
            found,
            QmpError::Timeout {
                command: "greeting",
                ..
            }
        ));
    }
}

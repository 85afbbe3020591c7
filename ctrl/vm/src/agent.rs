//! The QEMU guest agent (docs/interop/qemu-ga-ref): running commands in a switch.
//!
//! There is one connection and one request at a time; callers queue in order. Answers come from the
//! guest and are untrusted: bounded in bytes and time, and parsed into fixed types. After a timeout, a
//! dropped request or a malformed answer the connection is dropped, and the next request opens a new
//! one with `guest-sync-delimited`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::line;
use model::printable;

/// Most bytes that [`Agent::exec`] sends as stdin.
pub const MAX_STDIN: usize = 4 << 20;

/// Most bytes of stdout and stderr together that [`Agent::exec`] accepts.
pub const MAX_OUTPUT: usize = 16 << 20;

/// Bytes that are read of a file at a time.
const PIECE: usize = 48 << 10;

/// Most bytes of an answer without output.
const SHORT: usize = 64 << 10;

/// Most stale bytes before a sync's answer: one answer of the largest size.
const STALE: usize = 2 * MAX_OUTPUT;

/// First and longest pause between two questions about a running command. Under TCG each question costs
/// the guest milliseconds, so the pause grows with the age of the command.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Time to kill a command whose own time has run out.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// Kills a process and its descendants; `$1` is its pid.
const KILL_TREE: &str =
    "k() { for c in $(cat /proc/$1/task/*/children); do k $c; done; kill -KILL $1; }
k \"$1\" 2>/dev/null";

/// Why a request to the guest failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The request did not end in time. A command that had started was killed, if the agent still
    /// answered.
    #[error("no answer from the guest within {0:?}")]
    Timeout(Duration),
    /// The agent answered with an error, escaped here.
    #[error("the guest agent refused: {0}")]
    Refused(String),
    /// The guest has no such program.
    #[error("there is no program \"{0}\" in the guest")]
    NoSuchProgram(String),
    /// The guest does not let the program be run.
    #[error("\"{0}\" in the guest is not a program that can be run")]
    NotAProgram(String),
    /// The guest broke the protocol.
    #[error("the guest agent's answer cannot be read: {0}")]
    Malformed(String),
    /// stdin is over [`MAX_STDIN`].
    #[error("{0} bytes of stdin: at most {MAX_STDIN} can be sent")]
    StdinTooLong(usize),
    /// The command has no words.
    #[error("no command was given")]
    NoCommand,
    /// The VM is off, or its socket failed.
    #[error("cannot reach the guest agent: {0}")]
    Io(#[from] io::Error),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// The status a shell would report: 128 + signal for a killed command.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// Its stdout, as the guest sent it.
    pub stdout: Vec<u8>,
    /// Its stderr, as the guest sent it.
    pub stderr: Vec<u8>,
    /// The agent cut stdout or stderr short (at 16 MiB).
    pub truncated: bool,
}

/// The limits of an [`Agent::exec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the call to the result, including the wait for other callers.
    pub time: Duration,
    /// Bytes of stdout and stderr together; more is an error. At most [`MAX_OUTPUT`].
    pub output: usize,
}

/// The client of one VM's agent; it outlives the VM's restarts.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    /// A request takes the connection out and puts it back at its end. So a request that is dropped
    /// half-way drops the connection too.
    link: Mutex<Option<BufReader<UnixStream>>>,
    sync: AtomicI64,
}

/// A part of a file.
#[derive(Deserialize)]
struct Piece {
    count: i64,
    #[serde(rename = "buf-b64", default)]
    bytes: String,
    eof: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    desc: String,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Progress {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

impl Agent {
    /// A client of the agent behind `socket`; connects at the first request.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            link: Mutex::new(None),
            sync: AtomicI64::new(1),
        }
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Drops the connection, because another QEMU is behind the socket now. A request that is under
    /// way notices the end of its connection by itself.
    pub(crate) fn forget(&self) {
        if let Ok(mut link) = self.link.try_lock() {
            *link = None;
        }
    }

    /// Checks that the agent answers.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn ping(&self, limit: Duration) -> Result<(), AgentError> {
        let deadline = Instant::now() + limit;
        within(
            limit,
            deadline,
            self.request::<Value>("guest-ping", json!({}), SHORT),
        )
        .await
        .map(drop)
    }

    /// Waits until the agent answers. It is asked again `pause` after an attempt that failed or took
    /// longer than `limit`.
    pub(crate) async fn answers(&self, (limit, pause): (Duration, Duration)) {
        while self.ping(limit).await.is_err() {
            sleep(pause).await;
        }
    }

    /// Runs `argv` in the guest with `stdin`, without a shell, and waits for its end. The agent looks
    /// for the program in its own `PATH`.
    ///
    /// # Errors
    /// See [`AgentError`]. A command that exits with a status other than 0 is not an error.
    pub async fn exec(
        &self,
        argv: &[String],
        stdin: &[u8],
        limits: Limits,
    ) -> Result<ExecOutput, AgentError> {
        self.exec_while(argv, stdin, limits, std::future::pending())
            .await
    }

    /// Reads a file of the guest from its beginning. No program has to start in the guest for it, which under
    /// TCG costs more than the rest.
    ///
    /// # Errors
    /// See [`AgentError`]; [`AgentError::Malformed`] if the file is longer than `limits.output`.
    pub async fn read(&self, path: &str, limits: Limits) -> Result<Vec<u8>, AgentError> {
        let deadline = Instant::now() + limits.time;
        let opened = self.request("guest-file-open", json!({ "path": path }), SHORT);
        let handle: i64 = within(limits.time, deadline, opened).await?;
        let read = self.read_open(handle, limits.output);
        let content = within(limits.time, deadline, read).await;
        // Whatever became of it: a guest's agent has room for some hundreds of open files.
        let close = self.request::<Value>("guest-file-close", json!({ "handle": handle }), SHORT);
        within(limits.time, deadline, close).await?;
        content
    }

    async fn read_open(&self, handle: i64, most: usize) -> Result<Vec<u8>, AgentError> {
        let mut content = Vec::new();
        loop {
            // Of /proc/net a read gives a page at most.
            let arguments = json!({ "handle": handle, "count": PIECE });
            let limit = PIECE / 3 * 4 + SHORT;
            let piece: Piece = self.request("guest-file-read", arguments, limit).await?;
            content.extend(decode(&piece.bytes)?);
            if piece.eof {
                return Ok(content);
            }
            if content.len() > most || piece.count == 0 {
                let what = format!("a file of more than {most} bytes");
                return Err(AgentError::Malformed(what));
            }
        }
    }

    /// As [`Agent::exec`], but when the caller drops the future, the command in the guest is killed,
    /// with what it has started. Call it on a runtime.
    ///
    /// # Errors
    /// As [`Agent::exec`].
    pub async fn exec_for_a_caller(
        self: &Arc<Self>,
        argv: Vec<String>,
        stdin: Vec<u8>,
        limits: Limits,
    ) -> Result<ExecOutput, AgentError> {
        let (caller, gone) = oneshot::channel::<()>();
        let agent = Arc::clone(self);
        // A task of its own: whenever the caller goes, the command's pid becomes known.
        let run = tokio::spawn(async move {
            let gone = async { drop(gone.await) };
            agent.exec_while(&argv, &stdin, limits, gone).await
        });
        let outcome = run.await;
        drop(caller);
        outcome.unwrap_or_else(|error| Err(AgentError::Io(io::Error::other(error))))
    }

    /// Runs a command until its end, or until `gone`.
    async fn exec_while(
        &self,
        argv: &[String],
        stdin: &[u8],
        limits: Limits,
        gone: impl Future<Output = ()>,
    ) -> Result<ExecOutput, AgentError> {
        let deadline = Instant::now() + limits.time;
        let pid = within(limits.time, deadline, self.begin(argv, stdin)).await?;
        let outcome = tokio::select! {
            outcome = within(limits.time, deadline, self.finish(pid, limits.output)) => outcome,
            () = gone => Err(AgentError::Timeout(limits.time)),
        };
        if matches!(outcome, Err(AgentError::Timeout(_))) {
            // It would run on in the guest although its caller has given up.
            self.kill(pid).await;
        }
        outcome
    }

    async fn begin(&self, argv: &[String], stdin: &[u8]) -> Result<i64, AgentError> {
        let [program, args @ ..] = argv else {
            return Err(AgentError::NoCommand);
        };
        if stdin.len() > MAX_STDIN {
            return Err(AgentError::StdinTooLong(stdin.len()));
        }
        let arguments = json!({
            "path": program, "arg": args, "capture-output": true, "input-data": STANDARD.encode(stdin),
        });
        match self.request("guest-exec", arguments, SHORT).await {
            Ok(Started { pid }) => Ok(pid),
            Err(AgentError::Refused(why)) => Err(why_not_started(program, why)),
            Err(error) => Err(error),
        }
    }

    async fn finish(&self, pid: i64, output: usize) -> Result<ExecOutput, AgentError> {
        // Base64 turns 3 bytes into 4; the rest of the answer is short.
        let limit = output.min(MAX_OUTPUT) / 3 * 4 + SHORT;
        let mut pause = POLL.0;
        loop {
            let arguments = json!({ "pid": pid });
            let progress: Progress = self.request("guest-exec-status", arguments, limit).await?;
            if progress.exited {
                return progress.output();
            }
            sleep(pause).await;
            pause = (pause * 3 / 2).min(POLL.1);
        }
    }

    /// Tries to kill a command and what it has started. The guest itself may be the reason why there is
    /// no answer.
    async fn kill(&self, pid: i64) {
        let arguments = json!({ "path": "sh", "arg": ["-c", KILL_TREE, "sh", pid.to_string()] });
        let deadline = Instant::now() + KILL_LIMIT;
        let request = self.request::<Started>("guest-exec", arguments, SHORT);
        if within(KILL_LIMIT, deadline, request).await.is_err() {
            tracing::warn!(
                pid,
                "a command that ran out of time may still run in the guest"
            );
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
        limit: usize,
    ) -> Result<T, AgentError> {
        let mut link = self.link.lock().await;
        let mut stream = match link.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let request = json!({ "execute": command, "arguments": arguments });
        stream
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())
            .await?;
        let answer = read_answer(&mut stream, limit).await?;
        // The stream is between two answers again, so the next request can use it.
        *link = Some(stream);
        let answer = answer.map_err(AgentError::Refused)?;
        serde_json::from_value(answer).map_err(|error| {
            AgentError::Malformed(printable::head(
                format!("{command}: {error}").as_bytes(),
                200,
            ))
        })
    }

    /// A new connection may still deliver what the agent wrote for the last one. Before a sync's answer
    /// the agent sends 0xFF, which never occurs in JSON; the 0xFF that we send resets its parser.
    async fn connect(&self) -> Result<BufReader<UnixStream>, AgentError> {
        let mut stream = BufReader::new(UnixStream::connect(&self.socket).await?);
        let id = self.sync.fetch_add(1, Ordering::Relaxed);
        let request = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        let mut bytes = vec![0xff];
        bytes.extend(format!("{request}\n").into_bytes());
        stream.get_mut().write_all(&bytes).await?;
        loop {
            if !line::skip(&mut stream, 0xff, STALE).await? {
                return Err(AgentError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
            if read_answer(&mut stream, SHORT).await? == Ok(json!(id)) {
                return Ok(stream);
            }
        }
    }
}

impl Progress {
    fn output(self) -> Result<ExecOutput, AgentError> {
        let status = match (self.exitcode, self.signal) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal @ 1..=127)) => ExitStatus::Signal(signal),
            _ => return Err(AgentError::Malformed("neither exit code nor signal".into())),
        };
        Ok(ExecOutput {
            status,
            stdout: decode(&self.out_data)?,
            stderr: decode(&self.err_data)?,
            truncated: self.out_truncated || self.err_truncated,
        })
    }
}

fn decode(data: &str) -> Result<Vec<u8>, AgentError> {
    STANDARD
        .decode(data)
        .map_err(|error| AgentError::Malformed(format!("output: {error}")))
}

/// What an agent that could not start a program means. GLib's `g_spawn` writes the sentence, and only
/// its words tell the reasons apart.
fn why_not_started(program: &str, why: String) -> AgentError {
    let program = || printable::head(program.as_bytes(), 80);
    if why.contains("No such file or directory") {
        AgentError::NoSuchProgram(program())
    } else if why.contains("Permission denied") || why.contains("Exec format error") {
        AgentError::NotAProgram(program())
    } else {
        AgentError::Refused(why)
    }
}

/// Reads an answer. The outer error is the connection's, the inner one the agent's refusal.
async fn read_answer(
    stream: &mut BufReader<UnixStream>,
    limit: usize,
) -> Result<Result<Value, String>, AgentError> {
    let line = line::read(stream, b'\n', limit)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => AgentError::Malformed(error.to_string()),
            _ => AgentError::Io(error),
        })?
        .ok_or_else(|| AgentError::Io(io::ErrorKind::UnexpectedEof.into()))?;
    let answer: Answer = serde_json::from_slice(&line).map_err(|error| {
        AgentError::Malformed(format!("{} ({error})", printable::head(&line, 80)))
    })?;
    Ok(match (answer.answer, answer.error) {
        (_, Some(refusal)) => Err(printable::head(refusal.desc.as_bytes(), 200)),
        (answer, None) => Ok(answer.unwrap_or_default()),
    })
}

/// The outcome of `work`, or the time limit's error at the deadline.
async fn within<T>(
    limit: Duration,
    deadline: Instant,
    work: impl Future<Output = Result<T, AgentError>>,
) -> Result<T, AgentError> {
    timeout_at(deadline, work)
        .await
        .unwrap_or(Err(AgentError::Timeout(limit)))
}

#[cfg(test)]
mod tests;

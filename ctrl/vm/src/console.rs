//! The serial console: the last output, live output, and input from every attached client.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;

use model::printable;

/// How many bytes of output are kept.
const KEPT: usize = 64 * 1024;

/// How many chunks, each of at most [`CHUNK`] bytes, a slow client may lag behind before it loses the
/// oldest.
const LAG: usize = 256;
const CHUNK: usize = 4096;

/// How many pieces of input may wait for the guest to read them.
const INPUT: usize = 64;

/// One VM's console; cheap to clone. It outlives the VM's restarts: attached clients stay.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    input: mpsc::Sender<Vec<u8>>,
    /// The task that serves the present QEMU holds the lock.
    input_end: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
}

#[derive(Debug)]
struct State {
    ring: VecDeque<u8>,
    output: broadcast::Sender<Arc<[u8]>>,
    serving: Option<AbortHandle>,
}

/// A client's view of a console.
#[derive(Debug)]
pub struct Attachment {
    /// Output before this moment, at most 64 KiB.
    pub backlog: Vec<u8>,
    output: broadcast::Receiver<Arc<[u8]>>,
    input: mpsc::Sender<Vec<u8>>,
}

impl Default for Console {
    fn default() -> Self {
        let (input, input_end) = mpsc::channel(INPUT);
        let state = State {
            ring: VecDeque::with_capacity(KEPT),
            output: broadcast::Sender::new(LAG),
            serving: None,
        };
        let input_end = tokio::sync::Mutex::new(input_end);
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                input,
                input_end,
            }),
        }
    }
}

impl Console {
    /// Serves the console of a new QEMU, and stops to serve that of the one before.
    pub(crate) fn connect(&self, stream: UnixStream) {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            if let Err(error) = shared.serve(stream).await {
                tracing::debug!(%error, "a serial console ended");
            }
        });
        if let Some(before) = self.shared.lock().serving.replace(task.abort_handle()) {
            before.abort();
        }
    }

    /// Attaches a client: first all kept output, then all new output, without a gap.
    pub fn attach(&self) -> Attachment {
        let state = self.shared.lock();
        Attachment {
            backlog: state.ring.iter().copied().collect(),
            output: state.output.subscribe(),
            input: self.shared.input.clone(),
        }
    }

    /// The last `limit` characters, for logs and error messages. Line feeds stay; every other control
    /// character is escaped.
    pub fn tail_escaped(&self, limit: usize) -> String {
        printable::tail_lines(self.shared.lock().ring.make_contiguous(), limit)
    }
}

impl Attachment {
    /// The next output. `None` once the VM is no longer supervised. A client that is slower than the
    /// guest loses the oldest part.
    pub async fn read(&mut self) -> Option<Arc<[u8]>> {
        loop {
            match self.output.recv().await {
                Ok(chunk) => return Some(chunk),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Types `bytes`. Waits while the guest does not read. Text for a VM that is off waits for its next
    /// start.
    pub async fn write(&self, bytes: Vec<u8>) {
        // The receiver lives as long as the console, to which this attachment belongs.
        let _ = self.input.send(bytes).await;
    }

    /// A sender for a task that only types.
    pub fn typist(&self) -> mpsc::Sender<Vec<u8>> {
        self.input.clone()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        // Waits for the end of the task that serves the QEMU before: input goes to one guest.
        let mut input = self.input_end.lock().await;
        let (mut read, mut write) = stream.split();
        let from_guest = async {
            let mut buffer = vec![0; CHUNK];
            loop {
                match read.read(&mut buffer).await? {
                    0 => return Ok(()),
                    n => self.keep(&buffer[..n]),
                }
            }
        };
        let to_guest = async {
            while let Some(bytes) = input.recv().await {
                write.write_all(&bytes).await?;
            }
            Ok(())
        };
        tokio::select! {
            ended = from_guest => ended,
            ended = to_guest => ended,
        }
    }

    fn keep(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.ring.extend(bytes);
        let excess = state.ring.len().saturating_sub(KEPT);
        state.ring.drain(..excess);
        // Fails if no client is attached, which does not matter.
        let _ = state.output.send(bytes.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn soon<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(5), work)
            .await
            .expect("in time")
    }

    async fn read_until(client: &mut Attachment, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.extend_from_slice(&soon(client.read()).await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn plug(console: &Console) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        console.connect(ours);
        theirs
    }

    #[tokio::test]
    async fn every_client_sees_everything_and_may_type() {
        let console = Console::default();
        let mut guest = plug(&console);
        let mut early = console.attach();
        guest.write_all(b"login: ").await.unwrap();
        assert_eq!(read_until(&mut early, "login: ").await, "login: ");
        let mut late = console.attach();
        assert_eq!(late.backlog, b"login: ");
        late.write(b"root\n".to_vec()).await;
        let mut typed = [0; 5];
        soon(guest.read_exact(&mut typed)).await.unwrap();
        assert_eq!(&typed, b"root\n");
        guest.write_all(b"root\r\n# ").await.unwrap();
        assert_eq!(read_until(&mut early, "# ").await, "root\r\n# ");
        assert_eq!(read_until(&mut late, "# ").await, "root\r\n# ");
        assert_eq!(console.tail_escaped(7), "root\n# ");
    }

    #[tokio::test]
    async fn clients_outlive_the_vm_and_input_waits_for_it() {
        let console = Console::default();
        let mut client = console.attach();
        drop(plug(&console));
        client.write(b"x".to_vec()).await;
        let mut guest = plug(&console);
        let mut typed = [0];
        soon(guest.read_exact(&mut typed)).await.unwrap();
        assert_eq!(&typed, b"x");
        guest.write_all(b"again\x1b[2J").await.unwrap();
        assert_eq!(read_until(&mut client, "J").await, "again\u{1b}[2J");
        assert_eq!(console.tail_escaped(100), "again\\u{1b}[2J");
    }

    #[tokio::test]
    async fn a_chatty_guest_is_bounded_and_a_slow_client_skips() {
        let console = Console::default();
        let mut guest = plug(&console);
        let mut slow = console.attach();
        let mut watcher = console.attach();
        let writer = tokio::spawn(async move {
            for _ in 0..(LAG * 3) {
                guest.write_all(&[b'x'; CHUNK]).await.unwrap();
            }
            guest.write_all(b"end").await.unwrap();
            guest
        });
        let mut last = Vec::new();
        while !last.ends_with(b"end") {
            last = soon(watcher.read()).await.unwrap().to_vec();
        }
        drop(writer.await.unwrap());
        assert_eq!(console.attach().backlog.len(), KEPT);
        let mut chunks = 0;
        while !soon(slow.read()).await.unwrap().ends_with(b"end") {
            chunks += 1;
        }
        assert!(
            chunks <= LAG,
            "{chunks} chunks were held for a client that did not read"
        );
    }
}

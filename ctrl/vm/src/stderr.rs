//! The end of a child's stderr in a bounded ring, for error messages.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinHandle;

use model::printable;

/// How many bytes are kept.
const KEPT: usize = 8 * 1024;
/// How many characters an error message shows.
const SHOWN: usize = 600;
/// Time to read the rest of an ended process's stderr. A child of that process may hold stderr open,
/// so its end may never come.
const DRAIN: Duration = Duration::from_millis(200);

/// Reads a child's stderr to its end and keeps the tail.
#[derive(Debug)]
pub(crate) struct Stderr {
    kept: Arc<Mutex<VecDeque<u8>>>,
    reader: JoinHandle<()>,
}

impl Stderr {
    pub(crate) fn follow(mut stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let ring = Arc::clone(&kept);
        let reader = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                let mut ring = ring.lock().expect("no holder of this lock can panic");
                ring.extend(&buffer[..n]);
                let excess = ring.len().saturating_sub(KEPT);
                ring.drain(..excess);
            }
        });
        Self { kept, reader }
    }

    /// The end of what was written, escaped and as one line; empty if there was no output. Call it
    /// after the process has ended.
    pub(crate) async fn last_words(&mut self) -> String {
        let _ = tokio::time::timeout(DRAIN, &mut self.reader).await;
        self.reader.abort();
        let mut ring = self.kept.lock().expect("no holder of this lock can panic");
        let text = String::from_utf8_lossy(ring.make_contiguous())
            .trim()
            .replace('\n', "; ");
        printable::tail(text.as_bytes(), SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_end_and_escapes_it() {
        let text = format!("{}\nqemu: no\x1b[0m room\n", "x".repeat(3 * KEPT));
        let words = Stderr::follow(std::io::Cursor::new(text.into_bytes()))
            .last_words()
            .await;
        assert_eq!(words.chars().count(), SHOWN + "\\u{1b}".len() - 1);
        assert!(words.ends_with("x; qemu: no\\u{1b}[0m room"), "{words}");
        assert_eq!(Stderr::follow(tokio::io::empty()).last_words().await, "");
    }
}

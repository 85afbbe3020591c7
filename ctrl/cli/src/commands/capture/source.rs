//! What the fabric sends: [`Source`].

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt};

use api::CaptureStart;
use api::capture::Message;

/// Bytes that are read in one go, at most; any message fits.
const ROOM: usize = 1 << 20;

/// Longest first line, in bytes.
const LONGEST_START: usize = 16 << 20;

/// The fabric's side of the stream.
pub(crate) struct Source<S> {
    stream: S,
    room: Vec<u8>,
    /// What was read and not delivered.
    unread: std::ops::Range<usize>,
}

impl<S: AsyncRead + Unpin> Source<S> {
    pub(crate) fn new(stream: S) -> Self {
        Source {
            stream,
            room: vec![0; ROOM],
            unread: 0..0,
        }
    }

    /// Reads what there is; `false` at the end.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<bool> {
        if self.unread.start > 0 {
            self.room.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let read = self.stream.read(&mut self.room[self.unread.end..]).await?;
        self.unread.end += read;
        Ok(read > 0)
    }

    pub(crate) async fn first_line(&mut self) -> anyhow::Result<CaptureStart> {
        let mut line = Vec::new();
        loop {
            let unread = &self.room[self.unread.clone()];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&unread[..end]);
                self.unread.start += end + 1;
                return serde_json::from_slice(&line).context("the fabric's answer is none");
            }
            line.extend_from_slice(unread);
            self.unread = 0..0;
            if line.len() > LONGEST_START || !self.fill().await? {
                bail!("the fabric ended before the capture began");
            }
        }
    }

    /// Hands out every whole message.
    pub(crate) fn each(&mut self, mut take: impl FnMut(Message<'_>)) -> anyhow::Result<()> {
        while let Some((message, length)) = Message::read(&self.room[self.unread.clone()])? {
            take(message);
            self.unread.start += length;
        }
        Ok(())
    }
}

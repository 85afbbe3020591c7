//! [`Source`] reads what the fabric sends during a capture.

use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncReadExt};

use api::CaptureStart;
use api::capture::Message;

/// Size of the buffer in bytes; any message fits.
const BUFFER: usize = 1 << 20;

/// The longest first line, in bytes. It lists all ports of the capture.
const LONGEST_START: usize = 16 << 20;

/// The stream from the fabric, with what was read from it and not yet delivered.
pub(crate) struct Source<S> {
    stream: S,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not yet delivered.
    unread: std::ops::Range<usize>,
}

impl<S: AsyncRead + Unpin> Source<S> {
    pub(crate) fn new(stream: S) -> Self {
        Source {
            stream,
            buffer: vec![0; BUFFER],
            unread: 0..0,
        }
    }

    /// Reads some bytes; returns `false` at the end of the stream.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<bool> {
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let read = self
            .stream
            .read(&mut self.buffer[self.unread.end..])
            .await?;
        self.unread.end += read;
        Ok(read > 0)
    }

    /// Reads the first line of the stream.
    ///
    /// # Errors
    /// When the stream ends first, or the line does not describe a capture.
    pub(crate) async fn first_line(&mut self) -> anyhow::Result<CaptureStart> {
        let mut line = Vec::new();
        loop {
            let unread = &self.buffer[self.unread.clone()];
            if let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&unread[..end]);
                self.unread.start += end + 1;
                return serde_json::from_slice(&line)
                    .context("the fabric's answer does not describe a capture");
            }
            line.extend_from_slice(unread);
            self.unread = 0..0;
            if line.len() > LONGEST_START || !self.fill().await? {
                bail!("the fabric ended before the capture began");
            }
        }
    }

    /// Calls `take` for every message that has been read completely.
    ///
    /// # Errors
    /// When the fabric speaks another version of the protocol.
    pub(crate) fn each(&mut self, mut take: impl FnMut(Message<'_>)) -> anyhow::Result<()> {
        while let Some((message, length)) = Message::read(&self.buffer[self.unread.clone()])? {
            take(message);
            self.unread.start += length;
        }
        Ok(())
    }
}

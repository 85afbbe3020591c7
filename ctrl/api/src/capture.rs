//! `POST /v1/capture`: what is asked for, and the stream that the connection becomes.
//!
//! The fabric answers with one line of JSON, [`CaptureStart`], once every lane is tapped. Then
//! come messages in little-endian order:
//!
//! ```text
//! u32 length of what follows | u32 interface  | Record, as `dataplane` encodes it | its bytes
//! u32 length of what follows | u32 0xffffffff | u64 received, u64 lost, for each interface
//! ```
//!
//! The client ends a capture by closing its half. Then comes what was captured until then, the
//! statistics for the last time, and the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::MAX_FRAME;
use dataplane::capture::Record;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// In the place of an interface: statistics.
const STATISTICS: u32 = u32::MAX;

/// Two words in front of every message.
const WORDS: usize = 8;

/// Interfaces of one capture, at most: what is counted of all of them fits into one message.
pub const MOST_INTERFACES: usize = 1 << 15;

/// Asks for a capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Cables by name or either end; none means all.
    pub cables: Vec<String>,
    /// Only frames that enter at this port.
    #[serde(default)]
    pub from: Option<String>,
    /// Classic BPF, as libpcap compiles it for Ethernet: code, jt, jf, k. None takes every frame.
    #[serde(default)]
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// Bytes of each frame that are kept, at most; 0 keeps all.
    #[serde(default)]
    pub snap: u32,
    /// Frames as they leave, instead of as they enter.
    #[serde(default)]
    pub wire: bool,
}

/// The first line of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStart {
    /// The tapped ports, by the numbers that the messages name.
    pub interfaces: Vec<CaptureInterface>,
    /// What to add to a record's time for the time since 1970 (UTC), in ns.
    pub wall_offset: u64,
    /// The beginning, by the records' clock.
    pub began: u64,
    /// As asked for.
    pub wire: bool,
}

/// A port whose frames are captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureInterface {
    /// `ikst12`.
    pub name: String,
    /// What people call it: `spine1:2`. As the name where there is nothing better.
    pub alias: String,
    /// The port at the other end of the cable.
    pub peer: String,
    /// The cable.
    pub cable: String,
}

/// A capture on its way to a client. Dropped, it ends.
#[derive(Debug)]
pub struct CaptureStream {
    /// The first line.
    pub start: CaptureStart,
    /// Messages, some at a time. Ends after [`CaptureStream::stop`].
    pub chunks: mpsc::Receiver<Vec<u8>>,
    /// Set to end the capture.
    pub stop: Arc<AtomicBool>,
}

impl CaptureStream {
    /// Sends all of it, until the client closes its half.
    ///
    /// # Errors
    /// When the client does not read any more.
    pub async fn send(mut self, to: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (mut from_client, mut to_client) = tokio::io::split(to);
        let stop = self.stop.clone();
        let asked_to_end = async {
            // Whatever it says means nothing.
            while matches!(from_client.read(&mut [0; 64]).await, Ok(1..)) {}
            stop.store(true, Ordering::Relaxed);
            std::future::pending().await
        };
        let all = async {
            let mut line = serde_json::to_vec(&self.start)?;
            line.push(b'\n');
            to_client.write_all(&line).await?;
            while let Some(chunk) = self.chunks.recv().await {
                to_client.write_all(&chunk).await?;
            }
            to_client.shutdown().await
        };
        tokio::select! {
            sent = all => sent,
            never = asked_to_end => never,
        }
    }
}

/// What an interface has counted since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCount {
    /// Frames that the filter let pass, lost ones included.
    pub received: u64,
    /// Those of which there is no copy: the reader was too slow.
    pub lost: u64,
}

/// One message of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'b> {
    /// A frame.
    Frame {
        /// Place in [`CaptureStart::interfaces`].
        interface: u32,
        /// What is known of it.
        record: Record,
        /// Its bytes, as many as were kept.
        bytes: &'b [u8],
    },
    /// For each interface.
    Statistics(Vec<CaptureCount>),
}

impl Message<'_> {
    /// Appends it to a chunk of the stream.
    pub fn write(&self, to: &mut Vec<u8>) {
        match self {
            Message::Frame {
                interface,
                record,
                bytes,
            } => {
                let head = record.encode();
                let length = 4 + head.len() + bytes.len();
                to.extend((length as u32).to_le_bytes());
                to.extend(interface.to_le_bytes());
                to.extend(head);
                to.extend_from_slice(bytes);
            }
            Message::Statistics(counts) => {
                let length = 4 + 16 * counts.len();
                to.extend((length as u32).to_le_bytes());
                to.extend(STATISTICS.to_le_bytes());
                for count in counts {
                    to.extend(count.received.to_le_bytes());
                    to.extend(count.lost.to_le_bytes());
                }
            }
        }
    }

    /// The first message of `stream`, and its length; `None` while it is not whole.
    ///
    /// # Errors
    /// When that is no such stream.
    pub fn read(stream: &[u8]) -> Result<Option<(Message<'_>, usize)>, BrokenStream> {
        let Some((words, _)) = stream.split_first_chunk::<WORDS>() else {
            return Ok(None);
        };
        let [length, interface] = [0, 4].map(|at| word(words, at));
        let length = length as usize;
        let longest = if interface == STATISTICS {
            16 * MOST_INTERFACES
        } else {
            Record::LEN + MAX_FRAME
        };
        let body = length.checked_sub(4).filter(|body| *body <= longest);
        let body = body.ok_or(BrokenStream)?;
        let Some(body) = stream.get(WORDS..WORDS + body) else {
            return Ok(None);
        };
        let message = if interface == STATISTICS {
            let counts = body.chunks_exact(16).map(|count| CaptureCount {
                received: long(count, 0),
                lost: long(count, 8),
            });
            Message::Statistics(counts.collect())
        } else {
            Message::Frame {
                interface,
                record: Record::decode(body).ok_or(BrokenStream)?,
                bytes: &body[Record::LEN..],
            }
        };
        Ok(Some((message, WORDS + body.len())))
    }
}

/// The stream is none of ours: client and fabric are of different versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fabric speaks another version of the capture protocol: use the ikv-fabric that it was started with"
)]
pub struct BrokenStream;

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Message<'_> {
        Message::Frame {
            interface: 7,
            record: Record {
                time: 42,
                len: 1514,
                captured: bytes.len() as u32,
                ..Record::default()
            },
            bytes,
        }
    }

    #[test]
    fn messages_come_out_as_they_went_in_and_only_when_they_are_whole() {
        let counts = vec![
            CaptureCount {
                received: 1 << 40,
                lost: 3,
            };
            2
        ];
        let sent = [frame(&[1, 2, 3]), Message::Statistics(counts), frame(&[])];
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for message in &sent {
            message.write(&mut stream);
            ends.push(stream.len());
        }
        for cut in 0..=stream.len() {
            let (mut at, mut read) = (0, 0);
            while let Some((message, length)) = Message::read(&stream[at..cut]).unwrap() {
                assert_eq!(message, sent[read]);
                (at, read) = (at + length, read + 1);
            }
            assert_eq!(read, ends.iter().filter(|end| **end <= cut).count());
        }
    }

    #[test]
    fn nonsense_is_refused_at_once() {
        let refused = |length: u32, interface: u32| {
            let words = [length.to_le_bytes(), interface.to_le_bytes()].concat();
            Message::read(&words) == Err(BrokenStream)
        };
        assert!(refused(3, 0), "shorter than its own head");
        assert!(refused(1 << 20, 0), "longer than any frame");
        assert!(refused(u32::MAX, STATISTICS));
        let empty = [4u32.to_le_bytes(), 0u32.to_le_bytes()].concat();
        assert_eq!(Message::read(&empty), Err(BrokenStream));
    }
}

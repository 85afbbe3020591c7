//! Captured frames: what a client asks for, and the stream that its connection becomes.
//!
//! Captures ([`routes::CAPTURE`](crate::routes::CAPTURE)) and the recorder's dumps have the same
//! stream. The fabric first sends one line of JSON, [`CaptureStart`], once every lane is tapped.
//! Then messages follow, all numbers in little-endian order:
//!
//! ```text
//! u32 length of what follows | u32 interface  | Record, as `dataplane` encodes it | the frame
//! u32 length of what follows | u32 0xffffffff | u64 received, u64 lost, for each interface
//! ```
//!
//! [`pcapng`] makes a file of it, in the client as well as for
//! [`routes::CAPTURE_FILE`](crate::routes::CAPTURE_FILE).
//!
//! The client ends a capture by closing its half of the connection. The fabric then sends the
//! frames captured so far and the final statistics, and closes the other half.

pub mod pcapng;
pub mod verdict;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::MAX_FRAME;
use dataplane::capture::Record;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Stands in place of an interface in a message of statistics.
const STATISTICS: u32 = u32::MAX;

/// Length and interface, in front of every message, in bytes.
const HEAD: usize = 8;

/// The most interfaces of one capture, so that their statistics fit into one message.
pub const MOST_INTERFACES: usize = 1 << 15;

/// Asks for a capture.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaptureRequest {
    /// Cables by name or either end; empty means all.
    pub cables: Vec<String>,
    /// Only frames that enter at this port.
    #[serde(default)]
    pub from: Option<String>,
    /// Classic BPF, as libpcap compiles it for Ethernet: code, jt, jf, k. Empty means all frames.
    #[serde(default)]
    pub filter: Vec<(u16, u8, u8, u32)>,
    /// The most bytes of each frame that are captured; 0 means all.
    #[serde(default)]
    pub snap: u32,
    /// Capture frames where they leave a cable, instead of where they enter it.
    #[serde(default)]
    pub wire: bool,
}

/// In the query of [`routes::CAPTURE_FILE`](crate::routes::CAPTURE_FILE): when the file ends, whichever
/// comes first. Keys that are left out have the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureFileRequest {
    /// For how long frames are captured, in s, 1..=300. Default: 10.
    pub seconds: u32,
    /// After how many MiB no further frame is written, 1..=1024. Default: 64.
    pub mebibytes: u32,
}

impl Default for CaptureFileRequest {
    fn default() -> Self {
        CaptureFileRequest {
            seconds: 10,
            mebibytes: 64,
        }
    }
}

/// The first line of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureStart {
    /// The tapped ports; messages refer to them by their index here.
    pub interfaces: Vec<CaptureInterface>,
    /// What to add to a record's time to get ns since 1970-01-01 UTC.
    pub wall_offset: u64,
    /// When the capture began, in ns of the records' clock.
    pub began: u64,
    /// As in the request.
    pub wire: bool,
}

/// A port whose frames are captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureInterface {
    /// `ikst12`.
    pub name: String,
    /// Its readable name, `spine1:2`; the same as `name` if it has none.
    pub alias: String,
    /// The port at the other end of the cable.
    pub peer: String,
    /// Name of the cable.
    pub cable: String,
}

/// A capture on its way to a client. Dropping it ends the capture.
#[derive(Debug)]
pub struct CaptureStream {
    /// The first line.
    pub start: CaptureStart,
    /// Several messages at a time. The channel closes some time after `stop` was set.
    pub chunks: mpsc::Receiver<Vec<u8>>,
    /// Set this to end the capture.
    pub stop: Arc<AtomicBool>,
}

impl CaptureStream {
    /// Sends all of it; stops the capture when the client closes its half.
    ///
    /// # Errors
    /// When the client has closed the connection.
    pub async fn send(mut self, to: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let (mut from_client, mut to_client) = tokio::io::split(to);
        let stop = self.stop.clone();
        let watch_client = async {
            // The protocol gives no meaning to what a client sends; only its end counts.
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
            never = watch_client => never,
        }
    }
}

/// The statistics of one interface since the capture began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureCount {
    /// Frames that passed the filter, including lost ones.
    pub received: u64,
    /// Of these, frames that were not captured because the reader was too slow.
    pub lost: u64,
}

/// One message of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'b> {
    /// One captured frame.
    Frame {
        /// Index in [`CaptureStart::interfaces`].
        interface: u32,
        /// Its time, length and verdict.
        record: Record,
        /// Its bytes, cut to the `snap` of the request.
        bytes: &'b [u8],
    },
    /// One for each interface.
    Statistics(Vec<CaptureCount>),
}

impl Message<'_> {
    /// Appends the encoded message to `to`.
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

    /// Decodes the first message of `stream`, and gives its encoded length; `None` if the message
    /// is not complete yet.
    ///
    /// # Errors
    /// When the bytes cannot be the beginning of a message.
    pub fn read(stream: &[u8]) -> Result<Option<(Message<'_>, usize)>, BrokenStream> {
        let Some((head, _)) = stream.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [length, interface] = [0, 4].map(|at| u32_at(head, at));
        let length = length as usize;
        let longest = if interface == STATISTICS {
            16 * MOST_INTERFACES
        } else {
            Record::LEN + MAX_FRAME
        };
        let body = length.checked_sub(4).filter(|body| *body <= longest);
        let body = body.ok_or(BrokenStream)?;
        let Some(body) = stream.get(HEAD..HEAD + body) else {
            return Ok(None);
        };
        let message = if interface == STATISTICS {
            let counts = body.chunks_exact(16).map(|count| CaptureCount {
                received: u64_at(count, 0),
                lost: u64_at(count, 8),
            });
            Message::Statistics(counts.collect())
        } else {
            Message::Frame {
                interface,
                record: Record::decode(body).ok_or(BrokenStream)?,
                bytes: &body[Record::LEN..],
            }
        };
        Ok(Some((message, HEAD + body.len())))
    }
}

/// The stream is not one of this version: client and fabric were built from different versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the fabric speaks another version of the capture protocol: use the ikv-fabric that it was started with"
)]
pub struct BrokenStream;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
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
    fn a_message_is_decoded_once_it_is_complete() {
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
    fn impossible_lengths_are_refused_at_once() {
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

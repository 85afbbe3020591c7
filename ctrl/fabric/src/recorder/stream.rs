//! Turns a recording into a stream of capture messages: [`Messages`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dataplane::capture::RecorderReader;
use tokio::sync::mpsc;

use crate::capture::CHUNK;
use crate::capture::merge::Merge;
use crate::rights;
use api::ApiError;
use api::capture::{CaptureCount, CaptureStart, CaptureStream, Message};

/// The most chunks that wait for a client.
const CHUNKS: usize = 4;

/// A copy of the records of several lanes, in the order of their times.
pub(super) struct Messages {
    merge: Merge,
    frames: Vec<u64>,
}

impl Messages {
    /// Copies everything recorded after `since`, in ns on the dataplane's clock.
    pub(super) fn of<'r>(
        lanes: impl ExactSizeIterator<Item = &'r RecorderReader>,
        since: u64,
    ) -> Self {
        let mut merge = Merge::new(lanes.len());
        let mut frames = vec![0; lanes.len()];
        for (number, lane) in lanes.enumerate() {
            lane.dump(since, |record, bytes| {
                merge.push(number, record, bytes);
                frames[number] += 1;
            });
        }
        Messages { merge, frames }
    }

    /// Calls `each` with every chunk, the statistics last. Returns the number of frames.
    pub(super) fn send(
        mut self,
        each: &mut dyn FnMut(Vec<u8>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut more = true;
        while more {
            let mut chunk = Vec::with_capacity(CHUNK);
            more = self.merge.emit(u64::MAX, CHUNK, &mut chunk);
            if !more {
                let count = |received: &u64| CaptureCount {
                    received: *received,
                    lost: 0,
                };
                let counts = self.frames.iter().map(count).collect();
                Message::Statistics(counts).write(&mut chunk);
            }
            each(chunk)?;
        }
        Ok(self.frames.iter().sum())
    }
}

/// A stream whose chunks are produced on a thread of its own.
pub(super) fn stream(
    start: CaptureStart,
    send: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<u64> + Send + 'static,
) -> Result<CaptureStream, ApiError> {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let work = move || {
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        let sent = send(&mut |chunk| sender.blocking_send(chunk).map_err(gone));
        if let Err(error) = sent {
            tracing::debug!(%error, "a dump was not sent to its end");
        }
    };
    rights::thread("dump", work).map_err(ApiError::failed)?;
    Ok(CaptureStream {
        start,
        chunks,
        stop: Arc::new(AtomicBool::new(false)),
    })
}

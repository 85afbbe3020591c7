//! Captures as files: the body of a plain answer, which ends after some time or some bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use dataplane::clock;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::capture::pcapng::Pcapng;
use crate::capture::{CaptureFileRequest, CaptureStream, Message};
use crate::error::RefusalKind;
use crate::{ApiError, Backend, CaptureCount, CaptureRequest};

/// The most files that are written at the same time: each has rings of its own, and a thread.
const MOST_DOWNLOADS: usize = 4;

/// The longest time that may be asked for, in s, and the most MiB.
const LONGEST: u32 = 300;
const LARGEST: u32 = 1024;

/// How long the fabric may take to hand over the last frames.
const REST: Duration = Duration::from_secs(5);

/// How many more files may be written.
#[derive(Debug, Clone)]
pub(super) struct Downloads(Arc<Semaphore>);

impl Default for Downloads {
    fn default() -> Self {
        Downloads(Arc::new(Semaphore::new(MOST_DOWNLOADS)))
    }
}

impl Downloads {
    /// Captures on `cable`, and answers with the file while it is written.
    pub(super) async fn answer(
        &self,
        backend: &impl Backend,
        cable: &str,
        asked: CaptureFileRequest,
    ) -> Result<Response, ApiError> {
        check(asked)?;
        let permit = self.0.clone().try_acquire_owned().map_err(|_| {
            ApiError::new(
                RefusalKind::Busy,
                format!("{MOST_DOWNLOADS} captures are being downloaded: try again when one ends"),
            )
        })?;
        let request = CaptureRequest {
            cables: vec![cable.to_owned()],
            ..CaptureRequest::default()
        };
        let captured = backend.capture(&request).await?;
        let headers = [
            (CONTENT_TYPE, "application/x-pcapng".to_owned()),
            (CONTENT_DISPOSITION, disposition(&captured)),
        ];
        let file = CaptureFile::new(captured, asked, permit);
        let body = stream::unfold(file, async |mut file| {
            let bytes = file.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), file))
        });
        Ok((headers, Body::from_stream(body)).into_response())
    }
}

fn check(asked: CaptureFileRequest) -> Result<(), ApiError> {
    let good = (1..=LONGEST).contains(&asked.seconds) && (1..=LARGEST).contains(&asked.mebibytes);
    if good {
        return Ok(());
    }
    Err(ApiError::new(
        RefusalKind::Invalid,
        format!(
            "a file takes 1 to {LONGEST} seconds and 1 to {LARGEST} mebibytes: ask for less, or use \
             `ikv-fabric capture -w FILE`"
        ),
    ))
}

/// The name under which a browser saves the file: the cable's own, without what a path or a header could
/// not have.
fn disposition(captured: &CaptureStream) -> String {
    let first = captured.start.interfaces.first();
    let name: String = first
        .map_or("capture", |interface| &interface.cable)
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => letter,
            _ => '_',
        })
        .collect();
    format!("attachment; filename=\"{name}.pcapng\"")
}

/// A file while it is written.
struct CaptureFile {
    captured: CaptureStream,
    pcapng: Pcapng,
    /// The beginning of a message whose rest has not come yet.
    waiting: Vec<u8>,
    counts: Vec<CaptureCount>,
    /// Bytes that may still be written.
    left: usize,
    ends: Instant,
    stopped: bool,
    complete: bool,
    _permit: OwnedSemaphorePermit,
}

impl CaptureFile {
    fn new(
        captured: CaptureStream,
        asked: CaptureFileRequest,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let mut pcapng = Pcapng::new(&captured.start, 0, None);
        pcapng.begin();
        CaptureFile {
            pcapng,
            waiting: Vec::new(),
            counts: vec![CaptureCount::default(); captured.start.interfaces.len()],
            left: (asked.mebibytes as usize) << 20,
            ends: Instant::now() + Duration::from_secs(asked.seconds.into()),
            stopped: false,
            complete: false,
            captured,
            _permit: permit,
        }
    }

    /// The next bytes; `None` after the last ones. It is called once the client has room for them.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let written = self.pcapng.take();
            if !written.is_empty() {
                return Some(written.into());
            }
            if self.complete {
                return None;
            }
            match self.chunk().await {
                Some(chunk) => self.write(&chunk),
                None => self.finish(),
            }
        }
    }

    /// What the fabric captured next; `None` at the end of the capture.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        if !self.stopped {
            tokio::select! {
                chunk = self.captured.chunks.recv() => return chunk,
                () = sleep_until(self.ends) => self.stop(),
            }
        }
        timeout(REST, self.captured.chunks.recv()).await.ok()?
    }

    fn stop(&mut self) {
        self.stopped = true;
        self.captured.stop.store(true, Ordering::Relaxed);
    }

    fn write(&mut self, chunk: &[u8]) {
        self.waiting.extend_from_slice(chunk);
        let mut read = 0;
        while let Ok(Some((message, length))) = Message::read(&self.waiting[read..]) {
            read += length;
            match message {
                Message::Frame {
                    interface,
                    record,
                    bytes,
                } if self.left > 0 => {
                    self.left = self.left.saturating_sub(bytes.len());
                    self.pcapng.frame(interface, &record, bytes);
                }
                Message::Statistics(counts) if counts.len() == self.counts.len() => {
                    self.counts = counts;
                }
                _ => {}
            }
        }
        self.waiting.drain(..read);
        if self.left == 0 && !self.stopped {
            self.stop();
        }
    }

    fn finish(&mut self) {
        self.complete = true;
        self.pcapng.end(&self.counts, clock::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use axum::body::to_bytes;
    use dataplane::capture::Record;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{CaptureInterface, CaptureStart};

    const PACKET: u32 = 6;

    fn captured(cable: &str) -> (mpsc::Sender<Vec<u8>>, CaptureStream) {
        let (sender, chunks) = mpsc::channel(8);
        let interface = CaptureInterface {
            name: "a".into(),
            alias: "a".into(),
            peer: "b".into(),
            cable: cable.into(),
        };
        let start = CaptureStart {
            interfaces: vec![interface],
            ..CaptureStart::default()
        };
        let stream = CaptureStream {
            start,
            chunks,
            stop: Arc::new(AtomicBool::new(false)),
        };
        (sender, stream)
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut message = Vec::new();
        let record = Record {
            len: length as u32,
            captured: length as u32,
            ..Record::default()
        };
        Message::Frame {
            interface: 0,
            record,
            bytes: &vec![7; length],
        }
        .write(&mut message);
        message
    }

    fn kinds(mut file: &[u8]) -> Vec<u32> {
        let word =
            |at: usize, file: &[u8]| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let mut kinds = Vec::new();
        while !file.is_empty() {
            kinds.push(word(0, file));
            file = &file[word(4, file) as usize..];
        }
        kinds
    }

    async fn written(file: CaptureFile) -> Vec<u8> {
        let body = stream::unfold(file, async |mut file| {
            let bytes = file.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), file))
        });
        to_bytes(Body::from_stream(body), 1 << 30)
            .await
            .unwrap()
            .into()
    }

    fn permit() -> OwnedSemaphorePermit {
        Downloads::default().0.try_acquire_owned().unwrap()
    }

    #[tokio::test]
    async fn a_file_has_every_frame_wherever_the_stream_is_cut() {
        let (sender, stream) = captured("wire");
        let bytes = [frame(60), frame(61)].concat();
        for piece in bytes.chunks(40) {
            sender.try_send(piece.to_vec()).unwrap();
        }
        drop(sender);
        let file = CaptureFile::new(stream, CaptureFileRequest::default(), permit());
        let kinds = kinds(&written(file).await);
        assert_eq!(kinds, [0x0a0d_0d0a, 1, PACKET, PACKET, 5]);
    }

    #[tokio::test]
    async fn it_ends_by_its_size() {
        let (sender, stream) = captured("wire");
        let stop = stream.stop.clone();
        for _ in 0..3 {
            sender.try_send(frame(60_000).repeat(10)).unwrap();
        }
        let asked = CaptureFileRequest {
            mebibytes: 1,
            ..CaptureFileRequest::default()
        };
        let reader = async {
            let file = CaptureFile::new(stream, asked, permit());
            written(file).await
        };
        let fabric = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::task::yield_now().await;
            }
            drop(sender);
        };
        let (file, ()) = tokio::join!(reader, fabric);
        let packets = kinds(&file).iter().filter(|kind| **kind == PACKET).count();
        assert_eq!(packets, (1 << 20) / 60_000 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_by_its_time_though_no_frame_comes() {
        let (sender, stream) = captured("wire");
        let began = Instant::now();
        let file = CaptureFile::new(stream, CaptureFileRequest::default(), permit());
        let stop = file.captured.stop.clone();
        assert_eq!(kinds(&written(file).await), [0x0a0d_0d0a, 1, 5]);
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(10) && took <= Duration::from_secs(16),
            "{took:?}"
        );
        assert!(stop.load(Ordering::Relaxed));
        drop(sender);
    }

    #[test]
    fn a_file_name_is_one_word() {
        let (_, stream) = captured("a/../b\"\r\nx: y");
        assert_eq!(
            disposition(&stream),
            "attachment; filename=\"a____b___x__y.pcapng\""
        );
    }
}

//! Runs one capture, from its request to its end.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::output::{Output, OutputOptions};
use super::ring_files::RingFiles;
use super::sink::Reader;
use super::source::Source;
use crate::signals::StopSignals;
use api::{CaptureCount, CaptureInterface, CaptureRequest, Client};
use fabric::progress::say;

/// How often to check whether the output's reader has closed the pipe.
const INTERVAL: Duration = Duration::from_millis(200);

/// What to capture, and where to write it.
#[derive(Debug)]
pub(super) struct Job {
    /// The request to the fabric.
    pub(super) request: CaptureRequest,
    /// How to show or write it.
    pub(super) options: OutputOptions,
    /// Where to write it; opened before the fabric taps a lane, so that no frame waits for that.
    pub(super) file: File,
    /// The ring of which `file` is the first, if there is one.
    pub(super) ring: Option<RingFiles>,
    /// For how long; `None` means until a signal or another limit.
    pub(super) time: Option<Duration>,
    /// Ends it as a signal does.
    pub(super) stop: Arc<Notify>,
    /// Whether to leave out the message "capturing".
    pub(super) quiet: bool,
}

/// The result of a capture.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Frames that were written.
    pub(super) frames: u64,
    /// The tapped ports.
    pub(super) interfaces: Vec<CaptureInterface>,
    /// The statistics of each of these ports.
    pub(super) counts: Vec<CaptureCount>,
}

/// Captures until a limit, a signal, or until the output's reader has closed the pipe.
///
/// # Errors
/// When the fabric refuses the capture or ends during it, or the output cannot be written.
pub(super) async fn capture(client: &Client, job: Job) -> anyhow::Result<Outcome> {
    let mut signals = StopSignals::new()?;
    let stream = client.capture(&job.request).await?;
    let (from_fabric, mut to_fabric) = tokio::io::split(stream);
    let mut source = Source::new(from_fabric);
    let start = source.first_line().await?;
    let interfaces = start.interfaces.clone();
    let reader = Reader::of(&job.file);
    let mut output = Output::new(job.options, start, job.file, job.ring)?;
    if !job.quiet {
        say("capturing");
    }
    let ended = output.ended();
    let deadline = job.time.map(|time| Instant::now() + time);

    let pumped = tokio::select! {
        pumped = pump(&mut source, &mut output) => pumped,
        () = signals.wait() => Ok(End::Asked),
        () = job.stop.notified() => Ok(End::Asked),
        () = reached(deadline) => Ok(End::Asked),
        () = reader_gone(&reader) => Ok(End::Failed),
        () = ended.notified() => Ok(End::Failed),
    };
    let mut broken = None;
    match pumped {
        // The fabric still has frames from before the end, and sends the final statistics.
        Ok(End::Asked | End::Complete) => {
            to_fabric.shutdown().await?;
            tokio::select! {
                rest = drain(&mut source, &mut output) => broken = rest.err(),
                () = signals.wait() => {}
                () = reader_gone(&reader) => {}
                () = ended.notified() => {}
            }
        }
        Ok(End::Failed) => {}
        Ok(End::Fabric) => {
            broken = Some(anyhow::anyhow!(
                "the fabric has ended; the capture is complete until then"
            ));
        }
        Err(error) => broken = Some(error),
    }
    let outcome = Outcome {
        frames: output.frames,
        interfaces,
        counts: output.counts.clone(),
    };
    tokio::select! {
        finished = output.finish() => finished?,
        // The pipe may be full and its reader slow: a second signal ends the wait for it.
        () = signals.wait() => {}
    }
    match broken {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Why the capture has ended.
enum End {
    /// A signal or a request came, or its time is over.
    Asked,
    /// It has as many frames as the user wants.
    Complete,
    /// The fabric closed the stream.
    Fabric,
    /// The output cannot be written; [`Output::finish`] reports why.
    Failed,
}

/// Moves frames from the fabric to the output until the capture ends.
async fn pump(
    source: &mut Source<impl AsyncRead + Unpin>,
    output: &mut Output,
) -> anyhow::Result<End> {
    loop {
        source.each(|message| output.take(message))?;
        if !output.flush().await? {
            return Ok(End::Failed);
        }
        if output.is_complete() {
            return Ok(End::Complete);
        }
        if !source.fill().await? {
            return Ok(End::Fabric);
        }
    }
}

/// Reads to the end of the stream, which has the final statistics, even if it has enough frames.
async fn drain(
    source: &mut Source<impl AsyncRead + Unpin>,
    output: &mut Output,
) -> anyhow::Result<()> {
    loop {
        match pump(source, output).await? {
            End::Complete if source.fill().await? => {}
            _ => return Ok(()),
        }
    }
}

/// Waits until the output's reader has closed the pipe.
async fn reader_gone(reader: &Reader) {
    while !reader.is_gone() {
        sleep(INTERVAL).await;
    }
}

/// Waits for the deadline; without one, forever.
async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

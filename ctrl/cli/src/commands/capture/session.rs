//! One capture from its request to its end.

use std::fs::File;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use super::output::{Output, Shape, Stuck};
use super::ring_files::RingFiles;
use super::sink::Reader;
use super::source::Source;
use api::{CaptureCount, CaptureInterface, CaptureRequest, Client};
use fabric::progress::say;

/// Between two looks whether anybody reads.
const LOOK: Duration = Duration::from_millis(200);

/// What to capture, and where to.
#[derive(Debug)]
pub(super) struct Job {
    /// For the fabric.
    pub(crate) request: CaptureRequest,
    /// How it is shown or kept.
    pub(crate) shape: Shape,
    /// Where it goes: open before a single lane is tapped.
    pub(crate) file: File,
    /// The ring whose first file that is.
    pub(crate) ring: Option<RingFiles>,
    /// For how long.
    pub(crate) time: Option<Duration>,
    /// Do not say when it begins.
    pub(crate) quiet: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Frames that were written.
    pub(crate) frames: u64,
    /// The tapped ports.
    pub(crate) interfaces: Vec<CaptureInterface>,
    /// What each of those has counted.
    pub(crate) counts: Vec<CaptureCount>,
}

/// Captures until a limit, a signal, or until nobody reads any more.
///
/// # Errors
/// When the fabric refuses, ends meanwhile, or the output cannot be written.
pub(super) async fn capture(client: &Client, job: Job) -> anyhow::Result<Outcome> {
    let mut signals = Signals::new()?;
    let stream = client.capture(&job.request).await?;
    let (from_fabric, mut to_fabric) = tokio::io::split(stream);
    let mut source = Source::new(from_fabric);
    let start = source.first_line().await?;
    let interfaces = start.interfaces.clone();
    let reader = Reader::of(&job.file);
    let mut output = Output::new(job.shape, start, job.file, job.ring)?;
    if !job.quiet {
        say("capturing");
    }
    let deadline = job.time.map(|time| Instant::now() + time);

    let pumped = tokio::select! {
        pumped = pump(&mut source, &mut output) => pumped,
        () = signals.next() => Ok(End::Asked),
        () = reached(deadline) => Ok(End::Asked),
        () = nobody_reads(&reader) => Ok(End::Stuck),
    };
    let mut broken = None;
    match pumped {
        // What came until now is still on its way, and the last statistics.
        Ok(End::Asked | End::Complete) => {
            to_fabric.shutdown().await?;
            tokio::select! {
                rest = drain(&mut source, &mut output) => broken = rest.err(),
                () = signals.next() => {}
                () = nobody_reads(&reader) => {}
            }
        }
        Ok(End::Stuck) => {}
        Ok(End::Fabric) => {
            broken = Some(anyhow::anyhow!(
                "the fabric has ended; the capture is whole until then"
            ));
        }
        Err(error) => broken = Some(error),
    }
    let outcome = Outcome {
        frames: output.frames(),
        interfaces,
        counts: output.counts().to_vec(),
    };
    tokio::select! {
        finished = output.finish() => finished?,
        // A pipe that is full and not read: asked twice, it is left.
        () = signals.next() => {}
    }
    match broken {
        Some(error) => Err(error),
        None => Ok(outcome),
    }
}

/// Why no more is read.
enum End {
    /// A signal or the time.
    Asked,
    /// As many frames as were asked for.
    Complete,
    /// The fabric closed the stream.
    Fabric,
    /// Nothing can be written.
    Stuck,
}

async fn pump(
    source: &mut Source<impl AsyncRead + Unpin>,
    output: &mut Output,
) -> anyhow::Result<End> {
    loop {
        source.each(|message| output.take(message))?;
        match output.flush().await {
            Ok(()) => {}
            Err(Stuck::Closed) => return Ok(End::Stuck),
            Err(Stuck::File(error)) => return Err(error),
        }
        if output.is_complete() {
            return Ok(End::Complete);
        }
        if !source.fill().await? {
            return Ok(End::Fabric);
        }
    }
}

/// Reads to the end of the stream.
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

async fn nobody_reads(reader: &Reader) {
    while !reader.is_gone() {
        sleep(LOOK).await;
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM.
pub(crate) struct Signals([Signal; 2]);

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()];
        Ok(Signals([signal(interrupt)?, signal(terminate)?]))
    }

    pub(crate) async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

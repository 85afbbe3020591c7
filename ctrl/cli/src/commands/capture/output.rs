//! What becomes of the captured frames: [`Output`].

use std::collections::VecDeque;
use std::fs::File;

use dataplane::capture::Record;
use dataplane::clock;

use super::line;
use super::pcapng::Pcapng;
use super::ring_files::RingFiles;
use super::segment::Wire;
use super::sink::{self, Closed, Order, Sink};
use api::capture::Message;
use api::{CaptureCount, CaptureStart};

/// How frames are shown or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line for each.
    Lines,
    /// A JSON object for each.
    Json,
    /// As pcapng.
    Pcapng,
}

/// What is asked of an [`Output`].
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// How.
    pub(crate) form: Form,
    /// As a wire would carry them.
    pub(crate) segment: bool,
    /// Bytes of each frame, at most; 0 for all.
    pub(crate) snap: u32,
    /// Frames, at most.
    pub(crate) count: Option<u64>,
    /// The filter's expression.
    pub(crate) filter: Option<String>,
}

/// Forms frames into bytes and hands those to the sink.
#[derive(Debug)]
pub(crate) struct Output {
    shape: Shape,
    start: CaptureStart,
    wire: Wire,
    pcapng: Pcapng,
    lines: String,
    sink: Sink,
    ring: Option<RingFiles>,
    /// For the sink, not handed over yet.
    pending: VecDeque<Order>,
    frames: u64,
    /// As told last.
    counts: Vec<CaptureCount>,
}

impl Output {
    /// Writes to `file`, the first of `ring` if there is one.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn new(
        shape: Shape,
        start: CaptureStart,
        file: File,
        ring: Option<RingFiles>,
    ) -> std::io::Result<Self> {
        let mut pcapng = Pcapng::new(&start, shape.snap, shape.filter.as_deref());
        if shape.form == Form::Pcapng {
            pcapng.begin();
        }
        Ok(Output {
            counts: vec![CaptureCount::default(); start.interfaces.len()],
            sink: Sink::start(file)?,
            wire: Wire::default(),
            lines: String::new(),
            pending: VecDeque::new(),
            frames: 0,
            shape,
            start,
            pcapng,
            ring,
        })
    }

    /// Takes a message in.
    pub(crate) fn take(&mut self, message: Message<'_>) {
        match message {
            Message::Frame {
                interface,
                record,
                bytes,
            } => self.frame(interface, &record, bytes),
            Message::Statistics(counts) => self.counted(counts),
        }
    }

    /// Takes a frame in.
    pub(crate) fn frame(&mut self, interface: u32, record: &Record, bytes: &[u8]) {
        let Output {
            shape,
            start,
            pcapng,
            lines,
            frames,
            wire,
            ..
        } = self;
        let Some(port) = start.interfaces.get(interface as usize) else {
            return;
        };
        let mut take = |record: &Record, bytes: &[u8]| {
            if shape.count.is_some_and(|count| *frames >= count) {
                return;
            }
            *frames += 1;
            match shape.form {
                Form::Pcapng => pcapng.frame(interface, record, bytes),
                Form::Lines => lines.push_str(&line::text(start, port, record, bytes)),
                Form::Json => lines.push_str(&line::json(start, port, record, bytes)),
            }
        };
        if shape.segment {
            wire.frames(record, bytes, shape.snap, take);
        } else {
            take(record, bytes);
        }
    }

    /// What the fabric has counted.
    pub(crate) fn counted(&mut self, counts: Vec<CaptureCount>) {
        if counts.len() == self.counts.len() {
            self.counts = counts;
        }
    }

    /// Whether there are as many frames as were asked for.
    pub(crate) fn is_complete(&self) -> bool {
        self.shape.count.is_some_and(|count| self.frames >= count)
    }

    /// Frames taken in.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// What each interface has counted.
    pub(crate) fn counts(&self) -> &[CaptureCount] {
        &self.counts
    }

    /// Hands what was formed to the sink. Given up half-way, nothing is lost.
    ///
    /// # Errors
    /// When writing has failed or a file of a ring cannot be made.
    pub(crate) async fn flush(&mut self) -> Result<(), Stuck> {
        self.form_orders().map_err(Stuck::File)?;
        Ok(self.sink.hand_over(&mut self.pending).await?)
    }

    fn form_orders(&mut self) -> anyhow::Result<()> {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.pending.push_back(Order::Write(lines.into_bytes()));
        }
        let mut frames = self.pcapng.take();
        if frames.is_empty() {
            return Ok(());
        }
        if let Some(ring) = &mut self.ring {
            if ring.is_full(frames.len(), self.pcapng.length_of_end()) {
                let (next, old) = ring.turn();
                let next = sink::create(&next)?;
                self.pcapng.end(&self.counts, clock::now());
                self.pending.push_back(Order::Write(self.pcapng.take()));
                self.pending.push_back(Order::Turn(next));
                self.pcapng.begin();
                let mut begun = self.pcapng.take();
                begun.append(&mut frames);
                frames = begun;
                if let Some(old) = old {
                    // Somebody has taken it away already, perhaps.
                    let _ = std::fs::remove_file(old);
                }
            }
            ring.wrote(frames.len());
        }
        self.pending.push_back(Order::Write(frames));
        Ok(())
    }

    /// Writes the end, and waits until everything is written.
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        // Whether it was closed says the sink itself.
        if let Err(Stuck::File(error)) = self.flush().await {
            return Err(error);
        }
        if self.shape.form == Form::Pcapng {
            self.pcapng.end(&self.counts, clock::now());
            self.pending.push_back(Order::Write(self.pcapng.take()));
            let _ = self.sink.hand_over(&mut self.pending).await;
        }
        let written = self.sink.finish().await;
        written.map_err(|error| anyhow::anyhow!("the capture could not be written: {error}"))
    }
}

/// Why no more can be written.
#[derive(Debug)]
pub(crate) enum Stuck {
    /// The sink is closed, and says why.
    Closed,
    /// The next file of a ring.
    File(anyhow::Error),
}

impl From<Closed> for Stuck {
    fn from(_: Closed) -> Self {
        Stuck::Closed
    }
}

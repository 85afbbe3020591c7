//! [`Output`] forms captured frames into text or pcapng and hands the bytes to the sink.

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

/// How frames are shown or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One line of text for each frame.
    Lines,
    /// One JSON object on a line for each frame.
    Json,
    /// A pcapng file.
    Pcapng,
}

/// What an [`Output`] makes of the frames.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    /// Text, JSON or pcapng.
    pub(crate) form: Form,
    /// Whether super-frames are cut into wire frames.
    pub(crate) segment: bool,
    /// The most bytes of each frame; 0 means all.
    pub(crate) snap: u32,
    /// After this number of frames, further ones are ignored.
    pub(crate) count: Option<u64>,
    /// The filter's expression, which pcapng records.
    pub(crate) filter: Option<String>,
}

/// Frames on their way from the stream to a file: formed, counted and handed over.
#[derive(Debug)]
pub(crate) struct Output {
    shape: Shape,
    start: CaptureStart,
    wire: Wire,
    pcapng: Pcapng,
    lines: String,
    sink: Sink,
    ring: Option<RingFiles>,
    /// What the sink has had no room for yet.
    pending: VecDeque<Order>,
    frames: u64,
    /// The latest statistics, one for each interface.
    counts: Vec<CaptureCount>,
}

impl Output {
    /// Writes to `file`, the first of `ring` if there is one.
    ///
    /// # Errors
    /// When the sink's thread cannot be started.
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

    /// Forms a frame, or remembers statistics.
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

    fn frame(&mut self, interface: u32, record: &Record, bytes: &[u8]) {
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

    fn counted(&mut self, counts: Vec<CaptureCount>) {
        if counts.len() == self.counts.len() {
            self.counts = counts;
        }
    }

    /// Whether it has as many frames as were asked for.
    pub(super) fn is_complete(&self) -> bool {
        self.shape.count.is_some_and(|count| self.frames >= count)
    }

    /// Number of frames that were formed.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// The latest statistics, one for each interface.
    pub(super) fn counts(&self) -> &[CaptureCount] {
        &self.counts
    }

    /// Hands what was formed to the sink. If the future is dropped before its end, nothing is lost.
    ///
    /// # Errors
    /// When writing has failed or the next file of a ring cannot be created.
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
                    // It fails if another program has removed the file already.
                    let _ = std::fs::remove_file(old);
                }
            }
            ring.wrote(frames.len());
        }
        self.pending.push_back(Order::Write(frames));
        Ok(())
    }

    /// Writes the end of the file, and waits until the sink has written everything.
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        // If the sink is closed, its own `finish` reports why.
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
    /// The sink is closed; [`Output::finish`] reports why.
    Closed,
    /// The next file of a ring cannot be created.
    File(anyhow::Error),
}

impl From<Closed> for Stuck {
    fn from(_: Closed) -> Self {
        Stuck::Closed
    }
}

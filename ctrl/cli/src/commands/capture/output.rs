//! [`Output`] forms captured frames into text or pcapng and hands the bytes to the sink.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use dataplane::capture::Record;
use dataplane::clock;
use tokio::sync::Notify;

use super::line::Line;
use super::ring_files::RingFiles;
use super::segment::WireFrames;
use super::sink::{self, Sink, SinkCommand};
use api::capture::Message;
use api::capture::pcapng::Pcapng;
use api::{CaptureCount, CaptureStart};

/// How frames are shown or written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// One line of text for each frame.
    Lines,
    /// One JSON object on a line for each frame.
    Json,
    /// A pcapng file.
    #[default]
    Pcapng,
}

/// What an [`Output`] makes of the frames; by default a pcapng file of all of them, uncut.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputOptions {
    pub(crate) format: Format,
    /// Whether super-frames are cut into wire frames.
    pub(crate) segment: bool,
    /// The most bytes of each frame; 0 means all.
    pub(crate) snap: u32,
    /// Further frames are ignored after this number; `None` means no limit.
    pub(crate) count: Option<u64>,
    /// The filter's expression, which pcapng records.
    pub(crate) filter: Option<String>,
}

/// Frames on their way from the stream to a file: formed, counted and handed over.
#[derive(Debug)]
pub(crate) struct Output {
    options: OutputOptions,
    start: CaptureStart,
    wire: WireFrames,
    pcapng: Pcapng,
    lines: String,
    sink: Sink,
    ring: Option<RingFiles>,
    /// Commands for which the sink had no room yet.
    pending: VecDeque<SinkCommand>,
    /// The number of frames that were formed.
    pub(crate) frames: u64,
    /// The latest statistics, one for each interface.
    pub(super) counts: Vec<CaptureCount>,
}

impl Output {
    /// Writes to `file`, the first of `ring` if there is one.
    ///
    /// # Errors
    /// When the sink's thread cannot be started.
    pub(crate) fn new(
        options: OutputOptions,
        start: CaptureStart,
        file: File,
        ring: Option<RingFiles>,
    ) -> std::io::Result<Self> {
        let mut pcapng = Pcapng::new(&start, options.snap, options.filter.as_deref());
        if options.format == Format::Pcapng {
            pcapng.begin();
        }
        Ok(Output {
            counts: vec![CaptureCount::default(); start.interfaces.len()],
            sink: Sink::start(file)?,
            wire: WireFrames::default(),
            lines: String::new(),
            pending: VecDeque::new(),
            frames: 0,
            options,
            start,
            pcapng,
            ring,
        })
    }

    /// Forms a frame, or keeps statistics.
    pub(crate) fn take(&mut self, message: Message<'_>) {
        match message {
            Message::Frame {
                interface,
                record,
                bytes,
            } => self.frame(interface, &record, bytes),
            Message::Statistics(counts) if counts.len() == self.counts.len() => {
                self.counts = counts;
            }
            // `finish` writes one block for each interface, so it needs as many statistics.
            Message::Statistics(_) => {}
        }
    }

    fn frame(&mut self, interface: u32, record: &Record, bytes: &[u8]) {
        let Output {
            options,
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
            if options.count.is_some_and(|count| *frames >= count) {
                return;
            }
            *frames += 1;
            match options.format {
                Format::Pcapng => pcapng.frame(interface, record, bytes),
                Format::Lines => lines.push_str(&Line::new(start, port, record, bytes).text(start)),
                Format::Json => lines.push_str(&Line::new(start, port, record, bytes).json()),
            }
        };
        if options.segment {
            wire.cut(record, bytes, options.snap, take);
        } else {
            take(record, bytes);
        }
    }

    /// See [`Sink::ended`].
    pub(super) fn ended(&self) -> Arc<Notify> {
        self.sink.ended()
    }

    /// Whether it has as many frames as the options allow.
    pub(super) fn is_complete(&self) -> bool {
        self.options.count.is_some_and(|count| self.frames >= count)
    }

    /// Hands what was formed to the sink. If the future is dropped before its end, nothing is lost.
    ///
    /// Returns `false` if writing has failed; [`Output::finish`] reports why.
    ///
    /// # Errors
    /// When the next file of a ring cannot be created.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<bool> {
        self.form_commands()?;
        Ok(self.sink.hand_over(&mut self.pending).await)
    }

    fn form_commands(&mut self) -> anyhow::Result<()> {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.pending
                .push_back(SinkCommand::Write(lines.into_bytes()));
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
                self.pending
                    .push_back(SinkCommand::Write(self.pcapng.take()));
                self.pending.push_back(SinkCommand::SwitchTo(next));
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
        self.pending.push_back(SinkCommand::Write(frames));
        Ok(())
    }

    /// Writes the end of the file, and waits until the sink has written everything.
    ///
    /// # Errors
    /// As [`Output::flush`].
    pub(crate) async fn finish(mut self) -> anyhow::Result<()> {
        self.flush().await?;
        if self.options.format == Format::Pcapng {
            self.pcapng.end(&self.counts, clock::now());
            self.pending
                .push_back(SinkCommand::Write(self.pcapng.take()));
            self.sink.hand_over(&mut self.pending).await;
        }
        let written = self.sink.finish().await;
        written.map_err(|error| anyhow::anyhow!("the capture could not be written: {error}"))
    }
}

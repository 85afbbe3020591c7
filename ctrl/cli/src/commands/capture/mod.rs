//! `ikv-fabric capture`: shows or writes the frames on cables, with the verdict on each.
//!
//! The data flows through the files in this order: `session` asks the fabric, `source` reads its
//! stream, `output` forms frames by `segment`, `line` and `api`'s `pcapng`, and `sink` writes
//! the bytes, to the files of `ring_files` if there are several.

mod filter;
mod line;
pub(crate) mod output;
mod ring_files;
mod segment;
mod session;
pub(crate) mod sink;
pub(crate) mod source;

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::json;
use tokio::sync::Notify;

use super::number::whole;
use super::{Context, print_json};
use crate::completion::{cable_names, port_names};
use api::{CaptureRequest, Client};
use fabric::progress::say;
use model::impairment::{Time, ValueError};
use output::{Format, OutputOptions};
use ring_files::{RingFiles, RingSize};
use session::{Job, Outcome};

pub(crate) use filter::compile;

/// Captures frames: a line for each, or pcapng for Wireshark.
///
/// Shows every frame once, at the port where it entered, with a comment that says what happened to
/// it: dropped and why, delayed, corrupted, duplicated. Ctrl-C ends the capture.
#[derive(Debug, Args)]
#[command(
    after_help = "Live in Wireshark: ikv-fabric capture spine1:2 -w - | wireshark -k -i -\n\
or from its list of interfaces, after `ikv-fabric extcap install`."
)]
#[command(override_usage = "ikv-fabric capture [OPTIONS] <CABLE>...\n       \
                      ikv-fabric capture [OPTIONS] --all")]
pub(crate) struct CaptureArgs {
    /// Cables by name or either end: iksb12, spine1:2, rack1:u3:1. A switch, rack or server stands
    /// for all its cables: spine1, rack1, rack1:u3.
    #[arg(value_name = "CABLE", required_unless_present = "all", add = cable_names())]
    cables: Vec<String>,
    /// Capture on every cable.
    #[arg(long, conflicts_with = "cables")]
    all: bool,
    /// Capture only frames that enter at this port: ikst12, spine1:2.
    #[arg(long, value_name = "PORT", add = port_names())]
    from: Option<String>,
    /// Write pcapng to this file, or to standard output for `-`.
    #[arg(short, long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Capture only frames that match a tcpdump expression: 'arp or tcp port 179'.
    #[arg(short, long, value_name = "BPF")]
    filter: Option<String>,
    /// Keep at most this many bytes of each frame; 0 keeps all.
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = whole::<u32>(0, u64::MAX))]
    snap: u32,
    /// Keep only the newest files, each of this size: 10x100MB makes FILE_00001 and so on.
    #[arg(long, value_name = "NxSIZE", requires = "write")]
    ring: Option<RingSize>,
    /// End after this number of frames.
    #[arg(long, value_name = "FRAMES", value_parser = whole::<u64>(1, u64::MAX))]
    count: Option<u64>,
    /// End after this time: 10s, 500ms, 2min.
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    time: Option<Duration>,
    /// Show frames where and when they leave the cable, not where they enter it.
    #[arg(long)]
    wire: bool,
    /// Cut super-frames and finish checksums, as a wire would carry them.
    #[arg(long)]
    segment: bool,
}

/// # Errors
/// When no fabric answers, a name is unknown, the filter is not a tcpdump expression, or the output
/// cannot be written.
pub(crate) async fn run(context: &Context, args: &CaptureArgs) -> anyhow::Result<()> {
    let request = CaptureRequest {
        cables: args.cables.clone(),
        from: args.from.clone(),
        filter: args.filter.as_deref().map_or(Ok(Vec::new()), compile)?,
        // A super-frame can be cut only if all its bytes are there.
        snap: if args.segment { 0 } else { args.snap },
        wire: args.wire,
    };
    let path = args.write.as_deref().filter(|path| *path != Path::new("-"));
    let format = match &args.write {
        Some(_) => Format::Pcapng,
        None if context.json => Format::Json,
        None => Format::Lines,
    };
    let (file, ring) = if let Some(path) = path {
        let mut ring = args.ring.map(|size| RingFiles::new(path, size));
        let first = ring.as_mut().map(|ring| ring.turn().0);
        (sink::create(first.as_deref().unwrap_or(path))?, ring)
    } else {
        ensure!(
            args.ring.is_none(),
            "--ring needs files: write to one, not to `-`"
        );
        ensure!(
            format != Format::Pcapng || !std::io::stdout().is_terminal(),
            "pcapng is not for a terminal: pipe it into `wireshark -k -i -`, write it to a file, \
             or leave -w away"
        );
        (sink::standard_output()?, None)
    };
    let job = Job {
        request,
        options: OutputOptions {
            format,
            segment: args.segment,
            snap: args.snap,
            count: args.count,
            filter: args.filter.clone(),
        },
        file,
        ring,
        time: args.time,
        stop: Arc::default(),
        quiet: false,
    };
    let outcome = session::capture(&context.client, job).await?;
    report(&outcome, context.json && path.is_some())?;
    Ok(())
}

fn report(outcome: &Outcome, as_json: bool) -> anyhow::Result<()> {
    let lost: u64 = outcome.counts.iter().map(|count| count.lost).sum();
    if !as_json {
        say(&format!("{} frames captured, {lost} lost", outcome.frames));
        return Ok(());
    }
    let interfaces = outcome.interfaces.iter().zip(&outcome.counts);
    let interfaces = interfaces.map(|(interface, count)| {
        json!({
            "name": interface.name,
            "cable": interface.cable,
            "received": count.received,
            "lost": count.lost,
        })
    });
    let interfaces: Vec<_> = interfaces.collect();
    print_json(&json!({ "frames": outcome.frames, "lost": lost, "interfaces": interfaces }))?;
    Ok(())
}

/// Captures into a pipe that Wireshark reads, until it closes the pipe.
///
/// # Errors
/// As [`run`].
pub(crate) async fn into_pipe(
    client: &Client,
    request: CaptureRequest,
    filter: Option<String>,
    segment: bool,
    pipe: &Path,
) -> anyhow::Result<()> {
    let job = Job {
        options: OutputOptions {
            segment,
            filter,
            ..OutputOptions::default()
        },
        request,
        file: sink::create(pipe)?,
        ring: None,
        time: None,
        stop: Arc::default(),
        // Wireshark shows as an error what an extcap writes to standard error.
        quiet: true,
    };
    session::capture(client, job).await.map(drop)
}

/// Captures a cable into a new pcapng file until `stop` is notified. Returns how many frames it has.
///
/// # Errors
/// As [`run`], and when there is a file of that name already.
pub(crate) async fn into_new_file(
    client: &Client,
    cable: &str,
    path: &Path,
    stop: Arc<Notify>,
) -> anyhow::Result<u64> {
    let file = File::create_new(path);
    let job = Job {
        options: OutputOptions::default(),
        request: CaptureRequest {
            cables: vec![cable.to_owned()],
            ..CaptureRequest::default()
        },
        file: file.with_context(|| format!("cannot write {}", path.display()))?,
        ring: None,
        time: None,
        stop,
        quiet: true,
    };
    Ok(session::capture(client, job).await?.frames)
}

/// Parses a time as every option of this program takes it: `10s`, `500ms`, `2min`.
pub(crate) fn duration(text: &str) -> Result<Duration, ValueError> {
    text.parse().map(|Time(time)| time)
}

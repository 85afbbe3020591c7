//! `ikv-fabric bench`: measures how fast a cable is.

mod ends;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::CableEnd;
use bench::machine::Machine;
use bench::measure::{LoadPlan, LoadProgress, LoadStep, measure};
use bench::pattern::{LONGEST, SHORTEST};
use bench::report::{LoadReport, OfferedLoad, SizeReport, bits, count, table};
use bench::testbed::{CpuPair, FreshCable, Testbed};
use clap::{Args, ValueEnum};
use dataplane::PanelOptions;
use guest::{GuestOptions, MemoryOptions, Ring};
use tokio::sync::mpsc::unbounded_channel;

use super::Context;
use super::number::whole;
use super::panel::IdleArg;
use crate::completion::cable_names;
use crate::signals::StopSignals;
use fabric::progress::{Progress, Stage};
use model::plugging::PlugKind;

/// Measures throughput, the highest rate without loss (RFC 2544) and one-way latency, with
/// frames that are numbered and checked. Without CABLE, it measures a fresh cable in this process,
/// with a virtio driver as the guest at either end.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// A cable of a running fabric, by name or either end. Both ends must be free.
    #[arg(value_name = "CABLE", add = cable_names())]
    cable: Option<String>,
    /// Measure the path between these two ends instead of a fabric's cable; each is vhost-user:PATH
    /// (a back end listens there), tap:NAME or netdev:NAME.
    #[arg(long, num_args = 2, value_names = ["END", "END"], conflicts_with = "cable")]
    between: Option<Vec<CableEnd>>,
    /// Which kind of NIC to plug in where a cable's end takes both.
    #[arg(long, value_enum, default_value_t = PlugKind::VhostUser)]
    nic: PlugKind,
    /// Frame sizes in bytes without FCS, 44 to 65535 (64k, the longest that Linux does not cut).
    /// Above 9018 they are TCP super-frames.
    #[arg(long, value_name = "BYTES", value_delimiter = ',', value_parser = size,
          default_value = "64,512,1518,9000,64k")]
    size: Vec<usize>,
    /// Length of throughput and latency runs.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    time: Duration,
    /// Length of each run of the search for the highest rate without loss; 0 leaves the search out.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "1")]
    trial: Duration,
    /// Share of the frames that a run may lose and still pass.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0%")]
    tolerance: f64,
    /// Runs in a row that must fail before a rate counts as failed: 1 as in RFC 2544, more on a
    /// machine that does other work.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = whole::<u32>(1, 100))]
    attempts: u32,
    /// How close the search comes to the highest rate, as a share of it.
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "1%")]
    resolution: f64,
    /// Loads at which latency is measured: frames per second, or a share of the highest rate
    /// without loss.
    #[arg(
        long,
        value_name = "LOAD",
        value_delimiter = ',',
        default_value = "1000,50%"
    )]
    load: Vec<OfferedLoad>,
    /// Load both directions at once; the figures are for both together.
    #[arg(long)]
    both_ways: bool,
    /// Layout of the guests' rings.
    #[arg(long, value_enum, default_value_t)]
    ring: RingArg,
    /// Entries of the guests' rings, 64 to 1024.
    #[arg(long, value_name = "N", default_value_t = 1024,
          value_parser = whole::<u16>(64, 1024))]
    queue_size: u16,
    /// Let the guests take frames in several buffers of 1,536 bytes, as Linux does.
    #[arg(long)]
    mergeable: bool,
    /// Let the guests negotiate VIRTIO_F_IN_ORDER.
    #[arg(long)]
    in_order: bool,
    /// What the worker of a fresh cable does when no frame waits.
    #[arg(long, value_enum, default_value_t)]
    idle: IdleArg,
    /// Draw the result into FILE.svg or FILE.png. May be repeated.
    #[arg(long, value_name = "FILE", value_parser = picture)]
    plot: Vec<PathBuf>,
}

/// The values of `--ring`; [`Ring`] is in a crate without clap.
#[derive(Debug, Clone, Copy, Default, PartialEq, ValueEnum)]
enum RingArg {
    /// Split virtqueues, which every driver supports.
    #[default]
    Split,
    /// Packed virtqueues, as of virtio 1.1.
    Packed,
}

/// # Errors
/// When the cable is unknown, its ends are in use, or frames do not pass.
pub(crate) async fn run(context: &Context, args: &BenchArgs) -> anyhow::Result<()> {
    let mut stop = StopSignals::with_hangup()?;
    // This counts the CPUs, so it comes before this thread is bound to one of them.
    let machine = Machine::this();
    let mut fresh = None;
    let (cable, testbed) = match (&args.cable, args.between.as_deref()) {
        (Some(cable), _) => ends::of_running(&context.client, cable, args.nic).await?,
        (None, Some([a, b])) => (
            "cable".to_owned(),
            Testbed {
                ends: [a.clone(), b.clone()],
                cpu: None,
            },
        ),
        (None, _) => {
            let cpus = CpuPair::of_this_process();
            let worker = PanelOptions {
                workers: 1,
                cpus: cpus.worker.into_iter().collect(),
                idle: args.idle.into(),
                hold_memory: None,
            };
            let plugged = fresh.insert(FreshCable::start(&worker)?);
            cpus.bind_generator();
            ("fresh cable".to_owned(), plugged.testbed())
        }
    };
    let plan = args.plan();
    let names = if fresh.is_some() {
        ["guest", "guest"].map(str::to_owned)
    } else {
        testbed.ends.clone().map(|end| end.to_string())
    };
    let progress = Progress::new();
    let sizes = watched(testbed, plan, &progress, &mut stop).await?;
    drop(fresh);
    let report = LoadReport {
        cable,
        ends: names,
        settings: args.settings(),
        machine,
        sizes,
    };
    context.report(&report, || table(&report))?;
    for path in &args.plot {
        bench::plot::report(&report, path)?;
    }
    Ok(())
}

/// Measures on a thread of its own and shows the progress.
async fn watched(
    testbed: Testbed,
    plan: LoadPlan,
    progress: &Progress,
    stop: &mut StopSignals,
) -> anyhow::Result<Vec<SizeReport>> {
    let (progress_sender, mut progress_events) = unbounded_channel();
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let mut measuring = tokio::task::spawn_blocking(move || {
        // Sending fails only when the process is about to end.
        measure(&testbed, &plan, &flag, |event| {
            _ = progress_sender.send(event);
        })
    });
    let mut stage: Option<Stage<'_>> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => interrupted.store(true, Ordering::Relaxed),
            Some(event) = progress_events.recv() => match event {
                LoadProgress::Begins(size, step) => stage
                    .get_or_insert_with(|| progress.stage(&format!("{size} B")))
                    .update(&describe(step)),
                LoadProgress::Done(report) => if let Some(stage) = stage.take() {
                    stage.done(&result(&report));
                },
            },
            result = &mut measuring => return Ok(result??),
        }
    }
}

fn describe(step: LoadStep) -> String {
    match step {
        LoadStep::Throughput => "throughput".into(),
        LoadStep::NoDrop { rate, .. } if rate < 1.0 => "no drop".into(),
        LoadStep::NoDrop { rate, best } => {
            format!(
                "no drop: {}/s passed, trying {}/s",
                count(best),
                count(rate)
            )
        }
        LoadStep::Latency(rate) => format!("latency at {}/s", count(rate)),
    }
}

fn result(report: &SizeReport) -> String {
    match (&report.throughput, &report.not_carried) {
        (Some(found), _) => {
            format!(
                "{}/s, {}",
                count(found.frames_per_second),
                bits(found.bits_per_second)
            )
        }
        (None, why) => why.clone().unwrap_or_default(),
    }
}

impl BenchArgs {
    fn plan(&self) -> LoadPlan {
        LoadPlan {
            sizes: self.size.clone(),
            time: self.time,
            search_time: self.trial,
            tolerance: self.tolerance,
            attempts: self.attempts,
            resolution: self.resolution.max(1e-4),
            loads: self.load.clone(),
            both_ways: self.both_ways,
            guest: self.guest(),
        }
    }

    fn guest(&self) -> GuestOptions {
        GuestOptions {
            ring: match self.ring {
                RingArg::Split => Ring::Split,
                RingArg::Packed => Ring::Packed,
            },
            queue_size: self.queue_size,
            mergeable: self.mergeable,
            in_order: self.in_order,
            features: guest::features::TSO4,
            receive_capacity: if self.mergeable { 1536 - 12 } else { 1522 },
            memory: MemoryOptions {
                huge: true,
                ..MemoryOptions::default()
            },
            ..GuestOptions::default()
        }
    }

    /// The settings of the measurement, in one line.
    fn settings(&self) -> String {
        let ring = if self.ring == RingArg::Packed {
            "packed"
        } else {
            "split"
        };
        let mut words = vec![format!("{ring} rings of {}", self.queue_size)];
        for (set, word) in [(self.mergeable, "mergeable"), (self.in_order, "in order")] {
            if set {
                words.push(word.into());
            }
        }
        words.push(if self.both_ways {
            "both ways".into()
        } else {
            "one way".into()
        });
        words.push(format!("{} s", self.time.as_secs_f64()));
        if !self.trial.is_zero() {
            words.push(format!(
                "no drop: 1 of {} runs of {} s, {} % loss, within {} %",
                self.attempts,
                self.trial.as_secs_f64(),
                self.tolerance * 100.0,
                self.resolution * 100.0
            ));
        }
        words.join(", ")
    }
}

fn size(text: &str) -> Result<usize, String> {
    if text == "64k" {
        return Ok(LONGEST);
    }
    text.parse()
        .ok()
        .filter(|size| (SHORTEST..=LONGEST).contains(size))
        .ok_or_else(|| {
            format!("\"{text}\" is not a frame size: write {SHORTEST} to {LONGEST} bytes, or 64k")
        })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.strip_suffix('s')
        .unwrap_or(text)
        .parse()
        .ok()
        .filter(|seconds| (0.0..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("\"{text}\" is not a time: write seconds, up to 3600"))
}

fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    number
        .parse()
        .ok()
        .map(|number: f64| number * scale)
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| format!("\"{text}\" is not a share: write 0.5% or 0.005"))
}

fn picture(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg" | "png") => Ok(path.into()),
        _ => Err(format!("\"{text}\" must end in .svg or .png")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_say_what_they_take() {
        assert_eq!((size("64k"), size("1518")), (Ok(65_535), Ok(1518)));
        assert!(size("43").is_err() && size("65536").is_err() && size("x").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(seconds("-1").is_err() && seconds("NaN").is_err());
        assert_eq!((share("1%"), share("0.5")), (Ok(0.01), Ok(0.5)));
        assert!(share("100%").is_err());
        assert!(picture("a.jpg").is_err());
    }
}

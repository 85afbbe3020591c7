//! `ikv-fabric recorder`: the flight recorder, which has frames from before a capture was started.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use tokio::io::AsyncRead;

use super::Context;
use super::capture::output::{Output, OutputOptions};
use super::capture::source::Source;
use super::capture::{compile, duration, sink};
use crate::completion::cable_names;
use api::{DumpRequest, RecorderStatus, Trigger};
use fabric::RecorderOptions;
use fabric::progress::say;
use model::config;

/// Shows and writes what the flight recorder holds: the last frames of every cable.
#[derive(Debug, Args)]
pub(crate) struct RecorderArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows its memory, its triggers and the dumps that it has kept.
    Status,
    /// Writes what is recorded now, as pcapng.
    Dump {
        /// Cables by name or either end; a switch, rack or server stands for all its cables. All cables
        /// if none is named.
        #[arg(value_name = "CABLE", add = cable_names())]
        cables: Vec<String>,
        /// Only frames that are not older than this: 30s, 500ms.
        #[arg(long, value_name = "TIME", value_parser = duration)]
        last: Option<Duration>,
        #[command(flatten)]
        to: Target,
    },
    /// Lists the dumps that it has kept because of a trigger.
    List,
    /// Writes a dump that it has kept, as pcapng.
    Get {
        /// The dump's name, as `recorder list` shows it.
        name: String,
        #[command(flatten)]
        to: Target,
    },
    /// Sets what makes it keep a dump: these triggers and no others, until the fabric ends.
    Trigger(TriggerArgs),
}

/// The file that a dump is written to.
#[derive(Debug, Args)]
struct Target {
    /// A file, or standard output for `-`.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
}

/// The events at which the recorder keeps a dump.
#[derive(Debug, Args)]
struct TriggerArgs {
    /// A cable is cut.
    #[arg(long)]
    down: bool,
    /// A BGP session between switches is lost: a NOTIFICATION, or silence beyond the hold time.
    #[arg(long)]
    bgp: bool,
    /// A frame matches a tcpdump expression: `icmp6 and ip6[40] == 1`.
    #[arg(long, value_name = "BPF")]
    r#match: Option<String>,
    /// A lane drops this share of what enters it in a second: 1%, 0.5.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    drops: Option<f64>,
    /// Watch only these cables for --match and --drops.
    #[arg(long, value_name = "CABLE", num_args = 1.., add = cable_names())]
    on: Vec<String>,
    /// Remove all triggers.
    #[arg(long, conflicts_with_all = ["down", "bgp", "match", "drops", "on"])]
    none: bool,
}

/// The recorder that the table `[recorder]` asks for; `None` if it disables it.
///
/// # Errors
/// When `match` is not a tcpdump expression.
pub(crate) fn options(wanted: &config::Recorder) -> anyhow::Result<Option<RecorderOptions>> {
    if !wanted.enabled {
        return Ok(None);
    }
    let triggers = TriggerArgs {
        down: wanted.cable_down,
        bgp: wanted.bgp_down,
        r#match: wanted.matches.clone(),
        drops: wanted.drop_rate.map(|share| share.share() * 100.0),
        on: Vec::new(),
        // A recorder without triggers still holds frames for `recorder dump`.
        none: true,
    };
    Ok(Some(RecorderOptions {
        memory: wanted.memory.0,
        snap: wanted.snap,
        triggers: triggers.triggers().context("recorder.match")?,
        folder: wanted.dir.clone(),
        ..RecorderOptions::default()
    }))
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number
        .ok()
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("\"{text}\" is not a share: write 0% to 100%"))
}

/// # Errors
/// When no fabric answers, nothing is recorded, a name is unknown, or a file cannot be written.
pub(crate) async fn run(context: &Context, args: &RecorderArgs) -> anyhow::Result<()> {
    let client = &context.client;
    let show = |status: &RecorderStatus| context.report(status, || table(status));
    match &args.action {
        Action::Status => show(&client.recorder().await?)?,
        Action::List => {
            let status = client.recorder().await?;
            context.report(&status.dumps, || list(&status))?;
        }
        Action::Dump { cables, last, to } => {
            let request = DumpRequest {
                cables: cables.clone(),
                last_ms: last.map(|last| last.as_millis() as u64),
            };
            to.check()?;
            save(client.recorder_dump(&request).await?, to.open()?).await?;
        }
        Action::Get { name, to } => {
            to.check()?;
            save(client.kept_dump(name).await?, to.open()?).await?;
        }
        Action::Trigger(args) => {
            let triggers = args.triggers()?;
            show(&client.set_triggers(triggers).await?)?;
        }
    }
    Ok(())
}

impl Target {
    fn is_stdout(&self) -> bool {
        self.write == Path::new("-")
    }

    /// Refuses a terminal before the fabric is asked to make a dump.
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.is_stdout() || !std::io::stdout().is_terminal(),
            "pcapng is not for a terminal: pipe it into `wireshark -k -i -`, or write it to a file"
        );
        Ok(())
    }

    /// Opens the file. Called once the fabric has answered, so that a refusal empties no old file.
    fn open(&self) -> anyhow::Result<File> {
        if self.is_stdout() {
            Ok(sink::standard_output()?)
        } else {
            sink::create(&self.write)
        }
    }
}

impl TriggerArgs {
    fn triggers(&self) -> anyhow::Result<Vec<Trigger>> {
        let mut triggers = Vec::new();
        if self.down {
            triggers.push(Trigger::Down {});
        }
        if self.bgp {
            triggers.push(Trigger::Bgp {});
        }
        if let Some(expression) = &self.r#match {
            triggers.push(Trigger::Match {
                expression: expression.clone(),
                filter: compile(expression)?,
                cables: self.on.clone(),
            });
        }
        if let Some(percent) = self.drops {
            triggers.push(Trigger::Drops {
                percent,
                cables: self.on.clone(),
            });
        }
        ensure!(
            self.none || !triggers.is_empty(),
            "name a trigger: --down, --bgp, --match or --drops; or --none"
        );
        Ok(triggers)
    }
}

/// Writes a whole dump to `file`.
async fn save(stream: impl AsyncRead + Unpin, file: File) -> anyhow::Result<()> {
    let mut source = Source::new(stream);
    let start = source.first_line().await?;
    let mut output = Output::new(OutputOptions::default(), start, file, None)?;
    loop {
        // `first_line` may have read messages that follow it.
        source.each(|message| output.take(message))?;
        // If the output failed, `finish` reports why; a pipe that its reader closed is not an error.
        if !output.flush().await? || !source.fill().await? {
            break;
        }
    }
    let frames = output.frames;
    output.finish().await?;
    say(&format!("{frames} frames"));
    Ok(())
}

fn table(status: &RecorderStatus) -> String {
    let mib = status.memory as f64 / f64::from(1 << 20);
    let RecorderStatus { lanes, snap, .. } = status;
    let mut text = format!("recording {lanes} lanes in {mib:.0} MiB, {snap} bytes of each frame\n");
    for trigger in &status.triggers {
        text.push_str(&format!("keeps a dump when {trigger}\n"));
    }
    text.push_str(&list(status));
    text
}

fn list(status: &RecorderStatus) -> String {
    if status.dumps.is_empty() {
        return "no dump was kept\n".into();
    }
    let mut text = String::new();
    for dump in &status.dumps {
        let (name, frames, why) = (&dump.name, dump.frames, dump.why.join("; "));
        let mib = dump.bytes as f64 / f64::from(1 << 20);
        text.push_str(&format!("{name}  {frames} frames, {mib:.1} MiB  {why}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_with_and_without_their_sign() {
        assert_eq!(percent("1%"), Ok(1.0));
        assert_eq!(percent("0.5"), Ok(0.5));
        for wrong in ["", "%", "101%", "-1", "NaN"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}

//! `ikv-fabric scenario` cuts, mends and impairs cables by a timetable.

mod expand;
mod file;
mod run;
mod targets;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use super::configuration::ConfigArgs;
use super::{Context, impair, print, print_json};
use expand::{Moment, THIS, expand};
use file::Scenario;
use model::bounded;
use model::impairment::Time;

/// An example of a scenario, for `--help`.
const FORMAT: &str = "\
A scenario is a TOML file:

  restore = true               # the default: afterwards everything is as before

  [[step]]
  at = \"5s\"                    # since the beginning; or: after = \"5s\", since the end of the step before
  cut = [\"spine1\", \"iksb23\"]  # cables, ports, switches, racks; all at the same instant

  [[step]]
  after = \"10s\"
  mend = \"spine1\"
  impair = { on = \"iksb23\", from = \"ikst23\", loss = \"100%\", delay = \"10ms\" }

Keys of a step:
  at, after                    when; with neither, as soon as the step before has ended
  every, times                 repeats the whole step, `times` times, `every` apart
  cut, mend, blackhole, clear  names or lists of them; clear takes impairments away
  impair = { on, from, … }     the keys of `ikv-fabric impair`; or a list of these
  flap = { on, times, every }  also down (half of every), blackhole = true
  ramp = { on, from, key, start, end, over }
                               delay, jitter, loss, duplicate, corrupt, reorder or rate, in steps
                               (one every 100ms)";

/// The longest file, in bytes; the most steps need less.
const LONGEST_FILE: u64 = 4 << 20;

/// Cuts, mends and impairs cables by a timetable.
#[derive(Debug, Args)]
#[command(after_help = FORMAT)]
pub(crate) struct ScenarioArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Runs a scenario and reports what it does and when. SIGINT ends it, with status 1. At the end it restores
    /// states and impairments, unless the file has `restore = false`.
    Run {
        /// The scenario, a TOML file.
        file: PathBuf,
    },
    /// Shows what a scenario would do and when, without doing it.
    Check {
        /// The scenario, a TOML file.
        #[arg(value_name = "FILE")]
        scenario: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
        /// Look names up in the running fabric instead of the configuration [default: only if a
        /// fabric runs and neither -c nor --set is given].
        #[arg(long)]
        running: bool,
    },
}

/// # Errors
/// When the file has a mistake, or the fabric refuses a step.
pub(crate) async fn run(context: &Context, args: &ScenarioArgs) -> anyhow::Result<()> {
    match &args.verb {
        Verb::Run { file } => {
            let scenario = read(file)?;
            let cables = targets::running(&context.client, &scenario).await?;
            let moments = timeline(file, &scenario, &cables)?;
            run::play(context, &moments, scenario.restore).await
        }
        Verb::Check {
            scenario: file,
            config,
            running,
        } => {
            let scenario = read(file)?;
            let there = || context.client.socket().exists();
            let cables = if *running || (config.is_default() && there()) {
                targets::running(&context.client, &scenario).await?
            } else {
                let found = targets::planned(&config.topology()?, &scenario);
                found.with_context(|| file.display().to_string())?
            };
            show(context, &timeline(file, &scenario, &cables)?)?;
            Ok(())
        }
    }
}

/// `impair CABLE --script FILE`: a scenario for this cable alone.
///
/// # Errors
/// As [`run()`], and when the file names another cable.
pub(crate) async fn run_script(
    context: &Context,
    file: &Path,
    cable: &str,
    from: Option<&str>,
) -> anyhow::Result<()> {
    let mut scenario = read(file)?;
    if let Some(from) = from {
        for step in &mut scenario.step {
            for impair in step.impair.iter_mut().flat_map(|impairs| &mut impairs.0) {
                impair.from.get_or_insert_with(|| from.to_owned());
            }
            if let Some(ramp) = &mut step.ramp {
                ramp.from.get_or_insert_with(|| from.to_owned());
            }
        }
    }
    let mut cables = targets::running(&context.client, &scenario).await?;
    let this = targets::one(&context.client, cable).await?.name;
    for (name, found) in &cables {
        anyhow::ensure!(
            *found == [this.clone()],
            "{}: {name} is not {this}, the only cable that --script may change: `ikv-fabric \
             scenario run` changes any cable",
            file.display()
        );
    }
    cables.insert(THIS.into(), vec![this]);
    run::play(
        context,
        &timeline(file, &scenario, &cables)?,
        scenario.restore,
    )
    .await
}

/// Reads a file, and the tables and filters that only the client can read and compile.
fn read(file: &Path) -> anyhow::Result<Scenario> {
    let path = file.display().to_string();
    let text = bounded::read_to_string(file, LONGEST_FILE);
    let text = text.with_context(|| format!("cannot read {path}"))?;
    let mut scenario = file::parse(&path, &text)?;
    for (index, step) in scenario.step.iter_mut().enumerate() {
        for found in step.impair.iter_mut().flat_map(|impairs| &mut impairs.0) {
            let completed = impair::complete(std::mem::take(&mut found.keys));
            found.keys = completed.with_context(|| format!("{path}: step {}", index + 1))?;
        }
    }
    Ok(scenario)
}

fn timeline(
    file: &Path,
    scenario: &Scenario,
    cables: &expand::Cables,
) -> anyhow::Result<Vec<Moment>> {
    expand(scenario, cables).map_err(|what| anyhow::anyhow!("{}: {what}", file.display()))
}

fn show(context: &Context, moments: &[Moment]) -> std::io::Result<()> {
    if context.json {
        let moments = moments.iter().map(|moment| {
            json!({
                "at_ms": moment.at.as_secs_f64() * 1e3,
                "what": moment.words,
                "changes": moment.changes,
            })
        });
        return print_json(&moments.collect::<Vec<_>>());
    }
    print(&text(moments))
}

fn text(moments: &[Moment]) -> String {
    let rows = moments.iter().map(|moment| {
        format!(
            "{:>12}  {}\n",
            Time(moment.at).to_string(),
            moment.words.join("; ")
        )
    });
    rows.collect()
}

//! Runs the contestants of the groups and collects their figures.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::groups::{Group, Job};
use crate::summary::Summary;

/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(180);

/// The kernel's file with the number of huge pages.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Number of huge pages of 2 MiB that the generator and a contestant need together.
const NEEDED_PAGES: u64 = 1024;

/// Which groups to run, and how often.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of runs of each contestant.
    pub runs: usize,
    /// Prefixes of the names of the groups to run; all groups if empty.
    pub only: Vec<String>,
}

/// The result of one contestant in one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// The figures of all runs, by key.
    pub(super) figures: BTreeMap<String, Vec<f64>>,
    /// Why the contestant did not take part.
    pub(super) skipped: Option<String>,
    /// For each failed run, why it failed.
    pub(super) failures: Vec<String>,
}

impl Outcome {
    /// Median and range of one figure.
    pub(super) fn summary(&self, key: &str) -> Option<Summary> {
        Summary::of(self.figures.get(key)?)
    }
}

/// The results by group and contestant.
pub type Outcomes = BTreeMap<(&'static str, &'static str), Outcome>;

/// Runs every contestant of every group once, and repeats that `options.runs` times. Reports each run
/// to `progress` as a line of text. Ends early once `stop` is true.
///
/// # Errors
/// When the kernel cannot provide the huge pages.
pub fn run(
    groups: &[Group],
    options: &Options,
    stop: &AtomicBool,
    mut progress: impl FnMut(&str),
) -> std::io::Result<Outcomes> {
    let _pages = HugePages::reserve()?;
    let chosen = |group: &&Group| {
        options.only.is_empty() || options.only.iter().any(|name| group.name.starts_with(name))
    };
    let mut outcomes = Outcomes::new();
    for number in 1..=options.runs {
        for group in groups.iter().filter(chosen) {
            for job in &group.jobs {
                if stop.load(Ordering::Relaxed) {
                    return Ok(outcomes);
                }
                let outcome = outcomes.entry((group.name, job.contestant)).or_default();
                run_once(job, outcome, stop);
                let label = format!(
                    "{number}/{} {} {}",
                    options.runs, group.name, job.contestant
                );
                progress(&format!("{label}: {}", last_run(group, outcome, number)));
            }
        }
    }
    Ok(outcomes)
}

/// Runs a contestant and adds the result to its outcome.
fn run_once(job: &Job, outcome: &mut Outcome, stop: &AtomicBool) {
    if let Some(missing) = job.needs.iter().find(|program| !is_installed(program)) {
        outcome.skipped = Some(format!("{missing} is not installed"));
        return;
    }
    match run_command(job, stop) {
        Ok(figures) => {
            for (key, figure) in figures {
                outcome.figures.entry(key).or_default().push(figure);
            }
        }
        Err(why) => outcome.failures.push(why),
    }
}

/// Runs a contestant's command and returns the figures that it printed.
fn run_command(job: &Job, stop: &AtomicBool) -> Result<Vec<(String, f64)>, String> {
    let [program, arguments @ ..] = job.command.as_slice() else {
        return Err("there is no command".into());
    };
    // In a process group of its own, so that Ctrl-C reaches only this process, which ends it.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    let mut output = child.stdout.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let began = Instant::now();
    let mut terminated = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if !terminated && (stop.load(Ordering::Relaxed) || began.elapsed() > LIMIT) {
            // The programs that the script waits for end, and its trap cleans up.
            signal(&child, Signal::TERM);
            terminated = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Processes that the script left behind would disturb later runs and keep its output open.
    signal(&child, Signal::KILL);
    let text = reader.join().map_err(|_| "its output cannot be read")?;
    let text = text.map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("it ended with {status}"));
    }
    let figures = figures(&text);
    if figures.is_empty() {
        Err("it printed no figures".into())
    } else {
        Ok(figures)
    }
}

/// Sends a signal to the run's process group, if any process of it is left.
fn signal(leader: &Child, signal: Signal) {
    let _ = kill_process_group(Pid::from_child(leader), signal);
}

/// The figures in a script's output: its lines of the form `key=number`.
fn figures(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let (key, number) = line.split_once('=')?;
            Some((key.trim().to_owned(), number.trim().parse().ok()?))
        })
        .collect()
}

/// The result of run `number`, the last one, as text.
fn last_run(group: &Group, outcome: &Outcome, number: usize) -> String {
    if let Some(why) = &outcome.skipped {
        return format!("SKIP: {why}");
    }
    let figures: Vec<_> = group
        .figures
        .iter()
        .filter_map(|figure| {
            let runs = outcome.figures.get(figure.key)?;
            (runs.len() + outcome.failures.len() == number)
                .then(|| format!("{} {}", runs.last().unwrap_or(&0.0), figure.key))
        })
        .collect();
    if figures.is_empty() {
        format!(
            "FAILED: {}",
            outcome.failures.last().map_or("no figures", String::as_str)
        )
    } else {
        figures.join(", ")
    }
}

/// Whether a program exists: an absolute path, or a name in PATH.
fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
        || Path::new(program).is_absolute() && Path::new(program).is_file()
}

/// Keeps enough huge pages available; dropping it restores the number from before.
struct HugePages {
    before: Option<u64>,
}

impl HugePages {
    fn reserve() -> std::io::Result<HugePages> {
        let number = || fs::read_to_string(HUGE_PAGES).map(|text| text.trim().parse().unwrap_or(0));
        let before: u64 = number()?;
        if before >= NEEDED_PAGES {
            return Ok(HugePages { before: None });
        }
        fs::write(HUGE_PAGES, NEEDED_PAGES.to_string())?;
        let pages = HugePages {
            before: Some(before),
        };
        if number()? < NEEDED_PAGES {
            return Err(std::io::Error::other(format!(
                "the kernel cannot provide {NEEDED_PAGES} huge pages of 2 MiB, as its memory is fragmented: try again after a reboot"
            )));
        }
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // Pages that cannot be freed now stay until the next boot; nothing depends on them.
            let _ = fs::write(HUGE_PAGES, before.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(script: &str, needs: &'static [&'static str]) -> Job {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Job {
            contestant: "testpmd",
            needs,
            command,
        }
    }

    #[test]
    fn runs_yield_figures_or_the_reason_for_none() {
        let stop = AtomicBool::new(false);
        let mut outcome = Outcome::default();
        run_once(
            &job("echo mpps=1.5; echo noise; echo rtt_us=30", &["sh"]),
            &mut outcome,
            &stop,
        );
        run_once(&job("echo mpps=2.5", &[]), &mut outcome, &stop);
        run_once(&job("echo mpps=9; exit 3", &[]), &mut outcome, &stop);
        run_once(&job("true", &[]), &mut outcome, &stop);
        assert_eq!(outcome.figures["mpps"], [1.5, 2.5]);
        assert_eq!(outcome.figures["rtt_us"], [30.0]);
        assert_eq!(outcome.failures.len(), 2);
        assert!(outcome.failures[0].contains('3'), "{:?}", outcome.failures);
        run_once(
            &job("echo mpps=1", &["no-such-program"]),
            &mut outcome,
            &stop,
        );
        assert_eq!(
            outcome.skipped.as_deref(),
            Some("no-such-program is not installed")
        );
    }

    #[test]
    fn a_run_ends_on_request() {
        let stop = AtomicBool::new(true);
        let mut outcome = Outcome::default();
        let began = Instant::now();
        run_once(&job("sleep 60", &[]), &mut outcome, &stop);
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(outcome.failures.len(), 1);
    }
}

//! The turns themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Group, Job};
use crate::spread::Spread;

/// A turn that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(180);

/// Where the kernel keeps the number of huge pages.
const HUGE_PAGES: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages of 2 MiB that the generator and a contestant need together.
const WANTED_PAGES: u64 = 1024;

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Turns of each contestant.
    pub runs: usize,
    /// Groups to run; all if none is named.
    pub only: Vec<String>,
}

/// What became of one contestant in one group.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Every run's figure, by key.
    pub figures: BTreeMap<String, Vec<f64>>,
    /// Why it did not take part.
    pub skipped: Option<String>,
    /// Turns that failed, and why.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Of one figure's runs.
    pub fn spread(&self, key: &str) -> Option<Spread> {
        Spread::of(self.figures.get(key)?)
    }
}

/// By group and contestant.
pub type Outcomes = BTreeMap<(&'static str, &'static str), Outcome>;

/// Lets every contestant of every group have its turns, one after the other, again and again;
/// `tell` hears of each. Ends early once `stop` is set.
///
/// # Errors
/// When the huge pages cannot be had.
pub fn run(
    groups: &[Group],
    options: &Options,
    stop: &AtomicBool,
    mut tell: impl FnMut(&str),
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
                turn(job, outcome, stop);
                let label = format!(
                    "{number}/{} {} {}",
                    options.runs, group.name, job.contestant
                );
                tell(&format!("{label}: {}", said(group, outcome, number)));
            }
        }
    }
    Ok(outcomes)
}

fn turn(job: &Job, outcome: &mut Outcome, stop: &AtomicBool) {
    if let Some(missing) = job.needs.iter().find(|program| !is_there(program)) {
        outcome.skipped = Some(format!("{missing} is not installed"));
        return;
    }
    match start(job, stop) {
        Ok(figures) => {
            for (key, figure) in figures {
                outcome.figures.entry(key).or_default().push(figure);
            }
        }
        Err(why) => outcome.failures.push(why),
    }
}

fn start(job: &Job, stop: &AtomicBool) -> Result<Vec<(String, f64)>, String> {
    let [program, arguments @ ..] = job.command.as_slice() else {
        return Err("there is no command".into());
    };
    // In a process group of its own: on the terminal's Ctrl-C it is this process that ends it.
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
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        if !told && (stop.load(Ordering::Relaxed) || began.elapsed() > LIMIT) {
            // What the script waits for ends, and its trap cleans up.
            signal(&child, Signal::TERM);
            told = true;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // Whatever it left behind would disturb those that follow, and hold its output open.
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

/// To the turn's whole process group, as far as it is still there.
fn signal(leader: &Child, signal: Signal) {
    let _ = kill_process_group(Pid::from_child(leader), signal);
}

/// Lines of `key=number`.
fn figures(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let (key, number) = line.split_once('=')?;
            Some((key.trim().to_owned(), number.trim().parse().ok()?))
        })
        .collect()
}

fn said(group: &Group, outcome: &Outcome, number: usize) -> String {
    if let Some(why) = &outcome.skipped {
        return format!("SKIP: {why}");
    }
    let last: Vec<_> = group
        .figures
        .iter()
        .filter_map(|figure| {
            let runs = outcome.figures.get(figure.key)?;
            (runs.len() + outcome.failures.len() == number)
                .then(|| format!("{} {}", runs.last().unwrap_or(&0.0), figure.key))
        })
        .collect();
    if last.is_empty() {
        format!(
            "FAILED: {}",
            outcome.failures.last().map_or("no figures", String::as_str)
        )
    } else {
        last.join(", ")
    }
}

/// Whether a program is installed: a path, or a name to look for.
pub(super) fn is_there(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
        || Path::new(program).is_absolute() && Path::new(program).is_file()
}

/// Enough huge pages while it lives; then as many as before.
struct HugePages {
    before: Option<u64>,
}

impl HugePages {
    fn reserve() -> std::io::Result<HugePages> {
        let number = || fs::read_to_string(HUGE_PAGES).map(|text| text.trim().parse().unwrap_or(0));
        let before: u64 = number()?;
        if before >= WANTED_PAGES {
            return Ok(HugePages { before: None });
        }
        fs::write(HUGE_PAGES, WANTED_PAGES.to_string())?;
        let pages = HugePages {
            before: Some(before),
        };
        if number()? < WANTED_PAGES {
            return Err(std::io::Error::other(format!(
                "the machine has no {WANTED_PAGES} huge pages of 2 MiB in one piece to give: try after a reboot"
            )));
        }
        Ok(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // What cannot be given back now stays until the next boot; nothing else fails.
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
            contestant: "someone",
            needs,
            command,
        }
    }

    #[test]
    fn turns_give_figures_or_say_why_not() {
        let stop = AtomicBool::new(false);
        let mut outcome = Outcome::default();
        turn(
            &job("echo mpps=1.5; echo noise; echo rtt_us=30", &["sh"]),
            &mut outcome,
            &stop,
        );
        turn(&job("echo mpps=2.5", &[]), &mut outcome, &stop);
        turn(&job("echo mpps=9; exit 3", &[]), &mut outcome, &stop);
        turn(&job("true", &[]), &mut outcome, &stop);
        assert_eq!(outcome.figures["mpps"], [1.5, 2.5]);
        assert_eq!(outcome.figures["rtt_us"], [30.0]);
        assert_eq!(outcome.failures.len(), 2);
        assert!(outcome.failures[0].contains('3'), "{:?}", outcome.failures);
        turn(
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
    fn a_turn_ends_when_all_is_to_end() {
        let stop = AtomicBool::new(true);
        let mut outcome = Outcome::default();
        let began = Instant::now();
        turn(&job("sleep 60", &[]), &mut outcome, &stop);
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(outcome.failures.len(), 1);
    }
}

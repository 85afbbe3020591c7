//! The options of the panel: how many workers forward frames, on which CPUs, and how they wait.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use dataplane::{Idle, PanelOptions};
use rustix::thread::{CpuSet, sched_getaffinity};

use super::number::whole;

/// How frames are forwarded.
#[derive(Debug, Clone, Args)]
pub(crate) struct PanelArgs {
    /// Forwarding threads [default: half of the CPUs that taskset leaves, at most 4; patch: 1].
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1, u64::MAX))]
    workers: Option<usize>,
    /// CPUs that the workers are bound to, in turn, such as 2,4-6 [default: any that taskset leaves].
    #[arg(long, value_name = "LIST", value_parser = cpu_list)]
    cpus: Option<CpuList>,
    /// What a worker does when no frame waits: sleep, or spin for the lowest latency.
    #[arg(long, value_enum, default_value_t)]
    idle: IdleArg,
}

/// The values of `--idle`; [`Idle`] is in a crate without clap.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum IdleArg {
    /// Sleep, which costs nothing while idle.
    #[default]
    Sleep,
    /// Spin, which takes a whole CPU for each worker.
    Spin,
}

impl From<IdleArg> for Idle {
    fn from(idle: IdleArg) -> Idle {
        match idle {
            IdleArg::Sleep => Idle::Sleep,
            IdleArg::Spin => Idle::Spin,
        }
    }
}

/// The CPUs of `--cpus`. A type of its own, because clap takes a plain vector for an option that is
/// given several times.
#[derive(Debug, Clone)]
struct CpuList(Vec<usize>);

impl PanelArgs {
    /// The options for the panel: one worker for every two CPUs, at most `most`, unless
    /// `--workers` gives a number.
    ///
    /// # Errors
    /// When `--cpus` names a CPU on which this process may not run.
    pub(crate) fn options(&self, most: usize) -> anyhow::Result<PanelOptions> {
        let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let chosen = self.cpus.clone().map_or_else(Vec::new, |list| list.0);
        let mask = sched_getaffinity(None)?;
        let allowed: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| mask.is_set(*cpu))
            .collect();
        if let Some(cpu) = chosen.iter().find(|cpu| !allowed.contains(cpu)) {
            anyhow::bail!(
                "--cpus: this process may not run on CPU {cpu}, only on {} (taskset or a cgroup \
                 restricts it)",
                ranges(&allowed)
            );
        }
        Ok(PanelOptions {
            workers: self.workers.unwrap_or((cpus / 2).clamp(1, most)),
            cpus: chosen,
            idle: self.idle.into(),
            hold_memory: None,
        })
    }
}

/// Writes CPU numbers as ranges: `0-3,8`.
fn ranges(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|before, cpu| before + 1 == *cpu);
    let parts = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    parts.collect::<Vec<_>>().join(",")
}

/// Parses CPU numbers and ranges: `2,4-6`.
fn cpu_list(text: &str) -> Result<CpuList, String> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            text.trim().parse::<usize>().map_err(|_| {
                format!("\"{part}\" is not a CPU: write numbers and ranges, like 2,4-6")
            })
        };
        let (first, last) = (number(first)?, number(last)?);
        if first > last || last >= 1024 {
            return Err(format!("\"{part}\" is not a range of CPUs below 1024"));
        }
        cpus.extend(first..=last);
    }
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(cpu_list("2,4-6").unwrap().0, [2, 4, 5, 6]);
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        for bad in ["", "a", "3-1", "1,,2", "5000"] {
            assert!(cpu_list(bad).is_err(), "{bad}");
        }
    }
}

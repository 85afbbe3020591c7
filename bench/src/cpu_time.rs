//! The CPU time of a process or of some of its threads, from proc(5).

use std::fs;
use std::path::PathBuf;

/// Meters the CPU time of a set of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuMeter {
    /// All threads of the process with this PID.
    Process(u32),
    /// The threads of this process whose names begin with this prefix. The load generator runs in
    /// the same process, and its CPU time must not count.
    OwnThreads(&'static str),
}

impl CpuMeter {
    /// Seconds of CPU time that the threads alive now have used; `None` if the process is gone.
    pub fn seconds(&self) -> Option<f64> {
        let (process, prefix) = match self {
            CpuMeter::Process(pid) => (pid.to_string(), ""),
            CpuMeter::OwnThreads(prefix) => ("self".to_owned(), *prefix),
        };
        let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let mut nanoseconds = 0;
        for thread in threads.flatten() {
            let folder = thread.path();
            let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if name.starts_with(prefix) {
                // A thread may have ended since its folder was listed.
                nanoseconds += nanoseconds_of(&folder).unwrap_or(0);
            }
        }
        Some(nanoseconds as f64 / 1e9)
    }
}

fn nanoseconds_of(thread: &std::path::Path) -> Option<u64> {
    let path: PathBuf = thread.join("schedstat");
    match fs::read_to_string(path) {
        Ok(text) => text.split(' ').next()?.parse().ok(),
        // Kernels without scheduler statistics report ticks of 10 ms.
        Err(_) => {
            ticks(&fs::read_to_string(thread.join("stat")).ok()?).map(|ticks| ticks * 10_000_000)
        }
    }
}

/// User and system time in ticks, from proc_pid_stat(5). The name there, in parentheses, may
/// contain spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let meter = CpuMeter::OwnThreads("");
        let before = meter.seconds().unwrap();
        let began = std::time::Instant::now();
        while meter.seconds().unwrap() <= before {
            assert!(began.elapsed().as_secs() < 10, "no CPU time was counted");
        }
        assert_eq!(CpuMeter::OwnThreads("no such thread").seconds(), Some(0.0));
        assert_eq!(CpuMeter::Process(u32::MAX).seconds(), None);
    }

    #[test]
    fn names_with_parentheses() {
        let stat = "12 (a) b (c)) R 1 2 3 4 5 6 7 8 9 10 40 2 0 0 20";
        assert_eq!(ticks(stat), Some(42));
    }
}

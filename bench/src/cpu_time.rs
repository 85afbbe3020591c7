//! CPU time that a process, or some of its threads, used.

use std::fs;
use std::path::PathBuf;

/// Whose CPU time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CpuMeter {
    /// All threads of a process.
    Process(u32),
    /// Those threads of this process whose names begin so: where the load comes from the same
    /// process, its own time must not count.
    OwnThreads(&'static str),
}

impl CpuMeter {
    /// Seconds used so far by the threads that there are now; `None` when it cannot be known.
    pub fn seconds(&self) -> Option<f64> {
        let (process, prefix) = match self {
            CpuMeter::Process(pid) => (pid.to_string(), ""),
            CpuMeter::OwnThreads(prefix) => ("self".to_owned(), *prefix),
        };
        let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let mut nanoseconds = 0;
        for thread in threads.flatten() {
            let folder = thread.path();
            let named = fs::read_to_string(folder.join("comm")).unwrap_or_default();
            if named.starts_with(prefix) {
                // A thread may end in between.
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
        // Kernels without scheduler statistics count in ticks of 10 ms.
        Err(_) => {
            ticks(&fs::read_to_string(thread.join("stat")).ok()?).map(|ticks| ticks * 10_000_000)
        }
    }
}

/// User and system time of proc_pid_stat(5). The name, in parentheses, may hold anything.
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
    fn work_shows() {
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

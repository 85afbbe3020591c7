//! The machine that a measurement ran on.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// The properties of a machine on which figures depend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Model name of the CPU.
    pub cpu: String,
    /// Number of CPUs that this process may use.
    pub cores: usize,
    /// Memory in GiB, rounded.
    pub memory_gib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// Version of ikv-fabric.
    pub version: String,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib: u64 = value(&memory, "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or(0);
        Machine {
            cpu: value(&info, "model name")
                .unwrap_or("unknown CPU")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu,
            cores,
            memory_gib,
            kernel,
            version,
        } = self;
        write!(
            f,
            "{cpu}, {cores} CPUs, {memory_gib} GiB, Linux {kernel}, ikv-fabric {version}"
        )
    }
}

/// Measures for `time` which share of all CPUs is in use, 0..=1: figures of a busy machine mean
/// little.
///
/// # Errors
/// When /proc/stat cannot be read.
pub fn busy_share(time: Duration) -> io::Result<f64> {
    let before = ticks(&fs::read_to_string("/proc/stat")?);
    std::thread::sleep(time);
    let after = ticks(&fs::read_to_string("/proc/stat")?);
    let all = after.1.saturating_sub(before.1).max(1);
    Ok(1.0 - after.0.saturating_sub(before.0) as f64 / all as f64)
}

/// Idle ticks and all ticks of all CPUs together (proc_stat(5)). The fourth and fifth fields count
/// idle ticks.
fn ticks(stat: &str) -> (u64, u64) {
    let first = stat.lines().next().unwrap_or_default();
    let fields = first.split_whitespace().skip(1).take(8);
    let fields: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    (fields.iter().skip(3).take(2).sum(), fields.iter().sum())
}

/// The first value of a key in the `key : value` files of proc(5).
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == key).then(|| value.trim())
    })
}

#[cfg(test)]
impl Machine {
    /// A fixed machine for snapshots.
    pub(crate) fn example() -> Machine {
        Machine {
            cpu: "Example 9000".into(),
            cores: 2,
            memory_gib: 8,
            kernel: "6.1.0".into(),
            version: "0.1.0".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ticks_are_counted_separately() {
        assert_eq!(
            ticks("cpu  10 1 5 100 20 0 2 3 0 0\ncpu0 1 1\n"),
            (120, 141)
        );
        let busy = busy_share(Duration::from_millis(50)).unwrap();
        assert!((0.0..=1.0).contains(&busy), "{busy}");
    }
}

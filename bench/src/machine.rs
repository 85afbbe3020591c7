//! The machine that figures come from.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// What figures depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The CPU's model.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Its memory, rounded.
    pub memory_gib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Ours.
    pub version: String,
}

impl Machine {
    /// This one.
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

/// The share of all CPUs that was in use during `time`: figures of a busy machine mean little.
///
/// # Errors
/// When the kernel does not tell.
pub fn busy(time: Duration) -> io::Result<f64> {
    let before = ticks(&fs::read_to_string("/proc/stat")?);
    std::thread::sleep(time);
    let after = ticks(&fs::read_to_string("/proc/stat")?);
    let all = after.1.saturating_sub(before.1).max(1);
    Ok(1.0 - after.0.saturating_sub(before.0) as f64 / all as f64)
}

/// Idle ticks and all ticks of all CPUs together (proc_stat(5)): the fourth and fifth are idle.
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
mod tests {
    use super::*;

    #[test]
    fn idle_ticks_are_told_apart() {
        assert_eq!(
            ticks("cpu  10 1 5 100 20 0 2 3 0 0\ncpu0 1 1\n"),
            (120, 141)
        );
        let busy = busy(Duration::from_millis(50)).unwrap();
        assert!((0.0..=1.0).contains(&busy), "{busy}");
    }
}

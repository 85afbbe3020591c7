//! `ikv-fabric clean`: takes away what a killed fabric has left.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{Context, need_root, print, print_json};
use host::execute;
use host::lock::{Lock, StatePaths};

/// Takes away what a fabric that was killed has left on this host. Harmless when there is
/// nothing. The next `run` on the same socket does the same. Needs root.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct CleanJson {
    /// The killed fabric, if there was one.
    pid: Option<u32>,
    /// Steps undone.
    undone: usize,
}

/// # Errors
/// When a fabric is running on this socket, or something cannot be taken away.
pub(crate) fn run(context: &Context, _: &CleanArgs) -> anyhow::Result<ExitCode> {
    need_root("clean", "it removes network devices")?;
    let mut lock = Lock::acquire(&StatePaths::beside(context.client.socket()))?;
    let cleaned = execute::clean(&mut lock)?;
    lock.release()?;
    if context.json {
        let undone = cleaned.as_ref().map_or(0, |cleaned| cleaned.steps);
        print_json(&CleanJson {
            pid: cleaned.map(|cleaned| cleaned.pid),
            undone,
        })?;
    } else {
        print(&match cleaned {
            Some(cleaned) => format!(
                "took away what the fabric with pid {} had left ({} steps)\n",
                cleaned.pid, cleaned.steps
            ),
            None => "nothing to take away\n".into(),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

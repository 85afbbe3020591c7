//! `ikv-fabric clean`: removes what a killed fabric has left.

use std::os::unix::fs::MetadataExt;

use clap::Args;
use serde_json::json;

use super::{Context, need_root};
use host::execute;
use host::lock::{Lock, StatePaths};
use host::others;

/// Removes what a killed fabric has left on this host; does nothing if there is nothing. The next
/// `run` on the same socket does the same. Needs root, unless the fabric was this user's own.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {}

/// # Errors
/// When a fabric is running on this socket, or something cannot be removed.
pub(crate) fn run(context: &Context, _: &CleanArgs) -> anyhow::Result<()> {
    let paths = StatePaths::beside(context.client.socket());
    let own = rustix::process::geteuid().as_raw();
    // Of a fabric without root only files are left: everything else has vanished with its namespaces.
    if !paths
        .folder
        .metadata()
        .is_ok_and(|folder| folder.uid() == own)
    {
        need_root("clean", "it removes network devices")?;
    }
    let mut lock = Lock::acquire(&paths)?;
    let cleaned = execute::clean(&mut lock)?;
    lock.release()?;
    let pid = cleaned.as_ref().map(|cleaned| cleaned.pid);
    let undone = cleaned.as_ref().map_or(0, |cleaned| cleaned.steps);
    // Whoever calls `clean` because of a name that is taken wants to know who has it.
    let others = others::here()?;
    let names: Vec<_> = others.iter().map(ToString::to_string).collect();
    let mut report = json!({ "pid": pid, "undone": undone });
    if !names.is_empty() {
        report["others"] = json!(names);
    }
    context.report(&report, || {
        let mut text = match pid {
            Some(pid) => {
                format!("took away what the fabric with pid {pid} had left ({undone} steps)\n")
            }
            None => "nothing to take away\n".into(),
        };
        for other in &others {
            text += &format!("not touched: {other}; {}\n", other.remedy());
        }
        text
    })?;
    Ok(())
}

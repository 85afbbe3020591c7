//! One file for each command. Those that ask a running fabric are clients of the API.

pub(crate) mod apply;
pub(crate) mod bench;
pub(crate) mod cable;
pub(crate) mod cables;
pub(crate) mod capture;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod config;
pub(crate) mod configuration;
pub(crate) mod console;
pub(crate) mod converge;
pub(crate) mod exec;
pub(crate) mod extcap;
pub(crate) mod image;
pub(crate) mod impair;
pub(crate) mod import;
pub(crate) mod ipmi;
pub(crate) mod patch;
pub(crate) mod power;
pub(crate) mod probe;
pub(crate) mod recorder;
pub(crate) mod run;
pub(crate) mod scenario;
pub(crate) mod setup;
pub(crate) mod ssh;
pub(crate) mod status;
pub(crate) mod topology;
pub(crate) mod vm_args;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use api::Client;

/// What every command may need.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The fabric that is meant.
    pub(crate) client: Client,
    /// Where a fabric of this user's own would listen.
    pub(crate) own_socket: PathBuf,
    /// Report as JSON.
    pub(crate) json: bool,
}

/// Prints a report for programs. A reader that has gone away is no error.
///
/// # Errors
/// When standard output fails for another reason.
pub(crate) fn print_json(report: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(report)?))
}

/// Prints text. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// When standard output fails for another reason.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_to_reader(text).map(drop)
}

/// Prints text; `false` if the reader has gone away, so that more is in vain.
///
/// # Errors
/// When standard output fails for another reason.
pub(crate) fn print_to_reader(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// Root is asked for only where it is needed.
///
/// # Errors
/// When this process is not root's.
pub(crate) fn need_root(command: &str, why: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "{command} needs root, because {why}: use `sudo ikv-fabric {command}`"
    );
    Ok(())
}

//! One file for each command. Those that ask a running fabric are clients of the API.

pub mod apply;
pub mod bench;
pub mod cable;
pub mod cables;
pub mod capture;
pub mod check;
pub mod clean;
pub mod configuration;
pub mod console;
pub mod converge;
pub mod exec;
pub mod extcap;
pub mod image;
pub mod impair;
pub mod import;
pub mod ipmi;
pub mod patch;
pub mod power;
pub mod probe;
pub mod recorder;
pub mod run;
pub mod scenario;
pub mod setup;
pub mod ssh;
pub mod status;
pub mod topology;
pub mod vm_args;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::api::Client;

/// What every command may need.
#[derive(Debug, Clone)]
pub struct Context {
    /// The fabric that is meant.
    pub client: Client,
    /// Where a fabric of this user's own would listen.
    pub own_socket: PathBuf,
    /// Report as JSON.
    pub json: bool,
}

/// Prints a report for programs. A reader that has gone away is no error.
///
/// # Errors
/// When standard output fails for another reason.
pub fn print_json(report: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(report)?))
}

/// Prints text. A reader that has gone away (`| head`) is no error.
///
/// # Errors
/// When standard output fails for another reason.
pub fn print(text: &str) -> io::Result<()> {
    print_to_reader(text).map(drop)
}

/// Prints text; `false` if the reader has gone away, so that more is in vain.
///
/// # Errors
/// When standard output fails for another reason.
pub fn print_to_reader(text: &str) -> io::Result<bool> {
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
pub fn need_root(command: &str, why: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "{command} needs root, because {why}: use `sudo ikv-fabric {command}`"
    );
    Ok(())
}

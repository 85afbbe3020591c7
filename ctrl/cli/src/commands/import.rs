//! `ikv-fabric import FILE` translates ikvswitch's configuration to ours.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::{exit_status, print, print_json};
use fabric::progress::say;
use model::import::{Import, LONGEST_FILE, import};
use model::printable;

/// A message that quotes the file is truncated to this many characters.
const LONGEST_MESSAGE: usize = 1000;

/// Translates ikvswitch's configuration: prints TOML that means the same on standard output, and
/// what has no counterpart on standard error. Reads the file and never runs it. Exit status 1 if
/// part of it could not be taken over.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// ikvswitch's file, such as /etc/ikvswitch/ikvswitch.conf.
    file: PathBuf,
}

/// `json` is the global option.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn run(json: bool, args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let name = args.file.display().to_string();
    let import = import(&name, &read(&args.file)?);
    let incomplete = import.unread() + import.problems.len();
    if json {
        print_json(&import)?;
    } else {
        print(&import.toml)?;
        report(&name, &import);
    }
    Ok(exit_status(incomplete == 0))
}

fn report(name: &str, import: &Import) {
    for remark in &import.remarks {
        let key = remark.key.as_ref().map(|key| format!("{key}: "));
        let key = key.unwrap_or_default();
        let text = format!("{name}:{}: {key}{}", remark.line, remark.what);
        say(&printable::head(text.as_bytes(), LONGEST_MESSAGE));
    }
    for problem in &import.problems {
        say(&printable::head(problem.as_bytes(), LONGEST_MESSAGE));
    }
    let unread = import.unread();
    if unread > 0 {
        say(&format!(
            "ikv-fabric: {unread} of these are about values that could not be taken over"
        ));
    }
    if !import.problems.is_empty() {
        say("ikv-fabric: the values do not go together: change the TOML as described above");
    }
}

/// Reads the file. Its comments may have bytes that are not UTF-8; the import refuses them in values.
fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST_FILE as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| {
            format!("cannot read {shown}; name ikvswitch's file, /etc/ikvswitch/ikvswitch.conf")
        })?;
    anyhow::ensure!(
        bytes.len() <= LONGEST_FILE,
        "{shown} is longer than {LONGEST_FILE} bytes, so it is not a configuration of ikvswitch; name its file"
    );
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

//! `ikv-fabric import FILE` translates ikvswitch's configuration to ours.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{print, print_json};
use fabric::progress::say;
use model::import::{Import, LONGEST_FILE, import};
use model::printable;

/// A message that quotes the file is truncated to this many characters.
const LONGEST_MESSAGE: usize = 1000;

/// Translates ikvswitch's configuration: TOML that means the same on standard output, what has no
/// counterpart on standard error. The file is read, never run. Status 1 if part of it could not be
/// taken over.
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// ikvswitch's file, such as /etc/ikvswitch/ikvswitch.conf.
    file: PathBuf,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct ImportJson {
    toml: String,
    remarks: Vec<RemarkJson>,
    /// Why no datacenter can be built from the configuration as it stands.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RemarkJson {
    line: usize,
    /// None where the line does not set a key.
    key: Option<String>,
    what: String,
    /// Whether the line means something that the TOML now lacks.
    unread: bool,
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
        print_json(&ImportJson::from(import))?;
    } else {
        print(&import.toml)?;
        report(&name, &import);
    }
    Ok(if incomplete == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn report(name: &str, import: &Import) {
    for remark in &import.remarks {
        let key = match &*remark.key {
            "" => String::new(),
            key => format!("{key}: "),
        };
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

/// Comments may have bytes that are not UTF-8; the import refuses them in values.
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

impl From<Import> for ImportJson {
    fn from(import: Import) -> Self {
        let remarks = import.remarks.into_iter().map(|remark| RemarkJson {
            line: remark.line,
            key: Some(remark.key).filter(|key| !key.is_empty()),
            what: remark.what,
            unread: remark.unread,
        });
        Self {
            remarks: remarks.collect(),
            toml: import.toml,
            problems: import.problems,
        }
    }
}

//! ikvswitch's configuration in, ours out: what `ikv-fabric import` does.
//!
//! ```text
//!  ikvswitch.conf ─words, script─> what each name is set to ─keys─> our keys ─write─> TOML
//! ```
//!
//! The file is shell: ikvswitch sources it. Here it is read and never run; what would have to be
//! run is told instead, with its line. Pure, in time and memory that the length of the file bounds.

mod arithmetic;
mod keys;
mod script;
#[cfg(test)]
mod tests;
mod words;
mod write;

use crate::config;
use crate::topology;

/// The longest file that is read, in bytes. The released one has 5 thousand.
pub const LONGEST_FILE: usize = 256 * 1024;

/// What has become of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The configuration, with what differs from our defaults. [`config::parse`] reads it.
    pub toml: String,
    /// What a person should know, in the order of the lines.
    pub remarks: Vec<Remark>,
    /// Why the configuration makes no datacenter as it stands, a line each.
    pub problems: Vec<String>,
}

impl Import {
    /// How many remarks are about what could not be taken over.
    pub fn unread(&self) -> usize {
        self.remarks.iter().filter(|remark| remark.unread).count()
    }
}

/// About a line of the file that has no counterpart in the TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// ikvswitch's key; empty where the line sets none.
    pub key: String,
    /// What it is about, and what to do.
    pub what: String,
    /// Whether the line means something that the TOML now lacks.
    pub unread: bool,
}

/// Translates `text`; `name` is what comments call the file.
pub fn import(name: &str, text: &str) -> Import {
    let mut script = script::Script::read(text);
    let mut remarks = std::mem::take(&mut script.remarks);
    let settings = keys::translate(&script, &mut remarks);
    let toml = write::write(name, &settings);
    remarks.sort_by_key(|remark| remark.line);
    let problems = match config::parse("the TOML", &toml, &[]) {
        Err(error) => error.to_string(),
        Ok(config) => match topology::build(&config) {
            Err(errors) => errors.to_string(),
            Ok(_) => String::new(),
        },
    };
    Import {
        toml,
        remarks,
        problems: problems.lines().map(str::to_owned).collect(),
    }
}

//! Translates ikvswitch's configuration to ours: what `ikv-fabric import` does.
//!
//! ```text
//!  ikvswitch.conf ─words, script─> what each name is set to ─keys─> our keys ─write─> TOML
//! ```
//!
//! The file is shell: ikvswitch sources it. Here it is read and never run; a remark with the line
//! stands for what would have to be run. Pure; the length of the file bounds time and memory.

mod arithmetic;
mod keys;
mod script;
#[cfg(test)]
mod tests;
mod words;
mod write;

use serde::Serialize;

use crate::config;
use crate::topology;

/// The longest file that is read, in bytes. The released one has 5 thousand.
pub const LONGEST_FILE: usize = 256 * 1024;

/// The translation of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Import {
    /// The configuration, with what differs from our defaults. [`config::parse`] reads it.
    pub toml: String,
    /// What the user should know, in the order of the lines.
    pub remarks: Vec<Remark>,
    /// Why no datacenter can be built from the configuration as it stands, a line each.
    pub problems: Vec<String>,
}

impl Import {
    /// The number of remarks about what could not be taken over.
    pub fn unread(&self) -> usize {
        self.remarks.iter().filter(|remark| remark.unread).count()
    }
}

/// About a line of the file that has no counterpart in the TOML.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// ikvswitch's key; `None` where the line sets none.
    pub key: Option<String>,
    /// What was found, and what to do about it.
    pub what: String,
    /// Whether the TOML lacks something that the line says.
    pub unread: bool,
}

impl Remark {
    fn new(line: usize, key: &str, what: impl Into<String>, unread: bool) -> Self {
        Self {
            line,
            key: Some(key.to_owned()).filter(|key| !key.is_empty()),
            what: what.into(),
            unread,
        }
    }
}

/// Translates `text`; `name` is what comments call the file.
pub fn import(name: &str, text: &str) -> Import {
    let mut script = script::Script::read(text);
    let mut remarks = std::mem::take(&mut script.remarks);
    let toml = write::write(name, keys::translate(&script, &mut remarks));
    remarks.sort_by_key(|remark| remark.line);
    let problems = match config::parse("the TOML", &toml, &[]) {
        Err(error) => error.to_string(),
        Ok(config) => topology::build(&config)
            .err()
            .map_or(String::new(), |errors| errors.to_string()),
    };
    Import {
        toml,
        remarks,
        problems: problems.lines().map(str::to_owned).collect(),
    }
}

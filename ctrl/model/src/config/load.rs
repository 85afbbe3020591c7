//! Defaults, then the file, then `--set`: one table, checked as a whole.

use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Config, Location, Origin, Problem, check, schema};
use crate::bounded;

/// The longest file, in bytes. Every cable of the largest fabric fits, impaired in both directions.
const LONGEST_FILE: u64 = 8 << 20;

/// Why a configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist, or this user must not read it.
    #[error("cannot read the configuration {path}: {source}; name another file with -c")]
    Read {
        /// As named.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path}, line {line}, column {column}: this is not TOML ({reason}); {remedy}")]
    Syntax {
        /// As named.
        path: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The parser's reason.
        reason: String,
        /// What to write instead.
        remedy: &'static str,
    },
    /// `--set` without `=`.
    #[error("--set {0}: there is no value; write --set {0}=VALUE")]
    SetWithoutValue(String),
    /// `--set` of an unknown key.
    #[error("--set {}: {}", .0.key, .0.what)]
    SetUnknown(Problem),
    /// Unknown keys and wrong values, in the order of the file.
    #[error("{}", Lines(.0))]
    Values(Vec<(Location, Problem)>),
}

/// One line each.
struct Lines<'p>(&'p [(Location, Problem)]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (location, problem)) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(
                out,
                "{line}{}: {}",
                location.with_key(&problem.key),
                problem.what
            )?;
        }
        Ok(())
    }
}

/// Reads the file, if one is named, and applies `--set KEY=VALUE` in order.
///
/// # Errors
/// Whatever is wrong with file or `--set`, each with file, line, key and remedy.
pub fn load(file: Option<&Path>, sets: &[String]) -> Result<Config, ConfigError> {
    let Some(file) = file else {
        return parse("", "", sets);
    };
    let path = file.display().to_string();
    match bounded::read_to_string(file, LONGEST_FILE) {
        Ok(text) => parse(&path, &text, sets),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

/// The same for a text; `path` is what messages call it.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &str, text: &str, sets: &[String]) -> Result<Config, ConfigError> {
    let syntax = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let (line, column) = position(text, start);
        let reason = error.message().to_owned();
        let remedy = match reason.as_str() {
            "duplicate key" => "keep one of the two",
            _ => "a line is KEY = VALUE or [TABLE], texts stand in quotes",
        };
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            column,
            reason,
            remedy,
        }
    };
    let spans = DeTable::parse(text).map_err(syntax)?;
    let mut table: Table = toml::from_str(text).map_err(syntax)?;
    let mut origin = Origin::default();
    // Counted once: a file may have a hundred thousand keys.
    let ends: Vec<_> = text.match_indices('\n').map(|(end, _)| end).collect();
    let location = |start| Location::File {
        path: path.to_owned(),
        line: ends.partition_point(|end| *end < start) + 1,
    };
    mark_table("", spans.get_ref(), &location, &mut origin);
    for set in sets {
        insert(set, &mut table, &mut origin)?;
    }
    let mut problems: Vec<_> = check::problems(&table)
        .into_iter()
        .map(|problem| (origin.location(&problem.key), problem))
        .collect();
    problems.sort_by_key(|(location, _)| location.line());
    if !problems.is_empty() {
        return Err(ConfigError::Values(problems));
    }
    let mut config: Config = table.try_into().map_err(syntax)?;
    config.origin = origin;
    Ok(config)
}

/// Line and column of a byte, from 1.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

fn mark_table(
    prefix: &str,
    table: &DeTable<'_>,
    location: &impl Fn(usize) -> Location,
    origin: &mut Origin,
) {
    for (name, value) in table {
        let key = match prefix {
            "" => name.get_ref().to_string(),
            prefix => format!("{prefix}.{}", name.get_ref()),
        };
        origin.insert(key.clone(), location(name.span().start));
        match value.get_ref() {
            DeValue::Table(inner) => mark_table(&key, inner, location, origin),
            DeValue::Array(list) => {
                for (index, value) in list.iter().enumerate() {
                    let element = format!("{key}[{index}]");
                    origin.insert(element.clone(), location(value.span().start));
                    if let DeValue::Table(inner) = value.get_ref() {
                        mark_table(&element, inner, location, origin);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Puts one `--set` into the table.
fn insert(set: &str, table: &mut Table, origin: &mut Origin) -> Result<(), ConfigError> {
    let Some((key, text)) = set.split_once('=') else {
        return Err(ConfigError::SetWithoutValue(set.to_owned()));
    };
    let (key, text) = (key.trim(), text.trim());
    let Some(takes) = schema::of(key) else {
        let problem = Problem {
            key: key.to_owned(),
            what: check::unknown(key),
        };
        return Err(ConfigError::SetUnknown(problem));
    };
    let value = match toml_value(text) {
        Some(value) if value.is_str() || !check::takes_text_alone(takes) => value,
        Some(_) | None => Value::String(text.to_owned()),
    };
    let (inner, name) = match key.split_once('.') {
        None => (table, key),
        Some((head, name)) => {
            let entry = table
                .entry(head)
                .or_insert_with(|| Value::Table(Table::new()));
            match entry {
                Value::Table(inner) => (inner, name),
                // The file gives the table's name to a value, which is reported as such.
                _ => return Ok(()),
            }
        }
    };
    inner.insert(name.to_owned(), value);
    origin.remove(key);
    origin.insert(key.to_owned(), Location::Set);
    Ok(())
}

/// The text as a TOML value, if it is exactly one.
fn toml_value(text: &str) -> Option<Value> {
    let table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    let single = table.len() == 1;
    table
        .into_iter()
        .next()
        .map(|(_, value)| value)
        .filter(|_| single)
}

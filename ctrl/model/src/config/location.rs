//! Where a value of the configuration was written, so that a message can say it.

use std::collections::BTreeMap;
use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// In a file.
    File {
        /// As the person named it.
        path: String,
        /// From 1.
        line: usize,
    },
    /// By `--set`.
    Set,
    /// Nowhere: it is the default.
    Default,
}

impl Location {
    /// In a file; 0 elsewhere, which sorts first.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::File { line, .. } => *line,
            Self::Set | Self::Default => 0,
        }
    }

    /// `fabric.toml, line 3: topology.racks`, `--set topology.racks`.
    pub fn with_key(&self, key: &str) -> String {
        match self {
            Self::File { path, line } => format!("{path}, line {line}: {key}"),
            Self::Set => format!("--set {key}"),
            Self::Default => format!("{key} (default)"),
        }
    }
}

/// What is wrong with the value of one key, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `dhcp.subnets[1]`.
    pub key: String,
    /// What is wrong; the remedy.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.key, self.what)
    }
}

/// Where every key of a loaded configuration was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    locations: BTreeMap<String, Location>,
}

impl Origin {
    pub(super) fn insert(&mut self, key: String, location: Location) {
        self.locations.insert(key, location);
    }

    /// Forgets `key` and what is below it: the whole value has been replaced.
    pub(super) fn remove(&mut self, key: &str) {
        self.locations.retain(|known, _| {
            known
                .strip_prefix(key)
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with(['.', '[']))
        });
    }

    /// Every key that was written, and where.
    pub(super) fn locations(&self) -> impl Iterator<Item = (&str, &Location)> {
        self.locations.iter().map(|(key, at)| (key.as_str(), at))
    }

    /// Where `key` was written; for a key that was not, where what holds it was: a list's location
    /// for an element that is missing.
    pub fn location(&self, key: &str) -> Location {
        let mut key = key;
        loop {
            if let Some(location) = self.locations.get(key) {
                return location.clone();
            }
            match key.rfind('[') {
                Some(end) => key = &key[..end],
                None => return Location::Default,
            }
        }
    }
}

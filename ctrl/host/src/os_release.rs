//! The host's distribution, as os-release(5) describes it: [`OsRelease`].

use std::fs;

/// The content of `/etc/os-release`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsRelease(String);

impl OsRelease {
    /// The host's. Without such a file it has no values.
    pub fn of_host() -> Self {
        Self(fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    /// The value of a key such as `ID`, without its quotes.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(name, _)| *name == key)?;
        Some(value.trim_matches(['"', '\'']))
    }
}

impl From<&str> for OsRelease {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

//! What the running fabric does to the host, recorded before it is done.
//!
//! The journal is a file beside the API socket. A fabric that ends by itself removes it. One that
//! was killed leaves it behind, and the next `run`, or `clean`, undoes what it lists. With the
//! [`Identity`] in it, our own devices and tables are recognised: nothing else of the host is touched.

use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use crate::folder::{self, Folder, NEW};
use crate::netns::NetnsId;
use crate::sysctl::Setting;

/// The version of the file. It rises when an older program could not undo what a newer one wrote.
const FORMAT: u32 = 1;

/// The fabric process that owns things on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: u32,
    /// When the process started, in clock ticks since the machine did. It tells the process from a
    /// later one with the same pid.
    pub started: u64,
}

impl Identity {
    /// The calling process.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        let pid = std::process::id();
        Ok(Self {
            pid,
            started: started(pid)?,
        })
    }

    /// Whether that process still runs (and is not another one with its pid).
    pub fn is_running(&self) -> bool {
        started(self.pid).is_ok_and(|started| started == self.started)
    }

    /// The text that starts the alias of every device of ours: `ikv-fabric 4711.86420`.
    pub fn tag(&self) -> String {
        format!("ikv-fabric {}.{}", self.pid, self.started)
    }

    /// Whose device this is, by its alias. `None` if it is no fabric's.
    pub fn of_alias(alias: &str) -> Option<Self> {
        let rest = alias.strip_prefix("ikv-fabric ")?;
        Self::parse(rest.split(' ').next()?, '.')
    }

    /// Whose table this is, by the name of the chain that [`chain`](Self::chain) gives.
    pub fn of_chain(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("owner-")?, '-')
    }

    fn parse(words: &str, between: char) -> Option<Self> {
        let (pid, started) = words.split_once(between)?;
        Some(Self {
            pid: pid.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    /// Whether a device with this alias is ours.
    pub fn marks(&self, alias: &str) -> bool {
        alias
            .strip_prefix(&self.tag())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// The device group of our devices: one message sets all of them up, and one removes them.
    pub fn group(&self) -> u32 {
        // 'i' in the top byte keeps away from the small numbers that people use; a pid has at
        // most 22 bits.
        0x6900_0000 | (self.pid & 0x00ff_ffff)
    }

    /// The device group of those of our devices that are about to be removed while others stay.
    pub(crate) fn leaving_group(&self) -> u32 {
        0x6a00_0000 | (self.pid & 0x00ff_ffff)
    }

    /// The name of the empty chain in our nftables tables that shows whose tables they are.
    pub fn chain(&self) -> String {
        format!("owner-{}-{}", self.pid, self.started)
    }
}

/// Whether a process with that pid exists and has not ended.
pub(crate) fn is_running(pid: u32) -> bool {
    started(pid).is_ok()
}

/// When a process started, in clock ticks since the machine did (proc_pid_stat(5), field 22).
/// `NotFound` also for a process that has ended and only waits for its parent.
fn started(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, field 2, may hold blanks and brackets; so count from its end.
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat"));
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(malformed)?;
    if rest.starts_with(['Z', 'X']) {
        return Err(io::ErrorKind::NotFound.into());
    }
    rest.split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(malformed)
}

/// How to undo one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "undo")]
pub enum Undo {
    /// Remove the devices that carry our mark. If the step was not finished, also remove unmarked,
    /// unused taps of these names.
    Links {
        /// The names they were to be made with.
        names: Vec<String>,
    },
    /// Remove our nftables tables, if our owner chain is in them.
    Tables,
    /// Remove an address from our device.
    Address {
        /// The device's name.
        link: String,
        /// The address with its prefix length.
        address: Ipv4Net,
    },
    /// Remove a route through our device.
    Route {
        /// The destination.
        range: Ipv4Net,
        /// The next hop.
        via: Ipv4Addr,
        /// The device's name.
        link: String,
    },
    /// Put kernel settings back, if the first still has the value we set.
    Sysctl {
        /// The setting we changed with its value before, then those that the kernel changed with it.
        saved: Vec<Setting>,
        /// The value we set the first one to.
        ours: String,
    },
    /// Remove a file or folder (with everything in it) below the folder of the journal.
    Path {
        /// Relative to that folder.
        path: PathBuf,
    },
}

/// One step in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The step was finished. While this is false, any part of it may have happened.
    pub done: bool,
    /// How to undo it.
    #[serde(flatten)]
    pub undo: Undo,
}

/// The content of the journal's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    format: u32,
    /// The fabric that wrote the journal.
    pub identity: Identity,
    /// The network namespace in which it was done.
    pub netns: NetnsId,
    /// The fabric created the journal's folder, so it is to be removed too.
    pub created_folder: bool,
    /// What was done, in that order.
    pub entries: Vec<Entry>,
}

/// Why a journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused access to the file.
    #[error("journal {path}: {source}")]
    Io {
        /// The journal's file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not a journal of this version.
    #[error(
        "journal {path} cannot be read: {reason}; if no fabric uses that folder, remove the file"
    )]
    Malformed {
        /// The journal's file.
        path: PathBuf,
        /// The parser's message, or the version it has.
        reason: String,
    },
    /// Another user could have written it, and undoing acts as root.
    #[error(
        "journal {path} belongs to user {owner} or may be written by others, so it is not trusted; look at it and remove it"
    )]
    Untrusted {
        /// The journal's file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
}

/// A journal in memory, with the file that holds it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    state: State,
}

impl Journal {
    /// Starts an empty journal; nothing is written before the first [`Journal::begin`].
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn new(path: &Path, created_folder: bool) -> Result<Self, JournalError> {
        let at = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let state = State {
            format: FORMAT,
            identity: Identity::current().map_err(at)?,
            netns: NetnsId::current().map_err(at)?,
            created_folder,
            entries: Vec::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            state,
        })
    }

    /// Takes over the journal that another process left. `None` if no such file exists.
    ///
    /// # Errors
    /// When it cannot be read or parsed, or when a user other than the caller could have written it.
    pub fn load(path: &Path) -> Result<Option<Self>, JournalError> {
        let at = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let malformed = |reason: String| JournalError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let found = match Folder::of(path).and_then(|(it, name)| Ok((it.stat(name)?, it, name))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other,
        };
        let (stat, folder, name) = found.map_err(at)?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if !own || (stat.st_mode & 0o022 != 0 && !is_link) {
            return Err(JournalError::Untrusted {
                path: path.to_owned(),
                owner: stat.st_uid,
            });
        }
        let mut file = folder.read(name).map_err(at)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(at)?;
        let state: State = serde_json::from_str(&text).map_err(|e| malformed(e.to_string()))?;
        if state.format != FORMAT {
            let reason = format!("format {}, this program knows {FORMAT}", state.format);
            return Err(malformed(reason));
        }
        Ok(Some(Self {
            path: path.to_owned(),
            state,
        }))
    }

    /// Its content.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Records a step that is about to be done.
    ///
    /// # Errors
    /// When the file cannot be written. The step must then not be done.
    pub fn begin(&mut self, undo: Undo) -> Result<(), JournalError> {
        self.state.entries.push(Entry { done: false, undo });
        let written = self.save();
        if written.is_err() {
            self.state.entries.pop();
        }
        written
    }

    /// Marks the last step as done. The mark reaches the file with the next step: until then an undo
    /// would also remove unmarked taps, which does no harm.
    pub fn done(&mut self) {
        if let Some(entry) = self.state.entries.last_mut() {
            entry.done = true;
        }
    }

    /// Puts an entry back that could not be undone.
    pub fn push(&mut self, entry: Entry) {
        self.state.entries.push(entry);
    }

    /// Drops the entries of what vanished with its network namespace.
    pub(crate) fn keep_paths_only(&mut self) {
        self.state
            .entries
            .retain(|entry| matches!(entry.undo, Undo::Path { .. }));
    }

    /// Removes the last entry from memory, for the caller to undo it.
    pub fn pop(&mut self) -> Option<Entry> {
        self.state.entries.pop()
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When the system refuses. A file that is already gone counts as removed.
    pub fn remove(&self) -> Result<(), JournalError> {
        Self::remove_unfinished(&self.path)?;
        remove(&self.path)
    }

    /// Removes the half-written file that a process leaves when it is killed while it writes a
    /// journal at `path`.
    ///
    /// # Errors
    /// When the system refuses. A file that does not exist counts as removed.
    pub(crate) fn remove_unfinished(path: &Path) -> Result<(), JournalError> {
        remove(&unfinished(path))
    }

    /// The folder that [`Undo::Path`] is relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Replaces the file as a whole: a reader, or the next `clean`, sees either the old content or the
    /// new one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> Result<(), JournalError> {
        let at = |source| JournalError::Io {
            path: self.path.clone(),
            source,
        };
        let text = serde_json::to_vec(&self.state).map_err(|e| at(e.into()))?;
        // Without fsync: what the journal describes does not outlive the kernel either.
        Folder::of(&self.path)
            .and_then(|(folder, name)| folder.replace(name, &text, 0o600, None))
            .map_err(at)
    }
}

/// Where a journal is written before it takes the place of the old one.
fn unfinished(path: &Path) -> PathBuf {
    let mut new = path.to_owned().into_os_string();
    new.push(NEW);
    new.into()
}

fn remove(path: &Path) -> Result<(), JournalError> {
    folder::remove(path).map_err(|source| JournalError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests;

//! The folders, files and Unix sockets of a fabric, by their paths: [`Folder`] for the crate.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::owner::Person;
use host::folder::{self, Folder, User};
use vm::spec::MAX_SOCKET_PATH;

/// A folder or file that could not be created, written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", .path.display())]
pub struct FileError {
    doing: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl FileError {
    /// For `map_err`: adds the file's path to the error.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        let doing = "write";
        move |source| FileError {
            doing,
            path,
            source,
        }
    }

    /// As [`FileError::at`], for a file that is read.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let doing = "read";
        let at = Self::at(path);
        move |source| FileError {
            doing,
            ..at(source)
        }
    }
}

/// Who may connect to a socket besides root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clients {
    /// The user alone.
    User(User),
    /// The user, and the members of the group.
    Group(User),
}

impl Clients {
    /// The fabric's owner alone.
    pub(crate) fn owner(owner: &Person) -> Self {
        Self::User((owner.uid, owner.gid))
    }

    /// Whoever may plug a VM in.
    pub(crate) fn guests(owner: &Person) -> Self {
        match owner.plug_group {
            Some(group) => Self::Group((owner.uid, group)),
            None => Self::owner(owner),
        }
    }
}

/// Listens at `path` for these clients, see [`Folder::listen`].
///
/// # Errors
/// When the path exists already, another user could swap a name on it, or the folder cannot be
/// written to.
pub(crate) fn listen(path: &Path, clients: Clients) -> io::Result<UnixListener> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!(
            "the path has {bytes} bytes, Linux allows {MAX_SOCKET_PATH}; name a shorter --socket"
        )));
    }
    let (folder, name) = Folder::of(path)?;
    match clients {
        Clients::User(user) => folder.listen(name, user, 0o600),
        Clients::Group(user) => folder.listen(name, user, 0o660),
    }
}

/// Creates a folder and its parents, writable by root alone.
///
/// # Errors
/// When it cannot be created, or another user could swap a name on its path. It may exist already.
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    let made = Folder::open_or_make(path);
    made.map(drop).map_err(FileError::at(path))
}

/// Creates a folder that only root can write to and only members of this group can enter, so that
/// they cannot replace what is in it.
///
/// # Errors
/// When it exists already, or cannot be created.
pub(crate) fn make_closed_folder(path: &Path, gid: u32) -> Result<(), FileError> {
    Folder::of(path)
        .and_then(|(folder, name)| folder.make_closed(name, gid))
        .map_err(FileError::at(path))
}

/// Replaces a file that all may read.
///
/// # Errors
/// When it cannot be written, or another user could swap a name on its path.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    Folder::of(path)
        .and_then(|(folder, name)| folder.replace(name, text.as_bytes(), 0o644, None))
        .map_err(FileError::at(path))
}

/// Removes a file, or a folder with everything in it, and logs why it cannot be removed.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = folder::remove(path) {
        tracing::warn!(%error, path = %path.display(), "not removed");
    }
}

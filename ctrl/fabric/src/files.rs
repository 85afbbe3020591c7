//! Folders and Unix sockets that are created for one user.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid, chown, fchmod};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use vm::spec::MAX_SOCKET_PATH;

/// How many clients may wait to be accepted.
const BACKLOG: i32 = 128;

/// A folder or file that could not be created or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", .path.display())]
pub struct FileError {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl FileError {
    /// For `map_err`: adds the file's path to the error.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| FileError { path, source }
    }
}

/// Listens at `path` with mode 0600: only this user and root can connect, from the first moment on.
///
/// # Errors
/// When the path exists already, or the folder cannot be written to.
pub(crate) fn listen(path: &Path, (uid, gid): (u32, u32)) -> io::Result<UnixListener> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!(
            "the path has {bytes} bytes, Linux allows {MAX_SOCKET_PATH}; name a shorter --socket"
        )));
    }
    // Linux gives the file the mode of the unbound socket. The umask would do it too, but belongs to
    // the whole process: what other threads create at that moment would get it as well.
    let socket = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    fchmod(&socket, Mode::from_raw_mode(0o600))?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    let listener = UnixListener::from(socket);
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(listener)
}

/// Creates a folder and its parents, writable by root alone.
///
/// # Errors
/// When it cannot be created. It may exist already.
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(FileError::at(path))
}

/// Creates a folder that only root can write to and only members of this group can enter, so that
/// they cannot replace what is in it.
///
/// # Errors
/// When it exists already, or cannot be created.
pub(crate) fn make_closed_folder(path: &Path, gid: u32) -> Result<(), FileError> {
    let made = std::fs::DirBuilder::new().mode(0o710).create(path);
    made.and_then(|()| Ok(chown(path, None, Some(Gid::from_raw(gid)))?))
        .map_err(FileError::at(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_socket_and_its_folder_are_closed_to_others() {
        let outer = tempfile::tempdir().unwrap();
        let own = outer.path().metadata().unwrap();
        let folder = outer.path().join("nics");
        make_closed_folder(&folder, own.gid()).unwrap();
        let socket = folder.join("0.sock");
        let _listener = listen(&socket, (own.uid(), own.gid())).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o7777, 0o710);
        assert_eq!(socket.metadata().unwrap().mode() & 0o7777, 0o600);
        assert!(listen(&socket, (own.uid(), own.gid())).is_err());
    }
}

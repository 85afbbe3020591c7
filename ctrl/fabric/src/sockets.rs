//! Unix sockets that stand there for one user.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid, chown};

use vm::spec::MAX_SOCKET_PATH;

/// Listens at `path`, mode 0600, for this user and root alone, from the first moment on.
///
/// # Errors
/// When something is there already, or the folder cannot be written to.
pub(super) fn listen(path: &Path, (uid, gid): (u32, u32)) -> io::Result<UnixListener> {
    let bytes = path.as_os_str().len();
    if bytes > MAX_SOCKET_PATH {
        return Err(io::Error::other(format!(
            "the path has {bytes} bytes, Linux allows {MAX_SOCKET_PATH}; name a shorter --socket"
        )));
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound?;
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(listener)
}

/// Makes a folder of ours that this group may enter, and nobody else. Its members cannot put
/// something of their own in the place of what is in it.
///
/// # Errors
/// When it is there already, or cannot be made.
pub(super) fn make_closed_folder(path: &Path, gid: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o710).create(path)?;
    Ok(chown(path, None, Some(Gid::from_raw(gid)))?)
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

//! Folders in which root makes, changes and removes files: [`Folder`].
//!
//! A name in a folder that another user may write to can be swapped for a link between any two
//! system calls, and root would then write, give away or remove the file behind the link. So a
//! [`Folder`] is opened step by step, and only if nobody else can swap a name on the way to it
//! (`folder/way.rs` says what that takes); and everything in it is done by its descriptor and a
//! single name, which is never followed if it is a link.
//!
//! Every file that a fabric makes, replaces, moves or removes goes through here.

mod way;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchmod, fchown, fstat,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use way::{Trusted, walk};

/// How many clients may wait to be accepted at a socket.
const BACKLOG: i32 = 128;

/// An open folder. Only root and the caller can change what is in it, and swap names on its path.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
    /// Others may put files of their own into it, as into `/tmp`.
    shared: bool,
}

/// Who a file or socket is given to: uid and gid.
pub type User = (u32, u32);

/// All names are single: no path, not `.`, not `..`.
///
/// # Errors
/// Every method fails as the system call does that it is named after; with `InvalidInput` for a name
/// that is not single.
#[expect(
    clippy::missing_errors_doc,
    reason = "they are the same for every method: see above"
)]
impl Folder {
    /// Opens a folder. Fails when another user could swap a name on its path, or write to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::at(path, walk(path, None)?.folder)
    }

    /// Opens a folder, and makes it and its parents (mode 0755) if they are missing. Also returns
    /// whether it was missing.
    pub fn open_or_make(path: &Path) -> io::Result<(Self, bool)> {
        let end = walk(path, Some(Mode::from_raw_mode(0o755)))?;
        Ok((Self::at(path, end.folder)?, end.made))
    }

    /// Opens the folder that `path` is in; also returns the name that it has there.
    pub fn of(path: &Path) -> io::Result<(Self, &OsStr)> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok((Self::open(parent)?, name))
    }

    /// Checks the way to a folder as [`Folder::open`] does, as far as it exists.
    pub fn check(path: &Path) -> io::Result<()> {
        match walk(path, None) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(drop),
        }
    }

    fn at(path: &Path, descriptor: OwnedFd) -> io::Result<Self> {
        // The way was walked with descriptors that can only be walked on.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = openat(&descriptor, ".", flags, Mode::empty())?;
        Ok(Self {
            shared: Trusted::now().others_write(&fstat(&descriptor)?),
            descriptor,
            path: path.to_owned(),
        })
    }

    /// Opens a folder in this one.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = single(name.as_ref())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = openat(self, name, flags, Mode::empty())?;
        let path = self.path.join(name);
        let stat = fstat(&inner)?;
        if !Trusted::now().owns(&stat) {
            return Err(not_ours(&stat, "folder"));
        }
        Self::at(&path, inner)
    }

    /// Makes a new folder that only the caller can write to and only members of the group can enter.
    pub fn make_closed(&self, name: impl AsRef<OsStr>, gid: u32) -> io::Result<()> {
        let name = single(name.as_ref())?;
        mkdirat(self, name, Mode::from_raw_mode(0o710))?;
        let made = self.folder(name)?;
        Ok(fchown(&made, None, Some(Gid::from_raw(gid)))?)
    }

    /// Sets who may enter and list the folder.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(fchmod(self, Mode::from_raw_mode(mode))?)
    }

    /// What has this name; a link is not followed.
    pub fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<Stat> {
        let name = single(name.as_ref())?;
        Ok(statat(self, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens a regular file for reading.
    pub fn read(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlags::RDONLY, 0)
    }

    /// Makes a new file, for writing. Fails if anything has this name.
    pub fn create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_file(name.as_ref(), flags, mode)
    }

    /// Opens a file for reading and writing, and makes it if it is missing. What is in it stays.
    pub fn open_or_create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        self.open_file(name.as_ref(), OFlags::RDWR | OFlags::CREATE, mode)
    }

    /// Opens a file for writing, and empties it.
    pub fn overwrite(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = self.open_file(name.as_ref(), OFlags::WRONLY, 0)?;
        file.set_len(0)?;
        Ok(file)
    }

    /// Puts a file with this content in the place of what has the name: a reader sees the old content
    /// or the new one, and a full disk leaves the old one. It is given to `owner`, if there is one.
    pub fn replace(
        &self,
        name: impl AsRef<OsStr>,
        content: &[u8],
        mode: u32,
        owner: Option<User>,
    ) -> io::Result<()> {
        let name = single(name.as_ref())?;
        let mut draft = name.to_owned();
        draft.push(NEW);
        self.remove_file(&draft)?;
        let mut file = self.create(&draft, mode)?;
        file.write_all(content)
            .and_then(|()| match owner {
                Some((uid, gid)) => Ok(fchown(
                    &file,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                )?),
                None => Ok(()),
            })
            .and_then(|()| self.rename(&draft, name))
            .inspect_err(|_| _ = self.remove_file(&draft))
    }

    /// Renames a file within the folder.
    pub fn rename(&self, from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to) = (single(from.as_ref())?, single(to.as_ref())?);
        Ok(renameat(self, from, self, to)?)
    }

    /// Removes a file, link or socket. One that is missing counts as removed.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        gone(unlinkat(self, single(name.as_ref())?, AtFlags::empty()))
    }

    /// Removes an empty folder. One that is missing counts as removed.
    pub fn remove_folder(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        gone(unlinkat(self, single(name.as_ref())?, AtFlags::REMOVEDIR))
    }

    /// Removes a file, or a folder with everything in it. One that is missing counts as removed.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        remove_all(self.as_fd(), single(name.as_ref())?)
    }

    /// Listens at a new socket with this mode, such as 0600: only whom it admits and root can connect, from
    /// the first moment on. Fails if anything has this name.
    pub fn listen(
        &self,
        name: impl AsRef<OsStr>,
        (uid, gid): User,
        mode: u32,
    ) -> io::Result<UnixListener> {
        let name = single(name.as_ref())?;
        // Linux gives the file the mode of the unbound socket. The umask would do it too, but belongs
        // to the whole process: what other threads create at that moment would get it as well.
        let kind = (AddressFamily::UNIX, SocketType::STREAM);
        let socket = net::socket_with(kind.0, kind.1, SocketFlags::CLOEXEC, None)?;
        fchmod(&socket, Mode::from_raw_mode(mode & 0o700))?;
        // There is no bind by descriptor. The path leads into this folder: nobody else can swap a
        // name on it, and bind neither follows a link at its end nor replaces what is there.
        net::bind(&socket, &SocketAddrUnix::new(self.path.join(name))?)?;
        net::listen(&socket, BACKLOG)?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(self, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        if mode & 0o077 != 0 {
            // Only now: before, its group was the caller's. Nobody else can swap the name.
            chmodat(self, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        Ok(socket.into())
    }

    fn open_file(&self, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<File> {
        // NONBLOCK: a FIFO must not make the caller wait. It means nothing for a regular file.
        let always = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = File::from(openat(self, single(name)?, flags | always, mode)?);
        let stat = fstat(&file)?;
        let foreign = self.shared && {
            let trusted = Trusted::now();
            !trusted.owns(&stat) || trusted.others_write(&stat)
        };
        if foreign || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(not_ours(&stat, "regular file"));
        }
        Ok(file)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// The end of the name of a file that is being written, before it replaces the old one.
pub const NEW: &str = ".new";

/// Removes what is at `path`: a file, or a folder with everything in it. What is missing counts as
/// removed.
///
/// # Errors
/// When another user could swap a name on the path, or the system refuses.
pub fn remove(path: &Path) -> io::Result<()> {
    let (folder, name) = match Folder::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    folder.remove_all(name)
}

fn remove_all(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return gone(other),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(folder, name, flags, Mode::empty())?;
    // Listed first: a folder that changes while it is read may show a name twice or not at all.
    let entries = Dir::read_from(&inner)?.collect::<Result<Vec<_>, _>>()?;
    for entry in entries {
        let entry = OsStr::from_bytes(entry.file_name().to_bytes());
        if entry != "." && entry != ".." {
            remove_all(inner.as_fd(), entry)?;
        }
    }
    gone(unlinkat(folder, name, AtFlags::REMOVEDIR))
}

fn gone(removed: rustix::io::Result<()>) -> io::Result<()> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

fn not_ours(stat: &Stat, kind: &str) -> io::Error {
    let what = format!(
        "it must be a {kind} to which only root or the caller can write; it belongs to user {} \
         (mode {:04o})",
        stat.st_uid,
        stat.st_mode & 0o7777
    );
    io::Error::new(io::ErrorKind::PermissionDenied, what)
}

/// Refuses a name that would lead out of the folder.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(name),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not the name of a file", name.display()),
        )),
    }
}

#[cfg(test)]
mod tests;

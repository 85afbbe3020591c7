//! The way to a folder: who could swap a name on it.
//!
//! A folder is safe when every folder and link on the way to it, the root folder and the folder
//! itself included, belongs to root or to the caller, and nobody else may write to any of those
//! folders. In a folder with the sticky bit, like `/tmp`, all may write, because the kernel lets them
//! neither rename nor remove what belongs to another user.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, mkdirat, open, openat, readlinkat};
use rustix::io::Errno;

/// As many links as Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// For a step of the way: it neither reads nor follows what it opens.
const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Somebody else could swap names on the way to a folder.
#[derive(Debug)]
pub(super) struct Unsafe {
    at: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Belongs(u32),
    Writable(u32),
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.display();
        match self.why {
            Why::Belongs(uid) => write!(f, "{at} belongs to user {uid}, who"),
            Why::Writable(mode) => write!(f, "others may write to {at} (mode {mode:04o}) and"),
        }?;
        write!(
            f,
            " could swap what is made below it for a link: use a folder to which only {} can write",
            match rustix::process::geteuid().as_raw() {
                0 => "root".into(),
                own => format!("root and user {own}"),
            }
        )
    }
}

impl std::error::Error for Unsafe {}

impl From<Unsafe> for io::Error {
    fn from(error: Unsafe) -> Self {
        io::Error::new(io::ErrorKind::PermissionDenied, error)
    }
}

/// The users who may own what is on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trusted {
    caller: u32,
    /// How the kernel shows the users that the caller's user namespace does not have. The owner of `/`
    /// is one of them there, and root of the namespace has no rights over their files.
    unmapped: Option<u32>,
}

impl Trusted {
    pub(super) fn now() -> Self {
        let number = |path| {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        };
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let everybody = map.split_whitespace().eq(["0", "0", "4294967295"]);
        Self {
            caller: rustix::process::geteuid().as_raw(),
            unmapped: (!everybody)
                .then(|| number("/proc/sys/kernel/overflowuid"))
                .flatten(),
        }
    }

    pub(super) fn owns(self, stat: &Stat) -> bool {
        [Some(0), Some(self.caller), self.unmapped].contains(&Some(stat.st_uid))
    }

    /// Whether others than the owner may write. A user's private group (user-private groups have the
    /// user's number) is not others.
    pub(super) fn others_write(self, stat: &Stat) -> bool {
        let private = self.caller != 0 && stat.st_gid == self.caller;
        let others = if private { 0o002 } else { 0o022 };
        stat.st_mode & others != 0
    }

    /// # Errors
    /// When others could swap what is in this folder, or the folder itself.
    fn check(self, stat: &Stat, at: &Path) -> Result<(), Unsafe> {
        let why = if !self.owns(stat) {
            Why::Belongs(stat.st_uid)
        } else if is_folder(stat) && self.others_write(stat) && !is_sticky(stat) {
            Why::Writable(stat.st_mode & 0o7777)
        } else {
            return Ok(());
        };
        let at = at.to_owned();
        Err(Unsafe { at, why })
    }
}

pub(super) fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_sticky(stat: &Stat) -> bool {
    stat.st_mode & Mode::SVTX.bits() != 0
}

/// A folder at the end of a way, and whether it was made.
pub(super) struct End {
    pub(super) folder: OwnedFd,
    pub(super) made: bool,
}

/// Walks to a folder from `/` by descriptors. With `make`, makes the folders that are missing.
///
/// # Errors
/// [`Unsafe`]; when a folder is missing or cannot be made.
pub(super) fn walk(path: &Path, make: Option<Mode>) -> io::Result<End> {
    let trusted = Trusted::now();
    let mut ahead = steps(&std::path::absolute(path)?);
    let mut at = PathBuf::from("/");
    let root = || open("/", STEP | OFlags::DIRECTORY, Mode::empty());
    let mut folder = root()?;
    trusted.check(&fstat(&folder)?, &at)?;
    let (mut links, mut made) = (0, false);
    while let Some(name) = ahead.pop_front() {
        let next = match (openat(&folder, &name, STEP, Mode::empty()), make) {
            (Err(Errno::NOENT), Some(mode)) => {
                let (found, new) = make_step(&folder, &name, mode)?;
                made = new;
                found
            }
            (found, _) => {
                made = false;
                found?
            }
        };
        let stat = fstat(&next)?;
        let here = if name == ".." {
            at.parent().unwrap_or(Path::new("/")).to_owned()
        } else {
            at.join(&name)
        };
        trusted.check(&stat, &here)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (folder, at) = (next, here),
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = readlinkat(&next, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    (folder, at) = (root()?, "/".into());
                }
                let mut steps = steps(&target);
                steps.append(&mut ahead);
                ahead = steps;
            }
            _ => return Err(Errno::NOTDIR.into()),
        }
    }
    Ok(End { folder, made })
}

/// Makes a folder, or opens the one that another program has made at the same time.
fn make_step(folder: impl AsFd, name: &OsStr, mode: Mode) -> io::Result<(OwnedFd, bool)> {
    let made = match mkdirat(&folder, name, mode) {
        Err(Errno::EXIST) => false,
        other => other.map(|()| true)?,
    };
    Ok((openat(&folder, name, STEP, Mode::empty())?, made))
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let parts = path.components();
    parts
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

//! One fabric per socket: a lock file beside it that holds the process id. Also names all other files
//! of a fabric ([`StatePaths`]).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};

use crate::folder::Folder;
use crate::journal::is_running;

/// Written after the pid where the folder was created for the lock file. The fabric that takes over
/// after a killed process then removes the folder too.
const FOLDER_MADE: &str = " made this folder";

/// How long to wait for a lock whose process was killed: a child that it was just starting holds a
/// copy of the lock until the child's program begins.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two attempts at the lock.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The files that a fabric keeps beside its API socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    /// The API socket.
    pub socket: PathBuf,
    /// The folder of the socket.
    pub folder: PathBuf,
    /// The lock file, with the pid inside.
    pub lock: PathBuf,
    /// The journal of changes to the host.
    pub journal: PathBuf,
    /// The folder of the switch VMs' files.
    pub vms: PathBuf,
    /// The folder of what `ikv-fabric ssh` needs.
    pub ssh: PathBuf,
    /// The folder of the vhost-user sockets.
    pub vhost: PathBuf,
    /// The folder of the VNC sockets.
    pub vnc: PathBuf,
    /// The folder of the BMCs' files.
    pub ipmi: PathBuf,
    /// The folder of the dumps that the flight recorder keeps.
    pub recorder: PathBuf,
}

impl StatePaths {
    /// The paths beside `socket`: `lock`, `state.json`, `vm`, `ssh` and so on beside `control.sock`,
    /// and `NAME.lock` and so on beside another `NAME.sock`, so that two fabrics can share a folder.
    pub fn beside(socket: &Path) -> Self {
        let folder = match socket.parent() {
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => PathBuf::from("/"),
        };
        let name = socket.file_stem().unwrap_or_default().to_string_lossy();
        let prefix = if name == "control" {
            String::new()
        } else {
            format!("{name}.")
        };
        Self {
            socket: socket.to_owned(),
            lock: folder.join(format!("{prefix}lock")),
            journal: folder.join(format!("{prefix}state.json")),
            vms: folder.join(format!("{prefix}vm")),
            ssh: folder.join(format!("{prefix}ssh")),
            vhost: folder.join(format!("{prefix}vhost")),
            vnc: folder.join(format!("{prefix}vnc")),
            ipmi: folder.join(format!("{prefix}ipmi")),
            recorder: folder.join(format!("{prefix}recorder")),
            folder,
        }
    }

    fn lock_name(&self) -> &OsStr {
        self.lock.file_name().expect("`beside` named it")
    }

    /// The vhost-user socket beside a tap.
    pub fn vhost_socket(&self, tap: &str) -> PathBuf {
        self.vhost.join(format!("{tap}.sock"))
    }
}

/// Why the lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A fabric runs on this socket.
    #[error(
        "a fabric is already running on this socket, pid {pid} ({path}); end it first, or give another --socket"
    )]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The pid in the lock file; `?` if its owner has not written it yet.
        pid: String,
    },
    /// The file holds something other than a fabric's pid, so it is not overwritten.
    #[error("{path} is not the lock file of a fabric; move it away, or name another --socket")]
    Foreign {
        /// The file at the lock's path.
        path: PathBuf,
    },
    /// The system refused access to the lock file.
    #[error("cannot lock {path}: {source}; name another --socket")]
    Io {
        /// The lock file or its folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The lock, held until [`Lock::release`] or the end of the process.
#[derive(Debug)]
pub struct Lock {
    file: File,
    folder: Folder,
    paths: StatePaths,
    created_folder: bool,
}

impl Lock {
    /// Takes the lock, and creates the folder if it does not exist. Blocks for at most 2 s, and only
    /// while a child of a killed process still holds the lock.
    ///
    /// # Errors
    /// [`LockError::Held`] with the pid of the fabric that has it; [`LockError::Io`] also when another
    /// user could swap a name on the path (see [`Folder`]).
    pub fn acquire(paths: &StatePaths) -> Result<Self, LockError> {
        let at = |path: &Path, source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let (folder, created_folder) =
            Folder::open_or_make(&paths.folder).map_err(|e| at(&paths.folder, e))?;
        let path = &paths.lock;
        let name = paths.lock_name();
        let patience = Instant::now() + PATIENCE;
        loop {
            // Readable by all: `check` of an ordinary user shows the pid.
            let file = folder.open_or_create(name, 0o644);
            let mut file = file.map_err(|e| at(path, e))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let pid = holder_of(&mut file);
                    if outlived(&pid) && Instant::now() < patience {
                        thread::sleep(TRY_AGAIN);
                        continue;
                    }
                    return Err(LockError::Held {
                        path: path.clone(),
                        pid,
                    });
                }
                Err(e) => return Err(at(path, e.into())),
            }
            // Its last owner may have removed the file after we opened it: then the lock that we
            // hold excludes no other fabric.
            if !is_at(&file, &folder, name) {
                continue;
            }
            let left = left_inside(&mut file).map_err(|e| at(path, e))?;
            let left = left.ok_or_else(|| LockError::Foreign { path: path.clone() })?;
            let created_folder = created_folder || left.contains(FOLDER_MADE);
            let mark = if created_folder { FOLDER_MADE } else { "" };
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}{mark}", std::process::id()))
                .map_err(|e| at(path, e))?;
            return Ok(Self {
                file,
                folder,
                paths: paths.clone(),
                created_folder,
            });
        }
    }

    /// The pid of the fabric that holds the lock now, if one does. It reads the kernel's list of locks
    /// instead of trying the lock, so it cannot disturb a fabric that is just taking it.
    pub fn holder(paths: &StatePaths) -> Option<String> {
        let (mut file, meta) = look(paths)?;
        let device = meta.dev();
        let file_id = format!(
            "{:02x}:{:02x}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device),
            meta.ino()
        );
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let held = locks.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.contains(&"FLOCK") && fields.contains(&"WRITE") && fields.contains(&&*file_id)
        });
        held.then(|| holder_of(&mut file))
    }

    /// The pid of a fabric that was killed: it has left its lock file behind and runs no more.
    pub fn left_by(paths: &StatePaths) -> Option<String> {
        let (mut file, _) = look(paths)?;
        Some(holder_of(&mut file)).filter(|pid| outlived(pid))
    }

    /// The files of the fabric that holds the lock.
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// Whether the folder did not exist before [`Lock::acquire`].
    pub(crate) fn created_folder(&self) -> bool {
        self.created_folder
    }

    /// Notes that a killed fabric created the folder, so that [`Lock::release`] removes it.
    pub(crate) fn adopt_folder(&mut self) {
        self.created_folder = true;
    }

    /// Removes the lock file, and the folder if it was created for it and is empty.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release(self) -> Result<(), LockError> {
        let path = &self.paths.lock;
        let name = self.paths.lock_name();
        if is_at(&self.file, &self.folder, name) {
            let removed = self.folder.remove_file(name);
            removed.map_err(|source| LockError::Io {
                path: path.clone(),
                source,
            })?;
        }
        if self.created_folder
            && let Ok((parent, name)) = Folder::of(&self.paths.folder)
        {
            // It stays if there is something in it by now.
            let _ = parent.remove_folder(name);
        }
        Ok(())
    }
}

/// Opens the lock file to read it, if there is one.
fn look(paths: &StatePaths) -> Option<(File, fs::Metadata)> {
    // Without waiting: it may be anything, even a FIFO.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(&paths.lock).ok()?;
    let meta = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((file, meta))
}

/// Whether the lock is held although the process that took it has ended.
fn outlived(pid: &str) -> bool {
    pid.parse().is_ok_and(|pid| !is_running(pid))
}

/// What the last owner wrote. `None` if the content is not a fabric's: it must not be overwritten.
fn left_inside(file: &mut File) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(64).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.trim_end();
    let pid = line.strip_suffix(FOLDER_MADE).unwrap_or(line);
    let ours = pid.len() < 12 && pid.bytes().all(|byte| byte.is_ascii_digit());
    Ok(ours.then(|| line.to_owned()))
}

/// Whether the open file still has that name.
fn is_at(file: &File, folder: &Folder, name: &OsStr) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), folder.stat(name)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.st_dev, there.st_ino)
}

fn holder_of(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    let pid = text.split_whitespace().next();
    // Whatever else is in there is nobody's pid, and not for a terminal.
    let pid = pid.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()));
    pid.unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beside_the_socket() {
        let usual = StatePaths::beside(Path::new("/run/ikv-fabric/control.sock"));
        assert_eq!(usual.lock, Path::new("/run/ikv-fabric/lock"));
        assert_eq!(usual.journal, Path::new("/run/ikv-fabric/state.json"));
        let other = StatePaths::beside(Path::new("/tmp/b.sock"));
        assert_eq!(other.lock, Path::new("/tmp/b.lock"));
        assert_eq!(other.journal, Path::new("/tmp/b.state.json"));
        assert_eq!(
            (usual.vms, other.vms),
            ("/run/ikv-fabric/vm".into(), "/tmp/b.vm".into())
        );
        assert_eq!(other.ssh, Path::new("/tmp/b.ssh"));
        assert_eq!(
            StatePaths::beside(Path::new("b.sock")).folder,
            Path::new(".")
        );
    }

    #[test]
    fn the_second_fabric_learns_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("run/control.sock"));
        assert_eq!(Lock::holder(&paths), None);
        let lock = Lock::acquire(&paths).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(Lock::holder(&paths), Some(pid.clone()));
        let error = Lock::acquire(&paths).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {pid}")), "{error}");
        lock.release().unwrap();
        assert!(!paths.folder.exists());
        Lock::acquire(&paths).unwrap().release().unwrap();
    }

    #[test]
    fn the_copy_that_a_dead_process_left_to_a_child_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("control.sock"));
        // Pids end at 2^22.
        fs::write(&paths.lock, "123456789\n").unwrap();
        let copy = File::open(&paths.lock).unwrap();
        rustix::fs::flock(&copy, FlockOperation::LockExclusive).unwrap();
        let child = thread::spawn(move || {
            thread::sleep(3 * TRY_AGAIN);
            drop(copy);
        });
        Lock::acquire(&paths).unwrap().release().unwrap();
        child.join().unwrap();
    }

    #[test]
    fn a_folder_made_by_a_dead_process_is_removed_with_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("run/control.sock"));
        let killed = Lock::acquire(&paths).unwrap();
        assert_eq!(Lock::holder(&paths), Some(std::process::id().to_string()));
        drop(killed);
        assert!(paths.lock.exists());
        Lock::acquire(&paths).unwrap().release().unwrap();
        assert!(!paths.folder.exists());
    }

    #[test]
    fn a_file_with_other_content_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("control.sock"));
        fs::write(&paths.lock, "the combination is 1234\n").unwrap();
        let error = Lock::acquire(&paths).unwrap_err();
        assert!(matches!(error, LockError::Foreign { .. }), "{error}");
        assert!(fs::read_to_string(&paths.lock).unwrap().ends_with("1234\n"));
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let paths = StatePaths::beside(&folder.path().join("control.sock"));
        fs::write(&paths.lock, "123456789\n").unwrap();
        assert_eq!(Lock::left_by(&paths).as_deref(), Some("123456789"));
        let lock = Lock::acquire(&paths).unwrap();
        assert_eq!(Lock::left_by(&paths), None, "its process runs");
        assert_eq!(
            fs::read_to_string(&paths.lock).unwrap(),
            format!("{}\n", std::process::id())
        );
        lock.release().unwrap();
        assert!(!paths.lock.exists());
        assert!(folder.path().exists(), "the folder was there before");
    }
}

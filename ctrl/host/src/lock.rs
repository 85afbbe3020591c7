//! One fabric per socket: a lock file beside it, with the process id inside.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use crate::journal::is_running;

/// After the pid where the folder was made for the lock file: who takes over after a process
/// that was killed before it began a journal removes the folder too.
const FOLDER_MADE: &str = " made this folder";

/// A child that a process was just starting when it was killed holds a copy of its lock until
/// the child's program begins.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The files that a fabric keeps beside its API socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    /// The socket.
    pub socket: PathBuf,
    /// The folder of the socket.
    pub folder: PathBuf,
    /// The lock file.
    pub lock: PathBuf,
    /// The journal.
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
    /// `lock`, `state.json`, `vm`, `ssh`, `vhost`, `vnc`, `ipmi` and `recorder` beside `control.sock`; beside a socket
    /// `NAME.sock` of another name `NAME.lock` and so on, so that two fabrics can share a folder.
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
        /// What the lock file says; `?` if its owner has not written it yet.
        pid: String,
    },
    /// It is somebody else's file.
    #[error("{path} is no lock file of a fabric; move it away, or name another --socket")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot lock {path}: {source}; name another --socket")]
    Io {
        /// The lock file or its folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The lock, held until [`Lock::release`] or the end of the process.
#[derive(Debug)]
pub struct Lock {
    file: File,
    paths: StatePaths,
    created_folder: bool,
}

impl Lock {
    /// Takes the lock, creating the folder if need be. Waits for nothing but the last moments of
    /// a process that was killed.
    ///
    /// # Errors
    /// [`LockError::Held`] with the pid of the fabric that has it.
    pub fn acquire(paths: &StatePaths) -> Result<Self, LockError> {
        let at = |path: &Path, source| LockError::Io {
            path: path.to_owned(),
            source,
        };
        let created_folder = create_folder(&paths.folder).map_err(|e| at(&paths.folder, e))?;
        let path = &paths.lock;
        let patience = Instant::now() + PATIENCE;
        loop {
            let mut file = open(path).map_err(|e| at(path, e))?;
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
            // Its last owner may have removed the file between our opening and locking it.
            if !is_at(&file, path) {
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
                paths: paths.clone(),
                created_folder,
            });
        }
    }

    /// The pid of the fabric that holds the lock now, if one does. Needs no rights but to read,
    /// and does not get in the way of a fabric that is taking the lock at the same time.
    pub fn holder(paths: &StatePaths) -> Option<String> {
        let mut file = File::open(&paths.lock).ok()?;
        let meta = file.metadata().ok()?;
        let device = meta.dev();
        let place = format!(
            "{:02x}:{:02x}:{}",
            rustix::fs::major(device),
            rustix::fs::minor(device),
            meta.ino()
        );
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let held = locks.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.contains(&"FLOCK") && fields.contains(&"WRITE") && fields.contains(&&*place)
        });
        held.then(|| holder_of(&mut file))
    }

    /// The files it guards.
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// The folder did not exist before [`Lock::acquire`].
    pub fn created_folder(&self) -> bool {
        self.created_folder
    }

    /// Someone before us made the folder and left it: it is ours to remove.
    pub(crate) fn adopt_folder(&mut self) {
        self.created_folder = true;
    }

    /// Removes the lock file, and the folder if it was made for it and is empty.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release(self) -> Result<(), LockError> {
        let path = &self.paths.lock;
        if is_at(&self.file, path) {
            fs::remove_file(path).map_err(|source| LockError::Io {
                path: path.clone(),
                source,
            })?;
        }
        if self.created_folder {
            // Something else may live there by now; then the folder stays.
            let _ = fs::remove_dir(&self.paths.folder);
        }
        Ok(())
    }
}

fn create_folder(folder: &Path) -> io::Result<bool> {
    if folder.is_dir() {
        return Ok(false);
    }
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o755).create(folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true),
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    // Readable by all: a user's `check` wants to know the pid.
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644);
    options.custom_flags(no_follow).open(path)
}

/// Whether the lock is held although the process that took it has ended.
fn outlived(pid: &str) -> bool {
    pid.parse().is_ok_and(|pid| !is_running(pid))
}

/// What its last owner wrote, if that is one of ours. Whatever else it is would be overwritten.
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

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

fn holder_of(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file
        .rewind()
        .and_then(|()| file.take(32).read_to_string(&mut text));
    text.split_whitespace().next().unwrap_or("?").to_owned()
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
    fn the_second_is_told_the_pid_of_the_first() {
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
    fn a_file_that_is_no_lock_is_left_alone() {
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
        let lock = Lock::acquire(&paths).unwrap();
        assert_eq!(
            fs::read_to_string(&paths.lock).unwrap(),
            format!("{}\n", std::process::id())
        );
        lock.release().unwrap();
        assert!(!paths.lock.exists());
        assert!(folder.path().exists(), "the folder was there before");
    }
}

//! A user without any rights on a machine with a default route, and fabrics of theirs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::patience::{SOON, ended, until, wait_until};
use crate::{Answer, Site, executable_by_all};

/// No account of this machine, so that nothing is shared with one and there are no subordinate ids.
const UID: u32 = 1_234_567;

/// The user, with a home and a runtime folder of their own, in a namespace as their machine.
#[derive(Debug)]
pub struct OrdinaryUser {
    /// The machine and what is outside of it.
    pub site: Site,
    folder: TempDir,
    path: String,
}

/// A running fabric of the user; killed when dropped.
#[derive(Debug)]
pub struct RootlessFabric {
    child: Child,
    stderr: PathBuf,
}

impl OrdinaryUser {
    /// Makes the user's folders and machine. Needs root.
    ///
    /// # Panics
    /// When a folder cannot be made.
    pub fn new(label: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own");
        for name in ["home", "run"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).expect("an empty folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our own");
            chown(&path, Some(UID), Some(UID)).expect("root may");
        }
        executable_by_all(folder.path());
        OrdinaryUser {
            site: Site::new(label),
            folder,
            path: "/usr/bin:/bin".into(),
        }
    }

    /// From now on the user has only these programs, and those in the administrators' folders.
    ///
    /// # Panics
    /// When one is not installed.
    pub fn has_only(&mut self, programs: &[&str]) {
        let folder = self.folder.path().join("bin");
        fs::create_dir(&folder).expect("an empty folder");
        for name in programs {
            let program = host::program::find(name).expect("the program is installed");
            std::os::unix::fs::symlink(program, folder.join(name)).expect("an empty folder");
        }
        self.path = folder.display().to_string();
    }

    /// The user's folder for sockets, `$XDG_RUNTIME_DIR`.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// The API socket of the user's fabric.
    pub fn socket(&self) -> PathBuf {
        self.run_folder().join("ikv-fabric/control.sock")
    }

    /// A folder that others may not write to.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `ikv-fabric WORD…`, as the user types it.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_as(UID, words)
    }

    /// The same as another user, in the same environment.
    pub fn command_as(&self, uid: u32, words: &[&str]) -> Command {
        let of = |name| self.folder.path().join(name).display().to_string();
        let uid = uid.to_string();
        let mut command = self.site.host.command("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--"])
            .args(["/usr/bin/env", "-i", &format!("PATH={}", self.path)])
            .args([
                &format!("HOME={}", of("home")),
                &format!("XDG_RUNTIME_DIR={}", of("run")),
            ])
            .arg(of("ikv-fabric"))
            .args(words);
        command
    }

    /// Runs `ikv-fabric WORD…` to its end.
    pub fn ask(&self, words: &[&str]) -> Answer {
        Answer::of(&mut self.command(words))
    }

    /// Runs a command line in the fabric's namespaces, by `ikv-fabric shell`.
    pub fn inside(&self, line: &str) -> Answer {
        self.ask(&["shell", "--", "sh", "-c", line])
    }

    /// Starts a fabric with these options of `run`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&self, options: &[&str]) -> RootlessFabric {
        let stderr = self.folder.path().join("stderr");
        let child = self
            .command(&[&["run"], options].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&stderr).expect("our own folder"))
            .spawn()
            .expect("ip can be started");
        RootlessFabric { child, stderr }
    }

    /// The ids and command lines of the user's processes on this whole machine.
    pub fn processes(&self) -> Vec<String> {
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
            let is_theirs =
                uid.and_then(|ids| ids.split_whitespace().next()) == Some(&*UID.to_string());
            // A folder serves one test; others may use the uid at the same time.
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            let folder = self.folder.path().display().to_string();
            let here = String::from_utf8_lossy(&environment).contains(&folder);
            if is_theirs && here {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.push(format!("{} {line}", process.file_name().display()));
            }
        }
        found
    }

    /// Waits until the user has no process left.
    ///
    /// # Panics
    /// With those that are left.
    pub fn wait_processes_end(&self) {
        until("the user's processes to end", SOON, || {
            let left = self.processes();
            crate::patience::ensure(left.is_empty(), || left.join("\n"))
        });
    }

    /// Waits until the user has no process left, and checks that nothing else is left of a fabric.
    ///
    /// # Panics
    /// With what is left.
    pub fn assert_nothing_left(&self) {
        self.wait_processes_end();
        let left = fs::read_dir(self.run_folder()).expect("it was there");
        let left: Vec<_> = left.map(|entry| entry.expect("readable").path()).collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }
}

impl RootlessFabric {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// With its standard error, if it ends or is not ready within `limit` of the reference machine.
    pub fn wait_ready(&mut self, limit: std::time::Duration) {
        until("the fabric to be ready", limit, || {
            let said = self.stderr();
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("run ended, {status}:\n{said}");
            }
            crate::patience::ensure(said.contains("✓ ready"), || said)
        });
    }

    /// Ends it as Ctrl-C does; its status must be 0.
    ///
    /// # Panics
    /// With its standard error, if it fails.
    pub fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it runs");
        let status = ended(&mut self.child, SOON);
        let said = self.stderr();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{said}");
        said
    }

    /// Kills it, so that it undoes nothing.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        wait_until("its end", SOON, || {
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
    }
}

impl Drop for RootlessFabric {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

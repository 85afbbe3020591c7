//! A patch panel without switches, `ikv-fabric run --switches none`, and its host, a namespace.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::host_state::HostState;
use crate::patience::{SOON, deadline, ended, wait_for, wait_until};
use crate::{Answer, Netns, ikv_fabric};

/// A namespace and a folder for a fabric's socket: everything of a host that a fabric touches.
#[derive(Debug)]
pub struct PanelHost {
    /// The host's network.
    pub netns: Netns,
    folder: TempDir,
}

impl PanelHost {
    /// Makes an empty host. Needs root.
    ///
    /// # Panics
    /// When the folder cannot be made.
    pub fn new(label: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        // Other users than root are clients, too.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))
            .expect("our own folder");
        PanelHost {
            netns: Netns::new(label),
            folder,
        }
    }

    /// The folder that contains the fabric's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The fabric's API socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("run/control.sock")
    }

    /// The present state of everything that a fabric could change.
    pub fn state(&self) -> HostState {
        HostState::of(&self.netns, self.folder.path())
    }

    /// As [`PanelHost::state`], once the kernel has reported each link's carrier, a second or two after a
    /// link is made, and between two looks that a running fabric takes at its tables with nft.
    ///
    /// # Panics
    /// When it does not.
    pub fn settled_state(&self) -> HostState {
        wait_until("the carriers to be known", SOON, || {
            let links = self.netns.ip("-o link show");
            let known = |link: &str| link.contains("NO-CARRIER") || link.contains("LOWER_UP");
            links.lines().all(known)
        });
        let mut state = self.state();
        wait_until("the fabric's nft to end", SOON, || {
            let looks = state
                .part("processes")
                .iter()
                .any(|line| line.contains("nft -j"));
            if looks {
                state = self.state();
            }
            !looks
        });
        state
    }

    /// `ikv-fabric --socket … WORD…` in the namespace.
    pub fn command(&self, words: &[&str]) -> Command {
        self.command_at(&self.socket(), words)
    }

    /// As [`PanelHost::command`], for a fabric at another socket.
    pub fn command_at(&self, socket: &Path, words: &[&str]) -> Command {
        let mut command = self.netns.command(&ikv_fabric().display().to_string());
        command.arg("--socket").arg(socket).args(words);
        as_from_a_plain_shell(&mut command);
        command
    }

    /// Runs `ikv-fabric WORD…` to its end.
    pub fn ask(&self, words: &[&str]) -> Answer {
        Answer::of(&mut self.command(words))
    }

    /// Runs `ikv-fabric --json WORD…`, which must succeed.
    ///
    /// # Panics
    /// With its output, if it fails or prints no JSON.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Value {
        self.ask(&[&["--json"], words].concat()).json()
    }

    /// The command that runs a patch panel with these further options.
    pub fn run_command(&self, options: &[&str]) -> Command {
        self.command(&[&["run", "--switches", "none"], options].concat())
    }

    /// Brings a patch panel up and waits until it is ready.
    ///
    /// # Panics
    /// With its standard error, if it ends instead.
    pub fn run(&self, options: &[&str]) -> PanelFabric<'_> {
        let mut fabric = self.spawn(self.run_command(options));
        fabric.wait_ready();
        fabric
    }

    /// Starts a `run` of any kind.
    ///
    /// # Panics
    /// When the program is missing.
    pub fn spawn(&self, mut command: Command) -> PanelFabric<'_> {
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let progress = Arc::new(Mutex::new(Progress::default()));
        if let Some(stderr) = child.stderr.take() {
            listen(stderr, progress.clone());
        }
        PanelFabric {
            host: self,
            child,
            progress,
            began,
        }
    }
}

/// Removes variables that sudo or the user's shell set: tests must not depend on them.
pub fn as_from_a_plain_shell(command: &mut Command) {
    for variable in ["SUDO_UID", "SUDO_GID", "XDG_RUNTIME_DIR", "IKV_FABRIC_LOG"] {
        command.env_remove(variable);
    }
}

/// Runs `ikv-fabric WORD…` without a fabric, in this thread's namespace.
///
/// # Panics
/// When it does not end within [`SOON`].
pub fn ask_without_fabric(words: &[&str]) -> Answer {
    let mut command = Command::new(ikv_fabric());
    as_from_a_plain_shell(&mut command);
    Answer::of(
        command
            .args(["--socket", "/nonexistent/control.sock"])
            .args(words),
    )
}

/// As [`ask_without_fabric`] with `--json`; the command must succeed.
///
/// # Panics
/// With its output, if it fails or prints no JSON.
pub fn json_without_fabric(words: &[&str]) -> Value {
    let words = [&["--json"], words].concat();
    ask_without_fabric(&words).json()
}

#[derive(Debug, Default)]
struct Progress {
    text: String,
    ready: Option<Instant>,
}

fn listen(stderr: ChildStderr, progress: Arc<Mutex<Progress>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut progress = progress.lock().expect("no holder of this lock panics");
            if line.contains("✓ ready") {
                progress.ready.get_or_insert_with(Instant::now);
            }
            progress.text += &line;
            progress.text.push('\n');
        }
    });
}

/// A running `run`; killed when dropped.
#[derive(Debug)]
pub struct PanelFabric<'s> {
    host: &'s PanelHost,
    child: Child,
    progress: Arc<Mutex<Progress>>,
    began: Instant,
}

impl PanelFabric<'_> {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.lock().text.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder of this lock panics")
    }

    /// Waits until it reports that it is ready. Returns the time since its start.
    ///
    /// # Panics
    /// With its standard error, if it ends instead.
    pub fn wait_ready(&mut self) -> Duration {
        let ready = wait_for("the fabric to be ready", SOON, || {
            let ready = self.lock().ready;
            if ready.is_none()
                && let Ok(Some(status)) = self.child.try_wait()
            {
                panic!("run ended, {status}:\n{}", self.stderr());
            }
            ready
        });
        ready - self.began
    }

    /// Waits until its standard error contains `words`.
    ///
    /// # Panics
    /// With its standard error, if it does not.
    pub fn wait_said(&self, words: &str) {
        let deadline = deadline(SOON);
        while !self.stderr().contains(words) {
            assert!(
                Instant::now() < deadline,
                "no {words:?} in its standard error:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        ended(&mut self.child, SOON).unwrap_or_else(|| panic!("still there:\n{}", self.stderr()))
    }

    /// Sends `signal`, after which it must end with status 0. Returns how long that took.
    ///
    /// # Panics
    /// With its standard error, if it fails.
    pub fn end_by(mut self, signal: Signal) -> Duration {
        let began = Instant::now();
        self.signal(signal);
        let status = self.wait_end();
        let took = began.elapsed();
        assert_eq!(status.code(), Some(0), "{}", self.stderr());
        took
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for its end.
    ///
    /// # Panics
    /// As [`PanelFabric::end_by`].
    pub fn end(self) -> Duration {
        self.end_by(Signal::INT)
    }

    /// The host where it runs.
    pub fn host(&self) -> &PanelHost {
        self.host
    }
}

impl Drop for PanelFabric<'_> {
    fn drop(&mut self) {
        // It has usually ended already. The namespace is removed with everything in it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

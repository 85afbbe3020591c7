//! A fabric under test: the real program in a namespace made for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::host_state::HostState;
use crate::patience::until;
use crate::{Cli, Site, diagnosis};

/// The longest wait for a fabric to undo everything and end.
const END: Duration = Duration::from_secs(30);

/// A running `ikv-fabric run`. When dropped, it gets SIGTERM and must end with status 0.
#[derive(Debug)]
pub struct Fabric {
    /// The machine where it runs.
    pub site: Site,
    /// The host's state before the start.
    pub before: HostState,
    folder: TempDir,
    process: Child,
    stderr: Arc<Mutex<String>>,
    started: Instant,
    ended: bool,
}

/// How a fabric ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// Time from the signal to the end of the process.
    pub after: Duration,
}

impl Fabric {
    /// Starts a fabric with these options of `run`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(site: Site, options: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("ikvt")
            .tempdir()
            .expect("a temporary folder");
        let keys = format!("ssh.key_dir={}", folder.path().join("keys").display());
        std::fs::create_dir(folder.path().join("run")).expect("the folder is ours");
        let before = HostState::of(&site.host, &folder.path().join("run"));
        // The fabric must end also when the test is killed.
        let mut process = site
            .host
            .command("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(crate::ikv_fabric())
            .arg("--socket")
            .arg(folder.path().join("run/control.sock"))
            .args(["run", "--set", &keys])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ip can be started");
        let stderr = Arc::new(Mutex::new(String::new()));
        let (pipe, kept) = (process.stderr.take().expect("piped"), stderr.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("no holder panics");
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Fabric {
            site,
            before,
            folder,
            process,
            stderr,
            started: Instant::now(),
            ended: false,
        }
    }

    /// Runs commands for it.
    pub fn cli(&self) -> Cli {
        Cli::new(&self.site.host, &self.socket())
    }

    /// Its API socket.
    pub fn socket(&self) -> PathBuf {
        self.run_folder().join("control.sock")
    }

    /// The folder of its socket, lock and state.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// A folder for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("no holder panics").clone()
    }

    /// Waits until it is ready. Returns the time since its start.
    ///
    /// # Errors
    /// When it is not ready within `limit` or has ended, with its state and that of its switches.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<Duration, String> {
        let cli = self.cli();
        while self.started.elapsed() < limit {
            if cli.run(&["status", "--wait", "2"]).code == Some(0) {
                return Ok(self.started.elapsed());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                self.ended = true;
                return Err(format!("it ended ({status}):\n{}", self.stderr()));
            }
        }
        Err(format!("not ready within {limit:?}:\n{}", self.dump()))
    }

    /// The state of the fabric and its switches, for the message of a failed test.
    pub fn dump(&self) -> String {
        format!(
            "standard error of run:\n{}{}",
            self.stderr(),
            diagnosis::of(&self.cli())
        )
    }

    /// Sends it SIGTERM and waits for its end.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end(&mut self) -> Ended {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = until("the fabric's end", END, || {
            let ended = self.process.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| self.stderr())
        });
        self.ended = true;
        let after = began.elapsed();
        Ended { status, after }
    }

    /// Kills it, so that it undoes nothing.
    ///
    /// # Panics
    /// If it does not end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().expect("it is our child");
        self.ended = true;
    }

    /// The process ids of all its switches' QEMUs.
    pub fn qemus(&self) -> Vec<String> {
        switch_processes(&self.run_folder().join("vm"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The process id of a switch's QEMU.
    ///
    /// # Panics
    /// When there is none.
    pub fn qemu(&self, node: &str) -> Pid {
        let found = self.qemus_of(node);
        *found.first().unwrap_or_else(|| panic!("{node}: no QEMU"))
    }

    /// The process ids of a switch's QEMUs; empty while none runs.
    pub fn qemus_of(&self, node: &str) -> Vec<Pid> {
        self.processes_of(&format!("vm/{node}"))
    }

    /// The process ids of a switch's BMC: its `ipmi_sim`, and the programs that this has started.
    pub fn bmc(&self, node: &str) -> Vec<Pid> {
        self.processes_of(&format!("ipmi/{node}"))
    }

    fn processes_of(&self, folder: &str) -> Vec<Pid> {
        let pids = switch_processes(&self.run_folder().join(folder));
        let number = |pid: String| Pid::from_raw(pid.parse().expect("a number"));
        pids.into_iter().filter_map(number).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).expect("it is our child and not waited for");
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let ended = self.end();
        if !std::thread::panicking() {
            let clean = ended.status.success() && ended.status.signal().is_none();
            assert!(clean, "{:?}: {}", ended.status, self.stderr());
        }
    }
}

/// The process ids of the QEMUs and BMCs whose run folder is in `folder`: it is in the environment
/// of each.
fn switch_processes(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = process.path();
        let environment = fs::read(path.join("environ")).unwrap_or_default();
        let text = String::from_utf8_lossy(&environment);
        let mark = |line: &str| line.starts_with("IKV_FABRIC_VM=") && line.contains(&folder);
        if text.split('\0').any(mark) {
            found.push(process.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

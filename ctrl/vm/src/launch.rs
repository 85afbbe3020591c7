//! Starting a QEMU: opens everything it may use, drops every right, spawns.
//!
//! Spawns must happen on a thread that lives as long as the process: the kernel sends the
//! parent-death signal when that *thread* ends (prctl(2), PR_SET_PDEATHSIG). And no other child
//! may be spawned from another thread meanwhile, or it would inherit the descriptors too.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dataplane::sys::netns;
use dataplane::sys::tap::{TapFlags, open_tap};
use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::accel::Accel;
use super::plug::{Shape, Where};
use super::qemu::{self, Fds};
use super::spec::{NicBackend, NicSpec, SpecError, VmSpec};
use super::states::States;
use super::stderr::Stderr;
use super::template::{self, TemplateError};

const QEMU: &str = "qemu-system-x86_64";
pub(crate) const SETPRIV: &str = "setpriv";

/// Environment variable of every QEMU of a fabric, with the VM's run folder as its value. By it
/// [`strays`] tells ours from others.
pub(crate) const MARK: &str = "IKV_FABRIC_VM";

/// A QEMU without a machine is up in 0.1 s; this is for a very busy machine.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// More bytes than a monitor's greeting and two answers take.
const MAX_GREETING: u64 = 64 << 10;

/// Opens an existing tap by name, non-blocking or not, with `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`.
pub type OpenTap = Arc<dyn Fn(&str) -> io::Result<OwnedFd> + Send + Sync>;

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The specification cannot work.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A program is missing.
    #[error("{program} cannot be run: {error}; install the package {package}")]
    Program {
        /// The program.
        program: &'static str,
        /// Debian's package of it.
        package: &'static str,
        /// The system's words.
        error: io::Error,
    },
    /// QEMU is there, but not even an empty machine starts.
    #[error(
        "{QEMU} does not work here: {0}; `apt-get install --reinstall qemu-system-x86` mends it \
         if it was damaged"
    )]
    Probe(String),
    /// A file of the image, the seed or a socket.
    #[error("{vm}: {path}: {error}")]
    File {
        /// Node name.
        vm: String,
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// QEMU's uid may not read it.
    #[error("{vm}: QEMU (uid {uid}) may not read {path}: chmod o+r {path}")]
    Unreadable {
        /// Node name.
        vm: String,
        /// The file.
        path: PathBuf,
        /// QEMU's uid.
        uid: u32,
    },
    /// A tap.
    #[error("{vm}: tap {name}: {error}")]
    Tap {
        /// Node name.
        vm: String,
        /// The tap.
        name: String,
        /// The system's words.
        error: io::Error,
    },
}

/// Starts QEMUs; made once for a fabric.
#[derive(Clone)]
pub struct Launcher {
    open_tap: OpenTap,
    sandbox: bool,
    version: String,
    states: Option<Arc<States>>,
}

/// A state that a VM starts from.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) key: String,
    file: File,
}

/// A QEMU that has just been started.
pub(super) struct Launched {
    pub(super) shape: Shape,
    pub(super) child: Child,
    pub(super) monitor: UnixStream,
    pub(super) console: UnixStream,
    pub(super) bmc: Option<UnixStream>,
    pub(super) stderr: Stderr,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher")
            .field("sandbox", &self.sandbox)
            .finish_non_exhaustive()
    }
}

impl Launcher {
    /// Finds out whether QEMU runs here and whether it has seccomp.
    ///
    /// # Errors
    /// When QEMU is missing or cannot start an empty machine.
    pub async fn probe(open_tap: OpenTap) -> Result<Self, LaunchError> {
        let (sandbox, version) = match empty_machine(&["-sandbox", qemu::SANDBOX]).await {
            Ok(version) => (true, version),
            Err(LaunchError::Probe(reason)) => {
                let version = empty_machine(&[]).await?;
                tracing::warn!(%reason, "QEMU runs without its seccomp sandbox");
                (false, version)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            open_tap,
            sandbox,
            version,
            states: None,
        })
    }

    /// QEMU's version and the distribution's, as its monitor says them.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// From now on VMs start from these states, where there is one for them.
    pub fn use_states(&mut self, states: Arc<States>) {
        self.states = Some(states);
    }

    /// The state that a VM with this make-up can start from.
    pub(super) fn saved(&self, spec: &VmSpec) -> Option<Saved> {
        let states = self.states.as_ref()?;
        let key = template::key_of(spec, states)?;
        let file = states.open(&key)?;
        Some(Saved { key, file })
    }

    /// The shapes of `specs` that there is no state of: a key, and the place of the first VM of
    /// that shape. Their seeds have been written.
    pub fn without_state<'s>(
        &self,
        specs: impl IntoIterator<Item = &'s VmSpec>,
    ) -> Vec<(String, usize)> {
        let mut missing: Vec<(String, usize)> = Vec::new();
        let Some(states) = &self.states else {
            return missing;
        };
        for (place, spec) in specs.into_iter().enumerate() {
            if let Some(key) = template::key_of(spec, states)
                && !states.holds(&key)
                && !missing.iter().any(|(known, _)| *known == key)
            {
                missing.push((key, place));
            }
        }
        missing
    }

    /// Makes the state for `key`, with which `spec` is one of those that start from it. Files and
    /// sockets meanwhile are in `run_dir`. Returns its size in bytes.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub async fn save_state(
        &self,
        spec: &VmSpec,
        key: &str,
        run_dir: &Path,
    ) -> Result<u64, TemplateError> {
        match &self.states {
            Some(states) => template::build(self, states, spec, key, run_dir).await,
            None => Ok(0),
        }
    }

    /// The state for `key` does not work. True for whoever says so first.
    pub(super) fn drop_state(&self, key: &str) -> bool {
        self.states.as_ref().is_some_and(|states| states.fail(key))
    }

    /// Whether QEMU is held by seccomp.
    pub fn sandbox(&self) -> bool {
        self.sandbox
    }

    /// Opens taps by name.
    pub(super) fn open_tap(&self) -> &OpenTap {
        &self.open_tap
    }

    /// Starts a QEMU, from a state if one is given. Nothing in here waits, so no other spawn of
    /// this thread comes between.
    pub(super) fn launch(
        &self,
        spec: &VmSpec,
        saved: Option<Saved>,
    ) -> Result<Launched, LaunchError> {
        spec.check()?;
        let failed = |path: &Path, error| LaunchError::File {
            vm: spec.name.clone(),
            path: path.into(),
            error,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&spec.run_dir)
            .map_err(|error| failed(&spec.run_dir, error))?;

        let mut inherited = Inherited::default();
        let mut listen = |path: PathBuf| {
            let fd = listen(&path).map_err(|error| failed(&path, error))?;
            inherited.add(fd).map_err(|error| failed(&path, error))
        };
        let console = listen(spec.console_socket())?;
        let monitor = listen(spec.monitor_socket())?;
        let agent = listen(spec.agent_socket())?;
        let bmc = spec.bmc.then(|| listen(spec.bmc_socket())).transpose()?;
        let mut open = |path: &Path| {
            let fd = File::open(path).map_err(|error| failed(path, error))?;
            inherited
                .add(fd.into())
                .map_err(|error| failed(path, error))
        };
        let image = &spec.image;
        let (rootfs, seed) = (open(&image.rootfs)?, open(&spec.seed)?);
        let (kernel, initrd) = (open(&image.kernel)?, open(&image.initrd)?);
        for path in [&image.kernel, &image.initrd] {
            let mode = fs::metadata(path)
                .map_err(|error| failed(path, error))?
                .mode();
            if mode & 0o004 == 0 {
                let (vm, path, uid) = (spec.name.clone(), path.clone(), spec.uid);
                return Err(LaunchError::Unreadable { vm, path, uid });
            }
        }
        let state = saved.map(|saved| inherited.add(saved.file.into()));
        let state = state.transpose();
        let state = state.map_err(|error| failed(&spec.run_dir, error))?;
        let (nics, folder) = self.nics(spec, &mut inherited)?;
        let fds = Fds {
            console,
            monitor,
            agent,
            bmc,
            kernel,
            initrd,
            rootfs,
            seed,
            state,
            nics,
        };

        // The listeners take connections before QEMU accepts them, so ours are the first.
        let connect = |path: PathBuf| connect(&path).map_err(|error| failed(&path, error));
        let (monitor, console) = (
            connect(spec.monitor_socket())?,
            connect(spec.console_socket())?,
        );
        let bmc = spec.bmc.then(|| connect(spec.bmc_socket())).transpose()?;
        let mut child = command(spec, &qemu::argv(spec, self.sandbox, &fds))
            .spawn()
            .map_err(|error| missing(SETPRIV, "util-linux", error))?;
        drop(inherited);
        let stderr = child.stderr.take().expect("stderr is piped by command()");
        Ok(Launched {
            shape: Shape {
                spec: spec.clone(),
                places: Where::at_start(spec.nics.len()),
                folder,
            },
            child,
            monitor,
            console,
            bmc,
            stderr: Stderr::follow(stderr),
        })
    }

    /// What the NICs are joined to, and the folder of sockets among it.
    fn nics(
        &self,
        spec: &VmSpec,
        inherited: &mut Inherited,
    ) -> Result<(Vec<RawFd>, Option<RawFd>), LaunchError> {
        let failed = |path: &Path, error| LaunchError::File {
            vm: spec.name.clone(),
            path: path.into(),
            error,
        };
        let mut nobodys = nobodys(&spec.nics)
            .map_err(|error| failed(Path::new("/dev/net/tun"), error))?
            .into_iter();
        let mut nics = Vec::with_capacity(spec.nics.len());
        let mut folder = None;
        for nic in &spec.nics {
            nics.push(match &nic.backend {
                NicBackend::Tap { name } => (self.open_tap)(name)
                    .and_then(|fd| inherited.add(fd))
                    .map_err(|error| LaunchError::Tap {
                        vm: spec.name.clone(),
                        name: name.clone(),
                        error,
                    })?,
                NicBackend::Nobody { .. } => {
                    let tap = nobodys.next().expect("there is one for each");
                    inherited
                        .add(tap)
                        .map_err(|error| failed(Path::new("/dev/net/tun"), error))?
                }
                NicBackend::VhostUser => match folder {
                    Some(fd) => fd,
                    None => *folder.insert(
                        enter(&spec.nic_folder())
                            .and_then(|fd| inherited.add(fd))
                            .map_err(|error| failed(&spec.nic_folder(), error))?,
                    ),
                },
            });
        }
        Ok((nics, folder))
    }
}

/// Descriptors that a child will inherit; closed here on drop.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    fn add(&mut self, fd: OwnedFd) -> io::Result<RawFd> {
        fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        let number = fd.as_raw_fd();
        self.0.push(fd);
        Ok(number)
    }
}

/// Taps that nobody else sees or reaches, one for each NIC that is joined to nobody. They go away
/// with their descriptors.
fn nobodys(nics: &[NicSpec]) -> io::Result<Vec<OwnedFd>> {
    let count = nics
        .iter()
        .filter(|nic| matches!(nic.backend, NicBackend::Nobody { .. }))
        .count();
    if count == 0 {
        return Ok(Vec::new());
    }
    let flags = TapFlags {
        vnet_hdr: true,
        exclusive: true,
        nonblocking: true,
    };
    netns::in_new_one(move || {
        (0..count)
            .map(|index| open_tap(&format!("nobody{index}"), flags))
            .collect()
    })
}

/// A descriptor by which QEMU finds what is in a folder, and can do nothing else with it.
fn enter(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

fn listen(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path).map(Into::into),
    }
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = StdStream::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// setpriv(1) sets the parent-death signal after the uid, whose change would clear it. QEMU gets a
/// process group of its own: Ctrl-C is for the fabric, which then takes its VMs down in order.
fn command(spec: &VmSpec, argv: &[String]) -> Command {
    let uid = spec.uid.to_string();
    let mut command = Command::new(SETPRIV);
    command.args(["--reuid", &uid, "--regid", &uid]);
    match spec.accel {
        Accel::Kvm { group: Some(gid) } => command.args(["--groups", &gid.to_string()]),
        _ => command.arg("--clear-groups"),
    };
    command
        .args([
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--pdeathsig",
            "KILL",
            "--",
            QEMU,
        ])
        .args(argv)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(MARK, &spec.run_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Starts a QEMU without a machine and lets it quit at once. Returns its version.
async fn empty_machine(options: &[&str]) -> Result<String, LaunchError> {
    let mut child = Command::new(QEMU)
        .args([
            "-machine",
            "none",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ])
        .args(["-qmp", "stdio"])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| missing(QEMU, "qemu-system-x86", error))?;
    let mut stdin = child.stdin.take().expect("stdin is piped above");
    let mut stderr = Stderr::follow(child.stderr.take().expect("stderr is piped above"));
    // A QEMU that refuses its options is gone before it reads; its status tells.
    let _ = stdin
        .write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n")
        .await;
    let mut greeting = String::new();
    let stdout = child.stdout.take().expect("stdout is piped above");
    let talk = async {
        // What is no text is no greeting, and its status tells.
        let mut stdout = stdout.take(MAX_GREETING);
        let _ = stdout.read_to_string(&mut greeting).await;
        drop(stdout);
        child.wait().await
    };
    let ended = tokio::time::timeout(PROBE_LIMIT, talk).await;
    match ended {
        Ok(Ok(status)) if status.success() => Ok(version(&greeting)),
        Ok(Ok(status)) => Err(LaunchError::Probe(
            match stderr.last_words().await.as_str() {
                "" => status.to_string(),
                words => format!("{status}: {words}"),
            },
        )),
        Ok(Err(error)) => Err(LaunchError::Probe(error.to_string())),
        Err(_) => Err(LaunchError::Probe(format!("no end within {PROBE_LIMIT:?}"))),
    }
}

/// `7.2.19 (Debian 1:7.2+dfsg-7)` of a monitor's greeting; empty if it says none.
fn version(greeting: &str) -> String {
    let greeting = greeting.lines().next().unwrap_or_default();
    let greeting: serde_json::Value = serde_json::from_str(greeting).unwrap_or_default();
    let version = &greeting["QMP"]["version"];
    let numbers = ["major", "minor", "micro"].map(|part| version["qemu"][part].as_u64());
    match numbers {
        [Some(major), Some(minor), Some(micro)] => {
            let package = version["package"].as_str().unwrap_or_default();
            format!("{major}.{minor}.{micro} ({package})")
        }
        _ => String::new(),
    }
}

fn missing(program: &'static str, package: &'static str, error: io::Error) -> LaunchError {
    LaunchError::Program {
        program,
        package,
        error,
    }
}

/// Pids of QEMUs (or of the setpriv that becomes one) whose run folder is below `root`. A fabric
/// killed in the very moment of a start can leave one behind, before the parent-death signal is
/// set: `clean` and the next `run` end those.
///
/// # Errors
/// When /proc cannot be read.
pub fn strays(root: &Path) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes come and go, and those of other users may be closed to us.
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let ours = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| std::str::from_utf8(variable).ok()?.split_once('='))
            .any(|(key, value)| key == MARK && Path::new(value).starts_with(root));
        if ours {
            pids.push(pid);
        }
    }
    Ok(pids)
}

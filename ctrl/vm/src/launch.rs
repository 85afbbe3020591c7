//! Starts QEMUs: opens everything that a QEMU may use, drops every right, spawns.
//!
//! Spawns must happen on a thread that lives as long as the process: the kernel sends the
//! parent-death signal when that *thread* ends (prctl(2), PR_SET_PDEATHSIG). Nor may another thread
//! spawn a child meanwhile, or that child would inherit the descriptors too.

mod command;
mod error;
mod probe;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{getegid, geteuid};
use tokio::net::UnixStream;
use tokio::process::Child;

pub use error::LaunchError;

use crate::jail::{Jail, PRLIMIT};
use crate::live::{LiveSpec, NicSlot};
use crate::qemu::{self, Fds};
use crate::shape;
use crate::spec::{NicBackend, VmSpec};
use crate::states::States;
use crate::stderr::Stderr;
use crate::taps::{self, OpenTap};
use command::command;
use host::cgroup::Cgroup;
use host::folder::Folder;
use probe::empty_machine;

/// Starts QEMUs; a fabric has one.
#[derive(Clone)]
pub struct Launcher {
    open_tap: OpenTap,
    /// Why QEMU has no seccomp, if so.
    no_sandbox: Option<String>,
    jail: Jail,
    version: String,
    states: Option<Arc<States>>,
}

/// A saved state that a VM starts from.
#[derive(Debug)]
pub(crate) struct SavedState {
    pub(crate) key: String,
    file: File,
}

/// A QEMU that has just been started, and our ends of its channels.
pub(crate) struct Launched {
    pub(crate) live: LiveSpec,
    pub(crate) child: Child,
    pub(crate) monitor: UnixStream,
    pub(crate) console: UnixStream,
    pub(crate) bmc: Option<UnixStream>,
    pub(crate) stderr: Stderr,
    pub(crate) cgroup: Option<Cgroup>,
}

impl std::fmt::Debug for Launcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Launcher")
            .field("jail", &self.jail)
            .finish_non_exhaustive()
    }
}

impl Launcher {
    /// Finds out whether QEMU runs here and whether it has seccomp.
    ///
    /// # Errors
    /// When QEMU is missing or cannot start an empty machine.
    pub async fn probe(open_tap: OpenTap) -> Result<Self, LaunchError> {
        let (no_sandbox, version) = match empty_machine(&["-sandbox", qemu::SANDBOX]).await {
            Ok(version) => (None, version),
            Err(LaunchError::Probe(reason)) => {
                let version = empty_machine(&[]).await?;
                let reason = format!("QEMUs run without their seccomp sandbox: {reason}");
                (Some(reason), version)
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            open_tap,
            no_sandbox,
            jail: Jail::find(),
            version,
            states: None,
        })
    }

    /// QEMU's version and the distribution's, from its monitor: `7.2.19 (Debian 1:7.2+dfsg-7)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn features(&self) -> qemu::Features {
        qemu::Features {
            sandbox: self.no_sandbox.is_none(),
            state_files: self.state_files(),
            uso: probe::is_at_least(&self.version, (8, 2)),
        }
    }

    /// See [`qemu::Features::state_files`].
    pub(crate) fn state_files(&self) -> bool {
        probe::is_at_least(&self.version, (9, 1))
    }

    /// From now on a VM starts from its state in `states`, if there is one.
    pub fn use_states(&mut self, states: Arc<States>) {
        self.states = Some(states);
    }

    /// The saved state that a VM of this specification can start from.
    pub(crate) fn saved_state(&self, spec: &VmSpec) -> Option<SavedState> {
        let states = self.states.as_ref()?;
        let key = shape::key_of(spec, states)?;
        let file = states.open(&key)?;
        Some(SavedState { key, file })
    }

    /// Where VMs' saved states are; `None` if all VMs are booted.
    pub(crate) fn states(&self) -> Option<&States> {
        self.states.as_deref()
    }

    /// Drops the state for `key`, which does not work. True for the first call of this run.
    pub(crate) fn drop_state(&self, key: &str) -> bool {
        self.states.as_ref().is_some_and(|states| states.fail(key))
    }

    /// The parts of a QEMU's jail that cannot be had here, a sentence for each.
    pub fn not_jailed(&self) -> Vec<String> {
        let missing = self.jail.missing().iter();
        missing.chain(&self.no_sandbox).cloned().collect()
    }

    /// Opens taps by name.
    pub(crate) fn open_tap(&self) -> &OpenTap {
        &self.open_tap
    }

    /// Starts a QEMU, from a saved state if one is given. It never waits, so that this thread spawns
    /// no other child in between.
    pub(crate) fn launch(
        &self,
        spec: &VmSpec,
        saved: Option<SavedState>,
    ) -> Result<Launched, LaunchError> {
        spec.check()?;
        Folder::open_or_make(&spec.run_dir).map_err(failed(spec, &spec.run_dir))?;
        let mut inherited = Inherited::default();
        let (fds, nic_folder) = self.open_all(spec, saved, &mut inherited)?;
        // The sockets listen before QEMU accepts, so our connections are the first.
        let connect = |path: PathBuf| connect(&path).map_err(failed(spec, &path));
        let monitor = connect(spec.monitor_socket())?;
        let console = connect(spec.console_socket())?;
        let bmc = spec.bmc.then(|| connect(spec.bmc_socket())).transpose()?;
        let mut child = command(&self.jail, spec, &qemu::argv(spec, self.features(), &fds))
            .spawn()
            .map_err(|error| LaunchError::program(PRLIMIT, "util-linux", error))?;
        // Closed at once: the next child must not inherit them.
        drop(inherited);
        let cgroup = self.jail.confine(spec, child.id());
        let stderr = child.stderr.take().expect("stderr is piped by command()");
        Ok(Launched {
            live: LiveSpec {
                spec: spec.clone(),
                slots: NicSlot::at_start(spec.nics.len()),
                nic_folder,
            },
            child,
            monitor,
            console,
            bmc,
            stderr: Stderr::follow(stderr),
            cgroup,
        })
    }

    /// Opens everything that QEMU inherits. Also returns which of the descriptors is the folder of the
    /// NICs' sockets.
    fn open_all(
        &self,
        spec: &VmSpec,
        saved: Option<SavedState>,
        inherited: &mut Inherited,
    ) -> Result<(Fds, Option<RawFd>), LaunchError> {
        let image = &spec.image;
        for path in [&image.kernel, &image.initrd] {
            readable_by_all(spec, path)?;
        }
        let mut listen = |path: PathBuf| {
            let fd = listen(&path).and_then(|fd| inherited.add(fd));
            fd.map_err(failed(spec, &path))
        };
        let console = listen(spec.console_socket())?;
        let monitor = listen(spec.monitor_socket())?;
        let agent = listen(spec.agent_socket())?;
        let bmc = spec.bmc.then(|| listen(spec.bmc_socket())).transpose()?;
        let mut open = |path: &Path| {
            let fd = File::open(path).and_then(|file| inherited.add(file.into()));
            fd.map_err(failed(spec, path))
        };
        let (kernel, initrd) = (open(&image.kernel)?, open(&image.initrd)?);
        let (rootfs, seed) = (open(&image.rootfs)?, open(&spec.seed)?);
        let state = saved.map(|saved| inherited.add(saved.file.into()));
        let state = state.transpose().map_err(failed(spec, &spec.run_dir))?;
        let (nics, nic_folder) = self.open_nics(spec, inherited)?;
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
        Ok((fds, nic_folder))
    }

    /// Opens what each NIC is connected to. All vhost-user NICs share the folder of their sockets,
    /// which is also returned by itself.
    fn open_nics(
        &self,
        spec: &VmSpec,
        inherited: &mut Inherited,
    ) -> Result<(Vec<RawFd>, Option<RawFd>), LaunchError> {
        let tun = Path::new("/dev/net/tun");
        let is_unconnected =
            |backend: &NicBackend| matches!(backend, NicBackend::Unconnected { .. });
        let unconnected = spec.nics.iter().filter(|nic| is_unconnected(&nic.backend));
        let taps = taps::unconnected(unconnected.count()).map_err(failed(spec, tun))?;
        let mut taps = taps.into_iter();
        let mut folder = None;
        let mut nics = Vec::with_capacity(spec.nics.len());
        for nic in &spec.nics {
            nics.push(match &nic.backend {
                NicBackend::Tap { name } => (self.open_tap)(name)
                    .and_then(|fd| inherited.add(fd))
                    .map_err(|error| LaunchError::Tap {
                        vm: spec.name.clone(),
                        name: name.clone(),
                        error,
                    })?,
                NicBackend::Unconnected { .. } => {
                    let tap = taps.next().expect("one was made for each");
                    inherited.add(tap).map_err(failed(spec, tun))?
                }
                NicBackend::VhostUser => match folder {
                    Some(fd) => fd,
                    None => *folder.insert(
                        open_folder(&spec.nic_folder())
                            .and_then(|fd| inherited.add(fd))
                            .map_err(failed(spec, &spec.nic_folder()))?,
                    ),
                },
            });
        }
        Ok((nics, folder))
    }
}

/// Turns an error about `path` into one that also names the VM.
fn failed(spec: &VmSpec, path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let (vm, path) = (spec.name.clone(), path.to_owned());
    move |error| LaunchError::File { vm, path, error }
}

/// QEMU opens kernel and initrd itself, by /proc/self/fd, for which the kernel checks the file's mode.
fn readable_by_all(spec: &VmSpec, path: &Path) -> Result<(), LaunchError> {
    let mode = fs::metadata(path).map_err(failed(spec, path))?.mode();
    if mode & 0o004 == 0 {
        return Err(LaunchError::Unreadable {
            vm: spec.name.clone(),
            path: path.into(),
            uid: spec.uid,
        });
    }
    Ok(())
}

/// Descriptors that the next child inherits. They are closed in this process on drop.
#[derive(Default)]
struct Inherited(Vec<OwnedFd>);

impl Inherited {
    /// Returns the descriptor's number, which is the same in the child.
    fn add(&mut self, fd: OwnedFd) -> io::Result<RawFd> {
        // Without FD_CLOEXEC.
        fcntl_setfd(fd.as_fd(), FdFlags::empty())?;
        let number = fd.as_raw_fd();
        self.0.push(fd);
        Ok(number)
    }
}

/// A descriptor through which QEMU reaches the files of a folder, and which allows nothing else.
fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// A listening socket at `path`, in place of the one that an earlier QEMU left there.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let (folder, name) = Folder::of(path)?;
    folder.remove_file(name)?;
    let own = (geteuid().as_raw(), getegid().as_raw());
    folder.listen(name, own, 0o600).map(Into::into)
}

/// Connects without waiting: a listening unix socket takes connections before they are accepted.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let stream = StdStream::connect(path)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

//! How a fabric comes up and goes away, step by step.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use dataplane::PanelOptions;
use dataplane::sys::tap::{TapFlags, open_tap};
use futures_util::future::join_all;
use rustix::fs::{Gid, Mode, Uid, chown};
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use super::Fabric;
use super::cables::{Cables, CablesError};
use super::links::{Plugged, SharedApplied};
use super::owner::{NoSuchUser, Person};
use super::seeds::{Common, SeedsError, make_folder};
use super::switch::Switch;
use crate::api;
use crate::apply::{self, Applied, ApplyError};
use crate::config::{Config, Snat};
use crate::host::watch::LinkWatch;
use crate::image::{self, ImageError};
use crate::lock::{Lock, LockError, StatePaths};
use crate::plan::{self, HostLinkPlan, HostPlanInput, TapPlan};
use crate::preflight::{self, FOR_IMAGE, FOR_PANEL, FOR_SWITCHES, Finding, Needs, Severity};
use crate::progress::Progress;
use crate::topology::{EndOwner, MTU, Topology};
use crate::vm::accel::{self, AccelError, Facts};
use crate::vm::keys::FabricKeys;
use crate::vm::{LaunchError, Launcher, Vm, ssh};

/// Questions about sessions that switches may be asked at the same time.
const QUESTIONS: usize = 2;

/// Whether there are switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Switches {
    /// Real VMs.
    #[default]
    Vm,
    /// The patch panel alone: every switch's end is a tap to plug into.
    None,
}

/// What to bring up.
#[derive(Debug)]
pub struct Options {
    /// All that can be chosen.
    pub config: Config,
    /// What follows from it.
    pub topology: Topology,
    /// Where the API listens.
    pub socket: PathBuf,
    /// Whether there are switches.
    pub switches: Switches,
    /// How to forward.
    pub panel: PanelOptions,
}

/// Why a fabric did not come up. Whatever had been done is taken back by
/// [`Running::take_down`].
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each is the error of the step of that name, in its own words"
)]
pub enum BringUpError {
    #[error(transparent)]
    Owner(#[from] NoSuchUser),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{}", findings_text(.0))]
    Preflight(Vec<Finding>),
    #[error(transparent)]
    Accel(#[from] AccelError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error(transparent)]
    Cables(#[from] CablesError),
    #[error("the API cannot listen at {}: {source}", .socket.display())]
    Listen {
        socket: PathBuf,
        source: std::io::Error,
    },
    #[error("the devices cannot be watched: {0}")]
    Watch(std::io::Error),
    #[error(transparent)]
    Seeds(#[from] SeedsError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// Everything that must be taken away again.
#[derive(Default)]
pub struct Running {
    lock: Option<Lock>,
    applied: SharedApplied,
    fabric: Option<Arc<Fabric>>,
    tasks: JoinSet<()>,
}

/// Brings a fabric up. `running` holds at every moment what exists: a caller that stops
/// waiting, or gets an error, calls [`Running::take_down`].
///
/// # Errors
/// The first step that failed.
pub async fn bring_up(
    options: &Options,
    running: &mut Running,
    progress: &Progress,
) -> Result<Arc<Fabric>, BringUpError> {
    let Options {
        config,
        topology,
        socket,
        ..
    } = options;
    let owner = Person::find(config.owner.as_ref())?;
    let paths = StatePaths::beside(socket);
    clean_up_before(running, &paths, progress)?;
    look_ahead(options, &paths, progress)?;

    let with_vms = options.switches == Switches::Vm;
    let machine = if with_vms {
        Some(machine(config, progress).await?)
    } else {
        None
    };

    let stage = progress.stage("host");
    let steps = plan::plan(&host_input(topology, &owner));
    let lock = running.lock.as_ref().expect("taken above");
    let mut applied = apply::apply(&steps, lock, |_| {})?;
    let host_tap = applied.take_host_tap();
    *running
        .applied
        .lock()
        .expect("no holder of this lock can panic") = Some(applied);
    stage.done(&host_words(topology));

    let stage = progress.stage("cables");
    let carrier = host_tap.as_ref().and_then(|tap| tap.try_clone().ok());
    let failed_port = Arc::new(Notify::new());
    let bell = failed_port.clone();
    let cables = Cables::plug(topology, host_tap, &options.panel, move || {
        bell.notify_one();
    })?;
    let workers = if cables.workers() == 1 {
        "1 worker".into()
    } else {
        format!("{} workers", cables.workers())
    };
    stage.done(&format!(
        "{} cables, {} ends, {workers}",
        cables.len(),
        2 * cables.len()
    ));

    let mut fabric = Fabric {
        topology: topology.clone(),
        cables,
        switches: Vec::new(),
        host_tap: carrier,
        ssh_config: None,
        ready: AtomicBool::new(!with_vms),
        plugged: Plugged::default(),
        notices: Mutex::default(),
        news: Notify::new(),
    };
    if let Some(machine) = machine {
        let result =
            start_switches(options, &owner, machine, &running.applied, &paths, progress).await;
        match result {
            Ok((switches, ssh_config)) => {
                fabric.switches = switches;
                fabric.ssh_config = Some(ssh_config);
            }
            Err(error) => {
                running.fabric = Some(Arc::new(fabric));
                return Err(error);
            }
        }
    }
    let fabric = running.fabric.insert(Arc::new(fabric)).clone();
    write_down(&running.applied, &paths.socket)?;
    let listener = listen(socket, &owner)?;
    let taps = topology.ends().map(|found| found.end.tap.clone());
    let watch = LinkWatch::open(taps).map_err(BringUpError::Watch)?;
    running.attend(&fabric, listener, watch, failed_port);
    Ok(fabric)
}

impl Running {
    /// Starts the tasks of a fabric that stands.
    fn attend(
        &mut self,
        fabric: &Arc<Fabric>,
        listener: UnixListener,
        watch: LinkWatch,
        failed_port: Arc<Notify>,
    ) {
        self.tasks
            .spawn(fabric.clone().attend_links(watch, self.applied.clone()));
        let served = fabric.clone();
        self.tasks.spawn(async move {
            if let Err(error) = api::serve(listener, served).await {
                tracing::error!(%error, "the API ended");
            }
        });
        let watched = fabric.clone();
        self.tasks.spawn(async move {
            loop {
                failed_port.notified().await;
                while let Some(sentence) = watched.cables.event() {
                    watched.notice(sentence);
                }
            }
        });
        let turn = Arc::new(Semaphore::new(QUESTIONS));
        for index in 0..fabric.switches.len() {
            let (followed, turn) = (fabric.clone(), turn.clone());
            self.tasks
                .spawn(async move { followed.switches[index].follow(&turn, &followed.news).await });
            self.tasks.spawn(fabric.clone().follow_vm(index));
        }
        if !fabric.switches.is_empty() {
            self.tasks.spawn(fabric.clone().judge());
        }
    }

    /// Takes everything away again: switches, cables, and what was done to the host.
    ///
    /// # Errors
    /// What could not be undone; `ikv-fabric clean` tries again.
    pub async fn take_down(mut self) -> Result<(), ApplyError> {
        self.tasks.shutdown().await;
        if let Some(fabric) = &self.fabric {
            fabric.ready.store(false, Ordering::Relaxed);
            join_all(fabric.switches.iter().map(|switch| switch.vm().stop())).await;
        }
        // Devices first: removing all at once is fast, closing the descriptor of each is not.
        let applied = self
            .applied
            .lock()
            .expect("no holder of this lock can panic")
            .take();
        let undone = applied.map_or(Ok(()), Applied::undo);
        if let Some(fabric) = &self.fabric {
            fabric.cables.stop();
        }
        if undone.is_ok()
            && let Some(lock) = self.lock.take()
            && let Err(error) = lock.release()
        {
            tracing::warn!(%error);
        }
        undone
    }
}

/// Everything that would get in the way, before anything is touched.
fn look_ahead(
    options: &Options,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(), BringUpError> {
    let findings = preflight(&options.config, &options.topology, options.switches, paths)?;
    let (errors, rest): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|found| found.severity == Severity::Error);
    for found in rest
        .iter()
        .filter(|found| found.severity == Severity::Warning)
    {
        progress.note(&format!("  ! {}\n    {}", found.what, found.remedy));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(BringUpError::Preflight(errors))
    }
}

/// Everything that would get in the way of a fabric; reads only.
///
/// # Errors
/// When its owner is unknown.
pub fn preflight(
    config: &Config,
    topology: &Topology,
    switches: Switches,
    paths: &StatePaths,
) -> Result<Vec<Finding>, NoSuchUser> {
    let owner = Person::find(config.owner.as_ref())?;
    let mut programs = FOR_PANEL.to_vec();
    let mut memory_mib = 0;
    if switches == Switches::Vm {
        programs.extend(FOR_SWITCHES);
        memory_mib = u64::from(config.vm.memory.mib()) * topology.switches.len() as u64;
        let image = image::Wanted::new(&config.image);
        if image.is_ok_and(|image| image.built().is_none()) {
            programs.extend(FOR_IMAGE);
        }
    }
    Ok(preflight::check(&Needs {
        paths,
        host: &host_input(topology, &owner),
        programs: &programs,
        memory_mib,
    }))
}

fn findings_text(findings: &[Finding]) -> String {
    let text = |found: &Finding| match found.remedy.as_str() {
        "" => found.what.clone(),
        remedy => format!("{}; {remedy}", found.what),
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Before a file is made, so that it is removed at the end, come what may.
fn write_down(applied: &SharedApplied, path: &Path) -> Result<(), ApplyError> {
    let mut applied = applied.lock().expect("no holder of this lock can panic");
    applied
        .as_mut()
        .map_or(Ok(()), |applied| applied.will_create(path))
}

fn clean_up_before(
    running: &mut Running,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(), BringUpError> {
    let lock = running.lock.insert(Lock::acquire(paths)?);
    if let Some(cleaned) = apply::clean(lock)? {
        progress.note(&format!(
            "  took away what the fabric with pid {} had left",
            cleaned.pid
        ));
    }
    Ok(())
}

fn host_input(topology: &Topology, owner: &Person) -> HostPlanInput {
    let host = &topology.host;
    HostPlanInput {
        taps: topology
            .ends()
            .filter(|found| found.end.owner != EndOwner::Host)
            .map(|found| TapPlan {
                name: found.end.tap.clone(),
                alias: found.end.alias.clone(),
            })
            .collect(),
        tap_mtu: MTU.into(),
        tap_owner: Some(owner.uid),
        host: Some(HostLinkPlan {
            name: host.name.clone(),
            mac: host.mac.0,
            mtu: MTU.into(),
            address: host.address,
            peer: host.peer,
            range: host.range,
            snat: match host.snat {
                Snat::Masquerade => plan::Snat::Masquerade,
                Snat::Address(address) => plan::Snat::Address(address),
            },
            ipv6_forwarding: host.ipv6_forwarding,
        }),
    }
}

fn host_words(topology: &Topology) -> String {
    let host = &topology.host;
    format!(
        "{} {}, route to {} via {}",
        host.name, host.address, host.range, host.peer
    )
}

/// What the switches will run on.
struct Machine {
    image: image::ImagePaths,
    accel: accel::Accel,
    launcher: Launcher,
}

async fn machine(config: &Config, progress: &Progress) -> Result<Machine, BringUpError> {
    let wanted = match config.vm.accel {
        crate::config::Accel::Auto => accel::Wanted::Auto,
        crate::config::Accel::Kvm => accel::Wanted::Kvm,
        crate::config::Accel::Tcg => accel::Wanted::Tcg,
    };
    let decision = accel::decide(wanted, &Facts::read())?;
    let mut stage = progress.stage("image");
    let image = image::ensure(&config.image, |news| stage.update(&news.to_string())).await?;
    stage.done(
        &image
            .root
            .parent()
            .unwrap_or(&image.root)
            .display()
            .to_string(),
    );
    let launcher = Launcher::probe(Arc::new(open_switch_tap)).await?;
    progress.note(&format!(
        "  · switches run under {}: {}",
        decision.accel.name(),
        decision.reason
    ));
    Ok(Machine {
        image,
        accel: decision.accel,
        launcher,
    })
}

fn open_switch_tap(name: &str) -> std::io::Result<OwnedFd> {
    open_tap(
        name,
        TapFlags {
            vnet_hdr: true,
            exclusive: false,
            nonblocking: true,
        },
    )
}

async fn start_switches(
    options: &Options,
    owner: &Person,
    machine: Machine,
    applied: &SharedApplied,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(Vec<Switch>, PathBuf), BringUpError> {
    let Options {
        config, topology, ..
    } = options;
    let stage = progress.stage("switches");
    let (ssh_folder, vm_folder) = (&paths.ssh, &paths.vms);
    for folder in [ssh_folder, vm_folder] {
        write_down(applied, folder)?;
        make_folder(folder)?;
    }
    let names = topology.switches.iter().map(|switch| switch.name.as_str());
    let key_folder = key_folder(config, paths);
    let keys = FabricKeys::load_or_create(&key_folder, names, Some((owner.uid, owner.gid)))
        .map_err(SeedsError::from)?;
    let mut wanted = config.ssh.authorized_keys.clone();
    if wanted.is_empty() {
        wanted = owner.key_files();
    }
    let common = Common {
        config,
        topology,
        keys,
        authorized: ssh::authorized_keys(&wanted).map_err(SeedsError::from)?,
        image: machine.image.clone().into(),
        cmdline: image::KERNEL_CMDLINE.into(),
        accel: machine.accel,
        folder: vm_folder.clone(),
    };
    let ssh_config = write_ssh_files(&common, ssh_folder)?;
    let known_hosts = ssh::known_hosts(&common.keys, &common.hosts());
    let mut specs = Vec::new();
    for index in 0..topology.switches.len() {
        specs.push(common.prepare(index, &known_hosts)?);
        tokio::task::yield_now().await;
    }
    let switches = specs
        .into_iter()
        .zip(&topology.switches)
        .map(|(spec, planned)| Switch::new(planned, Vm::start(spec, machine.launcher.clone())))
        .collect();
    stage.done("started");
    Ok((switches, ssh_config))
}

/// The default fabric's keys outlive it, so that nobody is warned of a changed host at the
/// next run; those of others live beside their socket.
fn key_folder(config: &Config, paths: &StatePaths) -> PathBuf {
    match &config.ssh.key_dir {
        Some(folder) => folder.clone(),
        None if paths.socket == Path::new("/run/ikv-fabric/control.sock") => {
            "/var/lib/ikv-fabric/keys".into()
        }
        None => paths.ssh.join("keys"),
    }
}

fn write_ssh_files(common: &Common<'_>, folder: &Path) -> Result<PathBuf, SeedsError> {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text)
            .map_err(|source| SeedsError::File {
                path: path.clone(),
                source,
            })
            .map(|()| path)
    };
    let hosts = common.hosts();
    let known_hosts = write("known_hosts", ssh::known_hosts(&common.keys, &hosts))?;
    write(
        "config",
        ssh::client_config(&common.keys, &hosts, &known_hosts),
    )
}

/// Listens at `socket`, for its owner alone from the first moment on.
fn listen(socket: &Path, owner: &Person) -> Result<UnixListener, BringUpError> {
    let failed = |source| BringUpError::Listen {
        socket: socket.into(),
        source,
    };
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(socket);
    rustix::process::umask(before);
    let listener = bound.map_err(failed)?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    chown(socket, Some(uid), Some(gid)).map_err(|errno| failed(errno.into()))?;
    Ok(listener)
}

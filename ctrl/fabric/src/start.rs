//! From the plan to running switch VMs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::sys::tap::{TapFlags, open_tap};

use super::links::{SharedHostChanges, write_down};
use super::options::{BringUpError, Options};
use super::owner::Person;
use super::seeds::{Common, SeedsError, make_folder};
use super::switch::Switch;
use super::warm;
use crate::progress::Progress;
use host::address::index_of;
use host::lock::StatePaths;
use model::config::Config;
use model::topology::{Selection, Topology};
use vm::accel::{self, Facts};
use vm::image;
use vm::keys::FabricKeys;
use vm::states::States;
use vm::{Launcher, Vm, VmSpec, root_password, ssh};

/// What the switches will run on.
pub(super) struct Machine {
    image: image::ImagePaths,
    accel: accel::Accel,
    launcher: Launcher,
}

impl Machine {
    /// The image's largest file; the others stand beside it.
    pub(super) fn image_root(&self) -> PathBuf {
        self.image.root.clone()
    }
}

/// Finds out what the switches can run on, and builds their image if it is not there.
pub(super) async fn machine(config: &Config, progress: &Progress) -> Result<Machine, BringUpError> {
    let decision = accel::decide(config.vm.accel, &Facts::read())?;
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

/// The kernel would make a tap that is not there: one without guard, owner and cable.
fn open_switch_tap(name: &str) -> std::io::Result<OwnedFd> {
    index_of(name)?;
    open_tap(
        name,
        TapFlags {
            vnet_hdr: true,
            exclusive: false,
            nonblocking: true,
        },
    )
}

/// What the switches of a fabric are made with, for as long as it runs.
pub(super) struct Fleet {
    machine: Machine,
    owner: Person,
    paths: StatePaths,
    key_folder: PathBuf,
    /// Key lines of those who may log in.
    authorized: Vec<String>,
    /// Root's password as /etc/shadow has it, with one salt for all.
    password: Option<String>,
    /// What VMs start from, unless they are to boot.
    states: Option<Arc<States>>,
}

impl Fleet {
    fn new(
        config: &Config,
        owner: &Person,
        mut machine: Machine,
        paths: &StatePaths,
    ) -> Result<Self, SeedsError> {
        let warm = warm::wanted(config, machine.accel);
        let states = warm.then(|| warm::states(&machine.image, &machine.launcher));
        if let Some(states) = &states {
            machine.launcher.use_states(states.clone());
        }
        let mut wanted = config.ssh.authorized_keys.clone();
        if wanted.is_empty() {
            wanted = owner.key_files();
        }
        let password = config.ssh.root_password.as_deref();
        Ok(Fleet {
            machine,
            owner: owner.clone(),
            paths: paths.clone(),
            key_folder: key_folder(config, paths),
            authorized: ssh::authorized_keys(&wanted)?,
            password: password.map(root_password::hash).transpose()?,
            states,
        })
    }

    /// Makes the states that these VMs need and that are not there.
    async fn make_states(&self, specs: &[&VmSpec], progress: &Progress) {
        if let Some(states) = &self.states {
            let launcher = &self.machine.launcher;
            warm::make_missing(launcher, states, specs, &self.paths.vms, progress).await;
        }
    }

    /// An ssh_config(5) with one `Host` for each switch.
    pub(super) fn ssh_config(&self) -> PathBuf {
        self.paths.ssh.join("config")
    }

    /// What the switches of a topology have in common; makes the keys of those that have none.
    pub(super) fn common<'a>(
        &self,
        config: &'a Config,
        topology: &'a Topology,
    ) -> Result<Common<'a>, SeedsError> {
        let names = topology.switches.iter().map(|switch| switch.name.as_str());
        let owner = Some((self.owner.uid, self.owner.gid));
        Ok(Common {
            config,
            topology,
            keys: FabricKeys::load_or_create(&self.key_folder, names, owner)?,
            authorized: self.authorized.clone(),
            password: self.password.clone(),
            image: self.machine.image.clone().into(),
            cmdline: image::KERNEL_CMDLINE.into(),
            accel: self.machine.accel,
            warm: self.states.is_some(),
            folder: self.paths.vms.clone(),
        })
    }

    /// Writes what ssh needs to know of the switches.
    pub(super) fn write_ssh_files(&self, common: &Common<'_>) -> Result<(), SeedsError> {
        let write = |path: PathBuf, text: String| {
            let written = std::fs::write(&path, text);
            written.map_err(|source| SeedsError::File { path, source })
        };
        let hosts = common.hosts();
        let known_hosts = self.paths.ssh.join("known_hosts");
        write(
            self.ssh_config(),
            ssh::client_config(&common.keys, &hosts, &known_hosts),
        )?;
        write(known_hosts, ssh::known_hosts(&common.keys, &hosts))
    }

    /// Starts a switch's VM. `selection`: those that run.
    pub(super) fn start(
        &self,
        spec: VmSpec,
        topology: &Topology,
        selection: &Selection,
        index: usize,
    ) -> Arc<Switch> {
        let sessions = selection.sessions(topology, index);
        let vm = Vm::start(spec, self.machine.launcher.clone());
        Arc::new(Switch::new(&topology.switches[index], sessions, vm))
    }
}

/// Makes each switch's disk and starts its VM. Returns the switches by their places in the
/// topology, and what they were made with.
pub(super) async fn start(
    options: &Options,
    owner: &Person,
    machine: Machine,
    applied: &SharedHostChanges,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(BTreeMap<usize, Arc<Switch>>, Fleet), BringUpError> {
    let Options {
        config,
        topology,
        switches,
        ..
    } = options;
    write_down(applied, &paths.ssh)?;
    make_folder(&paths.ssh)?;
    let fleet = Fleet::new(config, owner, machine, paths)?;
    let common = fleet.common(config, topology)?;
    fleet.write_ssh_files(&common)?;
    let mut specs = Vec::new();
    for index in switches.iter() {
        specs.push((index, common.prepare(index)?));
        tokio::task::yield_now().await;
    }
    if common.warm {
        let specs: Vec<_> = specs.iter().map(|(_, spec)| spec).collect();
        fleet.make_states(&specs, progress).await;
    }
    let stage = progress.stage("switches");
    let start = |(index, spec)| (index, fleet.start(spec, topology, switches, index));
    let switches = specs.into_iter().map(start).collect();
    stage.done("started");
    Ok((switches, fleet))
}

/// The default fabric's keys outlive it, so that nobody is warned of a changed host at the
/// next run; those of others live beside their socket.
pub(super) fn key_folder(config: &Config, paths: &StatePaths) -> PathBuf {
    match &config.ssh.key_dir {
        Some(folder) => folder.clone(),
        None if paths.socket == Path::new("/run/ikv-fabric/control.sock") => {
            "/var/lib/ikv-fabric/keys".into()
        }
        None => paths.ssh.join("keys"),
    }
}

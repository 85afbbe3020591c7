//! From the plan to running switch VMs.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::sys::tap::{TapFlags, open_tap};

use super::links::{SharedApplied, write_down};
use super::options::{BringUpError, Options};
use super::owner::Person;
use super::seeds::{Common, SeedsError, make_folder};
use super::switch::Switch;
use crate::config::Config;
use crate::host::address::index_of;
use crate::image;
use crate::lock::StatePaths;
use crate::progress::Progress;
use crate::vm::accel::{self, Facts};
use crate::vm::keys::FabricKeys;
use crate::vm::{Launcher, Vm, ssh};

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

/// Makes each switch's disk and starts its VM. Returns the switches by their places in the
/// topology, and the ssh_config for them.
pub(super) async fn start(
    options: &Options,
    owner: &Person,
    machine: Machine,
    applied: &SharedApplied,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<(BTreeMap<usize, Switch>, PathBuf), BringUpError> {
    let Options {
        config, topology, ..
    } = options;
    let stage = progress.stage("switches");
    let (ssh_folder, vm_folder) = (&paths.ssh, &paths.vms);
    write_down(applied, ssh_folder)?;
    make_folder(ssh_folder)?;
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
    for index in options.switches.iter() {
        specs.push((index, common.prepare(index, &known_hosts)?));
        tokio::task::yield_now().await;
    }
    let switches = specs
        .into_iter()
        .map(|(index, spec)| {
            let sessions = options.switches.sessions(topology, index);
            let vm = Vm::start(spec, machine.launcher.clone());
            (index, Switch::new(&topology.switches[index], sessions, vm))
        })
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

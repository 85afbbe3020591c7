//! What determines each switch: the specification of its VM and the contents of its own disk.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use frr_conf::SwitchConf;
use sha2::{Digest, Sha256};

use crate::files::{FileError, make_folder};
use crate::jail;
use crate::reconfigure::SwitchMake;
use model::config::{Config, Listen};
use model::plugging::PlugKind;
use model::topology::{PortKind, Switch, Topology};
use vm::accel::Accel;
use vm::image;
use vm::keys::{FabricKeys, KeyError};
use vm::seed::{self, SeedError, SeedFile};
use vm::shape;
use vm::{Display, Image, NicBackend, NicSpec, VmSpec, ssh};

/// Why a switch's disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SeedsError {
    /// The fabric's SSH keys could not be read or created.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The keys of those who may log in could not be read.
    #[error(transparent)]
    AuthorizedKeys(#[from] ssh::AuthorizedKeysError),
    /// A switch's configuration cannot be rendered.
    #[error("{switch}: {reason}")]
    Conf {
        /// The switch's name, such as `leaf1`.
        switch: String,
        /// What is wrong with its configuration.
        reason: String,
    },
    /// Root's password cannot be hashed.
    #[error(transparent)]
    Password(#[from] vm::root_password::HashError),
    /// The archive for the disk cannot be made.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// A folder or file could not be created.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What the disks and VMs of all switches share.
pub(crate) struct SwitchMaker<'a> {
    pub(crate) config: &'a Config,
    pub(crate) topology: &'a Topology,
    pub(crate) keys: FabricKeys,
    pub(crate) authorized: Vec<String>,
    /// Root's password hash for /etc/shadow.
    pub(crate) password: Option<String>,
    pub(crate) image: Image,
    pub(crate) cmdline: String,
    pub(crate) accel: Accel,
    /// Whether VMs start from saved states.
    pub(crate) warm: bool,
    /// The folder that contains a folder for each VM.
    pub(crate) folder: PathBuf,
}

impl SwitchMaker<'_> {
    /// The names and addresses by which the switches are known to each other and to ssh.
    pub(crate) fn hosts(&self) -> Vec<ssh::Host> {
        self.topology
            .switches
            .iter()
            .map(|switch| self.host(switch))
            .collect()
    }

    fn host(&self, switch: &Switch) -> ssh::Host {
        let net = &self.topology.net;
        let here = |index: usize| self.topology.switches[index].name == switch.name;
        let mut others: Vec<IpAddr> = Vec::new();
        others.extend(
            net.dhcp
                .iter()
                .filter(|net| here(net.switch))
                .map(|net| IpAddr::from(net.router)),
        );
        others.extend(
            net.vlans
                .iter()
                .filter(|net| here(net.switch))
                .map(|net| IpAddr::from(net.router)),
        );
        if switch.ports.iter().any(|port| port.kind == PortKind::Host) {
            others.push(self.topology.host.peer.into());
        }
        ssh::Host {
            name: switch.name.clone(),
            address: switch.loopback.into(),
            others,
            link_locals: switch.ports.iter().map(|port| port.link_local).collect(),
        }
    }

    /// Writes a switch's disk and returns the specification of its VM. `index` is the switch's in
    /// the topology.
    pub(crate) fn prepare(&self, index: usize) -> Result<VmSpec, SeedsError> {
        let SwitchMake { spec, files, .. } = self.make(index)?;
        make_folder(&spec.run_dir)?;
        seed::write(&spec.seed, &files)?;
        Ok(spec)
    }

    /// The specification of a switch's VM.
    fn spec(&self, index: usize) -> VmSpec {
        let switch = &self.topology.switches[index];
        let run_dir = self.folder.join(&switch.name);
        let vm = &self.config.vm;
        VmSpec {
            name: switch.name.clone(),
            memory_mib: image::switch_memory(self.config).mib(),
            vcpus: vm.cpus,
            accel: self.accel,
            cpu: vm.cpu.clone(),
            uid: jail::vm_uid(self.config, index),
            image: self.image.clone(),
            cmdline: self.cmdline.clone(),
            seed: run_dir.join("seed.tar"),
            template: self.warm.then(|| template_files(switch)),
            run_dir,
            display: match self.config.vnc.listen {
                Listen::Off => Display::None,
                Listen::Unix => Display::Open,
                Listen::Tcp => Display::Password,
            },
            bmc: self.config.ipmi.enabled,
            nics: switch
                .ports
                .iter()
                .map(|port| NicSpec {
                    mac: port.mac,
                    backend: match vm.nic {
                        PlugKind::VhostUser => NicBackend::VhostUser,
                        PlugKind::Tap => NicBackend::Tap {
                            name: port.tap.clone(),
                        },
                    },
                })
                .collect(),
        }
    }

    /// The complete make of a switch.
    pub(crate) fn make(&self, index: usize) -> Result<SwitchMake, SeedsError> {
        let switch = &self.topology.switches[index];
        let conf = self.topology.switch_conf(switch);
        let conf = conf.map_err(|error| SeedsError::Conf {
            switch: switch.name.clone(),
            reason: error.to_string(),
        })?;
        Ok(SwitchMake {
            spec: self.spec(index),
            files: self.files(switch, &conf)?,
            conf,
        })
    }

    /// The files on a switch's disk.
    fn files(&self, switch: &Switch, conf: &SwitchConf) -> Result<Vec<SeedFile>, SeedsError> {
        let known_hosts = ssh::known_hosts(&self.keys, &self.hosts());
        let rendered = frr_conf::render(conf).map_err(|error| SeedsError::Conf {
            switch: switch.name.clone(),
            reason: error.to_string(),
        })?;
        let mut files: Vec<_> = rendered.into_iter().map(SeedFile::from).collect();
        files.extend(ssh::seed_files(
            &self.keys,
            &switch.name,
            &self.authorized,
            &known_hosts,
        ));
        files.push(SeedFile {
            path: "etc/machine-id".into(),
            mode: 0o444,
            bytes: machine_id(&self.keys, &switch.name),
        });
        if let Some(hash) = &self.password {
            files.push(SeedFile {
                path: "etc/ikv/shadow-root".into(),
                mode: 0o600,
                bytes: hash.clone().into_bytes(),
            });
        }
        Ok(files)
    }
}

/// The seed of a switch's template: its NICs by their addresses in the template, and the kernel
/// settings that must be in place before the NICs appear. It contains nothing secret and nothing
/// specific to the switch.
fn template_files(switch: &Switch) -> Vec<SeedFile> {
    let file = |path: &str, text: String| SeedFile {
        path: path.into(),
        mode: 0o644,
        bytes: text.into_bytes(),
    };
    let mut nics = String::new();
    for (index, port) in switch.ports.iter().enumerate() {
        // Writing to a String cannot fail.
        _ = writeln!(nics, "{} {}", shape::mac(index), port.nic);
    }
    vec![
        file("etc/ikv/sysctl.conf", frr_conf::SYSCTL.into()),
        file(shape::MARK, String::new()),
        file("etc/hostname", "template\n".into()),
        file("etc/ikv/nics", nics),
        file("etc/ikv/network.batch", "link set dev lo up\n".into()),
    ]
}

/// The machine-id(5), the same at every start of this switch of this fabric. It must not be derived
/// from public data, because programs treat it as a secret.
fn machine_id(keys: &FabricKeys, switch: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(b"machine-id of ");
    hasher.update(keys.hosts[switch].private.as_bytes());
    let mut text = String::new();
    for byte in &hasher.finalize()[..16] {
        // Writing to a String cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    text.into_bytes()
}

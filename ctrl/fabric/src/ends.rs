//! What each end of a cable is made of: a tap, a socket, both or neither.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dataplane::port::{Packet, Tap};
use dataplane::vhost_sockets::Role;
use dataplane::{Port, PortError};

use super::cables::{CablesError, Planned, PlannedEnd, PlannedSocket};
use super::owner::Person;
use super::seeds::{SeedsError, make_folder};
use super::sockets::{listen, make_closed_folder};
use host::execute::HostTaps;
use host::lock::StatePaths;
use model::config::Config;
use model::plugging::PlugKind;
use model::topology::{self, End, EndBackend, MTU, Selection, Topology};
use vm::{NIC_FOLDER, nic_socket_name};

/// Where the sockets of a fabric are, and for whom.
pub(super) struct Sockets<'a> {
    config: &'a Config,
    topology: &'a Topology,
    switches: &'a Selection,
    paths: &'a StatePaths,
    owner: &'a Person,
}

impl<'a> Sockets<'a> {
    pub(super) fn new(
        config: &'a Config,
        topology: &'a Topology,
        switches: &'a Selection,
        paths: &'a StatePaths,
        owner: &'a Person,
    ) -> Self {
        Sockets {
            config,
            topology,
            switches,
            paths,
            owner,
        }
    }

    /// Makes all folders. They must be in the journal already.
    pub(super) fn make_folders(&self) -> Result<(), SeedsError> {
        make_folder(&self.paths.vhost)?;
        if !self.switches.is_empty() {
            make_folder(&self.paths.vms)?;
        }
        let mut switches = self.switches.iter();
        switches.try_for_each(|switch| self.make_folder_of(switch))
    }

    /// Makes the folder of one switch that runs.
    pub(super) fn make_folder_of(&self, switch: usize) -> Result<(), SeedsError> {
        if self.config.vm.nic != PlugKind::VhostUser {
            return Ok(());
        }
        let folder = self.folder_of(switch);
        make_folder(&folder)?;
        let nics = folder.join(NIC_FOLDER);
        make_closed_folder(&nics, self.config.vm.uid_of(switch))
            .map_err(|source| SeedsError::File { path: nics, source })
    }

    /// Where the files of one switch are.
    pub(super) fn folder_of(&self, switch: usize) -> PathBuf {
        self.paths.vms.join(&self.topology.switches[switch].name)
    }

    /// Opens the ports and sockets of every cable. The host's ends are the taps given.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub(super) fn open(&self, mut host_taps: HostTaps) -> Result<Vec<Planned>, CablesError> {
        let cables = self.topology.cables.iter();
        let open = |cable| self.open_one(cable, &mut host_taps);
        cables.map(open).collect()
    }

    /// Opens the ports and sockets of one cable; see [`Sockets::open`].
    ///
    /// # Errors
    /// The first that cannot be opened; nothing is left of the other then.
    pub(super) fn open_one(
        &self,
        cable: &topology::Cable,
        host_taps: &mut HostTaps,
    ) -> Result<Planned, CablesError> {
        let mut end = |end: &End| self.end(&cable.name, end, host_taps);
        let a = end(&cable.a)?;
        let b = end(&cable.b).inspect_err(|_| self.forget_end(&cable.a))?;
        Ok(Planned {
            name: cable.name.clone(),
            ends: [a, b],
        })
    }

    /// Removes the sockets of a cable that is unplugged, so that others can take their places.
    pub(super) fn forget(&self, cable: &topology::Cable) {
        for (_, end) in cable.ends() {
            self.forget_end(end);
        }
    }

    fn forget_end(&self, end: &End) {
        let Some(path) = self.socket(end) else {
            return;
        };
        for path in [aside(&path), path] {
            match std::fs::remove_file(&path) {
                // It is one of the two.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display());
                }
                _ => {}
            }
        }
    }

    /// Where vhost-user front ends plug in at an end.
    fn socket(&self, end: &End) -> Option<PathBuf> {
        match EndBackend::of(end.owner, self.switches, self.config.vm.nic) {
            EndBackend::Anybody => Some(self.paths.vhost_socket(&end.tap)),
            EndBackend::VmSocket { switch, port } => {
                let nics = self.folder_of(switch).join(NIC_FOLDER);
                Some(nics.join(nic_socket_name(port)))
            }
            EndBackend::Host | EndBackend::Nobody | EndBackend::VmTap => None,
        }
    }

    fn end(
        &self,
        cable: &str,
        end: &End,
        host_taps: &mut HostTaps,
    ) -> Result<PlannedEnd, CablesError> {
        let name = end.tap.clone();
        let (port, socket) = match EndBackend::of(end.owner, self.switches, self.config.vm.nic) {
            EndBackend::Host => {
                let port = match host_taps.remove(&name) {
                    Some(tap) => host_port(cable, &name, tap)?,
                    None => netdev(cable, &name)?,
                };
                (Some(port), None)
            }
            EndBackend::Nobody => (None, None),
            EndBackend::VmTap => (Some(netdev(cable, &name)?), None),
            EndBackend::Anybody => {
                let user = (self.owner.uid, self.owner.gid);
                (Some(netdev(cable, &name)?), Some((user, true)))
            }
            EndBackend::VmSocket { switch, .. } => {
                let uid = self.config.vm.uid_of(switch);
                (None, Some(((uid, uid), false)))
            }
        };
        let socket = self.socket(end).zip(socket);
        let socket = socket.map(|(path, (user, aside))| match listen(&path, user) {
            Ok(listener) => Ok(PlannedSocket {
                role: Role::Server(listener),
                mtu: Some(MTU),
                file: aside.then_some(path),
            }),
            Err(source) => Err(CablesError::Socket { path, source }),
        });
        Ok(PlannedEnd {
            name,
            port,
            socket: socket.transpose()?,
        })
    }
}

/// Where a socket's file is while its cable is cut.
pub(super) fn aside(file: &Path) -> PathBuf {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".cut");
    aside.into()
}

fn host_port(cable: &str, name: &str, tap: OwnedFd) -> Result<Port, CablesError> {
    Tap::from_fd(tap)
        .map(Port::Tap)
        .map_err(|source| CablesError::Port {
            cable: cable.into(),
            source: PortError::Refused {
                name: name.into(),
                action: "set its offloads",
                source,
            },
        })
}

/// Opens the device behind an end.
pub(super) fn netdev(cable: &str, name: &str) -> Result<Port, CablesError> {
    Packet::open(name)
        .map(Port::Packet)
        .map_err(|source| CablesError::Port {
            cable: cable.into(),
            source,
        })
}

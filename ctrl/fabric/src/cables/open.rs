//! What each end of a cable consists of: a tap, a socket, both or neither.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dataplane::port::Tap;
use dataplane::vhost_sockets::Role;
use dataplane::{Port, PortError};

use super::error::CablesError;
use super::plan::{PlannedCable, PlannedEnd, PlannedSocket, open_netdev};
use crate::files::{self, Clients, FileError, listen, make_closed_folder, make_folder};
use crate::jail;
use crate::owner::Person;
use host::execute::HostTaps;
use host::lock::StatePaths;
use model::difference::FabricPlan;
use model::plugging::PlugKind;
use model::topology::{self, End, EndBackend, MTU};
use vm::{NIC_FOLDER, nic_socket_name};

/// Opens the ports and sockets of a plan's cables.
pub(crate) struct CableOpener<'a> {
    plan: &'a FabricPlan,
    paths: &'a StatePaths,
    owner: &'a Person,
}

impl<'a> CableOpener<'a> {
    pub(crate) fn new(plan: &'a FabricPlan, paths: &'a StatePaths, owner: &'a Person) -> Self {
        CableOpener { plan, paths, owner }
    }

    /// Creates the folders of all sockets. The journal must contain them already.
    ///
    /// # Errors
    /// When a folder cannot be created.
    pub(crate) fn make_folders(&self) -> Result<(), FileError> {
        make_folder(&self.paths.vhost)?;
        if !self.plan.switches.is_empty() {
            make_folder(&self.paths.vms)?;
        }
        let mut switches = self.plan.switches.iter();
        switches.try_for_each(|switch| self.make_folder_of(switch))
    }

    /// Creates the folder for the sockets of one switch that runs.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub(crate) fn make_folder_of(&self, switch: usize) -> Result<(), FileError> {
        let config = &self.plan.config;
        if config.vm.nic != PlugKind::VhostUser {
            return Ok(());
        }
        let folder = self.folder_of(switch);
        make_folder(&folder)?;
        make_closed_folder(&folder.join(NIC_FOLDER), jail::vm_uid(config, switch))
    }

    /// The folder with the files of one switch.
    pub(crate) fn folder_of(&self, switch: usize) -> PathBuf {
        let name = &self.plan.topology.switches[switch].name;
        self.paths.vms.join(name)
    }

    /// Opens the ports and sockets of every cable. The host's own ends use the taps given.
    ///
    /// # Errors
    /// The first port or socket that cannot be opened.
    pub(crate) fn open(&self, mut host_taps: HostTaps) -> Result<Vec<PlannedCable>, CablesError> {
        let cables = self.plan.topology.cables.iter();
        let open = |cable| self.open_one(cable, &mut host_taps);
        cables.map(open).collect()
    }

    /// Opens the ports and sockets of one cable. See [`CableOpener::open`].
    ///
    /// # Errors
    /// The first port or socket that cannot be opened. The cable's other end is closed again.
    pub(crate) fn open_one(
        &self,
        cable: &topology::Cable,
        host_taps: &mut HostTaps,
    ) -> Result<PlannedCable, CablesError> {
        let mut end = |end: &End| self.end(&cable.name, end, host_taps);
        let a = end(&cable.a)?;
        let b = end(&cable.b).inspect_err(|_| self.forget_end(&cable.a))?;
        Ok(PlannedCable {
            name: cable.name.clone(),
            ends: [a, b],
        })
    }

    /// Removes the sockets of an unplugged cable, so that new ones can use their paths.
    pub(crate) fn forget(&self, cable: &topology::Cable) {
        for (_, end) in cable.ends() {
            self.forget_end(end);
        }
    }

    fn forget_end(&self, end: &End) {
        let Some(path) = self.socket(end) else {
            return;
        };
        for path in [moved_away(&path), path] {
            // Only one of the two paths exists, depending on whether the cable is cut.
            files::remove(&path);
        }
    }

    fn backend(&self, end: &End) -> EndBackend {
        EndBackend::of(end.owner, &self.plan.switches, self.plan.config.vm.nic)
    }

    /// The path where vhost-user front ends connect at an end. `None` if the end has no socket.
    fn socket(&self, end: &End) -> Option<PathBuf> {
        match self.backend(end) {
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
        let (port, socket) = match self.backend(end) {
            EndBackend::Host => {
                let port = match host_taps.remove(&name) {
                    Some(tap) => host_port(cable, &name, tap)?,
                    None => open_netdev(cable, &name)?,
                };
                (Some(port), None)
            }
            EndBackend::Nobody => (None, None),
            EndBackend::VmTap => (Some(open_netdev(cable, &name)?), None),
            EndBackend::Anybody => (
                Some(open_netdev(cable, &name)?),
                Some((Clients::guests(self.owner), true)),
            ),
            EndBackend::VmSocket { switch, .. } => {
                let uid = jail::vm_uid(&self.plan.config, switch);
                (None, Some((Clients::User((uid, uid)), false)))
            }
        };
        let socket = self.socket(end).zip(socket);
        let socket = socket.map(|(path, (clients, aside))| match listen(&path, clients) {
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

/// The path of a socket's file while its cable is cut.
pub(crate) fn moved_away(file: &Path) -> PathBuf {
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

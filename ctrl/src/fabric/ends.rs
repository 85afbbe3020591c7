//! What each end of a cable is made of: a tap, a socket, both or neither.

use std::os::fd::OwnedFd;

use dataplane::jack::Role;
use dataplane::port::{Packet, Tap};
use dataplane::{Port, PortError};

use super::cables::{CablesError, Planned, PlannedEnd, PlannedJack};
use super::owner::Person;
use super::seeds::{SeedsError, make_folder};
use super::sockets::{listen, make_closed_folder};
use crate::config::{Config, Nic};
use crate::lock::StatePaths;
use crate::topology::{self, End, EndOwner, MTU, Selection, Topology};
use crate::vm::{NIC_FOLDER, nic_socket_name};

/// Who holds an end of a cable, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The host, by a tap that this process opened.
    Host,
    /// Whoever plugs in: there is a tap and, beside it, a vhost-user socket.
    Anybody,
    /// Nobody, by nothing.
    Nobody,
    /// A VM of ours, by a tap.
    VmTap,
    /// A VM of ours, by a vhost-user socket; nothing on the host.
    VmSocket {
        /// The switch's place in the topology.
        switch: usize,
        /// The port, from 0.
        port: usize,
    },
}

impl Holder {
    pub(crate) fn of(owner: EndOwner, switches: &Selection, nic: Nic) -> Self {
        match (owner, nic) {
            (EndOwner::Host, _) => Holder::Host,
            (EndOwner::Open, _) => Holder::Nobody,
            (EndOwner::Server { .. }, _) => Holder::Anybody,
            (EndOwner::Switch { switch, .. }, _) if !switches.contains(switch) => Holder::Anybody,
            (EndOwner::Switch { .. }, Nic::Tap) => Holder::VmTap,
            (EndOwner::Switch { switch, port }, Nic::VhostUser) => {
                Holder::VmSocket { switch, port }
            }
        }
    }

    /// Whether there is a network device of the end's name.
    pub(crate) fn has_device(self) -> bool {
        !matches!(self, Holder::VmSocket { .. } | Holder::Nobody)
    }

    /// Whether the fabric makes a tap that waits for somebody to open it.
    pub(crate) fn has_waiting_tap(self) -> bool {
        matches!(self, Holder::Anybody | Holder::VmTap)
    }
}

/// Where the sockets of a fabric are, and for whom.
pub(super) struct Sockets<'a> {
    config: &'a Config,
    topology: &'a Topology,
    switches: &'a Selection,
    paths: &'a StatePaths,
    owner: &'a Person,
}

impl<'a> Sockets<'a> {
    /// Makes the folders. They must be in the journal already.
    pub(super) fn new(
        config: &'a Config,
        topology: &'a Topology,
        switches: &'a Selection,
        paths: &'a StatePaths,
        owner: &'a Person,
    ) -> Result<Self, SeedsError> {
        make_folder(&paths.vhost)?;
        if !switches.is_empty() {
            make_folder(&paths.vms)?;
        }
        let sockets = Sockets {
            config,
            topology,
            switches,
            paths,
            owner,
        };
        if config.vm.nic == Nic::VhostUser {
            for index in switches.iter() {
                let folder = paths.vms.join(&topology.switches[index].name);
                make_folder(&folder)?;
                let nics = folder.join(NIC_FOLDER);
                make_closed_folder(&nics, config.vm.uid_of(index))
                    .map_err(|source| SeedsError::File { path: nics, source })?;
            }
        }
        Ok(sockets)
    }

    /// Opens the ports and sockets of every cable. The host's end is the tap given.
    ///
    /// # Errors
    /// The first that cannot be opened.
    pub(super) fn open(&self, mut host_tap: Option<OwnedFd>) -> Result<Vec<Planned>, CablesError> {
        let mut planned = Vec::with_capacity(self.topology.cables.len());
        for topology::Cable { name, a, b, .. } in &self.topology.cables {
            let mut end = |end: &End| self.end(name, end, &mut host_tap);
            planned.push(Planned {
                name: name.clone(),
                ends: [end(a)?, end(b)?],
            });
        }
        Ok(planned)
    }

    fn end(
        &self,
        cable: &str,
        end: &End,
        host_tap: &mut Option<OwnedFd>,
    ) -> Result<PlannedEnd, CablesError> {
        let name = end.tap.clone();
        let (port, socket) = match Holder::of(end.owner, self.switches, self.config.vm.nic) {
            Holder::Host => {
                let port = match host_tap.take() {
                    Some(tap) => host_port(cable, &name, tap)?,
                    None => netdev(cable, &name)?,
                };
                (Some(port), None)
            }
            Holder::Nobody => (None, None),
            Holder::VmTap => (Some(netdev(cable, &name)?), None),
            Holder::Anybody => {
                let path = self.paths.vhost_socket(&name);
                let user = (self.owner.uid, self.owner.gid);
                let file = Some(path.clone());
                (Some(netdev(cable, &name)?), Some((path, user, file)))
            }
            Holder::VmSocket { switch, port } => {
                let uid = self.config.vm.uid_of(switch);
                let folder = self.paths.vms.join(&self.topology.switches[switch].name);
                let path = folder.join(NIC_FOLDER).join(nic_socket_name(port));
                (None, Some((path, (uid, uid), None)))
            }
        };
        let jack = socket.map(|(path, user, file)| match listen(&path, user) {
            Ok(listener) => Ok(PlannedJack {
                role: Role::Server(listener),
                mtu: Some(MTU),
                file,
            }),
            Err(source) => Err(CablesError::Socket { path, source }),
        });
        Ok(PlannedEnd {
            name,
            port,
            jack: jack.transpose()?,
        })
    }
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

//! The ports that a wire joins: [`PortSpec`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dataplane::Port;
use dataplane::port::{Packet, Tap};
use dataplane::vhost_sockets::Role;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::cables::error::CablesError;
use crate::files::{self, Clients};
use crate::owner::Person;
use host::folder;
use vm::spec::MAX_SOCKET_PATH;

/// The name of the wire's only cable.
pub(super) const WIRE: &str = "wire";

/// One end of the wire, as the user typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSpec {
    /// A tap, created if it does not exist. It keeps working when it is moved to another network
    /// namespace, and is removed with the wire.
    Tap(String),
    /// An existing network device. It may be down.
    Netdev(String),
    /// A vhost-user socket: this process listens, and the front end connects.
    VhostUser(String),
    /// A vhost-user socket at which the front end listens. This process connects as soon as it
    /// does.
    VhostUserClient(String),
}

impl PortSpec {
    /// The device's name, or the socket's path.
    pub fn name(&self) -> &str {
        match self {
            PortSpec::Tap(name)
            | PortSpec::Netdev(name)
            | PortSpec::VhostUser(name)
            | PortSpec::VhostUserClient(name) => name,
        }
    }

    /// The path, if the port is a vhost-user socket.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            PortSpec::Tap(_) | PortSpec::Netdev(_) => None,
            PortSpec::VhostUser(path) | PortSpec::VhostUserClient(path) => Some(Path::new(path)),
        }
    }

    pub(super) fn open(&self, owner: &Person) -> Result<Opened, CablesError> {
        let refused = |source| CablesError::Port {
            cable: WIRE.into(),
            source,
        };
        let (port, role) = match self {
            PortSpec::Tap(name) => {
                let tap = Tap::open(name).map_err(refused)?;
                let carrier = tap.as_fd().try_clone_to_owned();
                return Ok(Opened {
                    tap: Some(carrier.map_err(CablesError::Carrier)?),
                    port: Some(Port::Tap(tap)),
                    role: None,
                    file: None,
                });
            }
            PortSpec::Netdev(name) => {
                let port = Packet::open(name).map(Port::Packet).map_err(refused)?;
                (Some(port), None)
            }
            PortSpec::VhostUser(path) => {
                let path = Path::new(path);
                let listener = listen(path, owner).map_err(|source| CablesError::Socket {
                    path: path.into(),
                    source,
                })?;
                let file = OwnSocket::at(path);
                return Ok(Opened {
                    tap: None,
                    port: None,
                    role: Some(Role::Server(listener)),
                    file,
                });
            }
            PortSpec::VhostUserClient(path) => (None, Some(Role::Client(path.into()))),
        };
        Ok(Opened {
            tap: None,
            port,
            role,
            file: None,
        })
    }
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or_default();
        let kind = match kind {
            "tap" => PortSpec::Tap,
            "netdev" => PortSpec::Netdev,
            "vhost-user" => PortSpec::VhostUser,
            "vhost-user-client" => PortSpec::VhostUserClient,
            _ => return Err(not_a_port(text)),
        };
        if name.is_empty() {
            return Err(not_a_port(text));
        }
        let spec = kind(name.into());
        match spec.socket() {
            Some(path) if path.as_os_str().len() > MAX_SOCKET_PATH => Err(format!(
                "the socket's path {name} has {} bytes, Linux allows {}: name a shorter one",
                name.len(),
                MAX_SOCKET_PATH
            )),
            _ => Ok(spec),
        }
    }
}

fn not_a_port(text: &str) -> String {
    format!(
        "\"{text}\" is not a port: write tap:NAME, netdev:NAME, vhost-user:PATH or \
         vhost-user-client:PATH"
    )
}

/// An open port.
pub(super) struct Opened {
    /// A second descriptor of our tap, to set its carrier.
    pub(super) tap: Option<OwnedFd>,
    pub(super) port: Option<Port>,
    pub(super) role: Option<Role>,
    pub(super) file: Option<OwnSocket>,
}

/// Listens at `path`. Replaces a socket at which no program listens any longer.
fn listen(path: &Path, owner: &Person) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(there) if there.file_type().is_socket() => {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
                None,
            )?;
            // Only a refused connection proves that no program listens: the file is then left over
            // and may go.
            match connect(&socket, &SocketAddrUnix::new(path)?) {
                Err(rustix::io::Errno::CONNREFUSED) => folder::remove(path)?,
                _ => {
                    return Err(io::Error::other(
                        "another program listens there already; end it, or name another path",
                    ));
                }
            }
        }
        Ok(_) => {
            return Err(io::Error::other(
                "a file that is not a socket is there; move it away, or name another path",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    files::listen(path, Clients::owner(owner))
}

/// The file of a socket that this process created. Dropping this removes it, unless another file
/// has replaced it.
pub(super) struct OwnSocket {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl OwnSocket {
    fn at(path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        let meta = path.symlink_metadata().ok()?;
        Some(OwnSocket {
            path,
            device_and_inode: (meta.dev(), meta.ino()),
        })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let there = self.path.symlink_metadata();
        if there.is_ok_and(|meta| (meta.dev(), meta.ino()) == self.device_and_inode) {
            // The file may be gone, or its folder closed to us. Neither can be helped here.
            let _ = folder::remove(&self.path);
        }
    }
}

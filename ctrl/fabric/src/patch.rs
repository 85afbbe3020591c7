//! One cable without a datacenter around it: `ikv-fabric patch`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use dataplane::port::{Packet, Tap};
use dataplane::rights::keep;
use dataplane::sys::tap;
use dataplane::vhost_sockets::Role;
use dataplane::{PanelOptions, Port};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::cables::{CableEvent, Cables, CablesError, Planned, PlannedEnd, PlannedSocket};
use super::descriptors::make_room;
use super::impair::{CheckedBatch, Names};
use super::owner::Person;
use super::recorder::{self, Asked, Recorder, RecorderOptions};
use super::{capture, rights, sockets};
use api::capture::{CaptureRequest, CaptureStream};
use api::{
    ApiError, ApplyAnswer, ApplyRequest, Backend, CableBatchDone, CableChanged, CableReport,
    ConsoleStream, ExecAnswer, ExecRequest, IpmiAccess, LaneImpairment, NodeStatus, Peer,
    Positions, Recording, SshAccess, Status,
};
use host::lock::StatePaths;
use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::{Side, TopologyJson};
use vm::spec::MAX_SOCKET_PATH;

/// What the one cable is called.
const WIRE: &str = "wire";

/// One end of the wire, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortSpec {
    /// A tap, made if it is not there. It goes on working when it is moved to another network
    /// namespace, and goes away with the wire.
    Tap(String),
    /// A network device that exists. It may be down.
    Netdev(String),
    /// A vhost-user socket: we listen, the front end connects.
    VhostUser(String),
    /// A vhost-user socket at which the front end listens; we connect as soon as it does.
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

    /// The socket, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            PortSpec::Tap(_) | PortSpec::Netdev(_) => None,
            PortSpec::VhostUser(path) | PortSpec::VhostUserClient(path) => Some(Path::new(path)),
        }
    }

    fn open(&self, owner: &Person) -> Result<Opened, CablesError> {
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
            _ => return Err(no_port(text)),
        };
        if name.is_empty() {
            return Err(no_port(text));
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

fn no_port(text: &str) -> String {
    format!(
        "\"{text}\" is no port: write tap:NAME, netdev:NAME, vhost-user:PATH or \
         vhost-user-client:PATH"
    )
}

struct Opened {
    tap: Option<OwnedFd>,
    port: Option<Port>,
    role: Option<Role>,
    file: Option<OwnSocket>,
}

/// Listens at `path`. Where one that nobody listens at any more is left, it takes its place.
fn listen(path: &Path, owner: &Person) -> io::Result<UnixListener> {
    match path.symlink_metadata() {
        Ok(there) if there.file_type().is_socket() => {
            let socket = socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
                None,
            )?;
            match connect(&socket, &SocketAddrUnix::new(path)?) {
                Err(rustix::io::Errno::CONNREFUSED) => std::fs::remove_file(path)?,
                _ => {
                    return Err(io::Error::other(
                        "somebody listens there already; end that program, or name another path",
                    ));
                }
            }
        }
        Ok(_) => {
            return Err(io::Error::other(
                "something that is no socket is there; move it away, or name another path",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    sockets::listen(path, (owner.uid, owner.gid))
}

/// A socket's file that we made; removed when dropped, if it is still the same.
struct OwnSocket {
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
            // Gone, or in a folder that was closed meanwhile: there is nobody to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A wire while it runs.
pub struct Patch {
    cables: Cables,
    recorder: Option<Recorder>,
    ends: [PortSpec; 2],
    /// Second descriptors of the taps that we hold, for their carrier.
    taps: [Option<OwnedFd>; 2],
    _files: [Option<OwnSocket>; 2],
}

impl Patch {
    /// Joins two ports and gives up every right of root's that is not needed any more.
    /// `state` are the files beside the API's socket; `record`: with a flight recorder; `bell` is
    /// rung when [`Patch::notice`] has
    /// something to tell.
    ///
    /// # Errors
    /// When one cannot be opened or no worker can be started.
    pub fn plug(
        ports: &[PortSpec; 2],
        options: &PanelOptions,
        owner: &Person,
        state: &StatePaths,
        record: Option<RecorderOptions>,
        bell: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        make_room(1)?;
        let [a, b] = [ports[0].open(owner)?, ports[1].open(owner)?];
        let mut files = vec![state.folder.as_path()];
        files.extend(ports.iter().filter_map(PortSpec::socket));
        let clients = ports.iter().filter_map(|port| match port {
            PortSpec::VhostUserClient(path) => Some(Path::new(path)),
            _ => None,
        });
        let for_sockets = rights::for_files(&clients.collect::<Vec<_>>());
        let netdevs = ports.iter().any(|port| matches!(port, PortSpec::Netdev(_)));
        let end = |spec: &PortSpec, port, role: Option<Role>| PlannedEnd {
            name: spec.name().to_owned(),
            port,
            socket: role.map(|role| PlannedSocket {
                role,
                mtu: None,
                file: None,
            }),
        };
        let taps = [a.tap, b.tap];
        let planned = Planned {
            name: WIRE.into(),
            ends: [
                end(&ports[0], a.port, a.role),
                end(&ports[1], b.port, b.role),
            ],
        };
        let cables = Cables::plug(vec![planned], options, for_sockets, bell)?;
        let recorder = record.map(|options| {
            let names = recorder::Named {
                alias: &alias,
                between_switches: &|_| false,
            };
            Recorder::start(&cables, options, &names, &state.recorder)
        });
        keep(rights::for_patch(netdevs, &files)).map_err(CablesError::Rights)?;
        Ok(Patch {
            cables,
            recorder: recorder.transpose()?,
            ends: ports.clone(),
            taps,
            _files: [a.file, b.file],
        })
    }

    /// Something that the user should know, if there is.
    pub fn notice(&self) -> Option<String> {
        Some(match self.cables.event()? {
            CableEvent::Notice(notice) => notice,
            CableEvent::FrontEnd { side, plugged, .. } => {
                let end = self.ends[side as usize].name();
                let what = if plugged { "is plugged in" } else { "has left" };
                format!("a front end {what} at {end}")
            }
        })
    }

    /// Looks for what the recorder's triggers wait for, for ever, and tells of the dumps that were
    /// kept.
    pub async fn attend_recorder(&self, tell: impl Fn(String)) {
        match &self.recorder {
            Some(recorder) => recorder.attend(tell).await,
            None => std::future::pending().await,
        }
    }

    /// Frames and bytes that entered the wire, and frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        self.cables.traffic()
    }

    /// Closes both ports.
    pub fn stop(&self) {
        self.cables.stop();
    }

    /// Tells an end whether it has carrier. What could not be told, as a sentence.
    fn set_carrier(&self, side: Side, up: bool) -> Option<String> {
        let (end, tap) = (&self.ends[side as usize], &self.taps[side as usize]);
        self.cables.set_carrier(0, side, up);
        match tap {
            Some(tap) => tap::set_carrier(tap, up)
                .err()
                .map(|error| format!("the carrier of {} could not be set: {error}", end.name())),
            None => (!up && end.socket().is_none()).then(|| {
                format!(
                    "{} keeps its carrier; for whoever uses it this is a blackhole",
                    end.name()
                )
            }),
        }
    }
}

impl Names for Patch {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        let [a, b] = [self.ends[0].name(), self.ends[1].name()];
        let names = [WIRE, "wire:a", "wire:b", a, b];
        if names.contains(&name) {
            return Ok(0);
        }
        Err(ApiError::unknown(format!(
            "there is no cable \"{name}\" here: it is called {WIRE}, its ends {a} and {b}"
        )))
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        let [a, b] = [self.ends[0].name(), self.ends[1].name()];
        match name {
            name if name == "wire:a" || name == a => Ok((0, Side::A)),
            name if name == "wire:b" || name == b => Ok((0, Side::B)),
            _ => Err(ApiError::unknown(format!(
                "there is no port \"{name}\" here: the ends of the wire are {a} and {b}"
            ))),
        }
    }
}

fn alias(_: usize, side: Side) -> String {
    match side {
        Side::A => "wire:a".into(),
        Side::B => "wire:b".into(),
    }
}

fn no_switch<T>(node: &str) -> Result<T, ApiError> {
    Err(ApiError::conflict(format!(
        "there is no switch {node}: this is a single wire (`ikv-fabric patch`)"
    )))
}

impl Backend for Patch {
    fn status(&self) -> Status {
        Status {
            ready: true,
            nodes: Vec::new(),
            cables: self.cables.len(),
            workers: self.cables.workers(),
            applying: None,
        }
    }

    fn topology(&self) -> Result<TopologyJson, ApiError> {
        no_switch("in the plan")
    }

    async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        for name in names {
            Names::cable(self, name)?;
        }
        Ok(vec![self.cables.report(0)])
    }

    async fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> Result<CableChanged, ApiError> {
        let change = CableChange {
            cable: name.into(),
            state: Some(state),
            impair: None,
        };
        let done = self.change_cables(CableBatch {
            changes: vec![change],
        });
        Ok(CableChanged {
            notes: done.await?.notes,
            name: WIRE.into(),
            state,
        })
    }

    async fn impair(
        &self,
        name: &str,
        set: ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ApiError> {
        CheckedBatch::check(self, &self.cables, &CableBatch::of(name, set))?.apply(&self.cables)?;
        Ok(self.cables.impairments(0))
    }

    fn impairments(&self) -> Vec<LaneImpairment> {
        self.cables.all_impairments()
    }

    async fn change_cables(&self, step: CableBatch) -> Result<CableBatchDone, ApiError> {
        let planned = CheckedBatch::check(self, &self.cables, &step)?;
        let (at_ns, changed) = planned.apply(&self.cables)?;
        let ends = changed.into_iter().flat_map(|(_, state)| {
            [Side::A, Side::B].map(|side| (side, state != CableState::Down))
        });
        let notes = ends.filter_map(|(side, up)| self.set_carrier(side, up));
        Ok(CableBatchDone {
            at_ns,
            notes: notes.collect(),
        })
    }

    async fn apply(self: Arc<Self>, _: ApplyRequest, _: Peer) -> Result<ApplyAnswer, ApiError> {
        Err(ApiError::conflict(
            "a wire has no configuration to apply: `ikv-fabric cable` and `impair` change it",
        ))
    }

    fn positions(&self) -> Result<Positions, ApiError> {
        no_switch("to plug in at")
    }

    fn vm_args(&self, place: &str, _: &PlugOptions) -> Result<Vec<String>, ApiError> {
        no_switch(place)
    }

    fn ipmi(&self) -> Result<IpmiAccess, ApiError> {
        no_switch("with a BMC")
    }

    fn ssh(&self) -> Result<SshAccess, ApiError> {
        no_switch("to log in to")
    }

    async fn exec(&self, node: &str, _: ExecRequest) -> Result<ExecAnswer, ApiError> {
        no_switch(node)
    }

    async fn power(&self, node: &str, _: PowerAction) -> Result<NodeStatus, ApiError> {
        no_switch(node)
    }

    async fn console(&self, node: &str) -> Result<Box<dyn ConsoleStream>, ApiError> {
        no_switch(node)
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureStream, ApiError> {
        capture::start(&self.cables, self, alias, request)
    }

    fn recorder(&self) -> Result<impl Recording, ApiError> {
        Asked::of(self.recorder.as_ref(), |name| self.cable(name))
    }
}

//! One cable without a datacenter around it: `ikv-fabric patch`.

use std::os::unix::net::UnixStream;
use std::str::FromStr;

use dataplane::jack::Role;
use dataplane::port::{Packet, Tap};
use dataplane::{PanelOptions, Port, PortError};

use super::cables::{Cables, CablesError, Planned, PlannedEnd, PlannedJack};
use super::sockets;
use crate::api::{
    ApiError, Backend, CableChanged, CableReport, CableState, ConsoleStream, Exec, ExecAnswer,
    NodeStatus, PowerAction, SshAccess, Status,
};

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
    /// A socket that vhost-user front ends connect to, made here.
    VhostUser(String),
    /// A front end's socket that we connect to.
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

    /// Whether opening it takes root.
    pub fn needs_root(&self) -> bool {
        matches!(self, PortSpec::Tap(_) | PortSpec::Netdev(_))
    }

    fn open(&self) -> Result<Option<Port>, PortError> {
        match self {
            PortSpec::Tap(name) => Tap::open(name).map(Port::Tap).map(Some),
            PortSpec::Netdev(name) => Packet::open(name).map(Port::Packet).map(Some),
            PortSpec::VhostUser(_) | PortSpec::VhostUserClient(_) => Ok(None),
        }
    }

    fn jack(&self) -> Result<Option<PlannedJack>, CablesError> {
        let role = match self {
            PortSpec::Tap(_) | PortSpec::Netdev(_) => return Ok(None),
            PortSpec::VhostUserClient(path) => Role::Client(path.into()),
            PortSpec::VhostUser(path) => {
                // Left by one that was killed: nobody listens there.
                if UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                let user = rustix::process::geteuid().as_raw();
                let group = rustix::process::getegid().as_raw();
                let listener = sockets::listen(path.as_ref(), (user, group));
                Role::Server(listener.map_err(|source| CablesError::Socket {
                    path: path.into(),
                    source,
                })?)
            }
        };
        Ok(Some(PlannedJack { role, mtu: None }))
    }
}

impl FromStr for PortSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => {}
            Some(("tap", name)) => return Ok(PortSpec::Tap(name.into())),
            Some(("netdev", name)) => return Ok(PortSpec::Netdev(name.into())),
            Some(("vhost-user", path)) => return Ok(PortSpec::VhostUser(path.into())),
            Some(("vhost-user-client", path)) => return Ok(PortSpec::VhostUserClient(path.into())),
            Some(_) => {}
        }
        Err(format!(
            "\"{text}\" is no port: write tap:NAME, netdev:NAME, vhost-user:PATH or \
             vhost-user-client:PATH"
        ))
    }
}

/// A wire while it runs.
pub struct Patch {
    cables: Cables,
    ends: [String; 2],
    sockets: Vec<String>,
}

impl Patch {
    /// Joins two ports.
    ///
    /// # Errors
    /// When one cannot be opened or no worker can be started.
    pub fn plug(ports: &[PortSpec; 2], options: &PanelOptions) -> Result<Self, CablesError> {
        let ends = [ports[0].name().to_owned(), ports[1].name().to_owned()];
        let sockets = ports.iter().filter_map(|port| match port {
            PortSpec::VhostUser(path) => Some(path.clone()),
            _ => None,
        });
        let sockets = sockets.collect();
        let open = |spec: &PortSpec| {
            spec.open().map_err(|source| CablesError::Port {
                cable: WIRE.into(),
                source,
            })
        };
        let end = |spec: &PortSpec| {
            Ok::<_, CablesError>(PlannedEnd {
                name: spec.name().to_owned(),
                port: open(spec)?,
                jack: spec.jack()?,
            })
        };
        let planned = Planned {
            name: WIRE.into(),
            ends: [end(&ports[0])?, end(&ports[1])?],
        };
        Ok(Patch {
            cables: Cables::plug(vec![planned], options, || {})?,
            ends,
            sockets,
        })
    }

    /// Frames and bytes that entered the wire, and frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        self.cables.traffic()
    }

    /// Closes both ports.
    pub fn stop(&self) {
        self.cables.stop();
        for socket in &self.sockets {
            // Somebody else may have removed it.
            let _ = std::fs::remove_file(socket);
        }
    }

    fn known(&self, name: &str) -> Result<(), ApiError> {
        let names = [WIRE, "wire:a", "wire:b", &self.ends[0], &self.ends[1]];
        if names.contains(&name) {
            return Ok(());
        }
        let [a, b] = &self.ends;
        Err(ApiError::unknown(format!(
            "there is no cable \"{name}\" here: it is called {WIRE}, its ends {a} and {b}"
        )))
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
        }
    }

    fn topology(&self) -> Result<serde_json::Value, ApiError> {
        no_switch("in the plan")
    }

    fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        names.iter().try_for_each(|name| self.known(name))?;
        Ok(vec![self.cables.report(0)])
    }

    async fn set_cable(&self, name: &str, state: CableState) -> Result<CableChanged, ApiError> {
        self.known(name)?;
        self.cables.set_state(0, state).map_err(ApiError::failed)?;
        let notes = match state {
            CableState::Down => {
                vec!["the ends keep their carrier; for them this is a blackhole".into()]
            }
            CableState::Up | CableState::Blackhole => Vec::new(),
        };
        Ok(CableChanged {
            name: WIRE.into(),
            state,
            notes,
        })
    }

    fn vm_args(&self, place: &str) -> Result<Vec<String>, ApiError> {
        no_switch(place)
    }

    fn ssh(&self) -> Result<SshAccess, ApiError> {
        no_switch("to log in to")
    }

    async fn exec(&self, node: &str, _: Exec) -> Result<ExecAnswer, ApiError> {
        no_switch(node)
    }

    async fn power(&self, node: &str, _: PowerAction) -> Result<NodeStatus, ApiError> {
        no_switch(node)
    }

    async fn console(&self, node: &str) -> Result<Box<dyn ConsoleStream>, ApiError> {
        no_switch(node)
    }
}

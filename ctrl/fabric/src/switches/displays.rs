//! The switches' consoles over VNC. This process listens and hands each connection to its switch's
//! QEMU: no QEMU listens itself, and a display outlives restarts of its switch.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;

use crate::files::{self, Clients, listen, make_folder};
use crate::host::Host;
use crate::live::Live;
use crate::options::BringUpError;
use crate::owner::Person;
use crate::preflight::finding::{Finding, Severity};
use host::lock::StatePaths;
use model::config::{Config, Listen};
use model::difference::FabricPlan;
use model::topology::Topology;

/// The TCP port of display 0. RFC 6143 names no other, and VNC viewers count from it.
const DISPLAY_0: u16 = 5900;

/// The pause after a connection could not be accepted: the process may be out of descriptors.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The socket at which the console of a switch is offered.
pub(crate) struct Display {
    switch: String,
    listener: Listener,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// The TCP port of a switch's display. `None` if it exceeds 65535.
fn port(first: u16, switch: usize) -> Option<u16> {
    let display = first.checked_add(u16::try_from(switch).ok()?)?;
    DISPLAY_0.checked_add(display)
}

/// Listens for the displays of all switches that run.
///
/// # Errors
/// The first address that is not available.
pub(crate) fn open(
    plan: &FabricPlan,
    host: &Host,
    paths: &StatePaths,
    owner: &Person,
) -> Result<Vec<Display>, BringUpError> {
    let FabricPlan {
        config, switches, ..
    } = plan;
    if config.vnc.listen == Listen::Unix && !switches.is_empty() {
        host.will_create(&paths.vnc)?;
        make_folder(&paths.vnc)?;
    }
    let mut displays = Vec::new();
    for switch in switches.iter() {
        displays.extend(open_one(plan, paths, owner, switch)?);
    }
    Ok(displays)
}

/// Finds TCP ports at which displays cannot be.
pub(crate) fn taken_ports(plan: &FabricPlan) -> Vec<Finding> {
    let FabricPlan {
        config,
        topology,
        switches,
    } = plan;
    if config.vnc.listen != Listen::Tcp {
        return Vec::new();
    }
    let taken = switches.iter().filter_map(|switch| {
        let at = tcp_address(config, switch);
        let error = std::net::TcpListener::bind(at).err()?;
        let name = &topology.switches[switch].name;
        Some(Finding::new(
            Severity::Error,
            format!("the VNC display of {name} cannot be at {at}: {error}"),
            "another vnc.display in the configuration; `ss -tlpn` shows who is there",
        ))
    });
    taken.collect()
}

/// Where a switch's display is, if displays are at TCP ports.
fn tcp_address(config: &Config, switch: usize) -> SocketAddr {
    let port = port(config.vnc.display, switch).unwrap_or_default();
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Listens for one switch's display. `None` if displays are disabled.
///
/// # Errors
/// When its address is not available.
pub(crate) fn open_one(
    plan: &FabricPlan,
    paths: &StatePaths,
    owner: &Person,
    switch: usize,
) -> Result<Option<Display>, BringUpError> {
    let FabricPlan {
        config, topology, ..
    } = plan;
    let listener = match config.vnc.listen {
        Listen::Off => return Ok(None),
        Listen::Unix => {
            let path = socket(paths, topology, switch);
            unix(&path, owner).map_err(|source| {
                let at = path.display().to_string();
                failed(topology, switch, at, source)
            })?
        }
        Listen::Tcp => {
            let at = tcp_address(config, switch);
            tcp(at).map_err(|source| failed(topology, switch, at.to_string(), source))?
        }
    };
    let switch = topology.switches[switch].name.clone();
    Ok(Some(Display { switch, listener }))
}

/// Removes the socket that [`open_one`] created for a removed switch.
pub(crate) fn forget(paths: &StatePaths, topology: &Topology, switch: usize) {
    // It exists only if displays are served at Unix sockets.
    files::remove(&socket(paths, topology, switch));
}

fn failed(topology: &Topology, switch: usize, at: String, source: io::Error) -> BringUpError {
    BringUpError::Display {
        switch: topology.switches[switch].name.clone(),
        at,
        source,
    }
}

fn socket(paths: &StatePaths, topology: &Topology, switch: usize) -> PathBuf {
    let name = &topology.switches[switch].name;
    paths.vnc.join(format!("{name}.sock"))
}

fn unix(path: &std::path::Path, owner: &Person) -> io::Result<Listener> {
    let listener = listen(path, Clients::owner(owner))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Listener::Unix)
}

fn tcp(at: SocketAddr) -> io::Result<Listener> {
    let listener = std::net::TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

impl Listener {
    async fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(listener) => Ok(listener.accept().await?.0.into_std()?.into()),
            Self::Tcp(listener) => Ok(listener.accept().await?.0.into_std()?.into()),
        }
    }
}

/// The viewers' password. A Unix socket needs none: its folder and mode decide who may connect.
pub(crate) fn password(config: &Config) -> Option<String> {
    let password = config.vnc.password.clone();
    password.filter(|_| config.vnc.listen == Listen::Tcp)
}

/// The displays' addresses as a line for the user. `None` if displays are disabled.
pub(crate) fn words(plan: &FabricPlan, paths: &StatePaths) -> Option<String> {
    let FabricPlan {
        config,
        topology,
        switches,
    } = plan;
    let (first, last) = (switches.iter().next()?, switches.iter().last()?);
    match config.vnc.listen {
        Listen::Off => None,
        Listen::Unix => {
            let socket = socket(paths, topology, first);
            Some(format!("VNC: {} and so on", socket.display()))
        }
        Listen::Tcp => {
            let of = |switch: usize| {
                let name = &topology.switches[switch].name;
                format!(
                    "127.0.0.1:{} {name}",
                    usize::from(config.vnc.display) + switch
                )
            };
            Some(format!("VNC: {} to {}", of(first), of(last)))
        }
    }
}

/// Passes the connections to a display on to its switch, until the switch is stopped. While the
/// switch is off, connections are closed.
pub(crate) async fn serve(live: Arc<Live>, display: Display, password: Option<String>) {
    let Ok(switch) = live.state().switch(&display.switch) else {
        return;
    };
    let vm = switch.vm();
    let mut status = vm.watch();
    loop {
        let client = tokio::select! {
            client = display.listener.accept() => client,
            changed = status.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return, // stopped
            },
        };
        match client {
            Ok(client) => {
                if let Err(error) = vm.add_display(client, password.as_deref()).await {
                    tracing::info!(vm = vm.name(), %error, "a VNC client was turned away");
                }
            }
            Err(error) => {
                tracing::warn!(vm = vm.name(), %error, "a VNC client cannot be accepted");
                // Without a pause this would spin until a descriptor is free.
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ikvswitchs_ports() {
        assert_eq!(port(80, 0), Some(5980));
        assert_eq!(port(80, 8), Some(5988));
        assert_eq!(port(59_635, 0), Some(65_535));
        assert_eq!(port(59_635, 1), None);
    }
}

//! The BMCs of a fabric's switches: where they listen, and what is told of them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::Fabric;
use super::links::{SharedApplied, write_down};
use super::options::{BringUpError, Options};
use super::owner::Person;
use super::seeds::{SeedsError, make_folder};
use super::sockets::make_closed_folder;
use super::start::key_folder;
use super::switch::Switch;
use crate::api::{ApiError, BmcReport, IpmiAccess};
use crate::bmc::{self, Bmc, BmcSpec, BmcState, password};
use crate::lock::StatePaths;
use crate::preflight::{Finding, Severity};
use crate::progress::Progress;
use crate::topology::{EndOwner, IpmiSegment, Selection, Topology};

/// The BMCs of the switches that run.
pub(super) struct Ipmi {
    /// With the switches' names, in their order.
    bmcs: Vec<(String, Bmc)>,
    password_file: PathBuf,
}

/// Where a BMC listens, and nowhere else.
fn addresses(segment: &IpmiSegment) -> [Ipv4Addr; 2] {
    [Ipv4Addr::LOCALHOST, segment.address.addr()]
}

/// The first address of a switch's BMC that somebody else has. The segment's is none before it is up.
fn taken(segment: &IpmiSegment, switch: usize) -> Option<(SocketAddr, io::Error)> {
    let port = segment.port(switch);
    addresses(segment).into_iter().find_map(|address| {
        // Without SO_REUSEADDR, with which ipmi_sim would silently share a port.
        match UdpSocket::bind((address, port)) {
            Err(error) if error.kind() != io::ErrorKind::AddrNotAvailable => {
                Some((SocketAddr::from((address, port)), error))
            }
            _ => None,
        }
    })
}

/// Ports of BMCs that somebody else has.
pub(super) fn taken_ports(topology: &Topology, switches: &Selection) -> Vec<Finding> {
    let Some(segment) = &topology.ipmi else {
        return Vec::new();
    };
    let found = switches.iter().filter_map(|switch| {
        let (at, error) = taken(segment, switch)?;
        let name = &topology.switches[switch].name;
        Some(Finding {
            severity: Severity::Error,
            what: format!("the BMC of {name} cannot be at {at} (UDP): {error}"),
            remedy: "another ipmi.port in the configuration; `ss -ulpn` shows who is there".into(),
        })
    });
    found.collect()
}

/// Starts a BMC for each of the switches.
///
/// # Errors
/// The first that cannot be.
pub(super) fn start(
    options: &Options,
    owner: &Person,
    switches: &BTreeMap<usize, Arc<Switch>>,
    applied: &SharedApplied,
    paths: &StatePaths,
    progress: &Progress,
) -> Result<Option<Ipmi>, BringUpError> {
    let (config, topology) = (&options.config, &options.topology);
    let Some(segment) = topology.ipmi.as_ref().filter(|_| !switches.is_empty()) else {
        return Ok(None);
    };
    write_down(applied, &paths.ipmi)?;
    make_folder(&paths.ipmi)?;
    let keys = key_folder(config, paths);
    let password = password::load_or_create(&keys, (owner.uid, owner.gid))?;
    let mut ipmi = Ipmi {
        bmcs: Vec::new(),
        password_file: std::path::absolute(keys.join(password::FILE)).unwrap_or(keys),
    };
    for (index, switch) in switches {
        let name = switch.name();
        if let Some((at, source)) = taken(segment, *index) {
            let switch = name.to_owned();
            return Err(BringUpError::Bmc { switch, at, source });
        }
        let folder = paths.ipmi.join(name);
        let uid = config.ipmi.uid_of(*index);
        make_closed_folder(&folder, uid).map_err(|source| SeedsError::File {
            path: folder.clone(),
            source,
        })?;
        let spec = BmcSpec {
            name: name.to_owned(),
            folder: std::path::absolute(&folder).unwrap_or(folder),
            uid,
            addresses: addresses(segment).into(),
            port: segment.port(*index),
            password: password.clone(),
        };
        let bmc = Bmc::start(spec, switch.vm().clone())?;
        ipmi.bmcs.push((name.to_owned(), bmc));
    }
    if let Some(words) = ipmi.words() {
        progress.note(&format!("  · {words}"));
    }
    Ok(Some(ipmi))
}

impl Ipmi {
    /// In a few words, for people.
    fn words(&self) -> Option<String> {
        let of = |(name, bmc): &(String, Bmc)| format!("127.0.0.1:{} {name}", bmc.port());
        let (first, last) = (self.bmcs.first().map(of)?, self.bmcs.last().map(of)?);
        Some(format!(
            "IPMI: {first} to {last}; `ikv-fabric ipmi` tells how"
        ))
    }

    /// What each does, with the switches' names.
    pub(super) fn watches(&self) -> impl Iterator<Item = (String, watch::Receiver<BmcState>)> {
        self.bmcs
            .iter()
            .map(|(name, bmc)| (name.clone(), bmc.watch()))
    }

    /// Ends all of them.
    pub(super) async fn stop(&self) {
        join_all(self.bmcs.iter().map(|(_, bmc)| bmc.stop())).await;
    }
}

impl Fabric {
    /// How the BMCs are reached, and what they do.
    pub(super) fn ipmi_access(&self) -> Result<IpmiAccess, ApiError> {
        let topology = &self.whole().topology;
        let (Some(ipmi), Some(segment)) = (&self.ipmi, &topology.ipmi) else {
            let how = if topology.ipmi.is_some() {
                "no switch of this fabric runs, and so no BMC"
            } else {
                "this fabric has no BMCs: start it with --set ipmi.enabled=true"
            };
            return Err(ApiError::conflict(how));
        };
        let plug = topology
            .ends()
            .find(|found| found.end.owner == EndOwner::IpmiPort);
        let bmcs = ipmi.bmcs.iter().map(|(node, bmc)| BmcReport {
            node: node.clone(),
            port: bmc.port(),
            addresses: addresses(segment).into(),
            running: bmc.state() == BmcState::Running,
            note: match bmc.state() {
                BmcState::Down(why) => why,
                BmcState::Starting | BmcState::Running => String::new(),
            },
        });
        Ok(IpmiAccess {
            user: bmc::USER.into(),
            password_file: ipmi.password_file.clone(),
            address: segment.address,
            plug: plug.map(|found| found.end.tap.clone()).unwrap_or_default(),
            bmcs: bmcs.collect(),
        })
    }

    /// Tells when a switch's BMC dies, for ever.
    pub(super) async fn attend_bmc(
        self: Arc<Self>,
        (switch, mut state): (String, watch::Receiver<BmcState>),
    ) {
        let mut told = false;
        while state.changed().await.is_ok() {
            match &*state.borrow_and_update() {
                BmcState::Running => told = false,
                BmcState::Down(why) if !std::mem::replace(&mut told, true) => {
                    self.notice(format!("the BMC of {switch} is started again: {why}"));
                }
                BmcState::Starting | BmcState::Down(_) => {}
            }
        }
    }
}

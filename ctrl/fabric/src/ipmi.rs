//! The BMCs of a fabric's switches: where they listen, and what is told of them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::Fabric;
use super::links::{SharedHostChanges, write_down};
use super::options::BringUpError;
use super::owner::Person;
use super::seeds::{SeedsError, make_folder};
use super::sockets::make_closed_folder;
use super::start::key_folder;
use super::whole::Whole;
use crate::preflight::{Finding, Severity};
use crate::progress::Progress;
use api::{ApiError, BmcReport, IpmiAccess};
use host::lock::StatePaths;
use host::{HostError, nft};
use model::topology::{EndOwner, IpmiSegment, Selection, Topology};
use vm::bmc::{self, Bmc, BmcSpec, BmcState, password};

/// What the BMCs have in common, and those that run.
pub(super) struct Ipmi {
    password: String,
    password_file: PathBuf,
    /// By the switches' places in the topology, with their names.
    bmcs: Mutex<BTreeMap<usize, (String, Arc<Bmc>)>>,
}

/// Where a BMC listens, and nowhere else.
fn addresses(segment: &IpmiSegment) -> [Ipv4Addr; 2] {
    [Ipv4Addr::LOCALHOST, segment.address.addr()]
}

/// The first address of a switch's BMC that cannot be had: somebody else has it, or the loopback
/// device is down. The segment's is none before it is up.
fn taken(segment: &IpmiSegment, switch: usize) -> Option<(SocketAddr, io::Error)> {
    let port = segment.port(switch);
    addresses(segment).into_iter().find_map(|address| {
        // Without SO_REUSEADDR, with which ipmi_sim would silently share a port.
        match UdpSocket::bind((address, port)) {
            Err(error) if address.is_loopback() || !is_down(&error) => {
                Some((SocketAddr::from((address, port)), error))
            }
            _ => None,
        }
    })
}

fn is_down(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Ports of BMCs that cannot be had.
pub(super) fn taken_ports(topology: &Topology, switches: &Selection) -> Vec<Finding> {
    let Some(segment) = &topology.ipmi else {
        return Vec::new();
    };
    let found = switches.iter().filter_map(|switch| {
        let (at, error) = taken(segment, switch)?;
        let name = &topology.switches[switch].name;
        let remedy = if is_down(&error) {
            "the loopback device of this network namespace is down: `ip link set lo up`"
        } else {
            "another ipmi.port in the configuration; `ss -ulpn` shows who is there"
        };
        Some(Finding {
            severity: Severity::Error,
            what: format!("the BMC of {name} cannot be at {at} (UDP): {error}"),
            remedy: remedy.into(),
        })
    });
    found.collect()
}

impl Ipmi {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, (String, Arc<Bmc>)>> {
        self.bmcs.lock().expect("no holder of this lock can panic")
    }

    /// In a few words, for people.
    fn words(&self) -> Option<String> {
        let bmcs = self.lock();
        let of = |(name, bmc): &(String, Arc<Bmc>)| format!("127.0.0.1:{} {name}", bmc.port());
        let (first, last) = (bmcs.values().next()?, bmcs.values().next_back()?);
        Some(format!(
            "IPMI: {} to {}; `ikv-fabric ipmi` tells how",
            of(first),
            of(last)
        ))
    }
}

impl Fabric {
    /// Starts a BMC for each switch that runs. `paths` are as the journal has them.
    ///
    /// # Errors
    /// The first that cannot be.
    pub(super) fn start_bmcs(
        self: &Arc<Self>,
        owner: &Person,
        applied: &SharedHostChanges,
        paths: &StatePaths,
        progress: &Progress,
    ) -> Result<(), BringUpError> {
        let whole = self.whole();
        if whole.topology.ipmi.is_none() || whole.switches.is_empty() {
            return Ok(());
        }
        write_down(applied, &paths.ipmi)?;
        make_folder(&self.paths.ipmi)?;
        let keys = key_folder(&whole.config, &self.paths);
        let password = password::load_or_create(&keys, (owner.uid, owner.gid))?;
        let file = keys.join(password::FILE);
        let ipmi = self.ipmi.get_or_init(|| Ipmi {
            password,
            password_file: std::path::absolute(&file).unwrap_or(file),
            bmcs: Mutex::default(),
        });
        for index in whole.switches.keys() {
            self.start_bmc(&whole, *index)?;
        }
        if let Some(words) = ipmi.words() {
            progress.note(&format!("  · {words}"));
        }
        Ok(())
    }

    /// Starts the BMC of one switch, if the fabric has any.
    fn start_bmc(self: &Arc<Self>, whole: &Whole, index: usize) -> Result<(), BringUpError> {
        let (Some(ipmi), Some(segment)) = (self.ipmi.get(), &whole.topology.ipmi) else {
            return Ok(());
        };
        let switch = &whole.switches[&index];
        let name = switch.name();
        if let Some((at, source)) = taken(segment, index) {
            let switch = name.to_owned();
            return Err(BringUpError::Bmc { switch, at, source });
        }
        let folder = self.paths.ipmi.join(name);
        let uid = whole.config.ipmi.uid_of(index);
        make_closed_folder(&folder, uid).map_err(|source| SeedsError::File {
            path: folder.clone(),
            source,
        })?;
        let spec = BmcSpec {
            name: name.to_owned(),
            folder,
            uid,
            addresses: addresses(segment).into(),
            port: segment.port(index),
            password: ipmi.password.clone(),
        };
        let bmc = Arc::new(Bmc::start(spec, switch.vm().clone())?);
        tokio::spawn(self.clone().attend_bmc(name.to_owned(), bmc.watch()));
        ipmi.lock().insert(index, (name.to_owned(), bmc));
        Ok(())
    }

    /// Gives a switch that was added a BMC too, if the others have one.
    ///
    /// # Errors
    /// As [`Fabric::start_bmcs`].
    pub(super) fn add_bmc(
        self: &Arc<Self>,
        whole: &Whole,
        index: usize,
    ) -> Result<(), BringUpError> {
        if let (Some(_), Some(segment)) = (self.ipmi.get(), &whole.topology.ipmi) {
            nft::load(&nft::bmc_port("add", segment.port(index))).map_err(HostError::from)?;
        }
        self.start_bmc(whole, index)
    }

    /// Ends the BMC of a switch that is removed.
    pub(super) async fn remove_bmc(&self, index: usize) {
        let removed = self.ipmi.get().and_then(|ipmi| ipmi.lock().remove(&index));
        let Some((name, bmc)) = removed else {
            return;
        };
        bmc.stop().await;
        let folder = self.paths.ipmi.join(name);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(%error, folder = %folder.display());
        }
        if let Err(error) = nft::load(&nft::bmc_port("delete", bmc.port())) {
            tracing::warn!(%error, "the port of a BMC stays open for the segment");
        }
    }

    /// Ends all BMCs.
    pub(super) async fn stop_bmcs(&self) {
        let Some(ipmi) = self.ipmi.get() else { return };
        let bmcs: Vec<_> = ipmi.lock().values().map(|(_, bmc)| bmc.clone()).collect();
        join_all(bmcs.iter().map(|bmc| bmc.stop())).await;
    }

    /// How the BMCs are reached, and what they do.
    pub(super) fn ipmi_access(&self) -> Result<IpmiAccess, ApiError> {
        let whole = self.whole();
        let topology = &whole.topology;
        let (Some(ipmi), Some(segment)) = (self.ipmi.get(), &topology.ipmi) else {
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
        let running = ipmi.lock();
        let bmcs = running.values().map(|(node, bmc)| BmcReport {
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

    /// Tells when a switch's BMC dies, until it is stopped.
    async fn attend_bmc(self: Arc<Self>, switch: String, mut state: watch::Receiver<BmcState>) {
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

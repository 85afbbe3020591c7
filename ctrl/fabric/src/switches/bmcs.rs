//! The BMCs of a fabric's switches: [`Bmcs`].

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::join_all;
use tokio::sync::watch;

use super::factory::key_folder;
use super::seeds::SeedsError;
use crate::files::{self, FileError, make_closed_folder, make_folder};
use crate::host::Ending;
use crate::jail;
use crate::live::Live;
use crate::off_thread::off_thread;
use crate::options::BringUpError;
use crate::preflight::finding::{Finding, Severity};
use crate::state::FabricState;
use api::{ApiError, BmcReport, IpmiAccess};
use model::topology::{EndOwner, IpmiSegment, Selection, Topology};
use vm::bmc::{self, Bmc, BmcSpec, BmcState, password};

/// The running BMCs and what they share.
pub(crate) struct Bmcs {
    password: String,
    password_file: PathBuf,
    /// By the switches' indices in the topology, with the switches' names.
    running: Mutex<BTreeMap<usize, (String, Arc<Bmc>)>>,
}

/// The two addresses at which a BMC listens.
fn addresses(segment: &IpmiSegment) -> [Ipv4Addr; 2] {
    [Ipv4Addr::LOCALHOST, segment.address.addr()]
}

/// The first address at which a switch's BMC cannot listen, because another program does or the
/// loopback device is down. The segment's own address cannot be checked before the segment is up.
fn taken(segment: &IpmiSegment, switch: usize) -> Option<(SocketAddr, io::Error)> {
    let port = segment.port(switch);
    addresses(segment).into_iter().find_map(|address| {
        // Without SO_REUSEADDR, because with it ipmi_sim would silently share a port.
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

/// Finds ports at which BMCs cannot listen.
pub(crate) fn taken_ports(topology: &Topology, switches: &Selection) -> Vec<Finding> {
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

impl Bmcs {
    /// Creates the folder of a fabric's BMCs and their password. `None` if the fabric has no BMCs.
    /// `folder` is the same as in [`Live::paths`], as the journal records it.
    ///
    /// # Errors
    /// When the folder or the password cannot be created.
    pub(crate) async fn prepare(live: &Live, folder: &Path) -> Result<Option<Self>, BringUpError> {
        let state = live.state();
        if state.plan.topology.ipmi.is_none() || state.switches.is_empty() {
            return Ok(None);
        }
        live.host.will_create(folder)?;
        make_folder(&live.paths.ipmi).map_err(SeedsError::from)?;
        let keys = key_folder(&state.plan.config, &live.paths);
        let file = keys.join(password::FILE);
        let owner = (live.owner.uid, live.owner.gid);
        let load = move || password::load_or_create(&keys, owner);
        let password = off_thread("keys", load).await.map_err(FileError::at(&file));
        Ok(Some(Bmcs {
            password: password.map_err(SeedsError::from)??,
            password_file: std::path::absolute(&file).unwrap_or(file),
            running: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, (String, Arc<Bmc>)>> {
        let running = self.running.lock();
        running.expect("no holder of this lock can panic")
    }

    /// The addresses of the first and the last BMC as a line for the user. `None` if none runs.
    pub(crate) fn words(&self) -> Option<String> {
        let bmcs = self.lock();
        let of = |(name, bmc): &(String, Arc<Bmc>)| format!("127.0.0.1:{} {name}", bmc.port());
        let (first, last) = (bmcs.values().next()?, bmcs.values().next_back()?);
        Some(format!(
            "IPMI: {} to {}; `ikv-fabric ipmi` shows how",
            of(first),
            of(last)
        ))
    }

    /// Starts the BMC of a running switch. Its segment must exist.
    ///
    /// # Errors
    /// When another program uses its port, or `ipmi_sim` cannot be started.
    pub(crate) fn start(
        &self,
        live: &Arc<Live>,
        state: &FabricState,
        index: usize,
    ) -> Result<(), BringUpError> {
        let Some(segment) = &state.plan.topology.ipmi else {
            return Ok(());
        };
        let switch = &state.switches[&index];
        let name = switch.name();
        if let Some((at, source)) = taken(segment, index) {
            let switch = name.to_owned();
            return Err(BringUpError::Bmc { switch, at, source });
        }
        let folder = live.paths.ipmi.join(name);
        let uid = jail::bmc_uid(&state.plan.config, index);
        make_closed_folder(&folder, uid).map_err(SeedsError::from)?;
        let spec = BmcSpec {
            name: name.to_owned(),
            folder,
            uid,
            addresses: addresses(segment).into(),
            port: segment.port(index),
            password: self.password.clone(),
        };
        let bmc = Arc::new(Bmc::start(spec, switch.vm().clone())?);
        tokio::spawn(follow(live.clone(), name.to_owned(), bmc.watch()));
        self.lock().insert(index, (name.to_owned(), bmc));
        Ok(())
    }

    /// As [`Bmcs::start`], for a switch that `apply` adds: first opens its port on the segment.
    ///
    /// # Errors
    /// As [`Bmcs::start`]; and when nft refuses.
    pub(crate) async fn add(
        &self,
        live: &Arc<Live>,
        state: &FabricState,
        index: usize,
    ) -> Result<(), BringUpError> {
        if let Some(segment) = &state.plan.topology.ipmi {
            set_port(live, "add", segment.port(index)).await?;
        }
        self.start(live, state, index)
    }

    /// Stops the BMC of a switch that `apply` removes.
    pub(crate) async fn remove(&self, live: &Live, index: usize) {
        // Removed from the map first, so that the lock is not held across an await.
        let removed = self.lock().remove(&index);
        let Some((name, bmc)) = removed else {
            return;
        };
        bmc.stop().await;
        let folder = live.paths.ipmi.join(name);
        files::remove(&folder);
        if let Err(error) = set_port(live, "delete", bmc.port()).await {
            tracing::warn!(%error, "the port of a BMC stays open on the segment");
        }
    }

    pub(crate) async fn stop_all(&self) {
        // Cloned, because the lock must not be held across an await.
        let bmcs: Vec<_> = self.lock().values().map(|(_, bmc)| bmc.clone()).collect();
        join_all(bmcs.iter().map(|bmc| bmc.stop())).await;
    }

    fn reports(&self, segment: &IpmiSegment) -> Vec<BmcReport> {
        let running = self.lock();
        let report = |(node, bmc): &(String, Arc<Bmc>)| BmcReport {
            node: node.clone(),
            port: bmc.port(),
            addresses: addresses(segment).into(),
            running: bmc.state() == BmcState::Running,
            note: match bmc.state() {
                BmcState::Down(why) => why,
                BmcState::Starting | BmcState::Running => String::new(),
            },
        };
        running.values().map(report).collect()
    }
}

/// How clients reach the BMCs of a fabric, and their states. `bmcs` is `None` if the fabric has
/// none.
///
/// # Errors
/// When the fabric has no BMCs.
pub(crate) fn access(bmcs: Option<&Bmcs>, topology: &Topology) -> Result<IpmiAccess, ApiError> {
    let (Some(bmcs), Some(segment)) = (bmcs, &topology.ipmi) else {
        let how = if topology.ipmi.is_some() {
            "this fabric runs no switches and therefore no BMCs"
        } else {
            "this fabric has no BMCs: start it with --set ipmi.enabled=true"
        };
        return Err(ApiError::conflict(how));
    };
    let mut ends = topology.ends();
    let plug = ends.find(|found| found.end.owner == EndOwner::IpmiPort);
    Ok(IpmiAccess {
        user: bmc::USER.into(),
        password_file: bmcs.password_file.clone(),
        address: segment.address,
        plug: plug.map(|found| found.end.tap.clone()).unwrap_or_default(),
        bmcs: bmcs.reports(segment),
    })
}

/// Opens (verb "add") or closes (verb "delete") a BMC's port on the segment.
async fn set_port(live: &Live, verb: &'static str, port: u16) -> Result<(), BringUpError> {
    let set = live.host.change(move |host| host.set_bmc_port(verb, port));
    match set.await {
        Ok(done) => Ok(done?),
        // With the fabric goes the segment.
        Err(Ending) => Ok(()),
    }
}

/// Reports every end of a BMC to the user, until the BMC is stopped.
async fn follow(live: Arc<Live>, switch: String, mut state: watch::Receiver<BmcState>) {
    let mut reported = false;
    while state.changed().await.is_ok() {
        match &*state.borrow_and_update() {
            BmcState::Running => reported = false,
            BmcState::Down(why) if !std::mem::replace(&mut reported, true) => {
                let notice = format!("the BMC of {switch} is started again: {why}");
                live.notices.add(notice);
            }
            BmcState::Starting | BmcState::Down(_) => {}
        }
    }
}

//! The patch panel of a topology: which cable is which, and what state it is in.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use dataplane::capture::{RecorderReader, TapSpec};
use dataplane::rights::{CapabilitySet, keep};
use dataplane::vhost_sockets::{Role, SocketEvent, SocketId, SocketSpec, VhostUserSockets};
use dataplane::{
    Cable, CableHandle, CableId, Capture, DropReason, Event, Panel, PanelError, PanelOptions, Port,
    PortError, Side, clock, close_cables,
};

use super::accuracy;
use super::ends::{aside, netdev};
use super::reports::{lane, to_panel};
use super::rights;
use api::CableReport;
use model::cable_change::CableState;
use model::impairment::ImpairKeys;
use model::topology;

/// Why the cables could not be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum CablesError {
    /// A port.
    #[error("cable {cable}: {source}")]
    Port {
        /// Its name.
        cable: String,
        /// What is wrong with it.
        source: PortError,
    },
    /// The panel itself.
    #[error(transparent)]
    Panel(#[from] PanelError),
    /// A vhost-user socket.
    #[error("cannot listen at {}: {source}", .path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Too few descriptors.
    #[error("{needed} open files may be needed, and {allowed} are allowed: `ulimit -Hn {needed}`")]
    Descriptors {
        /// That may be open at the same time.
        needed: u64,
        /// The hard limit.
        allowed: u64,
    },
    /// Root's rights.
    #[error("the rights of root cannot be given up: {0}")]
    Rights(std::io::Error),
    /// A second descriptor of a tap.
    #[error("the carrier of a tap cannot be held: {0}")]
    Carrier(std::io::Error),
    /// The flight recorder.
    #[error("the flight recorder cannot be started: {0}")]
    Recorder(String),
    /// The thread that serves the vhost-user sockets.
    #[error("the vhost-user sockets cannot be served: {0}")]
    VhostUserSockets(std::io::Error),
}

/// The cables of a topology, by their places in it. A handle: a clone has the same cables.
#[derive(Clone)]
pub struct Cables {
    panel: Panel,
    sockets: VhostUserSockets,
    entries: Vec<Arc<Entry>>,
    workers: usize,
    wall_offset: u64,
}

/// A cable that is plugged in.
pub(super) struct Entry {
    name: String,
    ends: [EndEntry; 2],
    handle: CableHandle,
    condition: Mutex<Condition>,
}

/// What was made of a cable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) state: CableState,
    /// By the side where the lane begins.
    pub(super) impairments: [ImpairKeys; 2],
}

struct EndEntry {
    name: String,
    socket: Option<SocketId>,
    /// See [`PlannedSocket::file`].
    file: Option<PathBuf>,
}

impl Entry {
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl EndEntry {
    fn new(name: String) -> Self {
        EndEntry {
            name,
            socket: None,
            file: None,
        }
    }
}

/// A cable to be, its ports open.
pub struct Planned {
    /// The cable's name.
    pub name: String,
    /// What it joins.
    pub ends: [PlannedEnd; 2],
}

/// One end of a cable to be.
pub struct PlannedEnd {
    /// Its name.
    pub name: String,
    /// What carries it while no front end does.
    pub port: Option<Port>,
    /// Where vhost-user front ends plug in.
    pub socket: Option<PlannedSocket>,
}

/// Where vhost-user front ends will plug in.
pub struct PlannedSocket {
    /// Who connects to whom.
    pub role: Role,
    /// The longest payload of a frame, in bytes, that guests are told to send; `None` tells
    /// nothing.
    pub mtu: Option<u16>,
    /// The file of our socket, if it is to be out of the way while the cable is cut.
    pub file: Option<PathBuf>,
}

/// What happened to a cable.
#[derive(Debug, PartialEq, Eq)]
pub enum CableEvent {
    /// Something that the user should know.
    Notice(String),
    /// A vhost-user front end carries an end, or does no longer.
    FrontEnd {
        /// The cable's place in the topology.
        index: usize,
        /// Its end.
        side: topology::Side,
        /// It does.
        plugged: bool,
    },
}

impl Cables {
    /// Starts the workers and plugs the cables in. `bell` is rung when [`Cables::event`] has
    /// something to tell. The threads have no rights of root's but these.
    ///
    /// # Errors
    /// The first cable or worker that failed; nothing keeps running then.
    pub fn plug(
        planned: Vec<Planned>,
        options: &PanelOptions,
        rights: CapabilitySet,
        bell: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        let (panel, sockets) = start_threads(options, rights, bell)?;
        let workers = panel.workers();
        let mut cables = Cables {
            panel,
            sockets,
            entries: Vec::with_capacity(planned.len()),
            workers,
            wall_offset: clock::wall_offset(),
        };
        for cable in planned {
            match cables.plug_one(cable) {
                Ok(entry) => cables.entries.push(entry),
                Err(error) => {
                    cables.stop();
                    return Err(error);
                }
            }
        }
        Ok(cables)
    }

    /// Plugs one more cable in; it belongs to none of the handles yet, see [`Cables::with`].
    ///
    /// # Errors
    /// When a worker or the vhost-user sockets refuse an end; nothing is left of it then.
    pub(super) fn plug_one(&self, planned: Planned) -> Result<Arc<Entry>, CablesError> {
        let Planned { name, ends: [a, b] } = planned;
        let handle = self.panel.add(Cable::new(a.port, b.port)).wait()?;
        let mut entry = Entry {
            name,
            ends: [EndEntry::new(a.name), EndEntry::new(b.name)],
            handle,
            condition: Mutex::new(Condition {
                state: CableState::Up,
                impairments: Default::default(),
            }),
        };
        for (side, socket) in [(Side::A, a.socket), (Side::B, b.socket)] {
            let Some(PlannedSocket { role, mtu, file }) = socket else {
                continue;
            };
            let end = &mut entry.ends[side as usize];
            let spec = SocketSpec {
                name: end.name.clone(),
                cable: entry.handle.id,
                side,
                role,
                mtu,
            };
            match self.sockets.add(spec).wait() {
                Ok(socket) => (end.socket, end.file) = (Some(socket), file),
                Err(error) => {
                    self.unplug(&[Arc::new(entry)]);
                    return Err(error.into());
                }
            }
        }
        Ok(Arc::new(entry))
    }

    /// Takes cables out of the panel: no frame of theirs is handled when this returns. Their
    /// ports are closed elsewhere, for that takes its time.
    pub(super) fn unplug(&self, entries: &[Arc<Entry>]) {
        let sockets = entries.iter().flat_map(|entry| &entry.ends);
        for socket in sockets.filter_map(|end| end.socket) {
            self.sockets.remove(socket).wait().ok();
        }
        let taken = entries
            .iter()
            .filter_map(|entry| self.panel.remove(entry.handle.id).wait().ok())
            .map(|cable| *cable)
            .collect();
        if let Err(error) = rights::thread("closing", move || close_cables(taken)) {
            tracing::debug!(%error, "ports were closed at once");
        }
    }

    /// These cables, on the same panel.
    pub(super) fn with(&self, entries: Vec<Arc<Entry>>) -> Self {
        Cables {
            entries,
            ..self.clone()
        }
    }

    /// A cable itself, by its place in the topology.
    pub(super) fn plugged(&self, index: usize) -> &Arc<Entry> {
        &self.entries[index]
    }

    /// Number of cables.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// One cable's state, counters and accuracy, by its place in the topology.
    pub fn report(&self, index: usize) -> CableReport {
        let Entry { name, handle, .. } = &*self.entries[index];
        let [a, b] = self.end_names(index);
        let Condition { state, impairments } = self.condition(index);
        let lane = |side: Side, from: &str, to: &str| {
            let keys = &impairments[side as usize];
            let mut report = lane(from, to, &handle.lanes[side as usize]);
            if !keys.is_empty() {
                // A worker that does not answer is told of by what must succeed.
                let seen = self.panel.accuracy(handle.id, side).wait().ok().flatten();
                report.accuracy = seen.map(|seen| accuracy::report(keys, &seen));
                report.impairment = Some(keys.shown());
            }
            report
        };
        CableReport {
            name: name.clone(),
            state,
            lanes: [lane(Side::A, a, b), lane(Side::B, b, a)],
        }
    }

    /// One cable's state.
    pub fn state(&self, index: usize) -> CableState {
        self.condition(index).state
    }

    pub(super) fn condition(&self, index: usize) -> Condition {
        let condition = self.entries[index].condition.lock();
        condition.expect("no holder of this lock can panic").clone()
    }

    /// Remembers what the panel has been told.
    pub(super) fn set_condition(&self, index: usize, now: Condition) {
        let condition = self.entries[index].condition.lock();
        *condition.expect("no holder of this lock can panic") = now;
    }

    pub(super) fn panel(&self) -> &Panel {
        &self.panel
    }

    pub(super) fn id(&self, index: usize) -> CableId {
        self.entries[index].handle.id
    }

    /// A cable's name.
    pub fn name(&self, index: usize) -> &str {
        &self.entries[index].name
    }

    pub(super) fn end_names(&self, index: usize) -> [&str; 2] {
        let [a, b] = &self.entries[index].ends;
        [&a.name, &b.name]
    }

    /// All lanes added up: frames and bytes in, frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        let lanes = self.entries.iter().flat_map(|entry| &entry.handle.lanes);
        lanes.fold((0, 0, 0), |(frames, bytes, drops), lane| {
            let seen = lane.snapshot();
            (
                frames + seen.frames_in,
                bytes + seen.bytes_in,
                drops + seen.dropped(),
            )
        })
    }

    /// Tells whoever is plugged in by vhost-user whether the cable has carrier: without it
    /// the front end is disconnected, and none can connect.
    pub fn set_carrier(&self, index: usize, side: topology::Side, up: bool) {
        let Some(socket) = self.socket(index, side) else {
            return;
        };
        self.sockets.set_carrier(socket, up).wait().ok();
        // QEMU prints three lines at every connection that is closed at once, and none at one
        // that it does not get.
        if let Some(file) = &self.entries[index].ends[side as usize].file {
            let aside = aside(file);
            let moved = if up {
                std::fs::rename(&aside, file)
            } else {
                std::fs::rename(file, &aside)
            };
            // It is there already; or somebody has meddled, and front ends are just turned away.
            if let Err(error) = moved {
                tracing::debug!(%error, file = %file.display());
            }
        }
    }

    /// Lets vhost-user front ends plug in at an end, or not: something else carries it.
    pub fn set_gate(&self, index: usize, side: topology::Side, open: bool) {
        if let Some(socket) = self.socket(index, side) {
            self.sockets.set_accepting(socket, open).wait().ok();
        }
    }

    fn socket(&self, index: usize, side: topology::Side) -> Option<SocketId> {
        self.entries[index].ends[side as usize].socket
    }

    /// Plugs a device into one end of a cable again, after it was made anew. Where a front end
    /// carries the end, the device waits until it leaves.
    ///
    /// # Errors
    /// As [`Cables::plug`].
    pub fn replug(&self, index: usize, side: topology::Side) -> Result<(), CablesError> {
        let entry = &*self.entries[index];
        let port = Some(netdev(&entry.name, &entry.ends[side as usize].name)?);
        match self.socket(index, side) {
            Some(socket) => self.sockets.set_fallback_port(socket, port).wait()?,
            None => self
                .panel
                .exchange(entry.handle.id, to_panel(side), port)
                .wait()?,
        };
        Ok(())
    }

    /// Copies what passes one lane of a cable: the one whose frames enter at `from`.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub fn tap(
        &self,
        index: usize,
        from: topology::Side,
        spec: TapSpec,
    ) -> Result<Capture, PanelError> {
        let cable = self.entries[index].handle.id;
        self.panel.tap(cable, to_panel(from), spec).wait()
    }

    /// Gives a lane a flight recorder of `bytes` that keeps `snap` bytes of each frame.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub fn record(
        &self,
        index: usize,
        from: topology::Side,
        bytes: usize,
        snap: u32,
    ) -> Result<RecorderReader, PanelError> {
        let cable = self.entries[index].handle.id;
        self.panel.record(cable, to_panel(from), bytes, snap).wait()
    }

    /// Frames that entered a lane, and those that it dropped for these reasons.
    pub fn drops(
        &self,
        index: usize,
        from: topology::Side,
        counts: impl Fn(DropReason) -> bool,
    ) -> (u64, u64) {
        let seen = self.entries[index].handle.lanes[from as usize].snapshot();
        let reasons = seen.drop_reasons().filter(|(reason, _)| counts(*reason));
        (seen.frames_in, reasons.map(|(_, count)| count).sum())
    }

    /// What to add to the dataplane's clock for the time since 1970, in ns. It stays the same
    /// while the fabric runs, whoever sets the host's clock: all captures agree.
    pub fn wall_offset(&self) -> u64 {
        self.wall_offset
    }

    /// The next thing that happened by itself to one of these cables.
    pub fn event(&self) -> Option<CableEvent> {
        // What has happened to a cable that is gone since is no news.
        while let Some(event) = self.panel.event() {
            if let Event::PortFailed {
                cable, side, error, ..
            } = event
                && let Some((_, entry)) = self.entry(cable)
            {
                let (name, end) = (&entry.name, &entry.ends[side as usize].name);
                let notice = format!("cable {name}: its port {end} failed: {error}");
                return Some(CableEvent::Notice(notice));
            }
        }
        while let Some(event) = self.sockets.event() {
            let known = match event {
                SocketEvent::Plugged { cable, side } => self.front_end(cable, side, true),
                SocketEvent::Unplugged { cable, side } => self.front_end(cable, side, false),
                SocketEvent::Fault { cable, reason, .. }
                | SocketEvent::Refused { cable, reason, .. } => {
                    self.entry(cable).map(|(_, entry)| {
                        CableEvent::Notice(format!("cable {}: {reason}", entry.name))
                    })
                }
            };
            if known.is_some() {
                return known;
            }
        }
        None
    }

    fn front_end(&self, cable: CableId, side: Side, plugged: bool) -> Option<CableEvent> {
        let (index, _) = self.entry(cable)?;
        let side = match side {
            Side::A => topology::Side::A,
            Side::B => topology::Side::B,
        };
        Some(CableEvent::FrontEnd {
            index,
            side,
            plugged,
        })
    }

    fn entry(&self, id: CableId) -> Option<(usize, &Arc<Entry>)> {
        let mut entries = self.entries.iter().enumerate();
        entries.find(|(_, entry)| entry.handle.id == id)
    }

    /// Evens out the workers' load.
    ///
    /// # Errors
    /// When a worker does not answer.
    pub fn balance(&self) -> Result<(), PanelError> {
        self.panel.balance().map(drop)
    }

    /// Stops forwarding and closes every port.
    pub fn stop(&self) {
        self.sockets.clone().stop();
        self.panel.stop();
    }
}

/// A thread has the rights of the one that starts it: so one that has given them up does.
fn start_threads(
    options: &PanelOptions,
    rights: CapabilitySet,
    bell: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<(Panel, VhostUserSockets), CablesError> {
    let start = || {
        keep(rights).map_err(CablesError::Rights)?;
        let panel = Panel::start(options, bell.clone())?;
        let sockets =
            VhostUserSockets::start(panel.clone(), bell).map_err(CablesError::VhostUserSockets)?;
        Ok((panel, sockets))
    };
    let started = std::thread::scope(|scope| scope.spawn(start).join());
    started.expect("nothing in there panics")
}

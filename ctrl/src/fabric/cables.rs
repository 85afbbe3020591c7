//! The patch panel of a topology: which cable is which, and what state it is in.

use std::os::fd::OwnedFd;
use std::sync::Mutex;

use dataplane::port::{Packet, Tap};
use dataplane::{
    Cable, CableHandle, Event, LaneStats, Panel, PanelError, PanelOptions, Port, PortError, Side,
};

use crate::api::{CableReport, CableState, LaneReport};
use crate::topology::{self, End, EndOwner, Topology};

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
}

/// All cables of a fabric.
pub struct Cables {
    panel: Panel,
    entries: Vec<Entry>,
    workers: usize,
}

struct Entry {
    name: String,
    ends: [String; 2],
    handle: CableHandle,
    state: Mutex<CableState>,
}

/// A cable to be, its ports open.
pub struct Planned {
    /// The cable's name.
    pub name: String,
    /// The ports' names.
    pub ends: [String; 2],
    /// What it joins.
    pub ports: [Port; 2],
}

/// Opens the ports of every cable of a topology: the host's end is the tap given, all others
/// are the devices of their names.
///
/// # Errors
/// The first port that cannot be opened.
pub(super) fn open_ports(
    topology: &Topology,
    mut host_tap: Option<OwnedFd>,
) -> Result<Vec<Planned>, CablesError> {
    let mut planned = Vec::with_capacity(topology.cables.len());
    for topology::Cable { name, a, b } in &topology.cables {
        let mut port = |end: &End| match end.owner {
            EndOwner::Host => match host_tap.take() {
                Some(tap) => host_port(name, &end.tap, tap),
                None => netdev(name, &end.tap),
            },
            EndOwner::Switch { .. } | EndOwner::Server { .. } => netdev(name, &end.tap),
        };
        let ports = [port(a)?, port(b)?];
        planned.push(Planned {
            name: name.clone(),
            ends: [a.tap.clone(), b.tap.clone()],
            ports,
        });
    }
    Ok(planned)
}

impl Cables {
    /// Starts the workers and plugs the cables in. `bell` is rung when [`Cables::event`] has
    /// something to tell.
    ///
    /// # Errors
    /// The first cable or worker that failed; nothing keeps running then.
    pub fn plug(
        planned: Vec<Planned>,
        options: &PanelOptions,
        bell: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        let panel = Panel::start(options, bell)?;
        let workers = panel.workers();
        let plug = |Planned {
                        name,
                        ends,
                        ports: [a, b],
                    }| {
            let handle = panel.add(Cable::new(a, b))?;
            let state = Mutex::new(CableState::Up);
            Ok(Entry {
                name,
                ends,
                handle,
                state,
            })
        };
        let result = planned
            .into_iter()
            .map(plug)
            .collect::<Result<Vec<_>, CablesError>>();
        match result {
            Ok(entries) => Ok(Cables {
                panel,
                entries,
                workers,
            }),
            Err(error) => {
                panel.stop();
                Err(error)
            }
        }
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

    /// One cable's state and counters, by its place in the topology.
    pub fn report(&self, index: usize) -> CableReport {
        let Entry {
            name,
            ends: [a, b],
            handle,
            state,
        } = &self.entries[index];
        let [a_to_b, b_to_a] = &handle.lanes;
        CableReport {
            name: name.clone(),
            state: *state.lock().expect("no holder of this lock can panic"),
            lanes: [lane(a, b, a_to_b), lane(b, a, b_to_a)],
        }
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

    /// Lets the cable's frames pass or not, from now on.
    ///
    /// # Errors
    /// When its worker does not answer.
    pub fn set_state(&self, index: usize, state: CableState) -> Result<(), PanelError> {
        let entry = &self.entries[index];
        self.panel.set_state(entry.handle.id, to_dataplane(state))?;
        *entry
            .state
            .lock()
            .expect("no holder of this lock can panic") = state;
        Ok(())
    }

    /// Plugs a device into one end of a cable again, after it was made anew.
    ///
    /// # Errors
    /// As [`Cables::plug`].
    pub fn replug(&self, index: usize, side: topology::Side) -> Result<(), CablesError> {
        let entry = &self.entries[index];
        let port = netdev(&entry.name, &entry.ends[side as usize])?;
        self.panel
            .exchange(entry.handle.id, to_panel(side), Some(port))?;
        Ok(())
    }

    /// A port that failed by itself, as a sentence.
    pub fn event(&self) -> Option<String> {
        let Event::PortFailed {
            cable, side, error, ..
        } = self.panel.event()?;
        let (name, ends) = self
            .entries
            .iter()
            .find(|entry| entry.handle.id == cable)
            .map(|entry| (entry.name.as_str(), &entry.ends))?;
        Some(format!(
            "cable {name}: its port {} failed: {error}",
            ends[side as usize]
        ))
    }

    /// Stops forwarding and closes every port.
    pub fn stop(&self) {
        self.panel.stop();
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

fn netdev(cable: &str, name: &str) -> Result<Port, CablesError> {
    Packet::open(name)
        .map(Port::Packet)
        .map_err(|source| CablesError::Port {
            cable: cable.into(),
            source,
        })
}

fn lane(from: &str, to: &str, stats: &LaneStats) -> LaneReport {
    let seen = stats.snapshot();
    LaneReport {
        from: from.into(),
        to: to.into(),
        frames_in: seen.frames_in,
        bytes_in: seen.bytes_in,
        frames_out: seen.frames_out,
        held: seen.held,
        drops: seen
            .drop_reasons()
            .map(|(reason, count)| (reason.name().into(), count))
            .collect(),
    }
}

fn to_dataplane(state: CableState) -> dataplane::CableState {
    match state {
        CableState::Up => dataplane::CableState::Up,
        CableState::Down => dataplane::CableState::Down,
        CableState::Blackhole => dataplane::CableState::Blackhole,
    }
}

fn to_panel(side: topology::Side) -> Side {
    match side {
        topology::Side::A => Side::A,
        topology::Side::B => Side::B,
    }
}

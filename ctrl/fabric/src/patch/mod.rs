//! A single cable without a datacenter: `ikv-fabric patch`.

mod port_spec;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataplane::seccomp;
use dataplane::sys::tap;
use dataplane::{Panel, PanelOptions};
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use tokio::time::sleep;

use crate::cable_requests::CableRequests;
use crate::cables::Cables;
use crate::cables::error::CablesError;
use crate::cables::event::CableEvent;
use crate::cables::names::CableNames;
use crate::cables::panel::{PatchPanel, ThreadRights};
use crate::cables::plan::{PlannedCable, PlannedEnd, PlannedSocket};
use crate::descriptors::make_room;
use crate::events::log::{EventLog, FABRIC};
use crate::owner::Person;
use crate::recorder::Recorder;
use crate::recorder::options::RecorderOptions;
use crate::rights;
use crate::stop::StopRequest;
use api::capture::{CaptureRequest, CaptureStream};
use api::{
    ApiError, ApplyAnswer, ApplyRequest, Backend, CableBatchDone, CableChanged, CableReport,
    ConsoleStream, EventKind, EventsRequest, ExecAnswer, ExecRequest, IpmiAccess, LaneImpairment,
    NodeStatus, PageLink, Peer, Positions, PositionsRequest, Recording, SshAccess, Status,
    Stopping, Streamed,
};
use dataplane::Side;
use host::lock::StatePaths;
use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::config::Config;
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::TopologyJson;
pub use port_spec::PortSpec;
use port_spec::{OwnSocket, WIRE};

/// A wire while it runs. Dropping it closes its ports.
pub struct Patch(Arc<Wire>);

struct Wire {
    cables: Cables,
    recorder: Option<Recorder>,
    events: Arc<EventLog>,
    ends: [PortSpec; 2],
    /// Second descriptors of the taps that this process holds. Their carrier is set through them.
    taps: [Option<OwnedFd>; 2],
    _files: [Option<OwnSocket>; 2],
    owner: u32,
    stop: StopRequest,
}

impl Patch {
    /// Joins two ports, then gives up every right of root that is no longer needed. `state`: the
    /// files beside the API's socket. `record`: the recorder's options; `None` disables it.
    /// `notifier` is called when [`Patch::notice`] has a new sentence.
    ///
    /// # Errors
    /// When a port cannot be opened or no worker can be started.
    pub async fn plug(
        ports: &[PortSpec; 2],
        options: &PanelOptions,
        owner: &Person,
        state: &StatePaths,
        record: Option<RecorderOptions>,
        notifier: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Self, CablesError> {
        make_room(1)?;
        let [a, b] = [ports[0].open(owner)?, ports[1].open(owner)?];
        let panel = PatchPanel::start(options, sockets_rights(ports), notifier)?;
        let mut cables = Cables::none(panel);
        let (taps, files) = ([a.tap, b.tap], [a.file, b.file]);
        let planned = PlannedCable {
            name: WIRE.into(),
            ends: [
                planned_end(&ports[0], a.port, a.role),
                planned_end(&ports[1], b.port, b.role),
            ],
        };
        cables.plug(vec![planned]).await?;
        let mut wire = Wire {
            cables,
            recorder: None,
            events: Arc::default(),
            ends: ports.clone(),
            taps,
            _files: files,
            owner: owner.uid,
            stop: StopRequest::default(),
        };
        if let Some(options) = record {
            let recorder = Recorder::start(&wire.cables, options, &wire, &state.recorder);
            wire.recorder = Some(recorder.await?);
        }
        // Last: opening ports and sockets needs the rights that are given up here.
        rights::settle(own_rights(ports, state)).map_err(CablesError::Rights)?;
        Ok(Patch(Arc::new(wire)))
    }

    /// The next sentence for the user, if any.
    pub async fn notice(&self) -> Option<String> {
        let wire = &self.0;
        let (kind, subject, notice) = match wire.cables.event()? {
            CableEvent::Notice(notice) => (EventKind::Notice, WIRE, notice),
            CableEvent::Closed { index, notice } => {
                let carriers = Side::BOTH.map(|side| wire.set_carrier(index, side, false));
                join_all(carriers).await;
                (EventKind::Carrier, WIRE, notice)
            }
            CableEvent::FrontEnd { side, plugged, .. } => {
                let end = wire.ends[side as usize].name();
                let (kind, what) = if plugged {
                    (EventKind::Plugged, "is plugged in")
                } else {
                    (EventKind::Unplugged, "has left")
                };
                (kind, end, format!("a front end {what} at {end}"))
            }
        };
        wire.events.add(kind, subject, &notice);
        Some(notice)
    }

    /// Checks the recorder's triggers until dropped. `notify` is called with a sentence for each
    /// dump that was kept.
    pub async fn watch_triggers(&self, notify: impl Fn(String)) {
        match self.0.recorder() {
            Some(recorder) => {
                let notice = |notice: String| {
                    self.0.events.add(EventKind::Notice, WIRE, &notice);
                    notify(notice);
                };
                recorder.watch(notice).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Looks after the workers until dropped. `notify` is called with a sentence when one makes no
    /// progress, and when it goes on.
    pub async fn look_after_workers(&self, notify: impl Fn(String)) {
        loop {
            sleep(Panel::LOOK).await;
            for sentence in self.0.cables.look_after_workers() {
                self.0.events.add(EventKind::Worker, FABRIC, &sentence);
                notify(sentence);
            }
        }
    }

    /// Waits until a client who may asks that the wire ends.
    pub async fn stop_asked(&self) {
        self.0.stop.asked().await;
    }

    /// Frames and bytes that entered the wire, and frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        self.0.cables().traffic()
    }

    /// Closes both ports. Takes two seconds at most, even if a worker is stuck.
    pub async fn stop(&self) {
        self.0.cables().panel().stop().await;
    }
}

/// The rights of the threads. One that connects to sockets must reach them.
fn sockets_rights(ports: &[PortSpec; 2]) -> ThreadRights {
    let clients = ports.iter().filter_map(|port| match port {
        PortSpec::VhostUserClient(path) => Some(Path::new(path)),
        _ => None,
    });
    let clients: Vec<_> = clients.collect();
    if clients.is_empty() {
        rights::for_threads(&Config::default())
    } else {
        ThreadRights::Keep(rights::for_files(&clients))
    }
}

/// The rights that this process needs while the wire runs.
fn own_rights(ports: &[PortSpec; 2], state: &StatePaths) -> dataplane::rights::CapabilitySet {
    let netdevs = ports.iter().any(|port| matches!(port, PortSpec::Netdev(_)));
    let mut files = vec![state.folder.as_path()];
    files.extend(ports.iter().filter_map(PortSpec::socket));
    rights::for_patch(netdevs, &files)
}

impl CableNames for Wire {
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

    fn alias(&self, _: usize, side: Side) -> String {
        match side {
            Side::A => "wire:a".into(),
            Side::B => "wire:b".into(),
        }
    }

    fn is_between_switches(&self, _: usize) -> bool {
        false
    }
}

impl CableRequests for Arc<Wire> {
    fn cables(&self) -> &Cables {
        &self.cables
    }

    fn recorder(&self) -> Option<&Recorder> {
        self.recorder.as_ref()
    }

    fn events(&self) -> &EventLog {
        &self.events
    }

    async fn set_carrier(&self, _: usize, side: Side, up: bool) -> Option<String> {
        let (end, tap) = (&self.ends[side as usize], &self.taps[side as usize]);
        if let Err(error) = self.cables.set_carrier(0, side, up).await {
            return Some(format!("{} could not be notified: {error}", end.name()));
        }
        match tap {
            Some(tap) => tap::set_carrier(tap, up)
                .err()
                .map(|error| format!("the carrier of {} could not be set: {error}", end.name())),
            None => (!up && end.socket().is_none()).then(|| {
                format!(
                    "{} keeps its carrier; for the program that uses it this is a blackhole",
                    end.name()
                )
            }),
        }
    }
}

fn planned_end(
    spec: &PortSpec,
    port: Option<dataplane::Port>,
    role: Option<dataplane::vhost_sockets::Role>,
) -> PlannedEnd {
    PlannedEnd {
        name: spec.name().to_owned(),
        port,
        socket: role.map(|role| PlannedSocket {
            role,
            mtu: None,
            file: None,
        }),
    }
}

fn no_switch<T>(node: &str) -> Result<T, ApiError> {
    Err(ApiError::conflict(format!(
        "there is no switch {node}: this is a single wire (`ikv-fabric patch`)"
    )))
}

impl Backend for Patch {
    fn status(&self) -> Status {
        let mut problems = self.0.cables().worker_troubles();
        let ready = problems.is_empty();
        problems.extend(self.0.cables().closed());
        problems.extend(seccomp::missing());
        Status {
            ready,
            problems,
            host: Vec::new(),
            nodes: Vec::new(),
            cables: self.0.cables().len(),
            workers: self.0.cables().panel().workers(),
            hold_memory: self.0.cables().panel().hold_memory().limit(),
            hold_memory_taken: self.0.cables().panel().hold_memory().taken(),
            applying: None,
        }
    }

    fn topology(&self) -> Result<TopologyJson, ApiError> {
        no_switch("in the plan")
    }

    async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        for name in names {
            self.0.cable(name)?;
        }
        // A wire consists of one cable, so any valid name refers to it.
        self.0.reports(&[]).await
    }

    async fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> Result<CableChanged, ApiError> {
        self.0.set_state(name, state).await
    }

    async fn impair(
        &self,
        name: &str,
        change: ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ApiError> {
        self.0.impair(name, change).await
    }

    fn impairments(&self) -> Vec<LaneImpairment> {
        self.0.cables().all_impairments()
    }

    async fn change_cables(&self, batch: CableBatch) -> Result<CableBatchDone, ApiError> {
        self.0.change(batch).await
    }

    async fn apply(self: Arc<Self>, _: ApplyRequest, _: Peer) -> Result<ApplyAnswer, ApiError> {
        Err(ApiError::conflict(
            "a wire has no configuration to apply: `ikv-fabric cable` and `impair` change it",
        ))
    }

    fn stop(&self, peer: Peer) -> Result<Stopping, ApiError> {
        self.0.stop.ask(peer, self.0.owner)
    }

    async fn positions(&self, _: PositionsRequest) -> Result<Positions, ApiError> {
        no_switch("to plug in at")
    }

    fn vm_args(&self, position: &str, _: &PlugOptions) -> Result<Vec<String>, ApiError> {
        no_switch(position)
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
        self.0.capture(request).await
    }

    fn events(&self, request: EventsRequest) -> BoxStream<'static, Streamed> {
        self.0.events.read(request)
    }

    fn workers_busy(&self) -> Vec<Duration> {
        self.0.cables().panel().busy()
    }

    fn page(&self) -> Result<PageLink, ApiError> {
        Err(ApiError::conflict(
            "a wire has no page: `ikv-fabric cables` shows it",
        ))
    }

    fn recorder(&self) -> Result<impl Recording, ApiError> {
        self.0.recording()
    }
}

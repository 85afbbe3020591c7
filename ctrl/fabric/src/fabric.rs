//! A running fabric: [`Fabric`] is composed of parts, each of which answers its share of the API.

use std::sync::Arc;
use std::time::Duration;

use dataplane::seccomp;
use futures_util::stream::BoxStream;

use crate::cable_requests::CableRequests;
use crate::cables::Cables;
use crate::cables::names::CableNames;
use crate::change::control::ChangeControl;
use crate::events::log::EventLog;
use crate::learning::Learning;
use crate::live::Live;
use crate::recorder::Recorder;
use crate::state::FabricState;
use crate::stop::StopRequest;
use crate::switches::{Switches, bmcs};
use crate::{positions, rights, vm_args};
use api::capture::{CaptureRequest, CaptureStream};
use api::{
    ApiError, ApplyAnswer, ApplyRequest, Backend, CableBatchDone, CableChanged, CableReport,
    ConsoleStream, EventsRequest, ExecAnswer, ExecRequest, IpmiAccess, LaneImpairment, NodeStatus,
    PageLink, Peer, Positions, PositionsRequest, Recording, SshAccess, Status, Stopping, Streamed,
};
use dataplane::Side;
use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::TopologyJson;

/// A fabric while it runs.
pub struct Fabric {
    pub(crate) live: Arc<Live>,
    pub(crate) switches: Switches,
    /// `None` if recording is disabled.
    pub(crate) recorder: Arc<Option<Recorder>>,
    pub(crate) change: ChangeControl,
    /// The link of the page, if there is one.
    pub(crate) page: Option<String>,
    learning: Learning,
    stop: StopRequest,
}

impl Fabric {
    pub(crate) fn new(
        live: Live,
        switches: Switches,
        recorder: Option<Recorder>,
        change: ChangeControl,
        page: Option<String>,
    ) -> Self {
        Fabric {
            live: Arc::new(live),
            switches,
            recorder: Arc::new(recorder),
            change,
            page,
            learning: Learning::default(),
            stop: StopRequest::default(),
        }
    }

    /// Whether every planned switch runs with all its sessions and every loopback answers (true at
    /// once if no switch is planned), and nothing keeps it from being so.
    pub fn is_ready(&self) -> bool {
        self.live.is_ready() && self.hindrances().is_empty()
    }

    /// Whether every switch had all its sessions, and every loopback answered, at any time.
    pub fn was_ready(&self) -> bool {
        self.live.was_ready()
    }

    /// What keeps the fabric from being ready besides its switches, a sentence for each: workers and
    /// tasks that have stopped, and what another program took from the host.
    fn hindrances(&self) -> Vec<String> {
        let mut hindrances = self.live.state().cables.worker_troubles();
        hindrances.extend(self.live.ended_tasks.sentences());
        hindrances.extend(self.live.upkeep.troubles());
        hindrances.extend(self.live.acceptance.refused());
        hindrances
    }

    /// Waits until something that [`Backend::status`] reports may have changed.
    pub async fn changed(&self) {
        self.live.notices.changed().await;
    }

    /// The sum over all cables' lanes: frames and bytes that entered, frames dropped.
    pub fn traffic(&self) -> (u64, u64, u64) {
        self.live.state().cables.traffic()
    }

    /// The number of ends at which a program or VM is plugged in.
    pub fn plugged(&self) -> usize {
        self.live.occupancies.occupied()
    }

    /// Waits until a client who may asks that the fabric ends.
    pub async fn stop_asked(&self) {
        self.stop.asked().await;
    }

    /// Takes the sentences for the user that were added since the last call.
    pub fn notices(&self) -> Vec<String> {
        self.live.notices.take()
    }

    /// Checks the recorder's triggers until dropped.
    pub(crate) async fn watch_triggers(self: Arc<Self>) {
        if let Some(recorder) = &*self.recorder {
            recorder.watch(|notice| self.live.notices.add(notice)).await;
        }
    }

    /// The cables at this moment, for one request.
    fn cables_now(&self) -> CablesNow {
        CablesNow {
            state: self.live.state(),
            live: self.live.clone(),
            recorder: self.recorder.clone(),
        }
    }
}

/// The cables of a fabric at one moment: a request sees the same state from its beginning to its
/// end.
#[derive(Clone)]
struct CablesNow {
    state: Arc<FabricState>,
    live: Arc<Live>,
    recorder: Arc<Option<Recorder>>,
}

impl CableNames for CablesNow {
    fn cable(&self, name: &str) -> Result<usize, ApiError> {
        CableNames::cable(&self.state.plan.topology, name)
    }

    fn named(&self, name: &str) -> Result<Vec<usize>, ApiError> {
        self.state.plan.topology.named(name)
    }

    fn end(&self, name: &str) -> Result<(usize, Side), ApiError> {
        CableNames::end(&self.state.plan.topology, name)
    }

    fn alias(&self, cable: usize, side: Side) -> String {
        self.state.plan.topology.alias(cable, side)
    }

    fn is_between_switches(&self, cable: usize) -> bool {
        self.state.plan.topology.is_between_switches(cable)
    }
}

impl CableRequests for CablesNow {
    fn cables(&self) -> &Cables {
        &self.state.cables
    }

    fn recorder(&self) -> Option<&Recorder> {
        Option::as_ref(&self.recorder)
    }

    fn events(&self) -> &EventLog {
        &self.live.events
    }

    async fn set_carrier(&self, cable: usize, side: Side, up: bool) -> Option<String> {
        self.live.set_carrier(&self.state, cable, side, up).await
    }
}

impl Backend for Fabric {
    fn status(&self) -> Status {
        let state = self.live.state();
        let mut problems = self.hindrances();
        let ready = self.live.is_ready() && problems.is_empty();
        problems.extend(self.live.upkeep.put_back());
        problems.extend(state.cables.closed());
        problems.extend(seccomp::missing());
        problems.extend(rights::stay_roots(&state.plan.config));
        let factory = self.switches.factory();
        problems.extend(factory.iter().flat_map(|factory| factory.not_jailed()));
        Status {
            ready,
            problems,
            host: self.live.upkeep.troubles(),
            nodes: state.nodes(),
            cables: state.cables.len(),
            workers: state.cables.panel().workers(),
            hold_memory: state.cables.panel().hold_memory().limit(),
            hold_memory_taken: state.cables.panel().hold_memory().taken(),
            applying: self.change.doing(),
        }
    }

    fn topology(&self) -> Result<TopologyJson, ApiError> {
        Ok(TopologyJson::from(&self.live.state().plan.topology))
    }

    async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError> {
        self.cables_now().reports(names).await
    }

    async fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> Result<CableChanged, ApiError> {
        self.cables_now().set_state(name, state).await
    }

    async fn impair(
        &self,
        name: &str,
        change: ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ApiError> {
        self.cables_now().impair(name, change).await
    }

    fn impairments(&self) -> Vec<LaneImpairment> {
        self.live.state().cables.all_impairments()
    }

    async fn change_cables(&self, batch: CableBatch) -> Result<CableBatchDone, ApiError> {
        self.cables_now().change(batch).await
    }

    async fn apply(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> Result<ApplyAnswer, ApiError> {
        // On the heap: it holds whole configurations.
        Box::pin(self.change_to(request, peer)).await
    }

    fn stop(&self, peer: Peer) -> Result<Stopping, ApiError> {
        let stopping = self.stop.ask(peer, self.live.owner.uid)?;
        self.live.notices.add(format!(
            "ends: the user with uid {} has asked for it (`ikv-fabric stop`)",
            peer.uid.unwrap_or_default()
        ));
        Ok(stopping)
    }

    async fn positions(&self, request: PositionsRequest) -> Result<Positions, ApiError> {
        Ok(if request.learned {
            positions::list_learned(&self.live, &self.learning).await
        } else {
            positions::list(&self.live)
        })
    }

    fn vm_args(&self, position: &str, wish: &PlugOptions) -> Result<Vec<String>, ApiError> {
        let topology = &self.live.state().plan.topology;
        vm_args::options(topology, &self.live.paths, position, wish).map_err(ApiError::unknown)
    }

    fn ssh(&self) -> Result<SshAccess, ApiError> {
        self.switches.ssh()
    }

    fn ipmi(&self) -> Result<IpmiAccess, ApiError> {
        let topology = &self.live.state().plan.topology;
        bmcs::access(self.switches.bmcs(), topology)
    }

    async fn exec(&self, node: &str, request: ExecRequest) -> Result<ExecAnswer, ApiError> {
        self.live.state().switch(node)?.exec(request).await
    }

    async fn power(&self, node: &str, action: PowerAction) -> Result<NodeStatus, ApiError> {
        let state = self.live.state();
        let switch = state.switch(node)?;
        switch.power(action).await?;
        let mut nodes = state.switches.iter();
        let found = nodes.find(|(_, it)| it.name() == switch.name());
        let (index, _) = found.expect("the state has just found it");
        Ok(state.node(*index, &switch))
    }

    async fn console(&self, node: &str) -> Result<Box<dyn ConsoleStream>, ApiError> {
        Ok(self.live.state().switch(node)?.console())
    }

    async fn capture(&self, request: &CaptureRequest) -> Result<CaptureStream, ApiError> {
        self.cables_now().capture(request).await
    }

    fn events(&self, request: EventsRequest) -> BoxStream<'static, Streamed> {
        self.live.events.read(request)
    }

    fn workers_busy(&self) -> Vec<Duration> {
        self.live.state().cables.panel().busy()
    }

    fn page(&self) -> Result<PageLink, ApiError> {
        let link = self.page.clone();
        link.map(|link| PageLink { link }).ok_or_else(|| {
            ApiError::conflict("this fabric has no page: start it with `run --web 127.0.0.1:8090`")
        })
    }

    fn recorder(&self) -> Result<impl Recording, ApiError> {
        self.cables_now().recording()
    }
}

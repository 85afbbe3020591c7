//! What the server asks of a fabric: [`Backend`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::TopologyJson;

use crate::capture::{CaptureRequest, CaptureStream};
use crate::error::ApiError;
use crate::events::{EventsRequest, Streamed};
use crate::recorder::{DumpRequest, RecorderStatus, TriggersRequest};
use crate::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, ExecAnswer, ExecRequest,
    IpmiAccess, LaneImpairment, NodeStatus, PageLink, Peer, Positions, PositionsRequest, SshAccess,
    Status, Stopping,
};

/// The bytes of a serial console, both ways.
pub trait ConsoleStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ConsoleStream for T {}

/// A fabric as the API sees it: one method for each route but that of the description.
///
/// All requests are answered on one thread. So a method that has to wait, for a worker, a guest
/// or a disk, is `async`; the others must answer at once. Every name in a request may be
/// unknown, and any request may make no sense for this fabric: that is an [`ApiError`].
pub trait Backend: Send + Sync + 'static {
    /// Whether the fabric is ready, and what each switch does.
    fn status(&self) -> Status;

    /// What `topology --json` prints.
    ///
    /// # Errors
    /// When there is no topology, as for `patch`.
    fn topology(&self) -> Result<TopologyJson, ApiError>;

    /// Reports the cables that `names` names, or all if it is empty.
    fn cables(
        &self,
        names: &[String],
    ) -> impl Future<Output = Result<Vec<CableReport>, ApiError>> + Send;

    /// Cuts or mends a cable, or makes it swallow frames.
    fn set_cable_state(
        &self,
        name: &str,
        state: CableState,
    ) -> impl Future<Output = Result<CableChanged, ApiError>> + Send;

    /// Changes what a cable does to its frames. Answers with both lanes, from the first end to
    /// the second and back.
    fn impair(
        &self,
        name: &str,
        change: ImpairmentChange,
    ) -> impl Future<Output = Result<[LaneImpairment; 2], ApiError>> + Send;

    /// Every lane that has an impairment.
    fn impairments(&self) -> Vec<LaneImpairment>;

    /// Makes all changes of a batch at one instant, or none.
    fn change_cables(
        &self,
        batch: CableBatch,
    ) -> impl Future<Output = Result<CableBatchDone, ApiError>> + Send;

    /// Gives the fabric another configuration. The server drives the future to its end even if
    /// the client has gone.
    fn apply(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> impl Future<Output = Result<ApplyAnswer, ApiError>> + Send;

    /// Begins to end the fabric.
    ///
    /// # Errors
    /// When this user may not.
    fn stop(&self, peer: Peer) -> Result<Stopping, ApiError>;

    /// Where servers plug in; an error when they cannot, as with `patch`.
    fn positions(
        &self,
        request: PositionsRequest,
    ) -> impl Future<Output = Result<Positions, ApiError>> + Send;

    /// What plugs a VM in at `position`, such as `rack1:u3` or `ikvm1-3-1`.
    ///
    /// # Errors
    /// When there is no such position.
    fn vm_args(&self, position: &str, options: &PlugOptions) -> Result<Vec<String>, ApiError>;

    /// How the switches are reached by SSH.
    ///
    /// # Errors
    /// When the fabric runs no switches.
    fn ssh(&self) -> Result<SshAccess, ApiError>;

    /// How the switches' BMCs are reached.
    ///
    /// # Errors
    /// When the fabric has no BMCs.
    fn ipmi(&self) -> Result<IpmiAccess, ApiError>;

    /// Runs a command on a switch to its end.
    fn exec(
        &self,
        node: &str,
        request: ExecRequest,
    ) -> impl Future<Output = Result<ExecAnswer, ApiError>> + Send;

    /// Switches a switch on or off, or resets it.
    fn power(
        &self,
        node: &str,
        action: PowerAction,
    ) -> impl Future<Output = Result<NodeStatus, ApiError>> + Send;

    /// Attaches to the serial console of a switch.
    fn console(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Box<dyn ConsoleStream>, ApiError>> + Send;

    /// Starts a capture: every lane is tapped when the future completes.
    fn capture(
        &self,
        request: &CaptureRequest,
    ) -> impl Future<Output = Result<CaptureStream, ApiError>> + Send;

    /// The events that `request` asks for, in their order.
    fn events(&self, request: EventsRequest) -> BoxStream<'static, Streamed>;

    /// How long each worker has moved frames since it started, by the workers' numbers.
    fn workers_busy(&self) -> Vec<Duration>;

    /// The link of the fabric's page.
    ///
    /// # Errors
    /// When it has none.
    fn page(&self) -> Result<PageLink, ApiError>;

    /// The flight recorder.
    ///
    /// # Errors
    /// When nothing is recorded.
    fn recorder(&self) -> Result<impl Recording, ApiError>;
}

/// A flight recorder as the API sees it.
pub trait Recording: Send + Sync {
    /// Its memory, its triggers and the dumps that it has kept.
    fn status(&self) -> impl Future<Output = RecorderStatus> + Send;

    /// What it holds now, of the cables that are asked for.
    fn dump(
        &self,
        request: &DumpRequest,
    ) -> impl Future<Output = Result<CaptureStream, ApiError>> + Send;

    /// A dump that it has kept.
    fn kept(&self, name: &str) -> impl Future<Output = Result<CaptureStream, ApiError>> + Send;

    /// Replaces its triggers.
    fn set_triggers(
        &self,
        request: TriggersRequest,
    ) -> impl Future<Output = Result<RecorderStatus, ApiError>> + Send;
}

//! The client of a running fabric: [`Client`].

mod error;
mod events;
mod http;
mod socket;

use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};

use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::power::PowerAction;
use model::topology::TopologyJson;

use crate::routes::{self, CableNames, Nothing};
use crate::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, CableStateRequest,
    CaptureRequest, DumpRequest, EventsRequest, ExecAnswer, ExecRequest, IpmiAccess,
    LaneImpairment, NodeStatus, PageLink, Positions, PositionsRequest, PowerRequest,
    RecorderStatus, SshAccess, Status, Stopping, Trigger, TriggersRequest,
};

pub use error::ClientError;
pub use events::EventReader;
pub use socket::{default_socket, own_socket};

/// A client of one fabric, with a method for each route.
///
/// It makes a connection for each request, which is cheap on a unix socket; so it can be cloned
/// and used from several tasks at once, and it may exist before the fabric does.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Where a method takes a `cable`, that is its name or either of its ends, by name or alias; a
/// `node` is a switch's name.
///
/// # Errors
/// Every method fails when no fabric listens, when it ends in mid-answer, and when it refuses
/// the request: see [`ClientError`].
#[expect(
    clippy::missing_errors_doc,
    reason = "they are the same for every request: see above"
)]
impl Client {
    /// A client of the fabric that listens, or will listen, at `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client {
            socket: socket.into(),
        }
    }

    /// The path of the fabric's socket, as it was given.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How this fabric describes its API: see [`crate::openapi()`].
    pub async fn openapi(&self) -> Result<serde_json::Value, ClientError> {
        self.ask(routes::OPENAPI, "", &Nothing {}).await
    }

    /// Whether the fabric is ready, and what each switch does.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask(routes::STATUS, "", &Nothing {}).await
    }

    /// What `topology --json` prints; `patch` has no topology.
    pub async fn topology(&self) -> Result<TopologyJson, ClientError> {
        self.ask(routes::TOPOLOGY, "", &Nothing {}).await
    }

    /// The cables of these names, in this order; all cables if no name is given.
    pub async fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ClientError> {
        let names = CableNames(names.to_vec());
        self.ask(routes::CABLES, "", &names).await
    }

    /// Cuts or mends a cable, or makes it swallow frames.
    pub async fn set_cable_state(
        &self,
        cable: &str,
        state: CableState,
    ) -> Result<CableChanged, ClientError> {
        let request = CableStateRequest { state };
        self.ask(routes::CABLE_STATE, cable, &request).await
    }

    /// Changes what a cable does to its frames. Answers with both lanes, from the first end to
    /// the second and back.
    pub async fn impair(
        &self,
        cable: &str,
        change: &ImpairmentChange,
    ) -> Result<[LaneImpairment; 2], ClientError> {
        self.ask(routes::IMPAIRMENT, cable, change).await
    }

    /// Every lane that has an impairment.
    pub async fn impairments(&self) -> Result<Vec<LaneImpairment>, ClientError> {
        self.ask(routes::IMPAIRMENTS, "", &Nothing {}).await
    }

    /// Makes all changes of a batch at one instant, or none of them.
    pub async fn change_cables(&self, batch: &CableBatch) -> Result<CableBatchDone, ClientError> {
        self.ask(routes::CABLE_BATCH, "", batch).await
    }

    /// Gives the fabric another configuration, and waits until that is done. Dropping the future
    /// does not stop it.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyAnswer, ClientError> {
        self.ask(routes::APPLY, "", request).await
    }

    /// Ends the fabric: it answers as soon as it has begun to.
    pub async fn stop(&self) -> Result<Stopping, ClientError> {
        self.ask(routes::STOP, "", &Nothing {}).await
    }

    /// Where servers plug in, and which of these positions are taken.
    pub async fn positions(&self) -> Result<Positions, ClientError> {
        let request = PositionsRequest::default();
        self.ask(routes::POSITIONS, "", &request).await
    }

    /// As [`Client::positions`], with what the leaves have learned of who is plugged in.
    pub async fn learned_positions(&self) -> Result<Positions, ClientError> {
        let request = PositionsRequest { learned: true };
        self.ask(routes::POSITIONS, "", &request).await
    }

    /// What plugs a VM in at `position`: `rack1:u3`, `rack1:u3:1`, `ikvm1-3-1`.
    pub async fn vm_args(
        &self,
        position: &str,
        options: &PlugOptions,
    ) -> Result<Vec<String>, ClientError> {
        self.ask(routes::VM_ARGS, position, options).await
    }

    /// How the switches are reached by SSH.
    pub async fn ssh(&self) -> Result<SshAccess, ClientError> {
        self.ask(routes::SSH, "", &Nothing {}).await
    }

    /// How the switches' BMCs are reached, and what each of them does.
    pub async fn ipmi(&self) -> Result<IpmiAccess, ClientError> {
        self.ask(routes::IPMI, "", &Nothing {}).await
    }

    /// Runs a command on a switch to its end.
    pub async fn exec(&self, node: &str, request: &ExecRequest) -> Result<ExecAnswer, ClientError> {
        self.ask(routes::EXEC, node, request).await
    }

    /// Switches a switch on or off, or resets it; answers with what it does then.
    pub async fn power(&self, node: &str, action: PowerAction) -> Result<NodeStatus, ClientError> {
        self.ask(routes::POWER, node, &PowerRequest { action })
            .await
    }

    /// Attaches to the serial console of a switch: its bytes, both ways.
    pub async fn console(
        &self,
        node: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ClientError> {
        self.upgrade(routes::CONSOLE, node, &Nothing {}).await
    }

    /// Starts a capture; the stream is that of [`crate::capture`].
    pub async fn capture(
        &self,
        request: &CaptureRequest,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ClientError> {
        self.upgrade(routes::CAPTURE, "", request).await
    }

    /// What happened after the event `request.since`, and what happens from now on.
    pub async fn events(&self, request: &EventsRequest) -> Result<EventReader, ClientError> {
        let body = self.open(routes::EVENTS, request).await?;
        Ok(EventReader::new(self.clone(), body))
    }

    /// The figures for a monitoring system, as OpenMetrics.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let page = self.open(routes::METRICS, &Nothing {}).await?;
        self.read_text(page).await
    }

    /// The link of the fabric's page.
    pub async fn page(&self) -> Result<PageLink, ClientError> {
        self.ask(routes::PAGE, "", &Nothing {}).await
    }

    /// The flight recorder: its memory, its triggers and the dumps that it has kept.
    pub async fn recorder(&self) -> Result<RecorderStatus, ClientError> {
        self.ask(routes::RECORDER, "", &Nothing {}).await
    }

    /// What the flight recorder holds now; the stream is that of [`crate::capture`].
    pub async fn recorder_dump(
        &self,
        request: &DumpRequest,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ClientError> {
        self.upgrade(routes::RECORDER_DUMP, "", request).await
    }

    /// A dump that the flight recorder has kept; the stream is that of [`crate::capture`].
    pub async fn kept_dump(
        &self,
        dump: &str,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, ClientError> {
        self.upgrade(routes::KEPT_DUMP, dump, &Nothing {}).await
    }

    /// Replaces the triggers of the flight recorder.
    pub async fn set_triggers(
        &self,
        triggers: Vec<Trigger>,
    ) -> Result<RecorderStatus, ClientError> {
        let request = TriggersRequest { triggers };
        self.ask(routes::RECORDER_TRIGGERS, "", &request).await
    }
}

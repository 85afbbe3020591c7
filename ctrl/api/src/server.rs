//! The API's server side.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Json, Router};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, copy};
use tokio::net::UnixListener;

use super::capture::{CAPTURE_PROTOCOL, CaptureRequest, CaptureStream};
use super::recorder::{DumpRequest, RecorderStatus, Recording, SetTriggers};
use super::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, Exec, ExecAnswer,
    Failure, IpmiAccess, LaneImpairment, NodeStatus, Peer, Places, Power, PowerAction, SetCable,
    SshAccess, Status, connection, whole,
};
use model::cable_change::{CableBatch, CableState, ImpairmentChange};
use model::plugging::PlugOptions;
use model::printable;

/// The bytes of a serial console, both ways.
pub trait ConsoleStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> ConsoleStream for T {}

/// What the API asks of a fabric.
pub trait Backend: Send + Sync + 'static {
    /// `GET /v1/status`.
    fn status(&self) -> Status;
    /// `GET /v1/topology`.
    ///
    /// # Errors
    /// Where there is none: a bare patch.
    fn topology(&self) -> Result<serde_json::Value, ApiError>;
    /// `GET /v1/cables`: all, or those named.
    ///
    /// # Errors
    /// A name that nothing has.
    fn cables(&self, names: &[String]) -> Result<Vec<CableReport>, ApiError>;
    /// `PUT /v1/cables/NAME/state`.
    fn set_cable(
        &self,
        name: &str,
        state: CableState,
    ) -> impl Future<Output = Result<CableChanged, ApiError>> + Send;
    /// `PUT /v1/cables/NAME/impairment`.
    ///
    /// # Errors
    /// A name that nothing has, or keys that do not go together.
    fn impair(&self, name: &str, set: ImpairmentChange) -> Result<[LaneImpairment; 2], ApiError>;
    /// `GET /v1/impairments`.
    fn impairments(&self) -> Vec<LaneImpairment>;
    /// `POST /v1/step`.
    fn step(
        &self,
        step: CableBatch,
    ) -> impl Future<Output = Result<CableBatchDone, ApiError>> + Send;
    /// `POST /v1/apply`. It is driven to its end even if nobody waits for the answer.
    fn apply(
        self: Arc<Self>,
        request: ApplyRequest,
        peer: Peer,
    ) -> impl Future<Output = Result<ApplyAnswer, ApiError>> + Send;
    /// `GET /v1/places`.
    ///
    /// # Errors
    /// Where there are none: a bare patch.
    fn places(&self) -> Result<Places, ApiError>;
    /// `GET /v1/vm-args/PLACE`.
    ///
    /// # Errors
    /// A place that does not exist.
    fn vm_args(&self, place: &str, wish: &PlugOptions) -> Result<Vec<String>, ApiError>;
    /// `GET /v1/ssh`.
    ///
    /// # Errors
    /// Where there are no switches.
    fn ssh(&self) -> Result<SshAccess, ApiError>;
    /// `GET /v1/ipmi`.
    ///
    /// # Errors
    /// Where there are no BMCs.
    fn ipmi(&self) -> Result<IpmiAccess, ApiError>;
    /// `POST /v1/nodes/NODE/exec`.
    fn exec(
        &self,
        node: &str,
        exec: Exec,
    ) -> impl Future<Output = Result<ExecAnswer, ApiError>> + Send;
    /// `PUT /v1/nodes/NODE/power`.
    fn power(
        &self,
        node: &str,
        action: PowerAction,
    ) -> impl Future<Output = Result<NodeStatus, ApiError>> + Send;
    /// `GET /v1/nodes/NODE/console`.
    fn console(
        &self,
        node: &str,
    ) -> impl Future<Output = Result<Box<dyn ConsoleStream>, ApiError>> + Send;
    /// `POST /v1/capture`: every lane is tapped when it returns.
    ///
    /// # Errors
    /// A name that nothing has, or a filter that is no program.
    fn capture(&self, request: &CaptureRequest) -> Result<CaptureStream, ApiError>;
    /// What is asked for under `/v1/recorder`.
    ///
    /// # Errors
    /// Where nothing is recorded.
    fn recorder(&self) -> Result<impl Recording, ApiError>;
}

/// Why a request was refused: its status and one clear sentence.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// Nothing has that name.
    pub fn unknown(message: impl ToString) -> Self {
        ApiError {
            status: StatusCode::NOT_FOUND,
            message: message.to_string(),
        }
    }

    /// The request makes no sense here, now.
    pub fn conflict(message: impl ToString) -> Self {
        ApiError {
            status: StatusCode::CONFLICT,
            message: message.to_string(),
        }
    }

    /// It was tried and failed.
    pub fn failed(message: impl ToString) -> Self {
        ApiError {
            status: StatusCode::BAD_GATEWAY,
            message: message.to_string(),
        }
    }

    /// Not now, because of others.
    pub(super) fn busy(message: impl ToString) -> Self {
        ApiError::refused(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// It is no request of ours.
    pub(super) fn refused(status: StatusCode, message: impl ToString) -> Self {
        ApiError {
            status,
            message: message.to_string(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        // It may quote what was asked for, and is printed on terminals.
        let error = printable::tail(self.message.as_bytes(), LONGEST_SENTENCE);
        (self.status, Json(Failure { error })).into_response()
    }
}

/// Answers requests until dropped.
pub async fn serve<B: Backend>(listener: UnixListener, backend: Arc<B>) -> Infallible {
    connection::serve_clients(listener, router(backend)).await
}

fn router<B: Backend>(backend: Arc<B>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<B>))
        .route("/v1/topology", get(topology::<B>))
        .route("/v1/cables", get(cables::<B>))
        .route("/v1/cables/{name}/state", put(set_cable::<B>))
        .route("/v1/cables/{name}/impairment", put(impair::<B>))
        .route("/v1/impairments", get(impairments::<B>))
        .route("/v1/step", post(step::<B>))
        .route("/v1/apply", post(apply::<B>))
        .route("/v1/places", get(places::<B>))
        .route("/v1/vm-args/{place}", get(vm_args::<B>))
        .route("/v1/ssh", get(ssh::<B>))
        .route("/v1/ipmi", get(ipmi::<B>))
        .route("/v1/nodes/{node}/exec", post(exec::<B>))
        .route("/v1/nodes/{node}/power", put(power::<B>))
        .route("/v1/nodes/{node}/console", get(console::<B>))
        .route("/v1/capture", post(capture::<B>))
        .route("/v1/recorder", get(recorder::<B>))
        .route("/v1/recorder/dump", post(recorder_dump::<B>))
        .route("/v1/recorder/dumps/{name}", get(kept_dump::<B>))
        .route("/v1/recorder/triggers", put(set_triggers::<B>))
        .fallback(whole::unknown)
        .with_state(backend)
        // The one limit is that of `whole`.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(whole::whole))
}

async fn status<B: Backend>(State(backend): State<Arc<B>>) -> Json<Status> {
    Json(backend.status())
}

async fn topology<B: Backend>(
    State(backend): State<Arc<B>>,
) -> Result<Json<serde_json::Value>, ApiError> {
    backend.topology().map(Json)
}

async fn cables<B: Backend>(
    State(backend): State<Arc<B>>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Vec<CableReport>>, ApiError> {
    let names: Vec<_> = query
        .into_iter()
        .filter(|(key, _)| key == "name")
        .map(|(_, name)| name)
        .collect();
    backend.cables(&names).map(Json)
}

async fn set_cable<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Json(set): Json<SetCable>,
) -> Result<Json<CableChanged>, ApiError> {
    backend.set_cable(&name, set.state).await.map(Json)
}

async fn impair<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Json(set): Json<ImpairmentChange>,
) -> Result<Json<[LaneImpairment; 2]>, ApiError> {
    backend.impair(&name, set).map(Json)
}

async fn impairments<B: Backend>(State(backend): State<Arc<B>>) -> Json<Vec<LaneImpairment>> {
    Json(backend.impairments())
}

async fn step<B: Backend>(
    State(backend): State<Arc<B>>,
    Json(step): Json<CableBatch>,
) -> Result<Json<CableBatchDone>, ApiError> {
    backend.step(step).await.map(Json)
}

async fn apply<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(peer): Extension<Peer>,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<ApplyAnswer>, ApiError> {
    // What has begun is brought to its end, whether the client is there or not.
    let done = tokio::spawn(backend.apply(request, peer));
    done.await.map_err(ApiError::failed)?.map(Json)
}

async fn places<B: Backend>(State(backend): State<Arc<B>>) -> Result<Json<Places>, ApiError> {
    backend.places().map(Json)
}

async fn vm_args<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(place): Path<String>,
    Query(wish): Query<PlugOptions>,
) -> Result<Json<Vec<String>>, ApiError> {
    backend.vm_args(&place, &wish).map(Json)
}

async fn ssh<B: Backend>(State(backend): State<Arc<B>>) -> Result<Json<SshAccess>, ApiError> {
    backend.ssh().map(Json)
}

async fn ipmi<B: Backend>(State(backend): State<Arc<B>>) -> Result<Json<IpmiAccess>, ApiError> {
    backend.ipmi().map(Json)
}

async fn exec<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(node): Path<String>,
    Json(exec): Json<Exec>,
) -> Result<Json<ExecAnswer>, ApiError> {
    backend.exec(&node, exec).await.map(Json)
}

async fn power<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(node): Path<String>,
    Json(power): Json<Power>,
) -> Result<Json<NodeStatus>, ApiError> {
    backend.power(&node, power.action).await.map(Json)
}

async fn console<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(node): Path<String>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CONSOLE_PROTOCOL)?;
    let console = backend.console(&node).await?;
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(upgraded));
        let (mut from_vm, mut to_vm) = tokio::io::split(console);
        // Whichever ends, the client or the VM, ends both ways: else a client that has gone would
        // be noticed only when the VM says something.
        tokio::select! {
            _ = copy(&mut from_client, &mut to_vm) => {}
            _ = copy(&mut from_vm, &mut to_client) => {}
        }
    });
    Ok(switching_to(CONSOLE_PROTOCOL))
}

async fn capture<B: Backend>(
    State(backend): State<Arc<B>>,
    upgrade: Upgrade,
    Json(wanted): Json<CaptureRequest>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CAPTURE_PROTOCOL)?;
    Ok(send(backend.capture(&wanted)?, upgrade))
}

async fn recorder<B: Backend>(
    State(backend): State<Arc<B>>,
) -> Result<Json<RecorderStatus>, ApiError> {
    Ok(Json(backend.recorder()?.status()))
}

async fn recorder_dump<B: Backend>(
    State(backend): State<Arc<B>>,
    upgrade: Upgrade,
    Json(wanted): Json<DumpRequest>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CAPTURE_PROTOCOL)?;
    Ok(send(backend.recorder()?.dump(&wanted)?, upgrade))
}

async fn kept_dump<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CAPTURE_PROTOCOL)?;
    Ok(send(backend.recorder()?.kept(&name)?, upgrade))
}

async fn set_triggers<B: Backend>(
    State(backend): State<Arc<B>>,
    Json(set): Json<SetTriggers>,
) -> Result<Json<RecorderStatus>, ApiError> {
    backend.recorder()?.arm(set).map(Json)
}

/// What a request says of the stream that its connection is to become.
struct Upgrade {
    protocol: Option<HeaderValue>,
    connection: Option<OnUpgrade>,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Upgrade {
            protocol: parts.headers.get(header::UPGRADE).cloned(),
            connection: parts.extensions.remove(),
        })
    }
}

impl Upgrade {
    /// The connection, if this is the protocol that the client wants to go on with.
    fn to(self, protocol: &str) -> Result<OnUpgrade, ApiError> {
        let meant = self
            .protocol
            .is_some_and(|asked| asked.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
        self.connection.filter(|_| meant).ok_or_else(|| {
            ApiError::refused(
                StatusCode::BAD_REQUEST,
                format!(
                    "the answer is a stream: ask for it with the headers `Connection: upgrade` \
                     and `Upgrade: {protocol}`"
                ),
            )
        })
    }
}

/// Upgrades the connection and sends frames over it.
fn send(stream: CaptureStream, upgrade: OnUpgrade) -> Response {
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            // Fails when the client has gone: nobody is left to tell.
            let _ = stream.send(TokioIo::new(upgraded)).await;
        }
    });
    switching_to(CAPTURE_PROTOCOL)
}

fn switching_to(protocol: &'static str) -> Response {
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Characters of the sentence that a refusal says.
const LONGEST_SENTENCE: usize = 4 << 10;

/// Name of the protocol that a console connection is upgraded to: bytes as they are.
pub const CONSOLE_PROTOCOL: &str = "ikv-console";

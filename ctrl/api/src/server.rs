//! The API's server side.

use std::convert::Infallible;
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
use tokio::io::copy;
use tokio::net::UnixListener;

use super::backend::{Backend, Recording};
use super::capture::{CAPTURE_PROTOCOL, CaptureRequest, CaptureStream};
use super::error::{ApiError, RefusalKind};
use super::recorder::{DumpRequest, RecorderStatus, TriggersRequest};
use super::{
    ApplyAnswer, ApplyRequest, CableBatchDone, CableChanged, CableReport, CableStateRequest,
    ExecAnswer, ExecRequest, Failure, IpmiAccess, LaneImpairment, NodeStatus, Peer, Positions,
    PowerRequest, SshAccess, Status, connection, whole,
};
use model::cable_change::{CableBatch, ImpairmentChange};
use model::plugging::PlugOptions;
use model::printable;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        refusal(status_of(self.kind), &self.sentence)
    }
}

fn status_of(kind: RefusalKind) -> StatusCode {
    match kind {
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Unknown => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        RefusalKind::TooSlow => StatusCode::REQUEST_TIMEOUT,
        RefusalKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::Failed => StatusCode::BAD_GATEWAY,
    }
}

/// The answer to a request that is refused.
pub(super) fn refusal(status: StatusCode, sentence: &str) -> Response {
    // The sentence may quote the request, and the client prints it on a terminal.
    let error = printable::tail(sentence.as_bytes(), LONGEST_SENTENCE);
    (status, Json(Failure { error })).into_response()
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
    backend.cables(&names).await.map(Json)
}

async fn set_cable<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Json(set): Json<CableStateRequest>,
) -> Result<Json<CableChanged>, ApiError> {
    backend.set_cable_state(&name, set.state).await.map(Json)
}

async fn impair<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    Json(set): Json<ImpairmentChange>,
) -> Result<Json<[LaneImpairment; 2]>, ApiError> {
    backend.impair(&name, set).await.map(Json)
}

async fn impairments<B: Backend>(State(backend): State<Arc<B>>) -> Json<Vec<LaneImpairment>> {
    Json(backend.impairments())
}

async fn step<B: Backend>(
    State(backend): State<Arc<B>>,
    Json(step): Json<CableBatch>,
) -> Result<Json<CableBatchDone>, ApiError> {
    backend.change_cables(step).await.map(Json)
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

async fn places<B: Backend>(State(backend): State<Arc<B>>) -> Result<Json<Positions>, ApiError> {
    backend.positions().map(Json)
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
    Json(exec): Json<ExecRequest>,
) -> Result<Json<ExecAnswer>, ApiError> {
    backend.exec(&node, exec).await.map(Json)
}

async fn power<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(node): Path<String>,
    Json(power): Json<PowerRequest>,
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
    Ok(send(backend.capture(&wanted).await?, upgrade))
}

async fn recorder<B: Backend>(
    State(backend): State<Arc<B>>,
) -> Result<Json<RecorderStatus>, ApiError> {
    Ok(Json(backend.recorder()?.status().await))
}

async fn recorder_dump<B: Backend>(
    State(backend): State<Arc<B>>,
    upgrade: Upgrade,
    Json(wanted): Json<DumpRequest>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CAPTURE_PROTOCOL)?;
    Ok(send(backend.recorder()?.dump(&wanted).await?, upgrade))
}

async fn kept_dump<B: Backend>(
    State(backend): State<Arc<B>>,
    Path(name): Path<String>,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.to(CAPTURE_PROTOCOL)?;
    Ok(send(backend.recorder()?.kept(&name).await?, upgrade))
}

async fn set_triggers<B: Backend>(
    State(backend): State<Arc<B>>,
    Json(set): Json<TriggersRequest>,
) -> Result<Json<RecorderStatus>, ApiError> {
    backend.recorder()?.set_triggers(set).await.map(Json)
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
            ApiError::new(
                RefusalKind::Invalid,
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

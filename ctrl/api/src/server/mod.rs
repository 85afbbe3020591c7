//! The server of a fabric's API: [`serve`].
//!
//! A client passes [`limits`], each of its requests passes the [`request_guard`] and is read
//! into a [`ParsedRequest`]. The [`Backend`] answers; [`refusal`] turns an [`ApiError`] into a
//! status, [`stream`] connects a client that asked for a stream, and [`events`] writes events.
//! [`metrics_port`] serves one page over TCP, apart from all of this.

mod download;
mod events;
mod limits;
mod metrics_port;
mod parsed_request;
mod refusal;
mod request_guard;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn;
use axum::routing::{MethodFilter, on};
use axum::{Json, Router};
use hyper::Method;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use crate::capture::CaptureFileRequest;
use crate::events::EventsRequest;
use crate::routes::{self, CableNames, Nothing, Protocol, Route};
use crate::{ApiError, Backend, Recording, metrics};
use download::Downloads;
use events::StreamLimit;
pub use metrics_port::serve_metrics;
use parsed_request::ParsedRequest;
pub(crate) use refusal::refusals;
use stream::Stream;

/// Answers requests until dropped.
pub async fn serve<B: Backend>(listener: UnixListener, backend: Arc<B>) -> Infallible {
    limits::serve_clients(listener, router(backend)).await
}

/// All routes, for a server that decides by itself who may ask. Answers are those of [`serve`].
pub fn router<B: Backend>(backend: Arc<B>) -> Router {
    let handlers = recorder(switches(cables(Handlers::<B>(Router::new()))));
    let handlers = description(downloads(watching(handlers)))
        .json(routes::PAGE, |backend, _| async move { backend.page() })
        .json(
            routes::STATUS,
            |backend, _| async move { Ok(backend.status()) },
        )
        .json(
            routes::TOPOLOGY,
            |backend, _| async move { backend.topology() },
        )
        .json(routes::STOP, |backend, request| async move {
            backend.stop(request.peer)
        })
        .json(routes::POSITIONS, |backend, request| async move {
            backend.positions(request.input).await
        })
        .json(routes::VM_ARGS, |backend, request| async move {
            backend.vm_args(&request.name, &request.input)
        })
        .json(routes::APPLY, |backend, request| async move {
            // A task of its own: if the client goes away, axum drops only what waits for it.
            let applied = tokio::spawn(backend.apply(request.input, request.peer));
            applied.await.map_err(ApiError::failed)?
        });
    handlers
        .0
        .fallback(request_guard::unknown)
        .with_state(backend)
        // The request guard has read the body already, within its own limit.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(request_guard::guard))
}

fn cables<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    handlers
        .json(routes::CABLES, |backend, request| async move {
            let CableNames(names) = request.input;
            backend.cables(&names).await
        })
        .json(routes::CABLE_STATE, |backend, request| async move {
            let state = request.input.state;
            backend.set_cable_state(&request.name, state).await
        })
        .json(routes::IMPAIRMENT, |backend, request| async move {
            backend.impair(&request.name, request.input).await
        })
        .json(routes::IMPAIRMENTS, |backend, _| async move {
            Ok(backend.impairments())
        })
        .json(routes::CABLE_BATCH, |backend, request| async move {
            backend.change_cables(request.input).await
        })
        .stream(routes::CAPTURE, |backend, request| async move {
            backend.capture(&request.input).await
        })
}

fn switches<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    handlers
        .json(routes::SSH, |backend, _| async move { backend.ssh() })
        .json(routes::IPMI, |backend, _| async move { backend.ipmi() })
        .json(routes::EXEC, |backend, request| async move {
            backend.exec(&request.name, request.input).await
        })
        .json(routes::POWER, |backend, request| async move {
            backend.power(&request.name, request.input.action).await
        })
        .stream(routes::CONSOLE, |backend, request| async move {
            backend.console(&request.name).await
        })
}

fn recorder<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    handlers
        .json(routes::RECORDER, |backend, _| async move {
            Ok(backend.recorder()?.status().await)
        })
        .stream(routes::RECORDER_DUMP, |backend, request| async move {
            backend.recorder()?.dump(&request.input).await
        })
        .stream(routes::KEPT_DUMP, |backend, request| async move {
            backend.recorder()?.kept(&request.name).await
        })
        .json(routes::RECORDER_TRIGGERS, |backend, request| async move {
            backend.recorder()?.set_triggers(request.input).await
        })
}

fn watching<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    let limit = StreamLimit::default();
    let events = async move |State(backend): State<Arc<B>>,
                             request: ParsedRequest<EventsRequest>| {
        let permit = limit.admit()?;
        let mut wanted = request.input;
        wanted.since = request.last_event.or(wanted.since);
        Ok::<_, ApiError>(events::answer(backend.events(wanted), permit))
    };
    let metrics = async |State(backend): State<Arc<B>>, _: ParsedRequest<Nothing>| {
        let page = metrics::of(&*backend).await?;
        Ok::<_, ApiError>(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page))
    };
    let (of_events, of_metrics) = (routes::EVENTS, routes::METRICS);
    Handlers(
        handlers
            .0
            .route(of_events.template, on(filter(&of_events.method), events))
            .route(of_metrics.template, on(filter(&of_metrics.method), metrics)),
    )
}

/// Captures as files.
fn downloads<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    let limit = Downloads::default();
    let route = routes::CAPTURE_FILE;
    let handler = async move |State(backend): State<Arc<B>>,
                              request: ParsedRequest<CaptureFileRequest>| {
        limit.answer(&*backend, &request.name, request.input).await
    };
    Handlers(
        handlers
            .0
            .route(route.template, on(filter(&route.method), handler)),
    )
}

/// The API described.
fn description<B: Backend>(handlers: Handlers<B>) -> Handlers<B> {
    let route = routes::OPENAPI;
    let handler =
        async |_: ParsedRequest<Nothing>| ([(CONTENT_TYPE, "application/json")], crate::openapi());
    Handlers(
        handlers
            .0
            .route(route.template, on(filter(&route.method), handler)),
    )
}

/// A router that is made from [`Route`]s, so that what a handler takes and gives are the types
/// that the client sends and expects.
struct Handlers<B>(Router<Arc<B>>);

impl<B: Backend> Handlers<B> {
    /// A route whose answer is JSON.
    fn json<I, A, F>(
        self,
        route: Route<I, A>,
        answer: impl Fn(Arc<B>, ParsedRequest<I>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        A: Serialize,
        F: Future<Output = Result<A, ApiError>> + Send,
    {
        let handler = async move |State(backend): State<Arc<B>>, request: ParsedRequest<I>| {
            answer(backend, request).await.map(Json)
        };
        Handlers(
            self.0
                .route(route.template, on(filter(&route.method), handler)),
        )
    }

    /// A route whose answer is a stream, over the connection of the request.
    fn stream<I, P, S, F>(
        self,
        route: Route<I, P>,
        open: impl Fn(Arc<B>, ParsedRequest<I>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        I: DeserializeOwned + Send + 'static,
        P: Protocol,
        S: Stream,
        F: Future<Output = Result<S, ApiError>> + Send,
    {
        let handler = async move |State(backend): State<Arc<B>>, mut request: ParsedRequest<I>| {
            // First, so that nothing is opened for a client that cannot read it.
            let upgrade = request.upgrade.accept(P::NAME)?;
            let opened = open(backend, request).await?;
            Ok::<_, ApiError>(stream::switch_to(P::NAME, upgrade, opened))
        };
        Handlers(
            self.0
                .route(route.template, on(filter(&route.method), handler)),
        )
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).expect("the table of routes has standard methods only")
}

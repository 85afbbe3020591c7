//! The API of a running fabric: HTTP and JSON over a unix socket.
//!
//! | module | what is in it |
//! |---|---|
//! | [`routes`] | one table of all requests: method, path, and the types of what is asked and answered |
//! | `status`, `cables`, `accuracy`, `switches`, `positions`, `apply`, `page`, [`capture`], [`recorder`], [`events`] | these types, and the format of captured frames on the wire |
//! | `metrics` | the figures of a fabric as OpenMetrics |
//! | `client` | [`Client`], with a method for each route but [`routes::CAPTURE_FILE`] |
//! | `server` | [`serve`], and [`serve_metrics`] for one page over TCP, and [`router`] for the crate `web`; the only module here that uses axum and knows HTTP statuses |
//! | `backend` | [`Backend`], the trait by which the server asks a fabric |
//! | `openapi` | [`openapi()`]: all of this described for programs, made from the table and the types |
//! | `error` | [`ApiError`]: what kind of refusal, and the sentence |
//!
//! The fabric implements [`Backend`] and calls [`serve`]; commands and tests are clients. This
//! crate knows neither of them: it uses `model` for the types that configuration and API share,
//! and `dataplane` for the record of a captured frame.
//!
//! # How a request passes through
//! A [`Client`] method takes its [`routes::Route`], sends the input, in the query of a `GET` and
//! otherwise as JSON in the body, and reads the answer as the type that the table says. In the
//! server the connection is counted, the request is read to its end and parsed into the input's
//! type, and then one method of the [`Backend`] is called. An [`ApiError`] becomes a status of
//! 4xx or 5xx with a [`Failure`] in the body, which the client gives back as
//! [`ClientError::Refused`].
//!
//! Captures, dumps and consoles are streams: the request asks for `Connection: upgrade`, is
//! answered with 101, and its connection then carries what the route's
//! [`Protocol`](routes::Protocol) says. A browser cannot ask for that: a capture of one cable is also the
//! body of a plain answer, for a limited time ([`routes::CAPTURE_FILE`]).
//!
//! [`events`] are a stream that needs no upgrade: the body of an answer that does not end.
//!
//! # Limits
//! The server serves 128 clients at once, including those of captures and consoles, and at most 64 of them
//! with events. The head of
//! a request must arrive within 10 s and its body within another 10 s; a body has at most 2 MiB.
//! Four captures at once are downloaded as files.
//! Every refusal has a [`Failure`], except for what is not HTTP, or has a head of more than
//! 128 KiB: that is answered with a bare status, or by closing the connection.

mod accuracy;
mod apply;
mod backend;
mod cables;
pub mod capture;
mod client;
mod error;
pub mod events;
mod metrics;
mod openapi;
mod page;
mod positions;
pub mod recorder;
pub mod routes;
mod server;
mod status;
mod switches;
#[cfg(test)]
mod tests;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use accuracy::{AccuracyReport, DelayReport, LossReport, RateReport};
pub use apply::{ApplyAnswer, ApplyRequest, Peer};
pub use backend::{Backend, ConsoleStream, Recording};
pub use cables::{
    CableBatchDone, CableChanged, CableReport, CableStateRequest, LaneImpairment, LaneReport,
};
pub use capture::{
    CaptureCount, CaptureFileRequest, CaptureInterface, CaptureRequest, CaptureStart,
};
pub use client::{Client, ClientError, EventReader, default_socket, own_socket};
pub use error::ApiError;
pub use events::{Event, EventKind, EventsRequest, Lagged, Streamed};
pub use metrics::metric_names;
pub use openapi::openapi;
pub use page::PageLink;
pub use positions::{PluggedGuest, Position, Positions, PositionsRequest};
pub use recorder::{DumpRequest, RecorderStatus, Trigger, TriggersRequest};
pub use server::{router, serve, serve_metrics};
pub use status::{NodeState, NodeStatus, Sessions, Status, Stopping};
pub use switches::{BmcReport, ExecAnswer, ExecRequest, IpmiAccess, PowerRequest, SshAccess};

/// The body of every answer with a status of 4xx or 5xx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Why the request was refused, and the way out, in one sentence without control characters.
    pub error: String,
}

//! A request once it was read: [`ParsedRequest`].

use axum::Json;
use axum::RequestExt;
use axum::extract::{FromRequest, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use hyper::Method;
use serde::de::DeserializeOwned;

use super::stream::Upgrade;
use crate::Peer;

/// What a request says.
pub(super) struct ParsedRequest<I> {
    /// The name in its path; empty if the route has none.
    pub(super) name: String,
    /// From the query of a `GET`, from the body of any other method.
    pub(super) input: I,
    /// Who sent it.
    pub(super) peer: Peer,
    /// The last event that it has seen, from the header of that name; an `EventSource` sends it when it
    /// connects again.
    pub(super) last_event: Option<u64>,
    /// The stream that its connection is to become, if it says so.
    pub(super) upgrade: Upgrade,
}

impl<I: DeserializeOwned, S: Send + Sync> FromRequest<S> for ParsedRequest<I> {
    /// What axum says is put into our words by the request guard.
    type Rejection = Response;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Response> {
        let names: Path<Vec<String>> = request
            .extract_parts()
            .await
            .map_err(IntoResponse::into_response)?;
        let upgrade = Upgrade::take_from(&mut request);
        let last_event = request.headers().get("last-event-id");
        let last_event = last_event.and_then(|id| id.to_str().ok()?.parse().ok());
        let peer = request.extensions().get().copied();
        // axum answers HEAD as it does GET.
        let input = if matches!(*request.method(), Method::GET | Method::HEAD) {
            let query = Query::try_from_uri(request.uri());
            query.map_err(IntoResponse::into_response)?.0
        } else {
            let body = Json::from_request(request, state).await;
            body.map_err(IntoResponse::into_response)?.0
        };
        Ok(ParsedRequest {
            name: names.0.into_iter().next().unwrap_or_default(),
            input,
            peer: peer.unwrap_or(Peer { uid: None }),
            last_event,
            upgrade,
        })
    }
}

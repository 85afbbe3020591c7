//! What every request and every answer goes through: a request is there as a whole before
//! anything is done about it, and whatever fails says so in a [`Failure`].
//!
//! [`Failure`]: super::Failure

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::connection::PATIENCE;
use super::error::{ApiError, RefusalKind};
use super::server::refusal;

/// Bytes of a request's body: the input of an `exec` in base64 and its arguments, a filter, or
/// the changes of a step to every cable of a large fabric.
pub(super) const LONGEST_REQUEST: usize = 2 << 20;

/// Bytes of what a framework has to say about a request that it refuses.
const LONGEST_REFUSAL: usize = 4 << 10;

/// Reads a request to its end, has it answered, and puts a refusal into words.
pub(super) async fn whole(request: Request, next: Next) -> Response {
    let asked = format!("{} {}", request.method(), request.uri().path());
    let (parts, body) = request.into_parts();
    let body = match timeout(PATIENCE, to_bytes(body, LONGEST_REQUEST)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return unreadable(&asked, &error).into_response(),
        Err(_) => return late(&asked).into_response(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    in_words(&asked, next.run(request).await).await
}

fn unreadable(asked: &str, error: &axum::Error) -> ApiError {
    use std::error::Error as _;

    let cause = error.source();
    if cause.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
        return ApiError::new(
            RefusalKind::TooLarge,
            format!("{asked}: a body has at most {LONGEST_REQUEST} bytes"),
        );
    }
    ApiError::new(RefusalKind::Invalid, format!("{asked}: {error}"))
}

fn late(asked: &str) -> ApiError {
    ApiError::new(
        RefusalKind::TooSlow,
        format!(
            "{asked}: the body did not come within {} s: send it with the request",
            PATIENCE.as_secs()
        ),
    )
}

/// Where axum refuses by itself, it says so in plain text, or not at all.
async fn in_words(asked: &str, answer: Response) -> Response {
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    if !failed || kind.is_some_and(|kind| kind == "application/json") {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let said = to_bytes(body, LONGEST_REFUSAL).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let reason = if said.is_empty() {
        status.canonical_reason().unwrap_or("refused")
    } else {
        &said
    };
    let mut answer = refusal(status, &format!("{asked}: {reason}"));
    // It tells which methods there are.
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

/// What no route is for.
pub(super) async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown(format!(
        "{method} {}: the API has nothing of that name; this may be another version's",
        uri.path()
    ))
}

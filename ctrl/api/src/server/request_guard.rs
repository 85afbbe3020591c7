//! What every request and every answer passes: [`guard`].
//!
//! The backend sees a request only once all of it has arrived, within a limit of bytes and of
//! time; and every refusal is a [`Failure`] with a sentence.
//!
//! [`Failure`]: crate::Failure

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use model::wording;

use super::limits::PATIENCE;
use super::refusal::refuse;
use crate::ApiError;
use crate::error::RefusalKind;

/// The most bytes in a request's body. The longest are the input of an `exec` in base64 with its
/// arguments, and a batch of changes to every cable of a large fabric.
const LONGEST_BODY: usize = 2 << 20;

/// The most bytes that are read of what axum says about a request that it refuses by itself.
const LONGEST_REFUSAL: usize = 4 << 10;

/// Reads a request to its end, passes it on, and puts a refusal into words.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let request_line = format!("{} {}", request.method(), request.uri().path());
    let (parts, body) = request.into_parts();
    let body = match timeout(PATIENCE, to_bytes(body, LONGEST_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return unreadable(&request_line, &error).into_response(),
        Err(_) => return late(&request_line).into_response(),
    };
    let request = Request::from_parts(parts, Body::from(body));
    in_words(&request_line, next.run(request).await).await
}

fn unreadable(request_line: &str, error: &axum::Error) -> ApiError {
    use std::error::Error as _;

    let cause = error.source();
    if cause.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
        return ApiError::new(
            RefusalKind::TooLarge,
            format!("{request_line}: a body has at most {LONGEST_BODY} bytes"),
        );
    }
    ApiError::new(RefusalKind::Invalid, format!("{request_line}: {error}"))
}

fn late(request_line: &str) -> ApiError {
    ApiError::new(
        RefusalKind::TooSlow,
        format!(
            "{request_line}: the body did not come within {} s: send it with the request",
            PATIENCE.as_secs()
        ),
    )
}

/// Where axum refuses by itself, it says so in plain text, or not at all: makes that a `Failure`.
async fn in_words(request_line: &str, answer: Response) -> Response {
    let status = answer.status();
    let failed = status.is_client_error() || status.is_server_error();
    let kind = answer.headers().get(header::CONTENT_TYPE);
    if !failed || kind.is_some_and(|kind| kind == "application/json") {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let text = to_bytes(body, LONGEST_REFUSAL).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let reason = if text.is_empty() {
        status.canonical_reason().unwrap_or("refused")
    } else {
        &text
    };
    let reason = wording::without_types(reason);
    let mut answer = refuse(status, &format!("{request_line}: {reason}"));
    // RFC 9110 wants it with 405: it lists the methods that the path has.
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        answer.headers_mut().insert(header::ALLOW, allow.clone());
    }
    answer
}

/// Refuses what no route is for.
pub(super) async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown(format!(
        "{method} {}: this API has no such path; another version may have it",
        uri.path()
    ))
}

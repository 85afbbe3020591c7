//! What HTTP makes of an [`ApiError`]: the only place where refusals have a status.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use model::printable;

use crate::error::RefusalKind;
use crate::{ApiError, Failure};

/// The most characters of a refusal's sentence.
const LONGEST_SENTENCE: usize = 4 << 10;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        refuse(status(self.kind), &self.sentence)
    }
}

fn status(kind: RefusalKind) -> StatusCode {
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

/// How axum refuses a body by itself, before the backend sees anything of it.
const BODIES: [(StatusCode, &str); 2] = [
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "The request does not say that its body is JSON (`Content-Type: application/json`).",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "The body is JSON, but not what this request takes.",
    ),
];

/// Each status that a refusal may have and its meaning; those of bodies only for a request that has one.
pub(crate) fn refusals(body: bool) -> Vec<(StatusCode, &'static str)> {
    let kinds = RefusalKind::ALL.map(|kind| (status(kind), kind.about()));
    let bodies = BODIES.into_iter().filter(|_| body);
    let mut all: Vec<_> = kinds.into_iter().chain(bodies).collect();
    all.sort_by_key(|(status, _)| *status);
    all
}

/// A [`Failure`] with this status.
pub(super) fn refuse(status: StatusCode, sentence: &str) -> Response {
    // The sentence may quote the request, and the client prints it on a terminal.
    let error = printable::tail(sentence.as_bytes(), LONGEST_SENTENCE);
    (status, Json(Failure { error })).into_response()
}

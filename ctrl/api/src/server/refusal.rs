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
        let status = match self.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::Unknown => StatusCode::NOT_FOUND,
            RefusalKind::Conflict => StatusCode::CONFLICT,
            RefusalKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            RefusalKind::TooSlow => StatusCode::REQUEST_TIMEOUT,
            RefusalKind::Busy => StatusCode::SERVICE_UNAVAILABLE,
            RefusalKind::Failed => StatusCode::BAD_GATEWAY,
        };
        refuse(status, &self.sentence)
    }
}

/// A [`Failure`] with this status.
pub(super) fn refuse(status: StatusCode, sentence: &str) -> Response {
    // The sentence may quote the request, and the client prints it on a terminal.
    let error = printable::tail(sentence.as_bytes(), LONGEST_SENTENCE);
    (status, Json(Failure { error })).into_response()
}

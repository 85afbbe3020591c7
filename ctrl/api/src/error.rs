//! Why a request is refused: [`ApiError`].

/// Why a request was refused: what kind of refusal, and one sentence that names the way out.
///
/// What HTTP makes of it is the server's business.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ApiError {
    pub(crate) kind: RefusalKind,
    pub(crate) sentence: String,
}

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// Not a request that this API understands.
    Invalid,
    /// The request names something that does not exist.
    Unknown,
    /// The request makes no sense for this fabric, or not in its present state.
    Conflict,
    /// The body has more bytes than the server takes.
    TooLarge,
    /// The client was too slow to send its request.
    TooSlow,
    /// Too many clients are connected.
    Busy,
    /// The fabric tried, and failed.
    Failed,
}

impl RefusalKind {
    /// Every kind.
    pub(crate) const ALL: [RefusalKind; 7] = [
        RefusalKind::Invalid,
        RefusalKind::Unknown,
        RefusalKind::Conflict,
        RefusalKind::TooLarge,
        RefusalKind::TooSlow,
        RefusalKind::Busy,
        RefusalKind::Failed,
    ];

    /// What it means, for the API's description.
    pub(crate) fn about(self) -> &'static str {
        match self {
            RefusalKind::Invalid => "Not a request that this API understands.",
            RefusalKind::Unknown => "The request names something that does not exist.",
            RefusalKind::Conflict => {
                "The request makes no sense for this fabric, or not in its present state."
            }
            RefusalKind::TooLarge => "The body has more bytes than the server takes.",
            RefusalKind::TooSlow => "The client was too slow to send its request.",
            RefusalKind::Busy => "Too many clients are connected.",
            RefusalKind::Failed => "The fabric tried, and failed.",
        }
    }
}

impl ApiError {
    /// The request names something that does not exist.
    pub fn unknown(sentence: impl ToString) -> Self {
        ApiError::new(RefusalKind::Unknown, sentence)
    }

    /// The request makes no sense for this fabric, or not in its present state.
    pub fn conflict(sentence: impl ToString) -> Self {
        ApiError::new(RefusalKind::Conflict, sentence)
    }

    /// The fabric tried, and failed.
    pub fn failed(sentence: impl ToString) -> Self {
        ApiError::new(RefusalKind::Failed, sentence)
    }

    pub(crate) fn new(kind: RefusalKind, sentence: impl ToString) -> Self {
        ApiError {
            kind,
            sentence: sentence.to_string(),
        }
    }
}

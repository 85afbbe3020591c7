//! What a preflight check finds: [`Finding`].

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// The fabric comes up, but something will not work as expected.
    Warning,
    /// The fabric cannot come up.
    Error,
}

/// One thing found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, as a sentence without a full stop.
    pub what: String,
    /// The command or the change that mends it; empty where nothing has to be done.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(
        severity: Severity,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// All findings as one message: what, and what mends it.
pub(crate) fn text(findings: &[Finding]) -> String {
    let text = |found: &Finding| match found.remedy.as_str() {
        "" => found.what.clone(),
        remedy => format!("{}; {remedy}", found.what),
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Whether one of the findings keeps the fabric from coming up.
pub fn prevents(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Error)
}

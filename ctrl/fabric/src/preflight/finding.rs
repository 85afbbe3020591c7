//! What a preflight check finds: [`Finding`].

use serde::Serialize;

/// The severity of a finding, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing has to be done.
    Note,
    /// The fabric comes up, but something will not work as expected.
    Warning,
    /// The fabric cannot come up.
    Error,
}

/// One finding and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it keeps the fabric from coming up.
    pub severity: Severity,
    /// The finding, as a sentence without a full stop.
    pub what: String,
    /// The command or change that resolves it; empty if nothing has to be done.
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

/// All findings as one message, each with its remedy.
pub(crate) fn text(findings: &[Finding]) -> String {
    let text = |found: &Finding| match found.remedy.as_str() {
        "" => found.what.clone(),
        remedy => format!("{}; {remedy}", found.what),
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}

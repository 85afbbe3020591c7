//! What lanes do to frames on purpose: asking for it, and what came of it.

use serde::{Deserialize, Serialize};

use model::impairment::ImpairKeys;

/// What a lane does to its frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneImpairment {
    /// The cable's own name.
    pub cable: String,
    /// Port where frames enter.
    pub from: String,
    /// Port where they leave.
    pub to: String,
    /// Every key that is set.
    pub impairment: ImpairKeys,
}

/// What became of a [`CableBatch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CableBatchDone {
    /// When it took effect, in ns since 1970-01-01 UTC.
    pub at_ns: u64,
    /// Ends that could not be told, and what follows from that.
    pub notes: Vec<String>,
}

/// What a lane was asked to do and what it did, since its impairment was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccuracyReport {
    /// Frames that the impairment judged.
    pub frames: u64,
    /// How late delayed frames left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelayReport>,
    /// How fast the line was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateReport>,
    /// How many frames were lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossReport>,
    /// `false`: the host was too busy for these figures to be those that were asked for.
    pub trusted: bool,
    /// Why they are not trusted, and what helps.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Asked and achieved delay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DelayReport {
    /// Mean that was asked for, in µs.
    pub requested_us: f64,
    /// Frames that waited and have left.
    pub released: u64,
    /// By how much half of them left later than asked, in µs.
    pub late_p50_us: f64,
    /// By how much one of a hundred did.
    pub late_p99_us: f64,
    /// By how much the worst did.
    pub late_max_us: f64,
    /// Frames that left more than 100 µs late.
    pub late_frames: u64,
}

/// Asked and achieved rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateReport {
    /// In bit/s.
    pub requested_bps: u64,
    /// In bit/s while frames waited for the line; `None` if that was less than 50 ms, or with
    /// cells.
    pub achieved_bps: Option<f64>,
    /// Time that frames waited for the line, in s.
    pub busy_s: f64,
}

/// Asked and achieved loss, as shares of 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossReport {
    /// What was asked for, in the long run.
    pub requested: f64,
    /// What was lost.
    pub achieved: f64,
    /// Between these two the true share lies with 95 % confidence (Wilson's interval; of models
    /// with bursts, for as many frames as are independent of each other).
    pub low: f64,
    /// See `low`.
    pub high: f64,
    /// Frames lost.
    pub lost: u64,
}

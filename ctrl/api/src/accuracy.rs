//! How close an impairment comes to what was asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a lane was asked to do and what it did, since its impairment was set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AccuracyReport {
    /// Frames that went through the impairment.
    pub frames: u64,
    /// By how much delayed frames left late; `None` if frames are not delayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelayReport>,
    /// How close the rate is; `None` if the rate is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateReport>,
    /// How many frames were lost; `None` if no loss was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossReport>,
    /// `false` if the host was too busy to achieve what was asked for.
    pub trusted: bool,
    /// Why the figures are not trusted, and what helps; empty if they are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Requested and achieved delay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DelayReport {
    /// The mean that was asked for, in µs.
    pub requested_us: f64,
    /// Frames that have been delayed and have left.
    pub released: u64,
    /// Median of the time by which they left late, in µs.
    pub late_p50_us: f64,
    /// 99th percentile of that time, in µs.
    pub late_p99_us: f64,
    /// Maximum of that time, in µs.
    pub late_max_us: f64,
    /// Frames that left more than 100 µs late.
    pub late_frames: u64,
}

/// Requested and achieved rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RateReport {
    /// The rate that was asked for, in bit/s.
    pub requested_bps: u64,
    /// The rate in bit/s during `busy_s`; `None` if that was less than 50 ms, or if the rate
    /// counts ATM cells.
    pub achieved_bps: Option<f64>,
    /// How long frames were queued for the line, in s.
    pub busy_s: f64,
}

/// Requested and achieved loss, as shares of 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LossReport {
    /// The share that was asked for, in the long run.
    pub requested: f64,
    /// The share of frames that were lost.
    pub achieved: f64,
    /// Lower bound of the true share with 95 % confidence (Wilson's interval). For models with
    /// bursts, only the number of frames that are independent of each other counts.
    pub low: f64,
    /// Upper bound, as `low`.
    pub high: f64,
    /// Frames that were lost.
    pub lost: u64,
}

//! The metrics by name: the only place where a name stands.

use prometheus_client::metrics::MetricType;

/// A family of metrics: a name, and a sample for each set of labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// As it stands in `# TYPE`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises, from the fabric's start or the cable's plugging on.
    Counter,
    Gauge,
    /// Always 1: the labels say it.
    Info,
}

impl Family {
    /// The name of its samples (OpenMetrics 1.0, "Metric Types").
    pub(super) fn sample_name(&self) -> String {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        };
        format!("{}{suffix}", self.name)
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Info => MetricType::Info,
        }
    }
}

macro_rules! families {
    ($($constant:ident $kind:ident $name:literal $help:literal;)+) => {
        $(
            pub(super) const $constant: Family = Family {
                name: $name,
                kind: Kind::$kind,
                help: $help,
            };
        )+

        /// Every family.
        pub(super) const ALL: &[Family] = &[$($constant),+];
    };
}

families! {
    BUILD Info "ikv_build" "The version of the program.";
    READY Gauge "ikv_ready" "1 if the fabric is ready, as `status` says it.";
    HOLD_MEMORY Gauge "ikv_hold_memory_bytes" "Memory that frames held back by impairments may take.";
    HOLD_MEMORY_TAKEN Gauge "ikv_hold_memory_taken_bytes" "How much of it lanes have taken.";
    WORKER_BUSY Counter "ikv_worker_busy_seconds" "Time that the worker moved frames; its rate is the worker's load.";

    SWITCH_STATE Gauge "ikv_switch_state" "1 for the state in which the switch is, 0 for the others.";
    SESSIONS Gauge "ikv_switch_sessions_established" "BGP sessions of the switch with other switches that are established.";
    SESSIONS_EXPECTED Gauge "ikv_switch_sessions_expected" "BGP sessions of the switch with other switches that the topology plans.";

    CABLE_UP Gauge "ikv_cable_up" "1 if frames pass: the cable is neither cut, nor a blackhole, nor closed.";

    FRAMES_IN Counter "ikv_lane_frames_in" "Frames that entered, and copies that an impairment made of them.";
    BYTES_IN Counter "ikv_lane_in_bytes" "Bytes of these frames, without FCS.";
    FRAMES_OUT Counter "ikv_lane_frames_out" "Frames that left.";
    HELD Gauge "ikv_lane_held_frames" "Frames that an impairment holds back now.";
    DROPS Counter "ikv_lane_drops" "Dropped frames by reason, from the first such drop on.";
    EFFECTS Counter "ikv_lane_impaired_frames" "Frames on which an impairment had this effect, from the first such frame on.";
    THROTTLED Counter "ikv_lane_throttled" "How often the lane waited because it had used up its share of a worker, from the first time on.";

    DELAY Gauge "ikv_lane_delay_seconds" "The delay that was asked for.";
    JITTER Gauge "ikv_lane_jitter_seconds" "The jitter that was asked for.";
    RATE Gauge "ikv_lane_rate_bits_per_second" "The rate that was asked for.";
    LOSS Gauge "ikv_lane_loss_ratio" "The share of lost frames that was asked for: of frames independent of each other, or in the long run.";
    DUPLICATE Gauge "ikv_lane_duplicate_ratio" "The share of duplicated frames that was asked for.";
    CORRUPT Gauge "ikv_lane_corrupt_ratio" "The share of corrupted frames that was asked for.";
    REORDER Gauge "ikv_lane_reorder_ratio" "The share of overtaking frames that was asked for.";
    LATE Gauge "ikv_lane_late_seconds" "By how much delayed frames left late since the impairment was set, at this quantile.";
    LOSS_ACHIEVED Gauge "ikv_lane_loss_achieved_ratio" "The share of lost frames since the impairment was set.";
    RATE_ACHIEVED Gauge "ikv_lane_rate_achieved_bits_per_second" "The rate while frames were queued, since the impairment was set.";
    TRUSTED Gauge "ikv_lane_trusted" "1 if the host was fast enough for the impairment that was asked for.";
}

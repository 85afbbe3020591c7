//! Our words for the dataplane's, and the other way round.

use dataplane::{LaneStats, Side};

use api::LaneReport;
use model::cable_change::CableState;
use model::topology;

/// A lane's counters.
pub(super) fn lane(from: &str, to: &str, stats: &LaneStats) -> LaneReport {
    let seen = stats.snapshot();
    LaneReport {
        from: from.into(),
        to: to.into(),
        frames_in: seen.frames_in,
        bytes_in: seen.bytes_in,
        frames_out: seen.frames_out,
        held: seen.held,
        drops: seen
            .drop_reasons()
            .map(|(reason, count)| (reason.name().into(), count))
            .collect(),
        duplicated: seen.impaired.duplicated,
        corrupted: seen.impaired.corrupted,
        delayed: seen.impaired.delayed,
        reordered: seen.impaired.reordered,
        marked: seen.impaired.marked,
        impairment: None,
        accuracy: None,
    }
}

pub(super) fn to_dataplane(state: CableState) -> dataplane::CableState {
    match state {
        CableState::Up => dataplane::CableState::Up,
        CableState::Down => dataplane::CableState::Down,
        CableState::Blackhole => dataplane::CableState::Blackhole,
    }
}

pub(super) fn to_panel(side: topology::Side) -> Side {
    match side {
        topology::Side::A => Side::A,
        topology::Side::B => Side::B,
    }
}

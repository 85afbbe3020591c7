//! What the API reports about cables, and how the dataplane's types become the model's.

use std::time::Duration;

use dataplane::LaneStats;
use futures_util::future::{join, join_all};

use super::panel::answer_within;
use super::{Cables, Condition, PluggedCable, accuracy};
use api::{CableReport, LaneImpairment, LaneReport};
use dataplane::Side;
use model::cable_change::CableState;
use model::impairment::ImpairKeys;

/// A report must not wait: a worker that has not answered after this time is left out.
const LIMIT: Duration = Duration::from_secs(1);

impl Cables {
    /// State, counters and accuracy of these cables.
    pub(crate) async fn reports(
        &self,
        indices: impl IntoIterator<Item = usize>,
    ) -> Vec<CableReport> {
        join_all(indices.into_iter().map(|index| self.report(index))).await
    }

    async fn report(&self, index: usize) -> CableReport {
        let [a, b] = self.end_names(index);
        let Condition {
            state,
            impairments,
            closed,
        } = self.condition(index);
        let [a_to_b, b_to_a] = &impairments;
        let lanes = join(
            self.lane_report(index, Side::A, [a, b], a_to_b),
            self.lane_report(index, Side::B, [b, a], b_to_a),
        );
        CableReport {
            name: self.name(index).to_owned(),
            state,
            closed,
            lanes: lanes.await.into(),
        }
    }

    async fn lane_report(
        &self,
        index: usize,
        side: Side,
        [from, to]: [&str; 2],
        keys: &ImpairKeys,
    ) -> LaneReport {
        let PluggedCable { handle, .. } = &*self.cables[index];
        let mut report = lane_report(from, to, &handle.lanes[side as usize]);
        if !keys.is_empty() {
            let reply = self.panel.panel.accuracy(handle.id, side);
            // Commands that must succeed report a worker that does not answer.
            let seen = answer_within(LIMIT, reply).await.ok().flatten();
            report.accuracy = seen.map(|seen| accuracy::report(keys, &seen));
            report.impairment = Some(keys.shown());
        }
        report
    }

    /// The impairments of both lanes of one cable.
    pub(crate) fn impairments(&self, index: usize) -> [LaneImpairment; 2] {
        let [a, b] = self.condition(index).impairments;
        let [end_a, end_b] = self.end_names(index);
        let lane = |from: &str, to: &str, impairment| LaneImpairment {
            cable: self.name(index).into(),
            from: from.into(),
            to: to.into(),
            impairment,
        };
        [lane(end_a, end_b, a), lane(end_b, end_a, b)]
    }

    /// All lanes that have an impairment.
    pub(crate) fn all_impairments(&self) -> Vec<LaneImpairment> {
        let lanes = (0..self.len()).flat_map(|index| self.impairments(index));
        lanes.filter(|lane| !lane.impairment.is_empty()).collect()
    }
}

fn lane_report(from: &str, to: &str, stats: &LaneStats) -> LaneReport {
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
        throttled: seen.throttled,
        impairment: None,
        accuracy: None,
    }
}

pub(super) fn to_dataplane_state(state: CableState) -> dataplane::CableState {
    match state {
        CableState::Up => dataplane::CableState::Up,
        CableState::Down => dataplane::CableState::Down,
        CableState::Blackhole => dataplane::CableState::Blackhole,
    }
}

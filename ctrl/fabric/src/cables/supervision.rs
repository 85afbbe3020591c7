//! Workers that make no progress, and cables that were closed after a fault of this program: what the
//! user is told about both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use dataplane::{CableId, Side, WorkerState};

use super::{Cables, PluggedCable};
use model::printable;

/// Most characters of the text of a panic.
const MOST: usize = 200;

/// What is wrong with workers, by their numbers, and with the sockets' thread (`None`); shared by all
/// handles of a panel.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkerTroubles(Arc<Mutex<BTreeMap<Option<usize>, String>>>);

impl WorkerTroubles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<usize>, String>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

impl Cables {
    /// Looks at every worker, and at the sockets' thread. Returns sentences about what has changed. To
    /// be called every [`Panel::LOOK`](dataplane::Panel::LOOK).
    pub(crate) fn look_after_workers(&self) -> Vec<String> {
        let mut news = Vec::new();
        let mut known = self.panel.troubles.lock();
        for (worker, state) in self.panel.panel.look().into_iter().enumerate() {
            match (self.trouble(worker, state), known.get(&Some(worker))) {
                (Some(trouble), None) => {
                    news.push(trouble.clone());
                    known.insert(Some(worker), trouble);
                }
                (None, Some(_)) => {
                    news.push(format!("worker {worker} goes on, and with it its cables"));
                    known.remove(&Some(worker));
                }
                _ => {}
            }
        }
        if self.panel.sockets.has_ended() && !known.contains_key(&None) {
            let trouble = "the thread of the vhost-user sockets has ended by a fault of this \
                           program: no front end can plug in; restart the fabric and report this";
            news.push(trouble.into());
            known.insert(None, trouble.into());
        }
        news
    }

    /// What is wrong with the workers now; empty if nothing is.
    pub(crate) fn worker_troubles(&self) -> Vec<String> {
        self.panel.troubles.lock().values().cloned().collect()
    }

    /// Why cables are closed, a sentence for each.
    pub(crate) fn closed(&self) -> Vec<String> {
        let closed = |cable: &Arc<PluggedCable>| {
            let reason = cable.condition().closed.clone()?;
            Some(format!("cable {} is {reason}", cable.name))
        };
        self.cables.iter().filter_map(closed).collect()
    }

    fn trouble(&self, worker: usize, state: WorkerState) -> Option<String> {
        match state {
            WorkerState::Works => None,
            WorkerState::Hangs { in_hand } => {
                let what = in_hand.map_or(String::new(), |in_hand| self.in_words(in_hand));
                Some(format!(
                    "worker {worker} makes no progress{what}: its cables stand still; if it does \
                     not go on, end the fabric and report this"
                ))
            }
            WorkerState::Ended => Some(format!(
                "worker {worker} has ended by a fault of this program, and its cables with it: \
                 restart the fabric and report this"
            )),
        }
    }

    fn in_words(&self, (id, side): (CableId, Option<Side>)) -> String {
        let Some((_, cable)) = self.find(id) else {
            return String::new();
        };
        let name = &cable.name;
        match side {
            Some(side) => {
                let end = &cable.ends[side as usize].name;
                format!(" with frames that entered cable {name} at {end}")
            }
            None => format!(" with a command for cable {name}"),
        }
    }

    /// Records that a fault closed a cable. Returns its index and the sentence about it.
    pub(super) fn close(
        &self,
        id: CableId,
        side: Option<Side>,
        fault: &str,
    ) -> Option<(usize, String)> {
        let (index, cable) = self.find(id)?;
        let name = &cable.name;
        let what = match side {
            Some(side) => {
                let end = &cable.ends[side as usize].name;
                format!("with a frame that entered at {end}")
            }
            None => "with a command for it".into(),
        };
        // It may quote what a guest sent.
        let fault = printable::head(fault.as_bytes(), MOST);
        let reason = format!(
            "closed after a fault of this program {what} ({fault}): please report it; `ikv-fabric \
             cable {name} up` opens it again"
        );
        cable.condition().closed = Some(reason.clone());
        Some((index, format!("cable {name} is {reason}")))
    }
}

#[cfg(test)]
mod tests {
    use api::ApiError;
    use dataplane::rights::CapabilitySet;
    use dataplane::{Port, port};
    use model::cable_change::{CableBatch, CableChange, CableState, ImpairmentChange};

    use super::*;
    use crate::cables::batch::CheckedBatch;
    use crate::cables::names::CableNames;
    use crate::cables::panel::PatchPanel;
    use crate::cables::panel::ThreadRights;
    use crate::cables::plan::{PlannedCable, PlannedEnd};

    /// Every name is that of the only cable.
    struct Names;

    impl CableNames for Names {
        fn cable(&self, _: &str) -> Result<usize, ApiError> {
            Ok(0)
        }

        fn end(&self, _: &str) -> Result<(usize, Side), ApiError> {
            Ok((0, Side::A))
        }

        fn alias(&self, _: usize, _: Side) -> String {
            String::new()
        }

        fn is_between_switches(&self, _: usize) -> bool {
            false
        }
    }

    async fn change(cables: &Cables, state: Option<CableState>, delay: Option<&str>) {
        let impair = delay.map(|delay| ImpairmentChange {
            from: None,
            clear: false,
            set: serde_json::from_value(serde_json::json!({ "delay": delay })).unwrap(),
        });
        let batch = CableBatch {
            changes: vec![CableChange {
                cable: "ika".into(),
                state,
                impair,
            }],
        };
        let checked = CheckedBatch::check(&Names, cables, &batch).unwrap();
        checked.commit(cables).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_cable_says_why_until_it_is_opened_with_its_impairment() {
        let options = dataplane::PanelOptions::default();
        let panel =
            PatchPanel::start(&options, ThreadRights::Keep(CapabilitySet::empty()), || {}).unwrap();
        let mut cables = Cables::none(panel);
        let end = |name: &str| PlannedEnd {
            name: name.into(),
            port: Some(Port::Memory(port::memory(1).unwrap().0)),
            socket: None,
        };
        let planned = PlannedCable {
            name: "ika".into(),
            ends: [end("near"), end("far")],
        };
        cables.plug(vec![planned]).await.unwrap();
        change(&cables, None, Some("10ms")).await;
        assert_eq!(cables.closed(), Vec::<String>::new());

        let id = cables.id(0);
        let (index, notice) = cables.close(id, Some(Side::B), "index\u{1b}[2J").unwrap();
        assert_eq!(index, 0);
        assert_eq!(
            notice,
            "cable ika is closed after a fault of this program with a frame that entered at far \
             (index\\u{1b}[2J): please report it; `ikv-fabric cable ika up` opens it again"
        );
        assert_eq!(cables.closed(), [notice.as_str()]);
        let report = cables.reports([0]).await;
        assert!(report[0].closed.is_some());
        // Another state does not open it.
        change(&cables, Some(CableState::Blackhole), None).await;
        assert_eq!(cables.closed(), [notice]);
        change(&cables, Some(CableState::Up), None).await;
        assert_eq!(cables.closed(), Vec::<String>::new());
        let report = cables.reports([0]).await;
        assert!(report[0].lanes.iter().all(|lane| lane.accuracy.is_some()));
        cables.panel().stop().await;
    }
}

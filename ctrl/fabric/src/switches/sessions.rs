//! Which BGP sessions a fabric plans between its switches, and when what a switch said of its sessions
//! still counts: [`PlannedSession`], [`Report`].

use std::collections::{BTreeMap, BTreeSet};

use model::difference::FabricPlan;
use model::topology::{EndOwner, PortKind};

/// A session that a switch must have, as seen from that switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedSession {
    /// The interface inside the switch, as `ens5`.
    pub(crate) nic: String,
    /// The index of the cable that it runs over.
    pub(crate) cable: usize,
    /// The index of the switch at the far end, and the interface inside it.
    pub(crate) far: (usize, String),
}

/// The sessions between the switches that run, by the switches' indices.
pub(crate) fn planned(plan: &FabricPlan) -> BTreeMap<usize, Vec<PlannedSession>> {
    let topology = &plan.topology;
    let runs = |owner| match owner {
        EndOwner::Switch { switch, port } if plan.switches.contains(switch) => {
            Some((switch, &topology.switches[switch].ports[port]))
        }
        _ => None,
    };
    let mut sessions: BTreeMap<usize, Vec<PlannedSession>> = BTreeMap::new();
    for (cable, ends) in topology.cables.iter().enumerate() {
        let (Some(a), Some(b)) = (runs(ends.a.owner), runs(ends.b.owner)) else {
            continue;
        };
        for ((switch, port), (far, far_port)) in [(a, b), (b, a)] {
            // A user's own cable may join two ports that are for servers; these have no session.
            if !matches!(port.kind, PortKind::Server { .. }) {
                sessions.entry(switch).or_default().push(PlannedSession {
                    nic: port.nic.clone(),
                    cable,
                    far: (far, far_port.nic.clone()),
                });
            }
        }
    }
    sessions
}

/// What a switch last said of its sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// The interfaces whose session is established.
    pub(crate) established: BTreeSet<String>,
    /// When it was asked, in ns on the dataplane's clock.
    pub(crate) asked: u64,
    /// Why it said nothing; empty if it did.
    pub(crate) note: String,
}

impl Report {
    /// Whether the session on `nic` is established, by an answer to a question that was asked after
    /// the cable last changed, at `since`, in ns. An older answer proves nothing.
    pub(crate) fn says(&self, nic: &str, since: u64) -> bool {
        self.asked > since && self.established.contains(nic)
    }
}

#[cfg(test)]
mod tests {
    use model::config::Config;
    use model::topology::{self, Selection};

    use super::*;

    fn plan(only: &[&str]) -> FabricPlan {
        let config = Config::default();
        let topology = topology::build(&config).unwrap();
        FabricPlan {
            switches: Selection::of(&topology, only).unwrap(),
            config,
            topology,
        }
    }

    #[test]
    fn both_ends_of_a_session_know_each_other() {
        let plan = plan(&["rack1", "rack2", "rack3", "spine1", "spine2", "internet"]);
        let sessions = planned(&plan);
        let counts: Vec<_> = sessions.values().map(Vec::len).collect();
        assert_eq!(counts, [2, 7, 7, 2, 2, 2, 2, 2, 2]);
        for (switch, planned) in &sessions {
            for PlannedSession { nic, cable, far } in planned {
                let back = sessions[&far.0].iter().find(|it| it.cable == *cable);
                let back = back.expect("the far end has the session, too");
                assert_eq!((&back.far, &back.nic), (&(*switch, nic.clone()), &far.1));
            }
        }
    }

    #[test]
    fn only_switches_that_run_have_sessions() {
        let plan = plan(&["leaf1", "spine2"]);
        let counts: Vec<_> = planned(&plan).into_values().map(|it| it.len()).collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn an_answer_counts_only_if_it_was_asked_for_after_the_cable_changed() {
        let report = Report {
            established: ["ens4".to_owned()].into(),
            asked: 20,
            note: String::new(),
        };
        assert!(report.says("ens4", 19));
        assert!(
            !report.says("ens4", 20),
            "the cable was cut as it was asked"
        );
        assert!(!report.says("ens5", 0), "another interface's session");
        assert!(!Report::default().says("ens4", 0));
    }
}

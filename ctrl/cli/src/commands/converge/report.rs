//! Evaluates observations to a [`Report`]; a function of its input.

use serde::{Deserialize, Serialize};

use super::flow::FlowReport;
use super::observation::{Event, Lane, Observation};

/// How the fabric reacted to a cut. Times are in ms after the cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The cables that were cut.
    pub(crate) cables: Vec<String>,
    /// `down` or `blackhole`.
    pub(crate) state: String,
    /// How long it took until all ends had the new state, ms.
    #[serde(rename = "told_ms")]
    pub(crate) set_ms: f64,
    /// Whether no UPDATE came for the time of `--settle`, within that of `--limit`.
    pub(crate) settled: bool,
    /// The first UPDATE that withdraws a prefix.
    pub(crate) first_withdraw: Option<Moment>,
    pub(crate) first_update: Option<Moment>,
    /// The last UPDATE: when the fabric had converged.
    pub(crate) last_update: Option<Moment>,
    /// The number of messages that withdraw or announce prefixes.
    pub(crate) updates: usize,
    /// The number of withdrawals; a prefix counts each time.
    pub(crate) withdrawn: usize,
    /// The number of announcements; a prefix counts each time.
    pub(crate) announced: usize,
    /// The sessions that ended with a NOTIFICATION.
    pub(crate) notifications: Vec<Ended>,
    /// The first BFD packet that reports a session as down.
    pub(crate) bfd_down: Option<Moment>,
    /// The flow from source to destination.
    pub(crate) flow: Option<FlowReport>,
    /// The flow from destination to source.
    pub(crate) back: Option<FlowReport>,
    /// The number of frames that the capture missed; if above 0, the numbers of packets are wrong.
    pub(crate) missed: u64,
}

/// When a message was on a wire, and who sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// ms after the cut.
    pub(crate) after_ms: f64,
    /// The port where it entered its cable: `spine1:2`.
    pub(crate) port: String,
}

/// A NOTIFICATION that ended a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// ms after the cut.
    pub(crate) after_ms: f64,
    /// The port where the message entered its cable.
    pub(crate) port: String,
    /// The code, the subcode and their names.
    pub(crate) why: String,
    /// Whether the message was dropped because its cable is cut.
    pub(crate) lost: bool,
}

/// The cut that was made.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) cables: Vec<String>,
    pub(super) state: String,
    /// When it took effect, in ns of the fabric's clock.
    pub(super) at: u64,
    /// How long it took until all ends had the new state, ns.
    pub(super) took: u64,
}

impl Report {
    /// Evaluates the `observations` of a cut.
    pub(super) fn of(mut observations: Vec<Observation>, lanes: &[Lane], cut: &Cut) -> Report {
        observations.sort_by_key(|observation| observation.time);
        let after = observations.partition_point(|observation| observation.time < cut.at);
        let after_ms = |observation: &Observation| (observation.time - cut.at) as f64 / 1e6;
        let moment = |observation: &Observation| Moment {
            after_ms: after_ms(observation),
            port: lanes[observation.lane].from.clone(),
        };
        let mut report = Report {
            cables: cut.cables.clone(),
            state: cut.state.clone(),
            set_ms: cut.took as f64 / 1e6,
            settled: false,
            first_withdraw: None,
            first_update: None,
            last_update: None,
            updates: 0,
            withdrawn: 0,
            announced: 0,
            notifications: Vec::new(),
            bfd_down: None,
            flow: FlowReport::of(&observations, lanes, false, cut.at),
            back: FlowReport::of(&observations, lanes, true, cut.at),
            missed: 0,
        };
        for observation in &observations[after..] {
            match &observation.event {
                // The cable dropped it, so the other end never received it.
                Event::Updates { .. } | Event::BfdDown if observation.lost => {}
                Event::Updates {
                    withdrawn,
                    announced,
                } => {
                    report.updates += 1;
                    report.withdrawn += withdrawn;
                    report.announced += announced;
                    report
                        .first_update
                        .get_or_insert_with(|| moment(observation));
                    report.last_update = Some(moment(observation));
                    if *withdrawn > 0 {
                        report
                            .first_withdraw
                            .get_or_insert_with(|| moment(observation));
                    }
                }
                Event::Notification(why) => report.notifications.push(Ended {
                    after_ms: after_ms(observation),
                    port: lanes[observation.lane].from.clone(),
                    why: why.clone(),
                    lost: observation.lost,
                }),
                Event::BfdDown => {
                    report.bfd_down.get_or_insert_with(|| moment(observation));
                }
                Event::Keepalive | Event::Flow { .. } => {}
            }
        }
        report
    }
}

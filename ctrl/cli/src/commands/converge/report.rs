//! From sightings to a report: a function of its input.

use serde::{Deserialize, Serialize};

use super::flow::FlowReport;
use super::sight::{Lane, Sighting, What};

/// How the fabric took one cut. Times are in ms after the cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// What was cut.
    pub(crate) cables: Vec<String>,
    /// `down` or `blackhole`.
    pub(crate) state: String,
    /// How long it took until all ends had been told, ms.
    pub(crate) told_ms: f64,
    /// No UPDATE came for as long as was asked for; else time was over before.
    pub(crate) settled: bool,
    /// The first UPDATE that withdraws a prefix.
    pub(crate) first_withdraw: Option<Moment>,
    /// The first UPDATE.
    pub(crate) first_update: Option<Moment>,
    /// The last UPDATE.
    pub(crate) last_update: Option<Moment>,
    /// Messages that withdraw or announce something.
    pub(crate) updates: usize,
    /// Prefixes withdrawn, as often as they were.
    pub(crate) withdrawn: usize,
    /// Prefixes announced, as often as they were.
    pub(crate) announced: usize,
    /// Sessions that ended with a word.
    pub(crate) notifications: Vec<Ended>,
    /// The first BFD packet that tells of a session that is not up.
    pub(crate) bfd_down: Option<Moment>,
    /// The flow.
    pub(crate) flow: Option<FlowReport>,
    /// Its answers.
    pub(crate) back: Option<FlowReport>,
    /// Frames of which the capture has no copy; above 0, the numbers of packets are wrong.
    pub(crate) missed: u64,
}

/// When something was first on a wire, and who said it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// ms after the cut.
    pub(crate) after_ms: f64,
    /// The port where it entered its cable: `spine1:2`.
    pub(crate) port: String,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// ms after the cut.
    pub(crate) after_ms: f64,
    /// The port where the message entered its cable.
    pub(crate) port: String,
    /// Code, subcode and their names.
    pub(crate) why: String,
    /// The message did not get through: its cable is cut.
    pub(crate) lost: bool,
}

/// What was done.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    pub(super) cables: Vec<String>,
    pub(super) state: String,
    /// When it took effect, in ns of the fabric's clock.
    pub(super) at: u64,
    /// How long it took until all ends had been told, ns.
    pub(super) told: u64,
}

impl Report {
    /// What `sightings` say of a cut.
    pub(super) fn of(mut sightings: Vec<Sighting>, lanes: &[Lane], cut: &Cut) -> Report {
        sightings.sort_by_key(|sighting| sighting.time);
        let after = sightings.partition_point(|sighting| sighting.time < cut.at);
        let after_ms = |sighting: &Sighting| (sighting.time - cut.at) as f64 / 1e6;
        let moment = |sighting: &Sighting| Moment {
            after_ms: after_ms(sighting),
            port: lanes[sighting.lane].from.clone(),
        };
        let mut report = Report {
            cables: cut.cables.clone(),
            state: cut.state.clone(),
            told_ms: cut.told as f64 / 1e6,
            settled: false,
            first_withdraw: None,
            first_update: None,
            last_update: None,
            updates: 0,
            withdrawn: 0,
            announced: 0,
            notifications: Vec::new(),
            bfd_down: None,
            flow: FlowReport::of(&sightings, lanes, false, cut.at),
            back: FlowReport::of(&sightings, lanes, true, cut.at),
            missed: 0,
        };
        for sighting in &sightings[after..] {
            match &sighting.what {
                // What a dead cable swallowed was said, but nobody heard it.
                What::Updates { .. } | What::BfdDown if sighting.lost => {}
                What::Updates {
                    withdrawn,
                    announced,
                } => {
                    report.updates += 1;
                    report.withdrawn += withdrawn;
                    report.announced += announced;
                    report.first_update.get_or_insert_with(|| moment(sighting));
                    report.last_update = Some(moment(sighting));
                    if *withdrawn > 0 {
                        report
                            .first_withdraw
                            .get_or_insert_with(|| moment(sighting));
                    }
                }
                What::Notification(why) => report.notifications.push(Ended {
                    after_ms: after_ms(sighting),
                    port: lanes[sighting.lane].from.clone(),
                    why: why.clone(),
                    lost: sighting.lost,
                }),
                What::BfdDown => {
                    report.bfd_down.get_or_insert_with(|| moment(sighting));
                }
                What::Keepalive | What::Flow { .. } => {}
            }
        }
        report
    }
}

//! The books: what the fabric counted against what the ends of each cable know.

use api::{CableReport, LaneReport};
use ikv_tests::panel::PanelHost;

use crate::traffic::Account;

/// The counters of one lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) frames_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) held: u64,
    pub(crate) dropped: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupted: u64,
    /// Of those dropped: frames that the kernel dropped before the fabric read them.
    pub(crate) read_too_late: u64,
}

/// The lanes of a cable, in the order of its ends.
pub(crate) type Lanes = [Lane; 2];

/// Reads the counters of all cables, and asserts that each lane's add up.
pub(crate) fn all_lanes(host: &PanelHost) -> Vec<(String, [String; 2], Lanes)> {
    let cables: Vec<CableReport> =
        serde_json::from_value(host.json(&["cables"])).expect("a list of cables");
    cables.into_iter().map(cable).collect()
}

fn cable(cable: CableReport) -> (String, [String; 2], Lanes) {
    let name = cable.name;
    let lanes = cable.lanes.each_ref().map(|report| {
        let lane = Lane::of(report);
        assert_eq!(
            lane.frames_in,
            lane.frames_out + lane.held + lane.dropped,
            "{name} loses frames that it does not count: {report:?}"
        );
        lane
    });
    (name, cable.lanes.map(|lane| lane.from), lanes)
}

impl Lane {
    fn of(report: &LaneReport) -> Self {
        Lane {
            frames_in: report.frames_in,
            bytes_in: report.bytes_in,
            frames_out: report.frames_out,
            held: report.held,
            dropped: report.drops.values().sum(),
            duplicated: report.duplicated,
            corrupted: report.corrupted,
            read_too_late: report.drops.get("read-too-late").copied().unwrap_or(0),
        }
    }

    /// What was counted since `before`.
    fn since(self, before: Lane) -> Lane {
        Lane {
            frames_in: self.frames_in - before.frames_in,
            bytes_in: self.bytes_in - before.bytes_in,
            frames_out: self.frames_out - before.frames_out,
            held: self.held,
            dropped: self.dropped - before.dropped,
            duplicated: self.duplicated - before.duplicated,
            corrupted: self.corrupted - before.corrupted,
            read_too_late: self.read_too_late - before.read_too_late,
        }
    }
}

/// Compares what the fabric counted on a lane between two settlements with what its ends know.
/// `noisy`: somebody else sends on it, too. Returns the number of frames that were checked.
pub(crate) fn compare(lane: &str, now: Lane, before: Lane, account: Account, noisy: bool) -> u64 {
    let counted = now.since(before);
    let what = format!("{lane}: {counted:?}, its ends: {account:?}");
    assert_eq!(now.held, 0, "frames are held without an impairment: {what}");
    if let Some(sent) = account.sent {
        let entered = counted.frames_in - counted.duplicated;
        if noisy {
            assert!(entered >= sent, "frames entered uncounted: {what}");
        } else {
            assert_eq!(entered, sent, "frames entered uncounted: {what}");
            if counted.duplicated + counted.read_too_late == 0 {
                assert_eq!(counted.bytes_in, sent * account.bytes, "bytes: {what}");
            }
        }
    }
    if let Some(arrived) = account.arrived {
        // Between the two looks the host's network stack may have sent more.
        let agree = if noisy {
            arrived >= counted.frames_out
        } else {
            arrived == counted.frames_out
        };
        assert!(agree, "frames left uncounted: {what}");
        assert!(
            account.corrupted <= counted.corrupted,
            "frames arrive damaged that no impairment damaged: {what}"
        );
    }
    counted.frames_in
}

//! The books: what the fabric counted against what the ends of each cable know.

use ikv_tests::panel::PanelHost;
use serde_json::Value;

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
    let cables = host.json(&["cables"]);
    let cables = cables.as_array().expect("a list of cables");
    cables.iter().map(cable).collect()
}

fn cable(cable: &Value) -> (String, [String; 2], Lanes) {
    let name = cable["name"].as_str().expect("a name").to_owned();
    let from = [0, 1].map(|lane| {
        let from = &cable["lanes"][lane]["from"];
        from.as_str().expect("a port").to_owned()
    });
    let lanes = [0, 1].map(|lane| {
        let json = &cable["lanes"][lane];
        let lane = Lane::of(json);
        assert_eq!(
            lane.frames_in,
            lane.frames_out + lane.held + lane.dropped,
            "{name} loses frames that it does not count: {json}"
        );
        lane
    });
    (name, from, lanes)
}

impl Lane {
    fn of(json: &Value) -> Self {
        let count = |key: &str| json[key].as_u64().unwrap_or(0);
        let drops = json["drops"].as_object().expect("drops by reason");
        Lane {
            frames_in: count("frames_in"),
            bytes_in: count("bytes_in"),
            frames_out: count("frames_out"),
            held: count("held"),
            dropped: drops.values().filter_map(Value::as_u64).sum(),
            duplicated: count("duplicated"),
            corrupted: count("corrupted"),
            read_too_late: json["drops"]["read-too-late"].as_u64().unwrap_or(0),
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

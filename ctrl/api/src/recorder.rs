//! The flight recorder holds the last frames of every cable, and keeps a dump of them when a
//! [`Trigger`] fires.
//!
//! A dump is sent as a capture is: see [`crate::capture`]. Its frames are in order of time within
//! each interface only; the statistics at its end count the frames in the dump.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the flight recorder does, and what it has kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RecorderStatus {
    /// Memory for the recorded frames of all lanes together, in bytes.
    pub memory: u64,
    /// The most bytes of each frame that are recorded.
    pub snap: u32,
    /// Number of lanes that are recorded.
    pub lanes: usize,
    /// The events at which it keeps a dump.
    pub triggers: Vec<Trigger>,
    /// The dumps that it has kept, oldest first.
    pub dumps: Vec<KeptDump>,
}

/// A dump that was kept because a trigger fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptDump {
    /// By which [`routes::KEPT_DUMP`](crate::routes::KEPT_DUMP) gives it: `003-bgp-iksb12`.
    pub name: String,
    /// When it was kept, in ms since 1970-01-01 UTC.
    pub at_ms: u64,
    /// One sentence for each trigger that fired.
    pub why: Vec<String>,
    /// Number of frames in it.
    pub frames: u64,
    /// Size of its file, in bytes.
    pub bytes: u64,
}

/// Asks for the frames that the flight recorder holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DumpRequest {
    /// Cables by name or either end; empty means all.
    #[serde(default)]
    pub cables: Vec<String>,
    /// The greatest age of a frame, in ms; `None` means any.
    #[serde(default)]
    pub last_ms: Option<u64>,
}

/// Replaces all triggers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriggersRequest {
    /// The new triggers; empty means that no dump is kept.
    pub triggers: Vec<Trigger>,
}

/// An event at which the recorder keeps a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "on", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trigger {
    /// A cable is cut.
    // In braces, or serde would take any further key for these two.
    Down {},
    /// A BGP session between switches is lost: a NOTIFICATION, or silence beyond the hold time.
    Bgp {},
    /// A frame matches.
    Match {
        /// The tcpdump expression that the user wrote; only shown.
        expression: String,
        /// Classic BPF, as libpcap compiles it for Ethernet: code, jt, jf, k.
        filter: Vec<(u16, u8, u8, u32)>,
        /// Only frames on these cables; empty means all.
        #[serde(default)]
        cables: Vec<String>,
    },
    /// A lane drops many frames. Drops on cut cables and at unconnected ends do not count.
    Drops {
        /// The least share of the frames that enter the lane within a second, 0..=100.
        percent: f64,
        /// Only lanes of these cables; empty means all.
        #[serde(default)]
        cables: Vec<String>,
    },
}

impl Trigger {
    /// Removes cables that do not exist any more. Returns `false` if the trigger named cables and
    /// none of them is left, so that it can never fire again.
    pub fn keep_cables(&mut self, exists: impl Fn(&str) -> bool) -> bool {
        match self {
            Trigger::Down {} | Trigger::Bgp {} => true,
            Trigger::Match { cables, .. } | Trigger::Drops { cables, .. } => {
                let named = !cables.is_empty();
                cables.retain(|cable| exists(cable));
                !(named && cables.is_empty())
            }
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |cables: &[String]| {
            if cables.is_empty() {
                "any cable".into()
            } else {
                cables.join(" ")
            }
        };
        match self {
            Trigger::Down {} => write!(f, "a cable is cut"),
            Trigger::Bgp {} => write!(f, "a BGP session between switches is lost"),
            Trigger::Match {
                expression, cables, ..
            } => write!(f, "a frame on {} matches \"{expression}\"", on(cables)),
            Trigger::Drops { percent, cables } => {
                write!(f, "{} drops {percent}% of its frames", on(cables))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_takes_its_own_keys_only() {
        let parsed = |json: &str| serde_json::from_str::<Trigger>(json);
        assert_eq!(parsed(r#"{"on":"bgp"}"#).unwrap(), Trigger::Bgp {});
        assert_eq!(
            serde_json::to_string(&Trigger::Down {}).unwrap(),
            r#"{"on":"down"}"#
        );
        for json in [
            r#"{"on":"bgp","cables":[]}"#,
            r#"{"on":"down","percent":1.0}"#,
            r#"{"on":"up"}"#,
        ] {
            assert!(parsed(json).is_err(), "{json}");
        }
    }
}

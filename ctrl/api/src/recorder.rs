//! The flight recorder: the last frames of every cable, and what of them was kept.
//!
//! Dumps come as captures do: see [`super::capture`]. Their frames are in order of time within
//! each interface only; the statistics at their end count what the dump holds.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `GET /v1/recorder`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecorderStatus {
    /// Memory of all lanes' recorders, bytes.
    pub memory: u64,
    /// Bytes of each frame that are kept, at most.
    pub snap: u32,
    /// Lanes that are recorded.
    pub lanes: usize,
    /// What makes it keep a dump.
    pub triggers: Vec<Trigger>,
    /// What was kept, the oldest first.
    pub dumps: Vec<KeptDump>,
}

/// A dump that a trigger made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDump {
    /// To get it by: `003-bgp-iksb12`.
    pub name: String,
    /// When it was made, in ms since 1970 (UTC).
    pub at_ms: u64,
    /// What happened: a sentence for each trigger.
    pub why: Vec<String>,
    /// Frames in it.
    pub frames: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

/// `POST /v1/recorder/dump`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpRequest {
    /// Cables by name or either end; none means all.
    #[serde(default)]
    pub cables: Vec<String>,
    /// Only what is not older than this, in ms.
    #[serde(default)]
    pub last_ms: Option<u64>,
}

/// `PUT /v1/recorder/triggers`: these and no others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggersRequest {
    /// All of them.
    pub triggers: Vec<Trigger>,
}

/// What makes the recorder keep a dump.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trigger {
    /// A cable is cut.
    Down,
    /// A BGP session between switches is lost: a NOTIFICATION, or silence beyond the hold time.
    Bgp,
    /// A frame matches.
    Match {
        /// As it was written.
        expression: String,
        /// Classic BPF, as libpcap compiles it for Ethernet: code, jt, jf, k.
        filter: Vec<(u16, u8, u8, u32)>,
        /// On these cables; none means all.
        #[serde(default)]
        cables: Vec<String>,
    },
    /// A lane drops frames, other than those that a cut cable or an empty end cannot take.
    Drops {
        /// At least this share of what enters it in a second, 0..=100.
        percent: f64,
        /// Of one of these cables; none means any.
        #[serde(default)]
        cables: Vec<String>,
    },
}

impl Trigger {
    /// Leaves out cables that are not there any more; `false` if none is left of those named.
    pub fn keep_cables(&mut self, there: impl Fn(&str) -> bool) -> bool {
        match self {
            Trigger::Down | Trigger::Bgp => true,
            Trigger::Match { cables, .. } | Trigger::Drops { cables, .. } => {
                let named = !cables.is_empty();
                cables.retain(|cable| there(cable));
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
            Trigger::Down => write!(f, "a cable is cut"),
            Trigger::Bgp => write!(f, "a BGP session between switches is lost"),
            Trigger::Match {
                expression, cables, ..
            } => write!(f, "a frame on {} matches \"{expression}\"", on(cables)),
            Trigger::Drops { percent, cables } => {
                write!(f, "{} drops {percent}% of its frames", on(cables))
            }
        }
    }
}

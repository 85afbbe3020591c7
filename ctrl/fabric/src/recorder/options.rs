//! The options of the flight recorder: [`RecorderOptions`].

use std::path::PathBuf;
use std::time::Duration;

use api::recorder::Trigger;

/// Memory, triggers and folder of the flight recorder.
#[derive(Debug, Clone, PartialEq)]
pub struct RecorderOptions {
    /// Memory of all lanes' recordings together, in bytes.
    pub memory: u64,
    /// How much of each frame is kept, in bytes.
    pub snap: u32,
    /// How far back a dump that a trigger causes reaches.
    pub last: Duration,
    /// The triggers that are active from the start, on any cable.
    pub triggers: Vec<Trigger>,
    /// The folder for kept dumps. `None`: a folder beside the API's socket, which is removed when
    /// the fabric ends.
    pub folder: Option<PathBuf>,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        RecorderOptions {
            memory: 64 << 20,
            snap: 256,
            last: Duration::from_secs(30),
            triggers: vec![Trigger::Down {}, Trigger::Bgp {}],
            folder: None,
        }
    }
}

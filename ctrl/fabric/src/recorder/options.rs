//! How to record: [`RecorderOptions`].

use std::path::PathBuf;
use std::time::Duration;

use api::recorder::Trigger;

/// Memory, triggers and folder of the flight recorder.
#[derive(Debug, Clone, PartialEq)]
pub struct RecorderOptions {
    /// Memory of all lanes' recorders together, in bytes.
    pub memory: u64,
    /// The longest part of each frame that is kept, in bytes.
    pub snap: u32,
    /// How far back a kept dump goes.
    pub last: Duration,
    /// What makes the recorder keep a dump, on any cable.
    pub triggers: Vec<Trigger>,
    /// Where kept dumps go. `None`: beside the API's socket, until the fabric ends.
    pub folder: Option<PathBuf>,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        RecorderOptions {
            memory: 64 << 20,
            snap: 256,
            last: Duration::from_secs(30),
            triggers: vec![Trigger::Down, Trigger::Bgp],
            folder: None,
        }
    }
}

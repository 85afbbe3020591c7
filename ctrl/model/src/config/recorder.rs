//! `[recorder]`: the flight recorder, which keeps the last frames of every cable.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forms::{ByteSize, Share};
use crate::impairment::{Bytes, Percent};

/// The table `[recorder]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recorder {
    /// Whether to record.
    pub enabled: bool,
    /// Memory of all its rings together.
    #[schemars(with = "ByteSize", extend("x-minimum" = "1MiB", "x-maximum" = "64GiB"))]
    pub memory: Bytes,
    /// Bytes of each frame that are kept, at most.
    #[schemars(range(min = 64, max = 65_535), extend("x-unit" = "bytes"))]
    pub snap: u32,
    /// Dump by itself when a cable goes down.
    pub cable_down: bool,
    /// Dump by itself when a BGP session is lost on the wire.
    pub bgp_down: bool,
    /// Dump by itself when a frame matches this tcpdump expression. Default: never.
    #[serde(rename = "match")]
    #[schemars(example = &"icmp[icmptype] == icmp-unreach")]
    pub matches: Option<String>,
    /// Dump by itself when a lane drops this share of its frames. Default: never.
    #[schemars(with = "Option<Share>", example = &"1%")]
    pub drop_rate: Option<Percent>,
    /// Folder of what it dumps by itself. Default: beside the API socket.
    #[schemars(example = &"/var/tmp")]
    pub dir: Option<PathBuf>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            enabled: true,
            memory: Bytes(64 << 20),
            snap: 256,
            cable_down: true,
            bgp_down: true,
            matches: None,
            drop_rate: None,
            dir: None,
        }
    }
}

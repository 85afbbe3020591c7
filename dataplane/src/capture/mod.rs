//! Stub until the real one is here.
use crate::{DropReason, VnetHeader, bpf::Program};

/// What is known of a captured frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// ns.
    pub time: u64,
    /// Bytes.
    pub len: u32,
    /// Bytes kept.
    pub captured: u32,
    /// Offloads.
    pub header: VnetHeader,
    /// Fate.
    pub verdict: Verdict,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Why dropped.
    pub dropped: Option<DropReason>,
    /// Pieces lost.
    pub lost_pieces: u16,
    /// ns.
    pub delay: Option<u64>,
    /// Sent twice.
    pub duplicated: bool,
    /// The second.
    pub copy: bool,
    /// Which bit.
    pub corrupted: Option<u32>,
    /// Out of order.
    pub reordered: bool,
    /// ECN.
    pub marked: bool,
}

impl Record {
    /// Encoded bytes.
    pub const LEN: usize = 40;
    /// To bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut to = [0; Self::LEN];
        to[..8].copy_from_slice(&self.time.to_le_bytes());
        to[8..12].copy_from_slice(&self.len.to_le_bytes());
        to[12..16].copy_from_slice(&self.captured.to_le_bytes());
        to[16..26].copy_from_slice(&self.header.0);
        to
    }
    /// From bytes.
    pub fn decode(from: &[u8; Self::LEN]) -> Option<Self> {
        Some(Record {
            time: u64::from_le_bytes(from[..8].try_into().ok()?),
            len: u32::from_le_bytes(from[8..12].try_into().ok()?),
            captured: u32::from_le_bytes(from[12..16].try_into().ok()?),
            header: VnetHeader(from[16..26].try_into().ok()?),
            verdict: Verdict::default(),
        })
    }
}

/// What to tap.
#[derive(Debug, Clone)]
pub struct TapSpec {
    /// Which frames.
    pub filter: Option<Program>,
    /// Bytes of each.
    pub snap: u32,
    /// What comes out.
    pub wire: bool,
    /// Ring.
    pub bytes: usize,
}

/// Reader.
#[derive(Debug)]
pub struct LaneCapture {}

impl LaneCapture {
    /// Read.
    pub fn read(&mut self, _each: impl FnMut(&Record, &[u8])) -> usize {
        0
    }
    /// Lost.
    pub fn lost(&self) -> u64 {
        0
    }
    /// Seen.
    pub fn seen(&self) -> u64 {
        0
    }
}

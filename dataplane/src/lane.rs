//! One direction of a cable: [`Lane`].

use std::sync::Arc;

use crate::cable::CableState;
use crate::frame::Burst;
use crate::port::Port;
use crate::stats::{DropReason, Drops, LaneStats};

/// One direction of a cable: what happens to frames between receiving and sending them.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) stats: Arc<LaneStats>,
}

impl Lane {
    /// Passes on a burst that was received. `drops` holds what was already lost on the
    /// way in; afterwards everything is counted, the burst empty and `drops` zero.
    pub(crate) fn pass(
        &mut self,
        state: CableState,
        burst: &mut Burst,
        to: Option<&mut Port>,
        drops: &mut Drops,
    ) {
        let frames = burst.len() as u64 + drops.iter().sum::<u64>();
        if frames == 0 {
            return;
        }
        let bytes = burst.bytes();
        match (state, to) {
            (CableState::Up, Some(port)) => port.send(burst, drops),
            (CableState::Up, None) => drops[DropReason::PortError as usize] += burst.len() as u64,
            (CableState::Down, _) => drops[DropReason::CableDown as usize] += burst.len() as u64,
            (CableState::Blackhole, _) => {
                drops[DropReason::Blackhole as usize] += burst.len() as u64;
            }
        }
        self.stats.add(frames, bytes, drops);
        burst.clear();
        *drops = Drops::default();
    }
}

//! One direction of a cable: [`Lane`].

use std::sync::Arc;

use crate::cable::CableState;
use crate::frame::Burst;
use crate::offload::{Cut, Offloads};
use crate::port::Port;
use crate::port::vhost_user::Filled;
use crate::stats::{DropReason, Drops, LaneStats};

/// One direction of a cable: what happens to frames between receiving and sending them.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) stats: Arc<LaneStats>,
}

impl Lane {
    /// Counts frames that the source put straight into the receiver's buffers.
    pub(crate) fn count_direct(&mut self, filled: &Filled) {
        self.stats
            .add(filled.frames, filled.bytes, &Drops::default());
    }

    /// Passes on a burst that was received. `drops` holds what was already lost on the
    /// way in; afterwards everything is counted, the burst empty and `drops` zero.
    #[inline]
    pub(crate) fn pass(
        &mut self,
        state: CableState,
        burst: &mut Burst,
        to: Option<&mut Port>,
        cut: &mut Burst,
        drops: &mut Drops,
    ) {
        let mut frames = burst.len() as u64 + drops.iter().sum::<u64>();
        if frames == 0 {
            return;
        }
        match (state, to) {
            (CableState::Up, Some(port)) => frames += send(burst, port, cut, drops),
            (CableState::Up, None) => drops[DropReason::Unplugged as usize] += burst.len() as u64,
            (CableState::Down, _) => drops[DropReason::CableDown as usize] += burst.len() as u64,
            (CableState::Blackhole, _) => {
                drops[DropReason::Blackhole as usize] += burst.len() as u64;
            }
        }
        self.stats.add(frames, burst.bytes(), drops);
        burst.clear();
        *drops = Drops::default();
    }
}

/// Sends the burst as the receiver takes it. Returns how many frames more than the burst has
/// were made by cutting super-frames.
#[inline]
fn send(burst: &Burst, port: &mut Port, cut: &mut Burst, drops: &mut Drops) -> u64 {
    let mut next = 0;
    while next < burst.len() {
        let takes = port.takes();
        if takes.contains(burst.needs()) {
            next = port.send(burst, next, drops);
        } else {
            return send_finished(burst, next, port, takes, cut, drops);
        }
    }
    0
}

/// As [`send`], doing first what the sender left to do and the receiver does not take.
fn send_finished(
    burst: &Burst,
    from: usize,
    port: &mut Port,
    takes: Offloads,
    cut: &mut Burst,
    drops: &mut Drops,
) -> u64 {
    let mut more = 0;
    for index in from..burst.len() {
        if takes.contains(burst.header(index).needs()) {
            if !cut.has_room() {
                flush(cut, port, drops);
            }
            cut.push_again(burst, index);
            continue;
        }
        let Some(mut pieces) = Cut::new(burst, index, takes) else {
            drops[DropReason::Malformed as usize] += 1;
            continue;
        };
        more += pieces.len() as u64 - 1;
        while pieces.len() > 0 {
            if !cut.has_room() {
                flush(cut, port, drops);
            }
            pieces.add_next(cut);
        }
    }
    flush(cut, port, drops);
    more
}

fn flush(cut: &mut Burst, port: &mut Port, drops: &mut Drops) {
    let sent = port.send(cut, 0, drops);
    // A port refuses no frame that it said it takes, but count it rather than trust it.
    drops[DropReason::PortError as usize] += (cut.len() - sent) as u64;
    cut.clear();
}

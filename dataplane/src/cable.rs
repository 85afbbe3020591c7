//! Two ports and the two lanes between them: [`Cable`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::cable_state::CableState;
use crate::lane::{Bursts, Lane};
use crate::port::Port;
use crate::port::vhost_user::Filled;
use crate::side::Side;
use crate::stats::{DropReason, LaneStats};
use crate::work::Work;

/// Exactly two ports and the two lanes between them. Belongs to one worker at a time.
#[derive(Debug)]
pub struct Cable {
    ports: [Option<Port>; 2],
    lanes: [Lane; 2],
    state: CableState,
    /// After a fault of this program: its ports are not looked at.
    closed: bool,
}

impl Cable {
    /// Joins two ports; the cable is up. Frames to an end without a port are dropped as `unplugged`.
    pub fn new(a: impl Into<Option<Port>>, b: impl Into<Option<Port>>) -> Self {
        Cable {
            ports: [a.into(), b.into()],
            lanes: Default::default(),
            state: CableState::default(),
            closed: false,
        }
    }

    /// The counters of the lane that begins at `from`.
    pub fn stats(&self, from: Side) -> Arc<LaneStats> {
        self.lanes[from as usize].stats.clone()
    }

    pub(crate) fn port(&self, side: Side) -> Option<&Port> {
        self.ports[side as usize].as_ref()
    }

    pub(crate) fn port_mut(&mut self, side: Side) -> Option<&mut Port> {
        self.ports[side as usize].as_mut()
    }

    /// Puts another port in place; returns the one that was there.
    pub(crate) fn replace(&mut self, side: Side, port: Option<Port>) -> Option<Port> {
        std::mem::replace(&mut self.ports[side as usize], port)
    }

    /// Cutting a cable drops the frames that wait in it.
    pub(crate) fn set_state(&mut self, state: CableState) {
        self.state = state;
        let reason = match state {
            CableState::Up => return,
            CableState::Down => DropReason::CableDown,
            CableState::Blackhole => DropReason::Blackhole,
        };
        for lane in &mut self.lanes {
            lane.purge(reason);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Closes the cable after a panic. `memory` has the frames that came in at `from` and are not
    /// counted yet. Front ends are disconnected: buffers of theirs may have been taken and not given
    /// back.
    pub(crate) fn close(&mut self, from: Option<Side>, memory: &Bursts) {
        self.closed = true;
        for side in [Side::A, Side::B] {
            let in_hand = (Some(side) == from).then_some(memory);
            self.lanes[side as usize].give_up(in_hand);
            if let Some(Port::VhostUser(port)) = self.port_mut(side) {
                port.close();
            }
        }
    }

    /// Opens a cable that was closed. `false` when it was not.
    pub(crate) fn open(&mut self) -> bool {
        std::mem::take(&mut self.closed)
    }

    pub(crate) fn lane(&self, from: Side) -> &Lane {
        &self.lanes[from as usize]
    }

    pub(crate) fn lane_mut(&mut self, from: Side) -> &mut Lane {
        &mut self.lanes[from as usize]
    }

    /// Sends those held frames of the lane that begins at `from` that are due. Returns when the next
    /// one is due, if any is left, and how much work it was.
    pub(crate) fn release(
        &mut self,
        from: Side,
        now: u64,
        memory: &mut Bursts,
    ) -> (Option<u64>, Work) {
        let sink = self.ports[from.other() as usize].as_mut();
        self.lanes[from as usize].release(now, sink, memory)
    }

    /// Moves one burst from the port at `from` to the other.
    ///
    /// # Errors
    /// When the port at `from` has failed; frames that it delivered before are still passed on.
    #[inline]
    pub(crate) fn forward(&mut self, from: Side, memory: &mut Bursts) -> io::Result<Forwarded> {
        let [a, b] = &mut self.ports;
        let (source, sink) = match from {
            Side::A => (a, b),
            Side::B => (b, a),
        };
        let Some(source) = source else {
            return Ok(Forwarded::default());
        };
        let lane = &mut self.lanes[from as usize];
        let mut direct = Filled::default();
        let (burst, losses) = (&mut memory.received, &mut memory.losses);
        let received = match (&mut *source, sink.as_mut(), self.state) {
            (Port::Tap(tap), Some(Port::VhostUser(guest)), CableState::Up)
                if !lane.is_impaired() =>
            {
                let seen = lane.is_tapped().then_some(&mut memory.seen);
                match guest.fill(tap.as_fd(), burst, losses, seen) {
                    Some(filled) => filled.map(|filled| {
                        direct = filled;
                        lane.pass_direct(&filled, &mut memory.seen);
                        guest.settle();
                        filled.more
                    }),
                    None => source.receive(burst, losses),
                }
            }
            _ => source.receive(burst, losses),
        };
        let any = !memory.received.is_empty() || direct.frames > 0;
        let mut work = lane.pass(self.state, sink.as_mut(), memory);
        let syscalls = source.needs_syscall();
        work += Work::of(direct.frames, direct.bytes, 0, syscalls);
        source.release();
        received.map(|more| Forwarded {
            received: any,
            more,
            work,
        })
    }
}

/// What one [`Cable::forward`] did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forwarded {
    /// Frames were received.
    pub(crate) received: bool,
    /// The port may have more.
    pub(crate) more: bool,
    /// What it cost.
    pub(crate) work: Work,
}

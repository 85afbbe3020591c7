//! Two ports and the two lanes between them: [`Cable`].

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::frame::Burst;
use crate::lane::Lane;
use crate::port::Port;
use crate::port::vhost_user::Filled;
use crate::stats::{Drops, LaneStats};

/// Which end of a cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first end.
    A,
    /// The second end.
    B,
}

impl Side {
    /// The end that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// What the operator made of a cable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CableState {
    /// Frames pass.
    #[default]
    Up,
    /// Cut: no frame passes. Telling the ends that they lost carrier is the part of
    /// whoever holds them.
    Down,
    /// Carrier stays, frames vanish.
    Blackhole,
}

/// Exactly two ports and the two lanes between them. Belongs to one worker at a time.
#[derive(Debug)]
pub struct Cable {
    ports: [Option<Port>; 2],
    lanes: [Lane; 2],
    state: CableState,
}

impl Cable {
    /// Joins two ports; the cable is up. An end without one waits for it: frames to it are
    /// dropped as `unplugged`.
    pub fn new(a: impl Into<Option<Port>>, b: impl Into<Option<Port>>) -> Self {
        Cable {
            ports: [a.into(), b.into()],
            lanes: Default::default(),
            state: CableState::default(),
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

    /// Puts another port in place of one; returns what was there.
    pub(crate) fn replace(&mut self, side: Side, port: Option<Port>) -> Option<Port> {
        std::mem::replace(&mut self.ports[side as usize], port)
    }

    pub(crate) fn set_state(&mut self, state: CableState) {
        self.state = state;
    }

    /// Moves one burst from the port at `from` to the other. Tells whether frames came,
    /// and whether more may be waiting.
    ///
    /// # Errors
    /// When the port at `from` is of no more use; what it had delivered is still passed on.
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
        let mut drops = Drops::default();
        let mut direct = Filled::default();
        let received = match (&mut *source, sink.as_mut(), self.state) {
            (Port::Tap(tap), Some(Port::VhostUser(guest)), CableState::Up) => {
                match guest.fill(tap.as_fd(), &mut memory.received, &mut drops) {
                    Some(filled) => filled.map(|filled| {
                        direct = filled;
                        filled.more
                    }),
                    None => source.receive(&mut memory.received, &mut drops),
                }
            }
            _ => source.receive(&mut memory.received, &mut drops),
        };
        let some = !memory.received.is_empty() || direct.frames > 0;
        if direct.frames > 0 {
            self.lanes[from as usize].count_direct(&direct);
        }
        self.lanes[from as usize].pass(
            self.state,
            &mut memory.received,
            sink.as_mut(),
            &mut memory.cut,
            &mut drops,
        );
        source.release();
        received.map(|more| Forwarded { some, more })
    }
}

/// A worker's memory for frames, reused for ever.
#[derive(Default)]
pub(crate) struct Bursts {
    /// As they came.
    received: Burst,
    /// As the receiver takes them.
    cut: Burst,
}

/// What one [`Cable::forward`] did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Forwarded {
    /// Frames were received.
    pub(crate) some: bool,
    /// The port may have more.
    pub(crate) more: bool,
}

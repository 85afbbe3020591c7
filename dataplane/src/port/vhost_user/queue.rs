//! One virtqueue of either kind, with the eventfds by which its two sides wake each other: [`Queue`].

use std::fs::File;

use super::copy::GuestBuffer;
use super::fault::Rule;
use super::packed::Packed;
use super::split::Split;
use super::{Context, QueueSpec};
use crate::frame::{Burst, MAX_BURST};
use crate::stats::Losses;
use crate::sys::eventfd;

/// A queue while it runs. Its kind of ring is decided once a burst.
pub(super) struct Queue {
    pub(super) ring: Ring,
    pub(super) spec: QueueSpec,
}

pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

impl Queue {
    #[inline]
    pub(super) fn receive(
        &mut self,
        context: &Context<'_>,
        burst: &mut Burst,
        drops: &mut Losses,
    ) -> Result<bool, Rule> {
        match &mut self.ring {
            Ring::Split(ring) => ring.receive(context, burst, drops),
            Ring::Packed(ring) => ring.receive(context, burst, drops),
        }
    }

    /// Gives back the buffers that were received, and interrupts the driver if it wants that.
    #[inline]
    pub(super) fn release(&mut self) {
        let call = match &mut self.ring {
            Ring::Split(ring) => ring.release(),
            Ring::Packed(ring) => ring.release(),
        };
        if call {
            signal(self.spec.call.as_ref());
        }
    }

    #[inline]
    pub(super) fn send(
        &mut self,
        context: &Context<'_>,
        burst: &Burst,
        from: usize,
        drops: &mut Losses,
    ) -> Result<(), Rule> {
        let call = match &mut self.ring {
            Ring::Split(ring) => ring.send(context, burst, from, drops)?,
            Ring::Packed(ring) => ring.send(context, burst, from, drops)?,
        };
        if call {
            signal(self.spec.call.as_ref());
        }
        Ok(())
    }

    /// Writes the next receive buffers to `buffers`, up to the first that is not one piece of memory
    /// or not longer than a header; returns how many. They stay the driver's until [`Queue::settle`].
    pub(super) fn lend(
        &mut self,
        context: &Context<'_>,
        buffers: &mut [GuestBuffer; MAX_BURST],
    ) -> Result<usize, Rule> {
        match &mut self.ring {
            Ring::Split(ring) => ring.lend(context, buffers),
            Ring::Packed(ring) => ring.lend(context, buffers),
        }
    }

    /// Gives the first of the lent buffers to the driver, each filled with as many bytes as `lens`
    /// says.
    pub(super) fn settle(&mut self, lens: &[u32]) {
        let call = match &mut self.ring {
            Ring::Split(ring) => ring.settle(lens),
            Ring::Packed(ring) => ring.settle(lens),
        };
        if call {
            signal(self.spec.call.as_ref());
        }
    }

    pub(super) fn arm(&mut self) -> bool {
        match &mut self.ring {
            Ring::Split(ring) => ring.arm(),
            Ring::Packed(ring) => ring.arm(),
        }
    }

    pub(super) fn disarm(&mut self) {
        match &mut self.ring {
            Ring::Split(ring) => ring.disarm(),
            Ring::Packed(ring) => ring.disarm(),
        }
    }

    /// Interrupts the driver if a device that was killed may have died before it did. Once.
    pub(super) fn make_up_call(&mut self) {
        let missed = match &self.ring {
            Ring::Split(ring) => ring.may_have_missed_call(),
            Ring::Packed(ring) => ring.may_have_missed_call(),
        };
        if !std::mem::replace(&mut self.spec.resumed, true) && missed {
            signal(self.spec.call.as_ref());
        }
    }

    /// Ends the queue. The result's base says where another device goes on.
    pub(super) fn retire(mut self) -> QueueSpec {
        let base = match &mut self.ring {
            Ring::Split(ring) => ring.retire(),
            Ring::Packed(ring) => ring.retire(),
        };
        QueueSpec { base, ..self.spec }
    }
}

/// Interrupts the driver. The front end shares the eventfd and may have made it block: this does not
/// wait. A counter that is full stays so: then the driver has been signalled already.
#[cold]
fn signal(call: Option<&File>) {
    if let Some(call) = call {
        // Fails only when the kernel is out of memory: the worker prepared its thread for it.
        let _ = eventfd::signal(call);
    }
}

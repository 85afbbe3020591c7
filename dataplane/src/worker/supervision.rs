//! What a worker does when its own code fails: it closes the cable in hand and goes on with the others.
//!
//! A panic is a fault of this program, most likely provoked by a frame. The cable whose frame it was
//! is closed: its ports stay where they are and are not looked at any more, until it is opened again
//! (by the state `up`). Frames that were in hand or waited in it count as dropped, under
//! [`DropReason::Fault`](crate::DropReason::Fault). A panic outside of any cable ends the worker:
//! nothing is known about its state then. [`Panel::look`](crate::Panel::look) reports that.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Worker;
use crate::command::Event;
use crate::lane::Bursts;
use crate::side::Side;

const _: () = assert!(
    cfg!(panic = "unwind"),
    "a worker outlives a fault: build with panic = \"unwind\""
);

impl Worker {
    /// Does `work`. A panic in it closes the cable in hand; the result is `None` then.
    ///
    /// # Panics
    /// When no cable was in hand.
    pub(super) fn survive<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        // The state that may be inconsistent afterwards is the cable's, which is closed, and the
        // memory of bursts, which is replaced.
        let done = catch_unwind(AssertUnwindSafe(|| work(self)));
        let stats = &self.channels.stats;
        let panic = match done {
            Ok(done) => {
                stats.put_down();
                return Some(done);
            }
            Err(panic) => panic,
        };
        let Some((cable, side)) = stats.in_hand() else {
            resume_unwind(panic);
        };
        self.close(cable, side);
        self.channels.stats.put_down();
        // A full channel means that control is far behind; it sees the drops in the counters then.
        let fault = panic_text(panic.as_ref()).to_owned();
        let _ = self
            .channels
            .events
            .try_send(Event::CableClosed { cable, side, fault });
        (self.channels.notifier)();
        None
    }

    fn close(&mut self, cable: crate::CableId, side: Option<Side>) {
        let memory = std::mem::take(&mut self.memory);
        let Some(&index) = self.indices.get(&cable) else {
            return;
        };
        let Some(slot) = &mut self.cables[index] else {
            return;
        };
        slot.cable.close(side, &memory);
        drop::<Bursts>(memory);
        (slot.active, slot.waiting) = ([false; 2], [false; 2]);
        self.active.retain(|active| active.index != index);
        self.waiting.retain(|lane| lane.index != index);
        if let Some(slot) = &self.cables[index] {
            for side in [Side::A, Side::B] {
                self.unregister(slot.cable.port(side));
            }
        }
    }
}

/// The text of a panic with this payload. It may quote what a guest sent.
pub fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("of an unknown kind")
}

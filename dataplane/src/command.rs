//! What the control side tells a worker, and what a worker tells it.

use std::io;

use crossbeam_channel::Sender;

use crate::cable::{Cable, CableState, Side};
use crate::capture::Recorder;
use crate::lane::{Accuracy, Impaired, NumberedTap};
use crate::port::Port;

/// Names a cable for as long as the [`Panel`](crate::Panel) lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CableId(pub(crate) u32);

/// Where the answer to a command goes: what the worker gives back, or why it could not.
pub(crate) type Answer<T> = Sender<io::Result<T>>;

/// Control to worker. Each is answered when it has taken effect: no frame is handled by
/// the old rule after that.
#[derive(Debug)]
pub(crate) enum Command {
    /// Takes over a cable.
    Add {
        id: CableId,
        cable: Box<Cable>,
        done: Answer<()>,
    },
    /// Gives a cable up. Frames that wait for it go on waiting in its ports.
    Release {
        id: CableId,
        done: Answer<Box<Cable>>,
    },
    SetState {
        id: CableId,
        state: CableState,
        done: Answer<()>,
    },
    /// Puts another port in place; the old one comes back, for closing it may take long.
    Exchange {
        id: CableId,
        side: Side,
        port: Option<Port>,
        done: Answer<Option<Port>>,
    },
    /// Puts an impairment in force on one lane, or takes it away. What is of no more use comes
    /// back to be freed.
    Impair {
        id: CableId,
        from: Side,
        impaired: Option<Box<Impaired>>,
        done: Answer<Option<Box<Impaired>>>,
    },
    Accuracy {
        id: CableId,
        from: Side,
        done: Answer<Option<Accuracy>>,
    },
    /// Begins a capture of one lane. It comes back when there are too many.
    Tap {
        id: CableId,
        from: Side,
        tap: Box<NumberedTap>,
        done: Answer<Option<Box<NumberedTap>>>,
    },
    /// Ends one.
    Untap {
        id: CableId,
        from: Side,
        number: u64,
        done: Answer<Option<Box<NumberedTap>>>,
    },
    /// Gives one lane a flight recorder, or takes it away; the old one comes back.
    Record {
        id: CableId,
        from: Side,
        recorder: Option<Box<Recorder>>,
        done: Answer<Option<Box<Recorder>>>,
    },
    /// Ends the worker; it gives up all its cables.
    Stop,
}

/// Worker to control: what nobody asked for.
#[derive(Debug)]
pub enum Event {
    /// A port is of no more use and was taken out; its cable stays, frames to it are dropped
    /// as `unplugged` until [`Panel::exchange`](crate::Panel::exchange).
    PortFailed {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
        /// What was there.
        port: Option<Port>,
        /// What the kernel said.
        error: io::Error,
    },
    /// The last frame has left an impairment that was taken away.
    Ended(EndedImpairment),
}

/// Memory of an impairment that is of no more use; dropping it may take milliseconds.
#[derive(Debug)]
pub struct EndedImpairment(pub(crate) Box<Impaired>);

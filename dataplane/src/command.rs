//! Commands from control to a worker, and events from a worker to control.

use std::io;
use std::sync::Weak;

use crate::cable::Cable;
use crate::cable_state::CableState;
use crate::capture::Recorder;
use crate::lane::{Accuracy, Impaired, NumberedTap};
use crate::mailbox::Mailbox;
use crate::port::Port;
use crate::reply;
use crate::side::Side;

/// Names a cable for as long as the [`Panel`](crate::Panel) lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CableId(pub(crate) u32);

/// Carries a command's result back, or why the worker could not do it.
pub(crate) type Answer<T> = reply::Answer<io::Result<T>>;

/// Control to worker. Each is answered when it has taken effect: no frame is handled by
/// the old rule after that. What a command replaces travels back with the answer, because freeing
/// or closing it may take long.
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
    /// Another worker is about to hand this cable over. Commands for it wait until it has.
    Expect { id: CableId },
    /// Hands a cable over to the worker behind `to`, which answers.
    HandOver {
        id: CableId,
        to: Weak<Mailbox<Command>>,
        done: Answer<()>,
    },
    /// Worker to worker: the cable that was expected, or that it does not come.
    Arrive {
        id: CableId,
        cable: io::Result<Box<Cable>>,
        done: Answer<()>,
    },
    SetState {
        id: CableId,
        state: CableState,
        done: Answer<()>,
    },
    /// Puts another port in place; the old one comes back.
    Exchange {
        id: CableId,
        side: Side,
        port: Option<Port>,
        done: Answer<Option<Port>>,
    },
    /// Puts an impairment in force on one lane, or takes it away. The memory of the one before comes
    /// back, once no frame waits in it.
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
}

impl Command {
    /// The cable that it is about.
    pub(crate) fn cable(&self) -> CableId {
        match self {
            Command::Add { id, .. }
            | Command::Release { id, .. }
            | Command::Expect { id }
            | Command::HandOver { id, .. }
            | Command::Arrive { id, .. }
            | Command::SetState { id, .. }
            | Command::Exchange { id, .. }
            | Command::Impair { id, .. }
            | Command::Accuracy { id, .. }
            | Command::Tap { id, .. }
            | Command::Untap { id, .. }
            | Command::Record { id, .. } => *id,
        }
    }
}

/// Worker to control: what happened without a command.
#[derive(Debug)]
pub enum Event {
    /// A port has failed and was taken out. Its cable stays; frames to it are dropped
    /// as `unplugged` until [`Panel::exchange`](crate::Panel::exchange).
    PortFailed {
        /// The cable that has lost a port.
        cable: CableId,
        /// Which of its ends.
        side: Side,
        /// The port, to be closed by dropping it.
        port: Option<Port>,
        /// The kernel's reason.
        error: io::Error,
    },
    /// A fault of this program (a panic) closed a cable: none of its frames passes until its state is
    /// set to up. The others go on.
    CableClosed {
        /// The cable, which keeps its ports.
        cable: CableId,
        /// The end whose frame was in hand; `None`: a command was carried out.
        side: Option<Side>,
        /// The text of the panic.
        fault: String,
    },
    /// The last frame has left an impairment that was taken away.
    Ended(EndedImpairment),
}

/// The memory of an impairment that has ended; dropping it may take milliseconds.
#[derive(Debug)]
pub struct EndedImpairment(pub(crate) Box<Impaired>);

//! What the control side tells a worker, and what a worker tells it.

use std::io;

use crossbeam_channel::Sender;

use crate::cable::{Cable, CableState, Side};
use crate::port::Port;

/// Names a cable for as long as the [`Panel`](crate::Panel) lives; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CableId(pub(crate) u32);

/// Control to worker. Each is answered when it has taken effect: no frame is handled by
/// the old rule after that.
#[derive(Debug)]
pub(crate) enum Command {
    Add {
        id: CableId,
        cable: Box<Cable>,
        done: Sender<io::Result<()>>,
    },
    SetState {
        id: CableId,
        state: CableState,
        done: Sender<io::Result<()>>,
    },
    Replace {
        id: CableId,
        side: Side,
        port: Option<Port>,
        done: Sender<io::Result<()>>,
    },
    /// Ends the worker; it gives up all its cables.
    Stop,
}

/// Worker to control: what nobody asked for.
#[derive(Debug)]
pub enum Event {
    /// A port is of no more use; its cable stays, frames to it are dropped as `port-error`
    /// until [`Panel::replace_port`](crate::Panel::replace_port).
    PortFailed {
        /// The cable.
        cable: CableId,
        /// Its end.
        side: Side,
        /// What the kernel said.
        error: io::Error,
    },
}

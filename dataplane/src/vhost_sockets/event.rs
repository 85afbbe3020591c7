//! What happened at a socket: [`SocketEvent`].

use crate::command::CableId;
use crate::side::Side;

/// What happened at a socket. No front end can cause more than a few events in a short time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketEvent {
    /// A front end has started its rings: they are a port of the cable now.
    Plugged {
        /// The cable that it carries.
        cable: CableId,
        /// Which end of it.
        side: Side,
    },
    /// The front end has stopped its rings or is gone.
    Unplugged {
        /// The cable that it carried.
        cable: CableId,
        /// Which end of it.
        side: Side,
    },
    /// A front end or its guest broke a rule and was disconnected, or the socket cannot be served.
    Fault {
        /// The cable of the socket.
        cable: CableId,
        /// Which end of it.
        side: Side,
        /// One sentence that names the socket and the rule.
        reason: String,
    },
    /// A front end was turned away. Reported once until something changes at the socket.
    Refused {
        /// The cable of the socket.
        cable: CableId,
        /// Which end of it.
        side: Side,
        /// One sentence that names the socket.
        reason: String,
    },
}

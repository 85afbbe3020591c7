//! BFD control packets (RFC 5880), by which two ends detect within milliseconds that they lost
//! each other.

use std::fmt;

use super::bytes::Cursor;

/// Destination UDP ports of sessions over one hop (RFC 5881) and over several (RFC 5883).
pub(crate) const PORTS: [u16; 2] = [3784, 4784];

/// A control packet: the state of one end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// The sender's view of the session.
    pub state: State,
    /// Why the session last left `Up` (RFC 5880 section 4.1).
    pub diagnostic: u8,
    /// After this many intervals without a packet the receiver declares the session down.
    pub multiplier: u8,
    /// The session's number at the sender, and at the receiver; the latter is 0 until the sender
    /// knows it.
    pub discriminators: [u32; 2],
    /// The shortest interval at which the sender wants to send, in µs.
    pub transmit_us: u32,
    /// The shortest interval at which the sender can receive, in µs.
    pub receive_us: u32,
}

/// A session's state (RFC 5880 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Held down by an administrator.
    AdminDown,
    /// No packets arrive from the other end.
    Down,
    /// Packets arrive from the other end, which is still `Down`.
    Init,
    /// Both ends receive each other's packets.
    Up,
}

impl State {
    /// The name in RFC 5880.
    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        }
    }
}

impl Control {
    /// Decodes the payload of a datagram to port 3784 or 4784; `None` if it is too short or not of
    /// version 1.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut left = Cursor(payload);
        let [version, state, multiplier, _length] = left.array()?;
        if version >> 5 != 1 {
            return None;
        }
        Some(Control {
            state: match state >> 6 {
                0 => State::AdminDown,
                1 => State::Down,
                2 => State::Init,
                _ => State::Up,
            },
            diagnostic: version & 0x1f,
            multiplier,
            discriminators: [left.u32()?, left.u32()?],
            transmit_us: left.u32()?,
            receive_us: left.u32()?,
        })
    }

    fn diagnostic_name(self) -> Option<&'static str> {
        Some(match self.diagnostic {
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => return None,
        })
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state.name())?;
        if let Some(name) = self.diagnostic_name() {
            write!(f, " ({name})")?;
        }
        let ms = f64::from(self.transmit_us) / 1000.0;
        write!(f, ", every {ms} ms x {}", self.multiplier)
    }
}

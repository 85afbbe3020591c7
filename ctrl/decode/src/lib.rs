//! What is in a frame, read from its bytes alone: no state, no clock, no allocation that a frame
//! could make large. Frames may be cut (a capture's snap length), unfinished (a checksum that
//! hardware would fill in) or nonsense: what can be read is read, the rest is left out, and every
//! text that comes from a guest is made safe to print.
//!
//! [`summary`] is for people; [`Packet`] and the protocols' own types are for the
//! flight recorder's triggers and for `converge`. Ethernet, VLAN, ARP, IP, TCP,
//! UDP and ICMP are etherparse's, the rest is read here.

mod bytes;
mod line;
mod packet;
mod same;

pub mod bfd;
pub mod bgp;
pub mod dhcp;
pub mod link;
pub mod nd;

use std::fmt;

pub use packet::{Arp, Body, Ip, Packet};
pub use same::{PacketKey, SNAP, packet_key};

/// A frame in one line of printable text, such as
/// `fe80::1 > fe80::2 BGP 179 > 40232: UPDATE withdraws 10.1.3.0/24`.
pub fn summary(frame: &[u8]) -> String {
    match Packet::read(frame) {
        Some(packet) => packet.to_string(),
        None => format!("{} bytes, too few for a frame", frame.len()),
    }
}

/// An address of the link layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, others @ ..] = self.0;
        write!(f, "{first:02x}")?;
        others.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

#[cfg(test)]
mod tests;

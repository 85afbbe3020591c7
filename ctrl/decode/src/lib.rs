//! Decodes a frame from its bytes alone, without state or clock; no frame can make it allocate
//! much. Frames may be truncated (a capture's snap length), unfinished (a checksum that hardware
//! would fill in) or malformed: the decoders return what they can read and leave out the rest, and
//! escape every text that comes from a guest.
//!
//! [`summary`] is for people; [`Packet`] and the types of the protocols are for the
//! flight recorder's triggers and for `converge`. The crate etherparse decodes
//! Ethernet, VLAN, ARP, IP, TCP, UDP and ICMP, the modules here the protocols above and beside it.

mod bytes;
mod line;
mod packet;
mod packet_key;

pub mod bfd;
pub mod bgp;
pub mod dhcp;
pub mod link;
pub mod nd;

pub use packet::{Arp, Body, Ip, Packet};
pub use packet_key::{PacketKey, SNAP, packet_key};

/// A frame in one line of printable text, such as
/// `fe80::1 > fe80::2 BGP 179 > 40232: UPDATE withdraws 10.1.3.0/24`.
pub fn summary(frame: &[u8]) -> String {
    match Packet::read(frame) {
        Some(packet) => packet.to_string(),
        None => format!("{} bytes, too few for a frame", frame.len()),
    }
}

#[cfg(test)]
mod tests;

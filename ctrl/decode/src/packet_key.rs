//! Recognizes the same packet in frames of different cables.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use etherparse::TransportSlice;

use super::Packet;

/// How many bytes of the payload are compared. A capture must have kept them: [`SNAP`].
const COMPARED: usize = 64;
/// The smallest snap length in bytes that keeps what is compared: Ethernet, two tags, IPv6 and some
/// extensions.
pub const SNAP: u32 = 192;

/// Identifies a packet on any cable: its addresses and a hash of what routers leave unchanged. MAC
/// addresses, TTL and traffic class are not part of it, nor are checksums, which an offload may
/// leave unfinished on one cable and not on another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketKey {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver.
    pub destination: IpAddr,
    hash: u64,
}

/// The key of the IP packet in a frame; `None` if it carries none.
pub fn packet_key(frame: &[u8]) -> Option<PacketKey> {
    let packet = Packet::read(frame)?;
    let ip = packet.ip()?;
    let mut payload = [0; COMPARED];
    let length = ip.payload.len().min(COMPARED);
    payload[..length].copy_from_slice(&ip.payload[..length]);
    let checksum = match ip.transport {
        Some(TransportSlice::Tcp(_)) => Some(16),
        Some(TransportSlice::Udp(_)) => Some(6),
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => Some(2),
        _ => None,
    };
    if let Some(at) = checksum {
        payload[at..at + 2].fill(0);
    }
    let mut hasher = DefaultHasher::new();
    (ip.protocol, ip.identification, ip.length, payload).hash(&mut hasher);
    Some(PacketKey {
        source: ip.source,
        destination: ip.destination,
        hash: hasher.finish(),
    })
}

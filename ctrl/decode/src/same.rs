//! Which frames on different cables carry the same packet.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use etherparse::TransportSlice;

use super::Packet;

/// So many bytes of the payload tell packets from each other. Captures that are to be compared
/// must keep them: [`SNAP`].
const COMPARED: usize = 64;
/// The shortest capture that keeps what is compared: Ethernet, two tags, IPv6 and some extensions.
pub const SNAP: u32 = 192;

/// One packet, wherever it is seen: its addresses and a hash of what no router changes. Neither
/// the link layer's addresses, nor TTL, traffic class and checksums (which an offload may leave
/// unfinished on one cable and not on another).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketKey {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    hash: u64,
}

/// The key of the packet in a frame, if it is one of IP.
pub fn packet_key(frame: &[u8]) -> Option<PacketKey> {
    let packet = Packet::read(frame)?;
    let ip = packet.ip()?;
    let mut payload = [0; COMPARED];
    let there = ip.payload.len().min(COMPARED);
    payload[..there].copy_from_slice(&ip.payload[..there]);
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

//! The headers in front of a super-frame's payload: where they lie ([`Layout`]) and what they
//! become in front of each piece ([`Template`]).

use super::checksum::{Sum, fold};
use crate::frame::Offloads;
use crate::frame::VnetHeader;

/// Longest chain of headers that is parsed, in bytes: two tags, IPv6 with 130 bytes of extension
/// headers, TCP with all its options.
pub(super) const MAX_HEADERS: usize = 256;

const ETHERTYPE: usize = 12;
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const MAX_TAGS: usize = 2;

/// Fields of IPv4 (RFC 791).
const V4_TOTAL_LENGTH: usize = 2;
const V4_ID: usize = 4;
const V4_FRAGMENT: usize = 6;
const V4_PROTOCOL: usize = 9;
const V4_CHECKSUM: usize = 10;
const V4_MIN: usize = 20;

/// Fields of IPv6 (RFC 8200).
const V6_PAYLOAD_LENGTH: usize = 4;
const V6_NEXT: usize = 6;
const V6_LEN: usize = 40;
/// Extension headers that the kernel segments behind: hop-by-hop, routing, destination.
const V6_EXTENSIONS: [u8; 3] = [0, 43, 60];

/// Fields of TCP (RFC 9293).
const TCP: u8 = 6;
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_MIN: usize = 20;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Fields of UDP (RFC 768).
const UDP: u8 = 17;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;
const UDP_LEN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// Where the headers of a super-frame lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    network: Network,
    transport: Transport,
    /// Offsets from the frame's start.
    network_at: usize,
    transport_at: usize,
    payload_at: usize,
}

impl Layout {
    /// Parses the first bytes of a super-frame. `None` when they are not the headers that its
    /// virtio-net header names, or when these do not end within `bytes`.
    ///
    /// The unfinished checksum has to be that of the outermost TCP or UDP header. For a super-frame
    /// inside a tunnel virtio-net has further features, which we do not offer; the kernel refuses such
    /// a super-frame without them as well.
    fn of(bytes: &[u8], header: &VnetHeader) -> Option<Self> {
        let needs = header.needs();
        let (transport, checksum_at) = if needs.contains(Offloads::USO) {
            (Transport::Udp, UDP_CHECKSUM)
        } else {
            (Transport::Tcp, TCP_CHECKSUM)
        };
        let (ethertype, network_at) = behind_tags(bytes)?;
        let (network, protocol, transport_at) = match ethertype {
            0x0800 if !needs.contains(Offloads::TSO6) => {
                let (protocol, at) = behind_v4(bytes, network_at)?;
                (Network::V4, protocol, at)
            }
            0x86dd if !needs.contains(Offloads::TSO4) => {
                let (protocol, at) = behind_v6(bytes, network_at)?;
                (Network::V6, protocol, at)
            }
            _ => return None,
        };
        let payload_at = match (transport, protocol) {
            (Transport::Tcp, TCP) => {
                let len = usize::from(bytes.get(transport_at + TCP_DATA_OFFSET)? >> 4) * 4;
                (len >= TCP_MIN).then_some(transport_at + len)?
            }
            (Transport::Udp, UDP) => transport_at + UDP_LEN,
            _ => return None,
        };
        let fits = payload_at <= bytes.len()
            && usize::from(header.checksum_start()) == transport_at
            && usize::from(header.checksum_offset()) == checksum_at;
        fits.then_some(Layout {
            network,
            transport,
            network_at,
            transport_at,
            payload_at,
        })
    }

    fn checksum_at(&self) -> usize {
        self.transport_at
            + match self.transport {
                Transport::Tcp => TCP_CHECKSUM,
                Transport::Udp => UDP_CHECKSUM,
            }
    }
}

/// The EtherType behind all tags, and where its header begins.
fn behind_tags(bytes: &[u8]) -> Option<(u16, usize)> {
    let mut at = ETHERTYPE;
    for _ in 0..=MAX_TAGS {
        let ethertype = word(bytes, at)?;
        if !TAGS.contains(&ethertype) {
            return Some((ethertype, at + 2));
        }
        at += 4;
    }
    None
}

fn behind_v4(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    let first = *bytes.get(at)?;
    let len = usize::from(first & 0xf) * 4;
    // A fragment does not contain a whole datagram that could be cut.
    let fragment = word(bytes, at + V4_FRAGMENT)? & 0x3fff != 0;
    let good = first >> 4 == 4 && len >= V4_MIN && at + len <= bytes.len() && !fragment;
    good.then(|| (bytes[at + V4_PROTOCOL], at + len))
}

fn behind_v6(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    if bytes.get(at)? >> 4 != 6 {
        return None;
    }
    let mut next = *bytes.get(at + V6_NEXT)?;
    let mut at = at + V6_LEN;
    // Each header takes at least 8 bytes, so this ends with `bytes`.
    while V6_EXTENSIONS.contains(&next) {
        next = *bytes.get(at)?;
        at += (usize::from(*bytes.get(at + 1)?) + 1) * 8;
    }
    Some((next, at))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([word[0], word[1]]))
}

/// A copy of a super-frame's headers, from which those of its pieces are made. The sender may
/// change its own meanwhile: only the copy is checked and used.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: [u8; MAX_HEADERS],
    layout: Layout,
    /// Payload of the super-frame, in bytes.
    payload: usize,
}

/// One piece of a super-frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Its index among the pieces.
    pub(super) number: usize,
    /// Where its payload begins in the payload of the super-frame.
    pub(super) at: usize,
    /// The length of its payload, in bytes.
    pub(super) len: usize,
    pub(super) last: bool,
}

impl Template {
    /// From a copy of the first bytes of a frame of `frame_len` bytes. `None` when they contradict
    /// `header`.
    pub(super) fn new(
        bytes: [u8; MAX_HEADERS],
        frame_len: usize,
        header: &VnetHeader,
    ) -> Option<Self> {
        let layout = Layout::of(&bytes[..frame_len.min(MAX_HEADERS)], header)?;
        let payload = frame_len - layout.payload_at;
        let largest = payload.min(usize::from(header.segment_size()));
        let packet = layout.payload_at - layout.network_at + largest;
        u16::try_from(packet).is_ok().then_some(Template {
            bytes,
            layout,
            payload,
        })
    }

    /// The length of all headers together, in bytes.
    pub(super) fn len(&self) -> usize {
        self.layout.payload_at
    }

    /// The length of the super-frame's payload, in bytes.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// Where the sum of the transport's checksum begins, and where the checksum is written.
    pub(super) fn checksum(&self) -> (usize, usize) {
        (self.layout.transport_at, self.layout.checksum_at())
    }

    /// Whether a checksum of 0 would mean that there is none (RFC 768).
    pub(super) fn is_udp(&self) -> bool {
        self.layout.transport == Transport::Udp
    }

    /// Writes the headers of one piece, [`Template::len`] bytes. The transport's checksum is
    /// that of the pseudo header: unfinished.
    ///
    /// The result is that of the kernel (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`,
    /// `ipv6_gso_segment`): IPv4 identifications count up whether fragments are allowed or
    /// not. The pseudo header's sum is taken over from the sender, with another length: behind
    /// a routing header its destination is not the one in the frame.
    pub(super) fn write(&self, piece: Piece, to: &mut [u8]) {
        let layout = &self.layout;
        let to = &mut to[..layout.payload_at];
        to.copy_from_slice(&self.bytes[..layout.payload_at]);
        let (network, transport) =
            to[layout.network_at..].split_at_mut(layout.transport_at - layout.network_at);
        let datagram = network.len() + transport.len() + piece.len;
        match layout.network {
            Network::V4 => {
                put(network, V4_TOTAL_LENGTH, datagram as u16);
                let id = get(network, V4_ID).wrapping_add(piece.number as u16);
                put(network, V4_ID, id);
                put(network, V4_CHECKSUM, 0);
                let mut sum = Sum::default();
                sum.add(network);
                put(network, V4_CHECKSUM, !sum.folded());
            }
            Network::V6 => put(network, V6_PAYLOAD_LENGTH, (datagram - V6_LEN) as u16),
        }
        match layout.transport {
            Transport::Tcp => {
                let sequence = &mut transport[TCP_SEQUENCE..TCP_SEQUENCE + 4];
                let first =
                    u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
                sequence.copy_from_slice(&first.wrapping_add(piece.at as u32).to_be_bytes());
                if !piece.last {
                    transport[TCP_FLAGS] &= !(FIN | PSH);
                }
                if piece.number > 0 {
                    transport[TCP_FLAGS] &= !CWR;
                }
                // TCP has no length of its own: the pseudo header's was the frame's.
                let shorter = (self.payload - piece.len) as u32;
                let sum = u64::from(get(transport, TCP_CHECKSUM)) + u64::from(!shorter);
                put(transport, TCP_CHECKSUM, fold(sum));
            }
            Transport::Udp => {
                let (old, new) = (get(transport, UDP_LENGTH), (UDP_LEN + piece.len) as u16);
                put(transport, UDP_LENGTH, new);
                let sum =
                    u64::from(get(transport, UDP_CHECKSUM)) + u64::from(!old) + u64::from(new);
                put(transport, UDP_CHECKSUM, fold(sum));
            }
        }
    }
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

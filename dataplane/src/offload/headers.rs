//! The headers in front of a super-frame's payload, and what they become in front of each piece:
//! [`Template`].

use super::checksum::{Sum, fold};
use super::layout::{Layout, MAX_HEADERS, Network, Outer, Transport, V6_LEN};
use crate::frame::VnetHeader;

/// Fields of IPv4 (RFC 791).
const V4_TOTAL_LENGTH: usize = 2;
const V4_ID: usize = 4;
const V4_CHECKSUM: usize = 10;

/// Of IPv6 (RFC 8200).
const V6_PAYLOAD_LENGTH: usize = 4;

/// Of TCP (RFC 9293).
const TCP_SEQUENCE: usize = 4;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Of UDP (RFC 768).
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;
const UDP_LEN: usize = 8;

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
        let outermost = layout
            .outer
            .map_or(layout.network_at, |outer| outer.network_at);
        let packet = layout.payload_at - outermost + largest;
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

    /// Whether it has to be written anew even for a super-frame that fits into one piece: the checksum of a
    /// tunnel is unfinished, too, and no virtio-net header can say so.
    pub(super) fn finishes_outer(&self) -> bool {
        let outer = self.layout.outer.filter(|outer| outer.is_udp);
        outer.is_some_and(|outer| get(&self.bytes, outer.transport_at + UDP_CHECKSUM) != 0)
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
        let transport = &mut to[layout.network_at..];
        let packet = transport.len() + piece.len;
        let (network, transport) = transport.split_at_mut(layout.transport_at - layout.network_at);
        write_network(layout.network, network, packet, piece.number);
        self.write_transport(piece, transport);
        if let Some(outer) = &layout.outer {
            self.write_outer(outer, piece, to);
        }
    }

    fn write_transport(&self, piece: Piece, transport: &mut [u8]) {
        match self.layout.transport {
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

    /// Writes what changes in the headers of a tunnel (`__skb_udp_tunnel_segment`), those inside being
    /// written. Its own checksum, if it has one, is finished here: from the start of the inner transport
    /// header on, the finished bytes add up to the complement of what its checksum was before
    /// (`lco_csum`), so that nobody needs to read the payload.
    fn write_outer(&self, outer: &Outer, piece: Piece, to: &mut [u8]) {
        let (start, field) = self.checksum();
        let network = &mut to[outer.network_at..];
        let packet = network.len() + piece.len;
        let network = &mut network[..outer.transport_at - outer.network_at];
        write_network(outer.network, network, packet, piece.number);
        if !outer.is_udp {
            return;
        }
        let inner = get(to, field);
        let to = &mut to[outer.transport_at..];
        put(to, UDP_LENGTH, (to.len() + piece.len) as u16);
        let pseudo = get(to, UDP_CHECKSUM);
        if pseudo == 0 {
            return;
        }
        let shorter = (self.payload - piece.len) as u32;
        let pseudo = fold(u64::from(pseudo) + u64::from(!shorter));
        put(to, UDP_CHECKSUM, pseudo);
        let mut sum = Sum::default();
        sum.add(&to[..start - outer.transport_at]);
        sum.add(&(!inner).to_be_bytes());
        let checksum = match !sum.folded() {
            0 => 0xffff,
            checksum => checksum,
        };
        put(to, UDP_CHECKSUM, checksum);
    }
}

/// Writes the fields of an IP header that differ from piece to piece; `packet` is its length with all that is
/// behind it, in bytes.
fn write_network(kind: Network, network: &mut [u8], packet: usize, number: usize) {
    match kind {
        Network::V4 => {
            put(network, V4_TOTAL_LENGTH, packet as u16);
            let id = get(network, V4_ID).wrapping_add(number as u16);
            put(network, V4_ID, id);
            put(network, V4_CHECKSUM, 0);
            let mut sum = Sum::default();
            sum.add(network);
            put(network, V4_CHECKSUM, !sum.folded());
        }
        Network::V6 => put(network, V6_PAYLOAD_LENGTH, (packet - V6_LEN) as u16),
    }
}

fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

//! Where the headers of a super-frame lie: [`Layout`].

use crate::frame::{Offloads, VnetHeader};

/// Longest chain of headers that is parsed, in bytes: a tunnel over IPv6 with 60 bytes of options, and in it
/// two tags, IPv6, and TCP with all its options.
pub(super) const MAX_HEADERS: usize = 256;

const ETHERTYPE: usize = 12;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// An Ethernet frame in a tunnel (ETH_P_TEB).
const ETHERNET: u16 = 0x6558;

/// 802.1Q, 802.1ad, and what other makers called the outer tag before there was a standard.
pub(crate) const TAGS: [u16; 5] = [0x8100, 0x88a8, 0x9100, 0x9200, 0x9300];
/// How many of these Linux looks behind.
const LINUX_TAGS: usize = 2;
/// Most tags that are looked behind: as many as Linux does (VLAN_MAX_DEPTH).
pub(crate) const MAX_TAGS: usize = 8;

const V4_FRAGMENT: usize = 6;
const V4_PROTOCOL: usize = 9;
const V4_MIN: usize = 20;
const V6_NEXT: usize = 6;
pub(super) const V6_LEN: usize = 40;
/// Extension headers that the kernel segments behind: hop-by-hop, routing, destination.
const V6_EXTENSIONS: [u8; 3] = [0, 43, 60];

const IPV4_IN_IP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

const TCP_DATA_OFFSET: usize = 12;
const TCP_CHECKSUM: usize = 16;
const TCP_MIN: usize = 20;
const UDP_CHECKSUM: usize = 6;
const UDP_LEN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// Where the headers of a super-frame lie. All offsets count from the frame's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The headers around those below, when it is in a tunnel.
    pub(super) outer: Option<Outer>,
    pub(super) network: Network,
    pub(super) transport: Transport,
    pub(super) network_at: usize,
    pub(super) transport_at: usize,
    pub(super) payload_at: usize,
    /// Linux does not look behind one of its tags.
    has_foreign_tag: bool,
}

/// The headers of a tunnel that change from piece to piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outer {
    pub(super) network: Network,
    pub(super) network_at: usize,
    pub(super) transport_at: usize,
    /// Whether the IP packet carries UDP, which has a length, and maybe a checksum.
    pub(super) is_udp: bool,
}

/// An IP header, and what is behind it.
#[derive(Debug, Clone, Copy)]
struct Ip {
    network: Network,
    network_at: usize,
    protocol: u8,
    transport_at: usize,
    has_foreign_tag: bool,
}

impl Layout {
    /// Parses the first bytes of a super-frame. `None` when they are not the headers that its
    /// virtio-net header names, or when these do not end within `bytes`.
    ///
    /// The unfinished checksum has to be that of the outermost TCP or UDP header, or of the one in a
    /// tunnel. A packet socket hands over a super-frame in a tunnel as if there were none, and the
    /// place of that checksum alone tells where the inner header is.
    pub(super) fn of(bytes: &[u8], header: &VnetHeader) -> Option<Self> {
        let needs = header.needs();
        let start = usize::from(header.checksum_start());
        let first = Ip::in_ethernet(bytes, 0)?;
        let (ip, outer) = if first.transport_at == start {
            (first, None)
        } else {
            let outer = Outer {
                network: first.network,
                network_at: first.network_at,
                transport_at: first.transport_at,
                is_udp: first.protocol == UDP,
            };
            (first.tunnelled(bytes, start)?, Some(outer))
        };
        let excluded = match ip.network {
            Network::V4 => Offloads::TSO6,
            Network::V6 => Offloads::TSO4,
        };
        let (transport, checksum_at, payload_at) = match ip.protocol {
            TCP if !needs.contains(Offloads::USO) => {
                let len = usize::from(bytes.get(start + TCP_DATA_OFFSET)? >> 4) * 4;
                let payload_at = (len >= TCP_MIN).then_some(start + len)?;
                (Transport::Tcp, TCP_CHECKSUM, payload_at)
            }
            UDP if needs.contains(Offloads::USO) => (Transport::Udp, UDP_CHECKSUM, start + UDP_LEN),
            _ => return None,
        };
        let fits = payload_at <= bytes.len()
            && !needs.contains(excluded)
            && usize::from(header.checksum_offset()) == checksum_at;
        fits.then_some(Layout {
            outer,
            network: ip.network,
            transport,
            network_at: ip.network_at,
            transport_at: ip.transport_at,
            payload_at,
            has_foreign_tag: first.has_foreign_tag || ip.has_foreign_tag,
        })
    }

    /// Where the transport's checksum is written.
    pub(super) fn checksum_at(&self) -> usize {
        self.transport_at
            + match self.transport {
                Transport::Tcp => TCP_CHECKSUM,
                Transport::Udp => UDP_CHECKSUM,
            }
    }

    /// Whether no receiver has agreed to take it whole: one in a tunnel, which is not the TCP packet that
    /// its virtio-net header says, or behind a tag at which Linux's segmentation ends.
    pub(super) fn is_nested(&self) -> bool {
        self.outer.is_some() || self.has_foreign_tag
    }
}

/// As [`Layout::is_nested`], of a super-frame's first bytes; quick for plain ones. `false` for what cannot
/// be cut anyway.
pub(super) fn is_nested(bytes: &[u8], header: &VnetHeader) -> bool {
    let start = usize::from(header.checksum_start());
    match Ip::in_ethernet(bytes, 0) {
        Some(ip) if ip.transport_at == start && !ip.has_foreign_tag => false,
        Some(_) => Layout::of(bytes, header).is_some_and(|layout| layout.is_nested()),
        None => false,
    }
}

impl Ip {
    /// Of the Ethernet frame that begins at `at`.
    fn in_ethernet(bytes: &[u8], at: usize) -> Option<Self> {
        let mut at = at + ETHERTYPE;
        let mut has_foreign_tag = false;
        for _ in 0..=MAX_TAGS {
            let ethertype = word(bytes, at)?;
            let Some(tag) = TAGS.iter().position(|tag| *tag == ethertype) else {
                let ip = Self::of(bytes, ethertype, at + 2)?;
                return Some(Ip {
                    has_foreign_tag,
                    ..ip
                });
            };
            has_foreign_tag |= tag >= LINUX_TAGS;
            at += 4;
        }
        None
    }

    fn of(bytes: &[u8], ethertype: u16, at: usize) -> Option<Self> {
        let (network, (protocol, transport_at)) = match ethertype {
            IPV4 => (Network::V4, behind_v4(bytes, at)?),
            IPV6 => (Network::V6, behind_v6(bytes, at)?),
            _ => return None,
        };
        Some(Ip {
            network,
            network_at: at,
            protocol,
            transport_at,
            has_foreign_tag: false,
        })
    }

    /// The packet in this one's tunnel whose transport header begins at `start`. Which tunnel it is no field
    /// says, as any UDP port may be used: so it is the one in which a header begins exactly there.
    fn tunnelled(&self, bytes: &[u8], start: usize) -> Option<Self> {
        let at = self.transport_at;
        let any_ip = |at: usize| match bytes.get(at)? >> 4 {
            4 => Some((IPV4, at)),
            6 => Some((IPV6, at)),
            _ => None,
        };
        let contents = match self.protocol {
            IPV4_IN_IP => [Some((IPV4, at)), None, None, None, None],
            IPV6_IN_IP => [Some((IPV6, at)), None, None, None, None],
            GRE => [behind_gre(bytes, at), None, None, None, None],
            UDP => {
                let at = at + UDP_LEN;
                let options = usize::from(*bytes.get(at)? & 0x3f) * 4;
                let hlen = usize::from(*bytes.get(at)? & 0x1f) * 4;
                [
                    Some((ETHERNET, at + 8)),                       // VXLAN (RFC 7348)
                    any_ip(at + 8),                                 // VXLAN-GPE
                    Some((word(bytes, at + 2)?, at + 8 + options)), // Geneve (RFC 8926)
                    any_ip(at),                                     // FOU
                    any_ip(at + 4 + hlen),                          // GUE
                ]
            }
            _ => return None,
        };
        let packets = contents.into_iter().flatten();
        let mut packets = packets.filter_map(|(ethertype, at)| match ethertype {
            ETHERNET => Self::in_ethernet(bytes, at),
            _ => Self::of(bytes, ethertype, at),
        });
        packets.find(|packet| packet.transport_at == start)
    }
}

/// What is in GRE (RFC 2784, RFC 2890). `None` when it has a checksum or a number, which each piece would
/// need to have of its own: the kernel sends no such super-frames.
fn behind_gre(bytes: &[u8], at: usize) -> Option<(u16, usize)> {
    const KEY: u16 = 0x2000;
    let flags = word(bytes, at)?;
    let key = if flags & KEY == 0 { 0 } else { 4 };
    (flags & !KEY == 0).then_some((word(bytes, at + 2)?, at + 4 + key))
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

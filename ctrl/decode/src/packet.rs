//! A frame, split into headers and payload.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, LaxIpPayloadSlice, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TransportSlice,
};

use super::bytes::Cursor;
use super::link::{self, Lacp, Lldp, Stp};
use super::{bfd, bgp};
use model::mac::Mac;

/// A frame, split into headers and payload.
#[derive(Debug, Clone)]
pub struct Packet<'a> {
    /// The MAC address of the sender on this wire.
    pub source: Mac,
    /// The MAC address of the receiver on this wire.
    pub destination: Mac,
    /// The VLAN identifiers of the tags, the outer tag first.
    pub vlans: Vec<u16>,
    /// What follows the Ethernet header and the tags.
    pub body: Body<'a>,
}

/// The payload of a frame.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// ARP for IPv4 on Ethernet.
    Arp(Arp),
    /// An IPv4 or IPv6 packet.
    Ip(Ip<'a>),
    /// A neighbour's identity.
    Lldp(Lldp),
    /// Link aggregation.
    Lacp(Lacp),
    /// The spanning tree protocol.
    Stp(Stp),
    /// Something that is not decoded, by its EtherType; up to 1500 it is a length (IEEE 802.3).
    Other(u16),
}

/// An ARP request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 is a request, 2 a reply.
    pub operation: u16,
    /// The sender's addresses.
    pub sender: (Mac, Ipv4Addr),
    /// The address that a request asks for, or to which a reply goes.
    pub target: Ipv4Addr,
}

/// An IPv4 or IPv6 packet.
#[derive(Debug, Clone)]
pub struct Ip<'a> {
    /// The address of the sender.
    pub source: IpAddr,
    /// The address of the receiver.
    pub destination: IpAddr,
    /// How many more routers may forward it: TTL or hop limit.
    pub hops: u8,
    /// The identification field; IPv4 only.
    pub identification: Option<u16>,
    /// Whether it is a fragment of a packet.
    pub fragment: bool,
    /// The IP protocol number of the payload.
    pub protocol: u8,
    /// The length of the payload in bytes, including those that were truncated.
    pub length: usize,
    /// The payload as far as the frame has it.
    pub payload: &'a [u8],
    /// The transport header and its payload, if etherparse knows the protocol and the header is
    /// complete.
    pub transport: Option<TransportSlice<'a>>,
}

impl<'a> Packet<'a> {
    /// Splits a frame; `None` if it ends within its Ethernet header.
    pub fn read(frame: &'a [u8]) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link else {
            return None;
        };
        let vlans = sliced.link_exts.iter().filter_map(|tag| match tag {
            LaxLinkExtSlice::Vlan(tag) => Some(tag.vlan_identifier().value()),
            LaxLinkExtSlice::Macsec(_) => None,
        });
        Some(Packet {
            source: Mac(ethernet.source()),
            destination: Mac(ethernet.destination()),
            vlans: vlans.collect(),
            body: body(&sliced)?,
        })
    }

    /// The IP packet, if the frame carries one.
    pub fn ip(&self) -> Option<&Ip<'a>> {
        match &self.body {
            Body::Ip(ip) => Some(ip),
            _ => None,
        }
    }

    /// The messages, if it is a segment of a BGP session.
    pub fn bgp(&self) -> Option<bgp::Segment> {
        self.ip()?.bgp()
    }

    /// The control packet, if it is one of BFD.
    pub fn bfd(&self) -> Option<bfd::Control> {
        self.ip()?.bfd()
    }
}

impl Ip<'_> {
    /// The messages, if it is a segment of a BGP session.
    pub fn bgp(&self) -> Option<bgp::Segment> {
        let Some(TransportSlice::Tcp(tcp)) = &self.transport else {
            return None;
        };
        let ports = [tcp.source_port(), tcp.destination_port()];
        (ports.contains(&bgp::PORT) && !self.fragment).then(|| bgp::segment(tcp.payload()))
    }

    /// The control packet, if it is one of BFD.
    pub fn bfd(&self) -> Option<bfd::Control> {
        let Some(TransportSlice::Udp(udp)) = &self.transport else {
            return None;
        };
        let known = bfd::PORTS.contains(&udp.destination_port()) && !self.fragment;
        known.then(|| bfd::Control::read(udp.payload())).flatten()
    }
}

fn body<'a>(sliced: &LaxSlicedPacket<'a>) -> Option<Body<'a>> {
    match &sliced.net {
        Some(LaxNetSlice::Arp(arp)) => Some(self::arp(arp).map_or(Body::Other(0x0806), Body::Arp)),
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let claimed = usize::from(header.total_len()).saturating_sub(header.slice().len());
            Some(Body::Ip(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                hops: header.ttl(),
                identification: Some(header.identification()),
                ..ip_of(ip.payload(), claimed, sliced.transport.clone())
            }))
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let extensions = ip.extensions().slice().len();
            let claimed = usize::from(header.payload_length()).saturating_sub(extensions);
            Some(Body::Ip(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                hops: header.hop_limit(),
                ..ip_of(ip.payload(), claimed, sliced.transport.clone())
            }))
        }
        None => {
            let ether = sliced.ether_payload()?;
            Some(by_type(ether.ether_type.0, ether.payload))
        }
    }
}

/// What both versions of IP have in common. `claimed` is the length of the payload that the header
/// gives: true also where the frame was truncated.
fn ip_of<'a>(
    payload: &LaxIpPayloadSlice<'a>,
    claimed: usize,
    transport: Option<TransportSlice<'a>>,
) -> Ip<'a> {
    // The caller replaces these with what its header has.
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Ip {
        source: unspecified,
        destination: unspecified,
        hops: 0,
        identification: None,
        fragment: payload.fragmented,
        protocol: payload.ip_number.0,
        length: if payload.incomplete {
            claimed
        } else {
            payload.payload.len()
        },
        payload: payload.payload,
        transport,
    }
}

fn by_type(ether_type: u16, payload: &[u8]) -> Body<'_> {
    const LONGEST_PAYLOAD: u16 = 1500;
    match ether_type {
        link::LLDP => Body::Lldp(Lldp::read(payload)),
        link::SLOW => Lacp::read(payload).map_or(Body::Other(ether_type), Body::Lacp),
        ..=LONGEST_PAYLOAD => Stp::read(payload).map_or(Body::Other(ether_type), Body::Stp),
        _ => Body::Other(ether_type),
    }
}

fn arp(arp: &ArpPacketSlice<'_>) -> Option<Arp> {
    const FOR_IPV4_ON_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
    let mut left = Cursor(arp.slice());
    if left.array()? != FOR_IPV4_ON_ETHERNET {
        return None;
    }
    let operation = left.u16()?;
    let sender = (Mac(left.array()?), left.ipv4()?);
    left.take(6)?;
    Some(Arp {
        operation,
        sender,
        target: left.ipv4()?,
    })
}

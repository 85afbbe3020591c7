//! A frame, taken apart.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpPacketSlice, LaxIpPayloadSlice, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice,
    TransportSlice,
};

use super::bytes::Bytes;
use super::link::{self, Lacp, Lldp, Stp};
use super::{Mac, bfd, bgp};

/// A frame, taken apart.
#[derive(Debug, Clone)]
pub struct Packet<'a> {
    /// Who sent it over this wire.
    pub source: Mac,
    /// To whom.
    pub destination: Mac,
    /// The tags' VLANs, the outer one first.
    pub vlans: Vec<u16>,
    /// What is in it.
    pub body: Body<'a>,
}

/// What is in a frame.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// ARP for IPv4 on Ethernet.
    Arp(Arp),
    /// A packet of IPv4 or IPv6.
    Ip(Ip<'a>),
    /// A neighbour's name.
    Lldp(Lldp),
    /// A bundle of links.
    Lacp(Lacp),
    /// A spanning tree.
    Stp(Stp),
    /// Something else, of this EtherType; up to 1500 it is a length (IEEE 802.3).
    Other(u16),
}

/// A question or an answer of ARP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// Who speaks.
    pub sender: (Mac, Ipv4Addr),
    /// Who is asked for, or answered.
    pub target: Ipv4Addr,
}

/// A packet of IPv4 or IPv6.
#[derive(Debug, Clone)]
pub struct Ip<'a> {
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// Routers that it may still pass: TTL or hop limit.
    pub hops: u8,
    /// IPv4's number of the packet.
    pub identification: Option<u16>,
    /// It is a piece of a packet.
    pub fragment: bool,
    /// What the payload is, by its IP protocol number.
    pub protocol: u8,
    /// Bytes of the payload, also those that were cut off.
    pub length: usize,
    /// The payload as far as it is there.
    pub payload: &'a [u8],
    /// The payload's own head, if it is whole and known.
    pub transport: Option<TransportSlice<'a>>,
}

impl<'a> Packet<'a> {
    /// Takes a frame apart; `None` where it ends within its Ethernet header.
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

    /// The packet, if it is one of IP.
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

    /// The state that one end tells, if it is BFD's.
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

    /// The state that one end tells, if it is BFD's.
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
            let told = usize::from(header.total_len()).saturating_sub(header.slice().len());
            Some(Body::Ip(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                hops: header.ttl(),
                identification: Some(header.identification()),
                ..ip_of(ip.payload(), told, sliced.transport.clone())
            }))
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let extensions = ip.extensions().slice().len();
            let told = usize::from(header.payload_length()).saturating_sub(extensions);
            Some(Body::Ip(Ip {
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                hops: header.hop_limit(),
                ..ip_of(ip.payload(), told, sliced.transport.clone())
            }))
        }
        None => {
            let ether = sliced.ether_payload()?;
            Some(by_type(ether.ether_type.0, ether.payload))
        }
    }
}

fn ip_of<'a>(
    payload: &LaxIpPayloadSlice<'a>,
    told: usize,
    transport: Option<TransportSlice<'a>>,
) -> Ip<'a> {
    let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let there = payload.payload.len();
    Ip {
        source: unspecified,
        destination: unspecified,
        hops: 0,
        identification: None,
        fragment: payload.fragmented,
        protocol: payload.ip_number.0,
        length: if payload.incomplete { told } else { there },
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
    let mut left = Bytes(arp.slice());
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

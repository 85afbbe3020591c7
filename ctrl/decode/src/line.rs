//! A frame as one line of text.

use std::fmt::{self, Display};

use etherparse::TransportSlice;
use ipnet::IpNet;

use super::bgp::{Message, Open, Segment, Update};
use super::dhcp::{self, Dhcp};
use super::nd::Discovery;
use super::{Arp, Body, Ip, Packet, bfd};

/// The most prefixes of an UPDATE that a line lists; it counts the others.
const LISTED_PREFIXES: usize = 4;
/// The most systems of an AS path that a line lists.
const LISTED_SYSTEMS: usize = 8;

impl Display for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for vlan in &self.vlans {
            write!(f, "vlan {vlan} ")?;
        }
        match &self.body {
            Body::Arp(arp) => arp.fmt(f),
            Body::Ip(ip) => ip.fmt(f),
            Body::Lldp(lldp) => lldp.fmt(f),
            Body::Lacp(lacp) => lacp.fmt(f),
            Body::Stp(stp) => stp.fmt(f),
            Body::Other(kind) => {
                write!(f, "{} > {} ", self.source, self.destination)?;
                match kind {
                    0x0800 => write!(f, "IPv4, unreadable"),
                    0x0806 => write!(f, "ARP, not for IPv4"),
                    0x86dd => write!(f, "IPv6, unreadable"),
                    0x8809 => write!(f, "slow protocol"),
                    0x8847 | 0x8848 => write!(f, "MPLS"),
                    0x8863 | 0x8864 => write!(f, "PPPoE"),
                    0x888e => write!(f, "802.1X"),
                    0x88e5 => write!(f, "MACsec"),
                    ..=1500 => write!(f, "802.3, {kind} bytes"),
                    _ => write!(f, "EtherType {kind:#06x}"),
                }
            }
        }
    }
}

impl Display for Arp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mac, address) = self.sender;
        let target = self.target;
        match self.operation {
            1 if address == target => write!(f, "ARP {address} is here: {mac}"),
            1 => write!(f, "ARP who has {target}? tell {address} at {mac}"),
            2 => write!(f, "ARP {address} is here: {mac}"),
            other => write!(f, "ARP operation {other} from {address} at {mac}"),
        }
    }
}

impl Display for Ip<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} ", self.source, self.destination)?;
        if self.fragment {
            let id = self.identification.unwrap_or_default();
            return write!(f, "fragment {id:#06x} of {}", protocol(self.protocol));
        }
        match &self.transport {
            Some(TransportSlice::Tcp(tcp)) => self.tcp(tcp, f),
            Some(TransportSlice::Udp(udp)) => self.udp(udp, f),
            Some(TransportSlice::Icmpv4(icmp)) => {
                icmp_line(f, "ICMP", icmp.slice(), [8, 0], icmpv4_name)
            }
            Some(TransportSlice::Icmpv6(icmp)) => match Discovery::read(icmp.slice()) {
                Some(discovery) => discovery.fmt(f),
                None => icmp_line(f, "ICMPv6", icmp.slice(), [128, 129], icmpv6_name),
            },
            Some(TransportSlice::Igmp(_)) | None => {
                write!(f, "{}, {} bytes", protocol(self.protocol), self.length)
            }
        }
    }
}

impl Ip<'_> {
    fn tcp(&self, tcp: &etherparse::TcpSlice<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (tcp.source_port(), tcp.destination_port());
        let flags = [
            (tcp.syn(), "SYN"),
            (tcp.fin(), "FIN"),
            (tcp.rst(), "RST"),
            (tcp.ack(), "ACK"),
        ];
        let bgp = self.bgp();
        let name = if bgp.is_some() { "BGP" } else { "TCP" };
        write!(f, "{name} {from} > {to}:")?;
        if let Some(segment) = bgp.filter(|segment| *segment != Segment::default()) {
            return segment.fmt(f);
        }
        for (_, flag) in flags.into_iter().filter(|(set, _)| *set) {
            write!(f, " {flag}")?;
        }
        let length = self.length.saturating_sub(tcp.header_slice().len());
        write!(f, " seq {}", tcp.sequence_number())?;
        if tcp.ack() {
            write!(f, " ack {}", tcp.acknowledgment_number())?;
        }
        write!(f, ", {length} bytes")
    }

    fn udp(&self, udp: &etherparse::UdpSlice<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (udp.source_port(), udp.destination_port());
        if let Some(control) = self.bfd() {
            return write!(f, "BFD {control}");
        }
        if dhcp::PORTS.contains(&from)
            && dhcp::PORTS.contains(&to)
            && let Some(dhcp) = Dhcp::read(udp.payload())
        {
            return dhcp.fmt(f);
        }
        let name = match (from, to) {
            (53, _) | (_, 53) => "DNS",
            (123, _) | (_, 123) => "NTP",
            (546, 547) | (547, 546 | 547) => "DHCPv6",
            (_, 3785) => "BFD echo",
            (_, 4789) => "VXLAN",
            (_, 5353) => "mDNS",
            (_, to) if bfd::PORTS.contains(&to) => "BFD, unreadable",
            _ => "UDP",
        };
        let length = self.length.saturating_sub(udp.header_slice().len());
        write!(f, "{name} {from} > {to}, {length} bytes")
    }
}

/// Writes an ICMP message: an echo with its numbers, another message by its name, one without a
/// name by type and code. Request and reply are the types of echoes.
fn icmp_line(
    f: &mut fmt::Formatter<'_>,
    protocol: &str,
    message: &[u8],
    [request, reply]: [u8; 2],
    name: impl Fn(u8, u8) -> Option<&'static str>,
) -> fmt::Result {
    let [kind, code, _, _, id @ .., seq_high, seq_low] =
        *message.first_chunk::<8>().unwrap_or(&[255; 8]);
    if kind == request || kind == reply {
        let what = if kind == request { "request" } else { "reply" };
        let id = u16::from_be_bytes(id);
        let seq = u16::from_be_bytes([seq_high, seq_low]);
        return write!(f, "{protocol} echo {what} id {id} seq {seq}");
    }
    match name(kind, code) {
        Some(name) => write!(f, "{protocol} {name}"),
        None => write!(f, "{protocol} type {kind} code {code}"),
    }
}

fn icmpv4_name(kind: u8, code: u8) -> Option<&'static str> {
    Some(match kind {
        3 => unreachable_v4(code),
        5 => "redirect",
        11 => "time exceeded",
        12 => "parameter problem",
        _ => return None,
    })
}

fn icmpv6_name(kind: u8, code: u8) -> Option<&'static str> {
    Some(match kind {
        1 => unreachable_v6(code),
        2 => "packet too big",
        3 => "time exceeded",
        4 => "parameter problem",
        130 => "MLD query",
        131 | 143 => "MLD report",
        132 => "MLD done",
        133..=136 => "ND, unreadable",
        137 => "ND redirect",
        _ => return None,
    })
}

fn unreachable_v4(code: u8) -> &'static str {
    match code {
        0 => "network unreachable",
        1 => "host unreachable",
        2 => "protocol unreachable",
        3 => "port unreachable",
        4 => "fragmentation needed",
        9 | 10 | 13 => "administratively prohibited",
        _ => "unreachable",
    }
}

fn unreachable_v6(code: u8) -> &'static str {
    match code {
        0 => "no route",
        1 => "administratively prohibited",
        3 => "address unreachable",
        4 => "port unreachable",
        _ => "unreachable",
    }
}

fn protocol(number: u8) -> String {
    let name = match number {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPv4 in IP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6 in IP",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        89 => "OSPF",
        103 => "PIM",
        112 => "VRRP",
        132 => "SCTP",
        _ => return format!("protocol {number}"),
    };
    name.into()
}

impl Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.continued {
            write!(f, " …")?;
        }
        for (index, message) in self.messages.iter().enumerate() {
            let mark = if index == 0 && !self.continued {
                ""
            } else {
                ";"
            };
            write!(f, "{mark} {message}")?;
        }
        if self.cut {
            write!(f, " …")?;
        }
        Ok(())
    }
}

impl Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Open(open) => open.fmt(f),
            Message::Update(update) => update.fmt(f),
            Message::Notification(notification) => write!(f, "NOTIFICATION {notification}"),
            Message::Keepalive => write!(f, "KEEPALIVE"),
            Message::RouteRefresh => write!(f, "ROUTE-REFRESH"),
            Message::Other(kind) => write!(f, "message of type {kind}"),
        }
    }
}

impl Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Open {
            asn,
            hold_time,
            identifier,
        } = self;
        write!(f, "OPEN AS {asn} id {identifier} hold {hold_time} s")
    }
}

impl Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UPDATE")?;
        if self.end_of_rib {
            write!(f, " end of RIB")?;
        }
        prefixes(f, " withdraws", &self.withdrawn)?;
        prefixes(f, " announces", &self.announced)?;
        if !self.announced.is_empty() && !self.as_path.is_empty() {
            write!(f, " by")?;
            for system in self.as_path.iter().take(LISTED_SYSTEMS) {
                write!(f, " {system}")?;
            }
            if self.as_path.len() > LISTED_SYSTEMS {
                write!(f, " …")?;
            }
        }
        Ok(())
    }
}

fn prefixes(f: &mut fmt::Formatter<'_>, verb: &str, prefixes: &[IpNet]) -> fmt::Result {
    if prefixes.is_empty() {
        return Ok(());
    }
    write!(f, "{verb}")?;
    for prefix in prefixes.iter().take(LISTED_PREFIXES) {
        write!(f, " {prefix}")?;
    }
    match prefixes.len().checked_sub(LISTED_PREFIXES) {
        None | Some(0) => Ok(()),
        Some(more) => write!(f, " and {more} more"),
    }
}

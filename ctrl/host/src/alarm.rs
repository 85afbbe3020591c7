//! Wakes the fabric when another program may have changed what of ours is on the host.
//!
//! The kernel reports every change of links, addresses, routes, rules, forwarding and nftables.
//! Most are none of our business, so [`HostAlarm`] reads just enough of each message to tell. It
//! says nothing more than "look": what then counts is what [`crate::upkeep`] finds on the host, so
//! that a message which is lost, late or misread can only cost a look.

use std::io;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::plan::TABLE;

/// rtnetlink(7): links, IPv4 addresses, routes and rules, and forwarding of IPv4 and IPv6.
const ROUTE_GROUPS: [u32; 6] = [1, 5, 7, 8, 24, 25];
/// `NFNLGRP_NFTABLES`
const NFT_GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const NFT_SUBSYSTEM: u8 = 10;
/// `NFT_MSG_NEWSETELEM` to `NFT_MSG_DELSETELEM`: our own sets fill by themselves.
const NFT_ELEMENTS: std::ops::RangeInclusive<u8> = 12..=14;

const DATAGRAM_BYTES: usize = 64 * 1024;
/// The header of a message (netlink(7)).
const HEADER: usize = 16;

/// A subscription to what happens to the network configuration of a host.
pub struct HostAlarm {
    route: TokioSocket,
    nft: TokioSocket,
    concern: Concern,
}

/// What of the host's configuration a fabric depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concern {
    /// Our own devices with addresses: `ikhn`, `bripmi`.
    pub links: Vec<String>,
    /// The addresses behind them.
    pub ranges: Vec<Ipv4Net>,
}

impl HostAlarm {
    /// Subscribes in the calling thread's network namespace. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// When the system is out of sockets, or the caller is outside of a tokio runtime.
    pub fn open(concern: Concern) -> io::Result<Self> {
        Ok(Self {
            route: subscribed(NETLINK_ROUTE, &ROUTE_GROUPS)?,
            nft: subscribed(NETLINK_NETFILTER, &[NFT_GROUP])?,
            concern,
        })
    }

    /// Waits until something may have happened to what is ours. May be dropped and called again
    /// without loss.
    ///
    /// # Errors
    /// When a socket fails.
    pub async fn ring(&mut self) -> io::Result<()> {
        loop {
            let (mut route, mut nft) = (buffer(), buffer());
            let rings = tokio::select! {
                received = self.route.recv(&mut route) => {
                    lost(received)? || self.concern.is_touched(&route, Concern::route)
                }
                received = self.nft.recv(&mut nft) => {
                    lost(received)? || self.concern.is_touched(&nft, |_, kind, body| nft_touches(kind, body))
                }
            };
            if rings {
                return Ok(());
            }
        }
    }
}

fn subscribed(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut subscription = TokioSocket::new(protocol)?;
    let socket = subscription.socket_mut();
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(subscription)
}

fn buffer() -> Vec<u8> {
    Vec::with_capacity(DATAGRAM_BYTES)
}

/// Whether messages were lost, because they came faster than they were read.
fn lost(received: io::Result<()>) -> io::Result<bool> {
    match received {
        Ok(()) => Ok(false),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

impl Concern {
    fn is_touched(&self, datagram: &[u8], touches: impl Fn(&Self, u16, &[u8]) -> bool) -> bool {
        messages(datagram).any(|(kind, body)| touches(self, kind, body))
    }

    /// Whether a message of the routing socket is about what is ours (rtnetlink(7)).
    fn route(&self, kind: u16, body: &[u8]) -> bool {
        match kind {
            // RTM_NEWLINK, RTM_DELLINK: struct ifinfomsg, IFLA_IFNAME
            16 | 17 => attribute(body, 16, 3).is_some_and(|name| {
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                self.links.iter().any(|link| link.as_bytes() == name)
            }),
            // RTM_NEWADDR, RTM_DELADDR: struct ifaddrmsg, IFA_LOCAL
            20 | 21 => attribute(body, 8, 2)
                .and_then(address)
                .is_some_and(|local| self.ranges.iter().any(|range| range.contains(&local))),
            // RTM_NEWROUTE, RTM_DELROUTE: struct rtmsg, RTA_DST, which a default route has not
            24 | 25 => attribute(body, 12, 1)
                .and_then(address)
                .and_then(|destination| Ipv4Net::new(destination, *body.get(1)?).ok())
                .is_some_and(|destination| {
                    let meets = |range: &Ipv4Net| {
                        range.contains(&destination) || destination.contains(range)
                    };
                    self.ranges.iter().any(meets)
                }),
            // RTM_NEWRULE, RTM_DELRULE
            32 | 33 => true,
            // RTM_NEWNETCONF: struct netconfmsg, NETCONFA_IFINDEX of all devices
            80 => attribute(body, 4, 1) == Some(&(-1_i32).to_ne_bytes()),
            _ => false,
        }
    }
}

/// Whether a message of nftables is about a table of our name. In each kind of message that is the
/// first attribute, after struct nfgenmsg.
fn nft_touches(kind: u16, body: &[u8]) -> bool {
    let [message, subsystem] = kind.to_le_bytes();
    subsystem == NFT_SUBSYSTEM
        && !NFT_ELEMENTS.contains(&message)
        && attribute(body, 4, 1)
            .is_some_and(|name| name.split(|byte| *byte == 0).next() == Some(TABLE.as_bytes()))
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// The type and the body of each message in a datagram.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, body))
    })
}

/// The first attribute of that type behind a fixed part of so many bytes.
fn attribute(body: &[u8], fixed: usize, wanted: u16) -> Option<&[u8]> {
    /// The upper two bits are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
    const TYPE: u16 = 0x3fff;
    let mut rest = body.get(fixed..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & TYPE;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern() -> Concern {
        Concern {
            links: vec!["ikhn".into()],
            ranges: vec!["192.168.96.0/19".parse().unwrap()],
        }
    }

    fn message(kind: u16, fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = fixed.to_vec();
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = u32::try_from(HEADER + body.len())
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    fn route(prefix: &str) -> Vec<u8> {
        let prefix: Ipv4Net = prefix.parse().unwrap();
        let mut fixed = [0; 12];
        (fixed[0], fixed[1]) = (2, prefix.prefix_len());
        let destination = prefix.network().octets();
        message(24, &fixed, &[(15, &[254, 0, 0, 0]), (1, &destination)])
    }

    fn rings(datagram: &[u8]) -> bool {
        concern().is_touched(datagram, Concern::route)
    }

    #[test]
    fn routes_and_addresses_ring_if_they_meet_the_range() {
        for prefix in ["192.168.112.0/20", "192.168.0.0/16", "192.168.97.5/32"] {
            assert!(rings(&route(prefix)), "{prefix}");
        }
        for prefix in ["10.0.0.0/8", "192.168.128.0/24"] {
            assert!(!rings(&route(prefix)), "{prefix}");
        }
        // A default route has no destination.
        assert!(!rings(&message(24, &[0; 12], &[(4, &[2, 0, 0, 0])])));
        let local = |octets: [u8; 4]| message(21, &[0; 8], &[(1, &octets), (2, &octets)]);
        assert!(rings(&local([192, 168, 96, 1])));
        assert!(!rings(&local([10, 0, 0, 1])));
    }

    #[test]
    fn forwarding_of_all_devices_and_our_own_links_ring() {
        let netconf = |index: i32| message(80, &[2, 0, 0, 0], &[(1, &index.to_ne_bytes())]);
        assert!(rings(&netconf(-1)));
        assert!(!rings(&netconf(7)));
        let link = |name: &[u8]| message(16, &[0; 16], &[(3, name)]);
        assert!(rings(&link(b"ikhn\0")));
        assert!(!rings(&link(b"ikhn2\0")));
        // Any message of a datagram.
        assert!(rings(&[link(b"eth0\0"), netconf(-1)].concat()));
    }

    #[test]
    fn only_our_tables_ring() {
        let deleted = |name: &[u8]| message(0x0a02, &[0; 4], &[(1, name)]);
        let rings = |bytes: &[u8]| messages(bytes).any(|(kind, body)| nft_touches(kind, body));
        assert!(rings(&deleted(b"ikv-fabric\0")));
        assert!(!rings(&deleted(b"ikv-fabric2\0")));
        assert!(!rings(&message(0x0a0c, &[0; 4], &[(1, b"ikv-fabric\0")])));
    }

    #[test]
    fn cut_messages_end_the_datagram() {
        let whole = route("192.168.112.0/20");
        for length in 0..whole.len() {
            assert!(!rings(&whole[..length]), "{length}");
        }
        assert!(!rings(&[0; 64]));
        assert_eq!(attribute(&[0; 8], 0, 1), None);
    }
}

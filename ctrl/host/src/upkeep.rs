//! What should be on the host while a fabric runs, and what of it is not: pure functions from
//! what was read of the host to [`Trouble`]s. `execute/upkeep.rs` reads the host, and puts back.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::address::HostRoute;
use crate::plan::HostStep;
use crate::sysctl::Family;

/// The most routes of others that are looked at. A host that learns more routes within a fabric's
/// range than these has another problem.
const MOST_ROUTES: usize = 64;

/// Something of ours on the host that another program can take away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ours {
    /// One of our own devices, which the kernel removes with the process that holds it.
    Link(String),
    /// Our nftables tables: guards of taps, source NAT, and what may pass.
    Tables,
    /// An address of one of our devices.
    Address {
        /// The device.
        link: String,
        /// The address with its prefix length.
        address: Ipv4Net,
    },
    /// The route to the fabric.
    Route {
        /// The destination.
        range: Ipv4Net,
        /// The next hop.
        via: Ipv4Addr,
        /// The device.
        link: String,
    },
    /// Forwarding.
    Forwarding(Family),
}

/// Why the fabric is cut off from its host, or unguarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Something of ours is not there.
    Gone(Ours),
    /// The host sends a part of the fabric's addresses elsewhere.
    Shadowed {
        /// The fabric's addresses.
        range: Ipv4Net,
        /// Which of them, or all.
        part: Ipv4Net,
        /// The device through which the host sends there. Empty if it sends nothing there.
        link: String,
    },
}

/// One look at the host, and what was done about it.
#[derive(Debug, Default)]
pub struct Looked {
    /// What is wrong still.
    pub left: Vec<Trouble>,
    /// What was put back.
    pub put_back: Vec<Ours>,
    /// What could not be put back, and why.
    pub failed: Vec<(Ours, String)>,
}

impl Ours {
    /// What a step makes that others can take away. Taps are watched by [`crate::watch`].
    pub(crate) fn made_by(step: &HostStep) -> Option<Self> {
        Some(match step {
            HostStep::Taps { .. } | HostStep::Raise => return None,
            HostStep::HostLink { name, .. } => Self::Link(name.clone()),
            HostStep::Tables { .. } => Self::Tables,
            HostStep::Address { link, address } => Self::Address {
                link: link.clone(),
                address: *address,
            },
            HostStep::Route { range, via, link } => Self::Route {
                range: *range,
                via: *via,
                link: link.clone(),
            },
            HostStep::Forwarding(family) => Self::Forwarding(*family),
        })
    }

    /// Whether it can be put back. A device took its cable's end with it.
    pub fn can_be_put_back(&self) -> bool {
        !matches!(self, Self::Link(_))
    }

    /// The device that it is on, and is gone with.
    pub(crate) fn link(&self) -> Option<&str> {
        match self {
            Self::Address { link, .. } | Self::Route { link, .. } => Some(link),
            _ => None,
        }
    }
}

impl fmt::Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "the device {name}"),
            Self::Tables => f.write_str("the fabric's nftables tables"),
            Self::Address { link, address } => write!(f, "the address {address} of {link}"),
            Self::Route { range, link, .. } => write!(f, "the route to {range} through {link}"),
            Self::Forwarding(Family::Ipv4) => f.write_str("IPv4 forwarding"),
            Self::Forwarding(Family::Ipv6) => f.write_str("IPv6 forwarding"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(ours @ Ours::Tables) => write!(f, "{ours} are gone, or rules of them"),
            Self::Gone(ours @ Ours::Forwarding(_)) => write!(f, "{ours} is off"),
            Self::Gone(ours @ Ours::Link(_)) => {
                write!(f, "{ours} is gone: the host is cut off; restart the fabric")
            }
            Self::Gone(ours) => write!(f, "{ours} is gone"),
            Self::Shadowed { range, part, link } => {
                write!(f, "the route to {range} is shadowed by {part}")?;
                if link.is_empty() {
                    f.write_str(", which leads nowhere")?;
                } else {
                    write!(f, " on {link}")?;
                }
                f.write_str(": give that network other addresses, or the fabric another range")
            }
        }
    }
}

/// What of others may be in the way to `range` behind `link`: each with an address for which to ask
/// the kernel who wins, and the device.
pub(crate) fn rivals(
    range: Ipv4Net,
    link: &str,
    routes: &[HostRoute],
    addresses: &[(String, Ipv4Net)],
) -> Vec<(Ipv4Net, Ipv4Addr)> {
    let routes = routes.iter().map(|route| (&route.link, route.destination));
    let host = |address: &Ipv4Net| Ipv4Net::from(address.addr());
    let addresses = addresses.iter().map(|(on, address)| (on, host(address)));
    let mut seen = BTreeSet::new();
    let others = routes.chain(addresses).filter(|(on, part)| {
        // A default route, or one in two halves as VPNs have it, is in nobody's way.
        *on != link && part.prefix_len() > 1 && (range.contains(part) || part.contains(&range))
    });
    let others = others.filter(|(_, part)| seen.insert(*part));
    others
        .map(|(_, part)| (part, sample(range, part)))
        .take(MOST_ROUTES)
        .collect()
}

/// An address in both.
fn sample(range: Ipv4Net, part: Ipv4Net) -> Ipv4Addr {
    if range.contains(&part) {
        // The first address is the network's own.
        part.hosts().next().unwrap_or(part.addr())
    } else {
        // The last one: at the beginning is the network of our own link.
        range.hosts().last().unwrap_or(range.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: &str = "192.168.96.0/19";

    fn route(destination: &str, link: &str) -> HostRoute {
        HostRoute {
            destination: destination.parse().unwrap(),
            link: link.into(),
            table: 254,
        }
    }

    #[test]
    fn routes_and_addresses_of_others_that_meet_the_range_are_rivals() {
        let routes = [
            route("0.0.0.0/0", "eth0"),
            route("128.0.0.0/1", "tun0"),
            route("10.0.0.0/8", "eth0"),
            route("192.168.96.0/24", "ikhn"),
            route(RANGE, "ikhn"),
            route("192.168.112.0/20", "br-y"),
            route("192.168.0.0/16", "vpn0"),
        ];
        let address = |on: &str, address: &str| (on.to_owned(), address.parse().unwrap());
        let addresses = [
            address("ikhn", "192.168.96.1/24"),
            address("br-y", "192.168.112.1/20"),
            address("lo", "127.0.0.1/8"),
        ];
        let found = rivals(RANGE.parse().unwrap(), "ikhn", &routes, &addresses);
        let found: Vec<String> = found
            .iter()
            .map(|(part, at)| format!("{part} {at}"))
            .collect();
        assert_eq!(
            found,
            [
                "192.168.112.0/20 192.168.112.1",
                "192.168.0.0/16 192.168.127.254",
                "192.168.112.1/32 192.168.112.1",
            ]
        );
    }

    #[test]
    fn a_host_with_thousands_of_routes_is_asked_for_few() {
        let many: Vec<_> = (0..200)
            .map(|n| route(&format!("192.168.97.{n}/32"), "eth0"))
            .collect();
        let found = rivals(RANGE.parse().unwrap(), "ikhn", &many, &[]);
        assert_eq!(found.len(), MOST_ROUTES);
    }

    #[test]
    fn troubles_in_words() {
        let range: Ipv4Net = RANGE.parse().unwrap();
        let route = Ours::Route {
            range,
            via: "192.168.96.2".parse().unwrap(),
            link: "ikhn".into(),
        };
        let said = [
            Trouble::Gone(route),
            Trouble::Gone(Ours::Tables),
            Trouble::Gone(Ours::Forwarding(Family::Ipv4)),
            Trouble::Shadowed {
                range,
                part: "192.168.112.0/20".parse().unwrap(),
                link: "br-y".into(),
            },
        ];
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        the route to 192.168.96.0/19 through ikhn is gone
        the fabric's nftables tables are gone, or rules of them
        IPv4 forwarding is off
        the route to 192.168.96.0/19 is shadowed by 192.168.112.0/20 on br-y: give that network other addresses, or the fabric another range
        ");
    }
}

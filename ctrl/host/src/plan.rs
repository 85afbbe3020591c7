//! What must exist on the host, in order: a pure function from names and addresses to
//! [`HostStep`]s. [`crate::execute`] performs them and knows how to undo each.
//!
//! The order is the safe one: no device that a guest plugs into is up before its guard is in
//! place, and no packet is forwarded before everything else is there.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use model::config::{HostReach, Snat};
use model::mac::Mac;

use crate::sysctl::Family;

/// The name of our two nftables tables (families `netdev` and `inet`).
pub const TABLE: &str = "ikv-fabric";

/// A tap that waits for a VM to plug in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapPlan {
    /// The device's name, at most 15 bytes: `ikvm1-3-1`.
    pub name: String,
    /// The readable name, set as the device's alias: `rack1:u3:1`.
    pub alias: String,
}

/// Who may open a tap besides root. The kernel has no "or": with a user and a group set, only that user
/// may, as a member of that group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapOpener {
    /// Root alone.
    Root,
    /// The user of this uid.
    User(u32),
    /// The members of the group with this gid.
    Group(u32),
}

/// What the taps have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapForm {
    /// Who may open them.
    pub opener: TapOpener,
    /// Largest payload of a frame in bytes.
    pub mtu: u32,
    /// Whether they have several queues: a QEMU then opens them with `queues=`, and only so.
    pub multi_queue: bool,
}

/// The host's own link to the `internet` switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLinkPlan {
    /// The device's name: `ikhn`.
    pub name: String,
    /// Its MAC address, the same on every start.
    pub mac: Mac,
    /// Largest payload of a frame in bytes.
    pub mtu: u32,
    /// The host's address with the link's prefix length.
    pub address: Ipv4Net,
    /// The `internet` switch, next hop to the range.
    pub peer: Ipv4Addr,
    /// Everything behind that switch.
    pub range: Ipv4Net,
    /// How the range reaches the outside.
    pub snat: Snat,
    /// Forward IPv6 too; the host then ignores router advertisements. Without it the link
    /// carries no IPv6 at all.
    pub ipv6_forwarding: bool,
    /// What the host lets through between the fabric, itself and its neighbours.
    pub reach: HostReach,
}

/// The host's device at the segment of the BMCs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpmiLinkPlan {
    /// The device's name: `bripmi`.
    pub name: String,
    /// Its MAC address, the same on every start.
    pub mac: Mac,
    /// Largest payload of a frame in bytes.
    pub mtu: u32,
    /// The host's address with the segment's prefix length.
    pub address: Ipv4Net,
    /// UDP ports of the BMCs that run.
    pub ports: Vec<u16>,
}

/// What [`plan`] starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPlanInput {
    /// Taps that users' VMs plug into.
    pub taps: Vec<TapPlan>,
    /// What the taps have in common.
    pub tap_form: TapForm,
    /// The host's link. Without one the plan has no route, no NAT and no forwarding either.
    pub host: Option<HostLinkPlan>,
    /// The host's device at the segment of the BMCs, if there are BMCs.
    pub ipmi: Option<IpmiLinkPlan>,
}

/// Source NAT for what leaves the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nat {
    /// The virtual datacenter's addresses.
    pub range: Ipv4Net,
    /// What replaces them outside.
    pub snat: Snat,
}

/// What is let through and what is dropped, in the table with source NAT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Through the host link, if there is one.
    pub reach: Option<ReachGuard>,
    /// From the segment of the BMCs, if there is one.
    pub ipmi: Option<IpmiGuard>,
}

/// What passes between the fabric, the host and its neighbours. Always: answers, pings of the host,
/// and what leaves the range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachGuard {
    /// The host's device.
    pub link: String,
    /// The virtual datacenter's addresses.
    pub range: Ipv4Net,
    /// The device speaks IPv6, and the host forwards it.
    pub ipv6: bool,
    /// What passes besides.
    pub reach: HostReach,
}

/// What may reach the host from the segment of the BMCs: their UDP ports, echo requests, and answers
/// to the host's own requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpmiGuard {
    /// The host's device at the segment.
    pub link: String,
    /// The host's address there. Packets to it from any other device are dropped.
    pub address: Ipv4Addr,
    /// UDP ports of the BMCs.
    pub ports: Vec<u16>,
}

/// One thing to do to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStep {
    /// Create persistent taps, marked as ours, down.
    Taps {
        /// Names and aliases.
        taps: Vec<TapPlan>,
        /// What they have in common.
        form: TapForm,
    },
    /// Create the host's tap, marked as ours, down.
    HostLink {
        /// The device's name.
        name: String,
        /// Its MAC address.
        mac: Mac,
        /// Largest payload of a frame in bytes.
        mtu: u32,
        /// Whether the device speaks IPv6 at all.
        ipv6: bool,
    },
    /// Load our nftables tables.
    Tables {
        /// Devices whose frames must never reach the host's own stack.
        guard: Vec<String>,
        /// Source NAT, if there is a host link.
        nat: Option<Nat>,
        /// What else passes.
        filter: Filter,
    },
    /// Set all devices of ours up.
    Raise,
    /// Give a device of ours an address.
    Address {
        /// The device.
        link: String,
        /// The address with its prefix length.
        address: Ipv4Net,
    },
    /// Route a range through a device of ours.
    Route {
        /// The destination.
        range: Ipv4Net,
        /// The next hop.
        via: Ipv4Addr,
        /// The device.
        link: String,
    },
    /// Switch forwarding on, unless it is on already.
    Forwarding(Family),
}

/// The steps that bring the host's part up, in order. Undo them in reverse order.
pub fn plan(input: &HostPlanInput) -> Vec<HostStep> {
    let mut steps = Vec::new();
    if !input.taps.is_empty() {
        steps.push(HostStep::Taps {
            taps: input.taps.clone(),
            form: input.tap_form,
        });
    }
    if let Some(host) = &input.host {
        steps.push(HostStep::HostLink {
            name: host.name.clone(),
            mac: host.mac,
            mtu: host.mtu,
            ipv6: host.ipv6_forwarding,
        });
    }
    if let Some(ipmi) = &input.ipmi {
        steps.push(HostStep::HostLink {
            name: ipmi.name.clone(),
            mac: ipmi.mac,
            mtu: ipmi.mtu,
            ipv6: false,
        });
    }
    let guard: Vec<String> = input.taps.iter().map(|tap| tap.name.clone()).collect();
    let nat = input.host.as_ref().map(|host| Nat {
        range: host.range,
        snat: host.snat,
    });
    // Without a device of ours the tables would guard nothing.
    if guard.is_empty() && input.host.is_none() && input.ipmi.is_none() {
        return steps;
    }
    let filter = filter(input);
    steps.push(HostStep::Tables { guard, nat, filter });
    // From here on every device of ours has its guard.
    steps.push(HostStep::Raise);
    if let Some(ipmi) = &input.ipmi {
        steps.push(HostStep::Address {
            link: ipmi.name.clone(),
            address: ipmi.address,
        });
    }
    if let Some(host) = &input.host {
        let link = host.name.clone();
        steps.push(HostStep::Address {
            link: link.clone(),
            address: host.address,
        });
        steps.push(HostStep::Route {
            range: host.range,
            via: host.peer,
            link,
        });
        // Last: until here the host forwards none of the fabric's packets.
        steps.push(HostStep::Forwarding(Family::Ipv4));
        if host.ipv6_forwarding {
            steps.push(HostStep::Forwarding(Family::Ipv6));
        }
    }
    steps
}

fn filter(input: &HostPlanInput) -> Filter {
    Filter {
        reach: input.host.as_ref().map(|host| ReachGuard {
            link: host.name.clone(),
            range: host.range,
            ipv6: host.ipv6_forwarding,
            reach: host.reach.clone(),
        }),
        ipmi: input.ipmi.as_ref().map(|ipmi| IpmiGuard {
            link: ipmi.name.clone(),
            address: ipmi.address.addr(),
            ports: ipmi.ports.clone(),
        }),
    }
}

impl fmt::Display for HostStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taps { taps, form } => {
                let taps = counted(taps.iter().map(|tap| &*tap.name), "tap");
                write!(f, "create {taps}, MTU {}", form.mtu)?;
                if form.multi_queue {
                    f.write_str(", with several queues")?;
                }
                match form.opener {
                    TapOpener::Root => Ok(()),
                    TapOpener::User(uid) => write!(f, ", for user {uid}"),
                    TapOpener::Group(gid) => write!(f, ", for group {gid}"),
                }
            }
            Self::HostLink {
                name, mtu, ipv6, ..
            } => {
                let ipv6 = if *ipv6 { "" } else { ", without IPv6" };
                write!(f, "create host link {name}, MTU {mtu}{ipv6}")
            }
            Self::Tables { guard, nat, filter } => {
                write!(f, "load nftables tables {TABLE}:")?;
                if let Some(ipmi) = &filter.ipmi {
                    write!(f, " let {} reach the BMCs alone,", ipmi.link)?;
                }
                if !guard.is_empty() {
                    let guarded = counted(guard.iter().map(String::as_str), "tap");
                    write!(f, " keep the host's stack from {guarded}")?;
                }
                let Some(nat) = nat else { return Ok(()) };
                let comma = if guard.is_empty() { "" } else { "," };
                match nat.snat {
                    Snat::Masquerade => write!(f, "{comma} masquerade {}", nat.range)?,
                    Snat::Address(to) => write!(f, "{comma} SNAT {} to {to}", nat.range)?,
                }
                match &filter.reach {
                    Some(guard) => write!(f, "; {}", guard.reach),
                    None => Ok(()),
                }
            }
            Self::Raise => f.write_str("set links up"),
            Self::Address { link, address } => write!(f, "give {link} {address}"),
            Self::Route { range, via, link } => write!(f, "route {range} via {via} on {link}"),
            Self::Forwarding(Family::Ipv4) => f.write_str("switch IPv4 forwarding on"),
            Self::Forwarding(Family::Ipv6) => f.write_str("switch IPv6 forwarding on"),
        }
    }
}

/// One name, or the number of names with the first and the last: `tap ikvm1-3-1`,
/// `282 taps ikhn … iklt62`.
fn counted<'a>(mut names: impl ExactSizeIterator<Item = &'a str>, what: &str) -> String {
    let count = names.len();
    match (names.next(), names.last()) {
        (None, _) => format!("0 {what}s"),
        (Some(only), None) => format!("{what} {only}"),
        (Some(first), Some(last)) => format!("{count} {what}s {first} … {last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn input(taps: usize) -> HostPlanInput {
        let taps = (0..taps)
            .map(|n| TapPlan {
                name: format!("ikvm1-{}-1", n + 3),
                alias: format!("rack1:u{}:1", n + 3),
            })
            .collect();
        HostPlanInput {
            taps,
            tap_form: TapForm {
                opener: TapOpener::User(1000),
                mtu: 9000,
                multi_queue: false,
            },
            host: Some(HostLinkPlan {
                name: "ikhn".into(),
                mac: Mac([0, 0x22, 0x22, 0xdd, 0xee, 1]),
                mtu: 9000,
                address: "192.168.96.1/24".parse().unwrap(),
                peer: "192.168.96.2".parse().unwrap(),
                range: "192.168.96.0/19".parse().unwrap(),
                snat: Snat::Masquerade,
                ipv6_forwarding: false,
                reach: HostReach::default(),
            }),
            ipmi: None,
        }
    }

    fn words(input: &HostPlanInput) -> String {
        plan(input)
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn the_default_in_words() {
        insta::assert_snapshot!(words(&input(252)), @r"
        create 252 taps ikvm1-3-1 … ikvm1-254-1, MTU 9000, for user 1000
        create host link ikhn, MTU 9000, without IPv6
        load nftables tables ikv-fabric: keep the host's stack from 252 taps ikvm1-3-1 … ikvm1-254-1, masquerade 192.168.96.0/19; guests reach no service of the host, and none of its neighbours reaches the fabric
        set links up
        give ikhn 192.168.96.1/24
        route 192.168.96.0/19 via 192.168.96.2 on ikhn
        switch IPv4 forwarding on
        ");
    }

    #[test]
    fn other_choices_in_words() {
        let mut input = input(1);
        input.tap_form.opener = TapOpener::Root;
        input.tap_form.multi_queue = true;
        let host = input.host.as_mut().unwrap();
        host.snat = Snat::Address("203.0.113.7".parse().unwrap());
        host.ipv6_forwarding = true;
        insta::assert_snapshot!(words(&input), @r"
        create tap ikvm1-3-1, MTU 9000, with several queues
        create host link ikhn, MTU 9000
        load nftables tables ikv-fabric: keep the host's stack from tap ikvm1-3-1, SNAT 192.168.96.0/19 to 203.0.113.7; guests reach no service of the host, and none of its neighbours reaches the fabric
        set links up
        give ikhn 192.168.96.1/24
        route 192.168.96.0/19 via 192.168.96.2 on ikhn
        switch IPv4 forwarding on
        switch IPv6 forwarding on
        ");
    }

    #[test]
    fn the_segment_of_the_bmcs_in_words() {
        let mut input = input(1);
        input.host = None;
        input.ipmi = Some(IpmiLinkPlan {
            name: "bripmi".into(),
            mac: Mac([0, 0x22, 0x22, 0xdd, 0xee, 2]),
            mtu: 9000,
            address: "192.168.200.1/24".parse().unwrap(),
            ports: vec![9080, 9081],
        });
        insta::assert_snapshot!(words(&input), @r"
        create tap ikvm1-3-1, MTU 9000, for user 1000
        create host link bripmi, MTU 9000, without IPv6
        load nftables tables ikv-fabric: let bripmi reach the BMCs alone, keep the host's stack from tap ikvm1-3-1
        set links up
        give bripmi 192.168.200.1/24
        ");
    }

    #[test]
    fn an_empty_input_makes_an_empty_plan() {
        let nothing = HostPlanInput {
            taps: vec![],
            tap_form: TapForm {
                opener: TapOpener::Root,
                mtu: 9000,
                multi_queue: false,
            },
            host: None,
            ipmi: None,
        };
        assert_eq!(plan(&nothing), []);
    }

    proptest! {
        /// For every input, links are guarded before they are up, and forwarding comes last.
        #[test]
        fn guarded_before_up(taps in 0usize..40, host: bool, ipv6: bool) {
            let mut input = input(taps);
            if host {
                input.host.as_mut().unwrap().ipv6_forwarding = ipv6;
            } else {
                input.host = None;
            }
            let steps = plan(&input);
            let at = |wanted: fn(&HostStep) -> bool| steps.iter().position(wanted);
            let raise = at(|s| matches!(s, HostStep::Raise));
            prop_assert_eq!(raise.is_some(), taps > 0 || host);
            if let Some(raise) = raise {
                let table = at(|s| matches!(s, HostStep::Tables { .. })).unwrap();
                let made = at(|s| matches!(s, HostStep::Taps { .. }))
                    .max(at(|s| matches!(s, HostStep::HostLink { .. })));
                prop_assert!(made < Some(table));
                prop_assert!(table < raise);
                if let Some(forwarding) = at(|s| matches!(s, HostStep::Forwarding(_))) {
                    let rest = &steps[forwarding..];
                    prop_assert!(rest.iter().all(|s| matches!(s, HostStep::Forwarding(_))));
                }
            }
            for step in &steps {
                if let HostStep::Tables { guard, .. } = step {
                    let names: Vec<_> = input.taps.iter().map(|tap| tap.name.clone()).collect();
                    prop_assert_eq!(guard, &names);
                }
            }
        }
    }
}

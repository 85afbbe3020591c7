//! Random configurations, with every value that the types allow.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ikv_frr_conf::{
    BootFile, BootFiles, Dhcp, Domain, FromServers, HostName, IfName, Link, Mac, Nic, Node,
    SwitchConf, Timers, VlanId, VlanNetwork,
};
use ipnet::IpNet;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

/// A name that ends in any characters its type allows; the number makes it unique.
pub(crate) fn name<T: std::str::FromStr>(letter: char, number: usize, rest: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    format!("{letter}{number}x{rest}").parse().unwrap()
}

prop_compose! {
    fn nics()(
        links in vec((0..3_u8, 1280..=u16::MAX, "[A-Za-z0-9_-]{0,5}"), 0..40),
        below_are_servers: bool,
        outside: Option<u8>,
    ) -> Vec<Nic> {
        let outside = outside.map(|host| Link::Outside {
            address: format!("10.0.0.{}/24", host.clamp(2, 254)).parse().unwrap(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
        });
        let below = if below_are_servers { Link::Server } else { Link::Edge };
        let link = |kind| if kind == 0 { Link::Core } else { below };
        outside.map(|link| (link, 1500, String::new())).into_iter()
            .chain(links.into_iter().map(|(kind, mtu, rest)| (link(kind), mtu, rest)))
            .enumerate()
            .map(|(i, (link, mtu, rest))| Nic {
                name: name('n', i, &rest),
                mac: Mac::try_from([2, 0, 0, 0, 0, i as u8]).unwrap(),
                mtu,
                link,
            })
            .collect()
    }
}

prop_compose! {
    fn dhcp()(
        first in 2..=127_u8,
        last in 127..=254_u8,
        lease in 120..=10_000_u32,
        longer in 0..=10_000_u32,
        domain in "[a-z0-9]{1,20}(\\.[a-z0-9]{1,20}){0,3}",
        dns in btree_set(any::<Ipv4Addr>(), 0..4),
        next_server: Ipv4Addr,
        boot in vec("[!$-&(-+./0-9:-Z^-z|~]{1,127}", 7),
    ) -> Dhcp {
        let boot = |i: usize| boot[i].parse().unwrap_or_else(|_| BootFile::clone(&fallback()));
        Dhcp {
            bridge: "dhcp0".parse().unwrap(),
            address: "192.168.110.1/24".parse().unwrap(),
            first: [192, 168, 110, first].into(),
            last: [192, 168, 110, last].into(),
            lease,
            lease_max: lease + longer,
            domain: domain.parse::<Domain>().unwrap(),
            dns: dns.into_iter().collect(),
            next_server,
            boot: BootFiles { ipxe: boot(0), bios: boot(1), uefi: boot(2), arm64: boot(3), http: boot(4), http_arm64: boot(5), other: boot(6) },
            options: Vec::new(),
            fixed: Vec::new(),
        }
    }
}

fn fallback() -> BootFile {
    "pxelinux.0".parse().unwrap()
}

prop_compose! {
    fn timers()(keepalive in 1..=9_u16, more in 0..=100_u16, connect in 1..=120_u16, ra in 1..=1800_u16)
    -> Timers {
        Timers { keepalive, hold: 3 * keepalive + more, connect, router_advertisement: ra }
    }
}

prop_compose! {
    fn from_servers()(
        own in btree_set(any::<u8>(), 0..5),
        allow in btree_set(prop_oneof![
            (any::<[u8; 4]>(), 0..=32_u8).prop_map(|(net, length)| IpNet::new_assert(net.into(), length)),
            (any::<[u8; 16]>(), 0..=128_u8).prop_map(|(net, length)| IpNet::new_assert(net.into(), length)),
        ].prop_map(|net| net.trunc()), 0..4),
        limit in 1..=u32::MAX,
    ) -> FromServers {
        let subnet = |third| format!("172.16.{third}.0/24").parse().unwrap();
        FromServers {
            own_subnets: own.into_iter().map(subnet).collect(),
            allow: allow.into_iter().collect(),
            limit,
        }
    }
}

prop_compose! {
    pub(crate) fn conf()(
        names in vec("[A-Za-z0-9-]{0,20}[A-Za-z0-9]", 1..30),
        which: prop::sample::Index,
        nics in nics(),
        vlans in btree_set(1..=4094_u16, 1..8),
        dhcp in prop::option::of(dhcp()),
        neighbour: bool,
        ranges: bool,
        from_servers in from_servers(),
        timers in timers(),
    ) -> SwitchConf {
        let node = |(i, rest): (usize, &String)| Node {
            name: name::<HostName>('h', i, rest),
            asn: NonZeroU32::new(64512 + i as u32).unwrap(),
            loopback: Ipv4Addr::new(172, 16, 0, i as u8),
        };
        let nodes: Vec<_> = names.iter().enumerate().map(node).collect();
        let serves = nics.iter().any(|nic| nic.link == Link::Server);
        let vlans: Vec<_> = vlans.into_iter().map(|v| VlanId::try_from(v).unwrap()).collect();
        let (server_vlan, networks) = vlans.split_first().unwrap();
        let network = |(i, vlan): (usize, &VlanId)| VlanNetwork {
            vlan: *vlan,
            bridge: name::<IfName>('b', i, ""),
            address: format!("10.1.{i}.1/24").parse().unwrap(),
        };
        let vlan_networks: Vec<_> = if serves {
            networks.iter().enumerate().map(network).collect()
        } else {
            Vec::new()
        };
        SwitchConf {
            name: which.get(&nodes).name.clone(),
            nodes,
            nics,
            server_vlan: *server_vlan,
            dhcp: dhcp.filter(|_| serves),
            neighbours: if neighbour && !vlan_networks.is_empty() {
                vec![[10, 1, 0, 200].into()]
            } else {
                Vec::new()
            },
            neighbour_ranges: if ranges && !vlan_networks.is_empty() {
                vec!["10.1.0.8/29".parse().unwrap()]
            } else {
                Vec::new()
            },
            vlan_networks,
            from_servers,
            timers,
        }
    }
}

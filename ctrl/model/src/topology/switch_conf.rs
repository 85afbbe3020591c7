//! Derives the configuration of a single switch from the topology.

use std::num::NonZeroU32;

use frr_conf::{
    BootFiles, Dhcp, Fixed, FromServers, HostName, IfName, Link, NameError, Nic, Node, SwitchConf,
    Timers, VlanId, VlanNetwork,
};
use ipnet::Ipv4Net;

use crate::config::VlanPeer;
use crate::mac::Mac;

use super::{DhcpNetwork, PortKind, Role, Switch, SwitchPort, Topology};

/// The bridge of a leaf's untagged server ports, named as in ikvswitch.
const DHCP_BRIDGE: &str = "dhcp0";

impl Topology {
    /// The configuration of `switch`, which is one of [`Topology::switches`].
    ///
    /// # Errors
    /// When a name cannot be written to one of the switch's configuration files. The error contains
    /// the name and the rule.
    pub fn switch_conf(&self, switch: &Switch) -> Result<SwitchConf, NameError> {
        let own = |index: usize| self.switches[index].name == switch.name;
        let nic = |port| self.nic(switch, port);
        let dhcp = self.net.dhcp.iter().find(|net| own(net.switch));
        let vlans: Vec<_> = self
            .net
            .vlans
            .iter()
            .filter(|net| own(net.switch))
            .collect();
        let reached = |peer: &&VlanPeer| vlans.iter().any(|vlan| vlan.subnet.contains(&peer.0));
        let peers: Vec<_> = self.net.vlan_peers.iter().filter(reached).collect();
        let at_host = switch.ports.iter().any(|port| port.kind == PortKind::Host);
        let host = at_host.then(|| self.host.address.addr());
        Ok(SwitchConf {
            name: switch.name.parse()?,
            nodes: self.switches.iter().map(node).collect::<Result<_, _>>()?,
            nics: switch.ports.iter().map(nic).collect::<Result<_, _>>()?,
            server_vlan: VlanId::try_from(self.net.server_vlan)?,
            dhcp: dhcp.map(|net| self.dhcp(net)).transpose()?,
            neighbours: host
                .into_iter()
                .chain(peers.iter().filter_map(|peer| peer.address()))
                .collect(),
            neighbour_ranges: peers
                .iter()
                .filter(|peer| peer.address().is_none())
                .map(|peer| peer.0)
                .collect(),
            vlan_networks: vlans
                .iter()
                .map(|net| {
                    Ok(VlanNetwork {
                        vlan: VlanId::try_from(net.id)?,
                        bridge: net.bridge.parse()?,
                        address: with_prefix(net.router, net.subnet),
                    })
                })
                .collect::<Result<_, NameError>>()?,
            from_servers: self.server_policy(switch),
            timers: Timers::default(),
        })
    }

    fn server_policy(&self, switch: &Switch) -> FromServers {
        let net = &self.net;
        // The host is nobody's server, but it is as little a part of the fabric.
        let is_filtered =
            |port: &SwitchPort| matches!(port.kind, PortKind::Server { .. } | PortKind::Host);
        if !switch.ports.iter().any(is_filtered) {
            return FromServers::default();
        }
        let mut own_subnets = vec![self.host.address.trunc(), net.loopbacks];
        own_subnets.extend(net.vlans.iter().map(|vlan| vlan.subnet));
        // Last, because `apply` adds racks at the end: the other entries keep their numbers.
        own_subnets.extend(net.dhcp.iter().map(|dhcp| dhcp.subnet));
        FromServers {
            own_subnets,
            allow: net.server_allow.clone(),
            limit: net.server_limit,
        }
    }

    fn nic(&self, switch: &Switch, port: &SwitchPort) -> Result<Nic, NameError> {
        Ok(Nic {
            name: port.nic.parse()?,
            mac: frr_conf::Mac::try_from(port.mac.0)?,
            mtu: port.mtu,
            link: match port.kind {
                PortKind::Host => Link::Outside {
                    address: with_prefix(self.host.peer, self.host.address),
                    gateway: self.host.address.addr(),
                },
                PortKind::Spine if switch.role == Role::Internet => Link::Edge,
                PortKind::Spine | PortKind::Internet => Link::Core,
                PortKind::Leaf => Link::Edge,
                PortKind::Server { .. } => Link::Server,
            },
        })
    }

    fn dhcp(&self, net: &DhcpNetwork) -> Result<Dhcp, NameError> {
        let options = &self.net.dhcp_options;
        Ok(Dhcp {
            bridge: DHCP_BRIDGE.parse::<IfName>()?,
            address: with_prefix(net.router, net.subnet),
            first: net.first,
            last: net.last,
            lease: options.lease,
            lease_max: options.max_lease,
            domain: options.domain.parse()?,
            dns: options.dns.clone(),
            next_server: options.next_server,
            boot: BootFiles {
                ipxe: options.boot.ipxe.parse()?,
                bios: options.boot.bios.parse()?,
                uefi: options.boot.uefi.parse()?,
                arm64: options.boot.arm64.parse()?,
                http: options.boot.http.parse()?,
                http_arm64: options.boot.http_arm64.parse()?,
                other: options.boot.other.parse()?,
            },
            options: options
                .more
                .iter()
                .map(|option| option.parse())
                .collect::<Result<_, _>>()?,
            fixed: self.fixed(net)?,
        })
    }
}

impl Topology {
    /// The fixed addresses of this network.
    fn fixed(&self, net: &DhcpNetwork) -> Result<Vec<Fixed>, NameError> {
        let fixed = self.net.dhcp_options.fixed.iter();
        let its = fixed.filter_map(|entry| match self.fixed_nic(entry) {
            Ok((of, mac)) if of.rack == net.rack => Some((entry.address, mac)),
            _ => None,
        });
        let fixed = |(address, mac): (_, Mac)| {
            let mac = frr_conf::Mac::try_from(mac.0)?;
            Ok(Fixed { mac, address })
        };
        its.map(fixed).collect()
    }
}

fn node(switch: &Switch) -> Result<Node, NameError> {
    Ok(Node {
        name: switch.name.parse::<HostName>()?,
        asn: NonZeroU32::new(switch.asn).expect("AS numbers count up from 1 or more"),
        loopback: switch.loopback,
    })
}

fn with_prefix(address: std::net::Ipv4Addr, subnet: Ipv4Net) -> Ipv4Net {
    Ipv4Net::new_assert(address, subnet.prefix_len())
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::topology::build;

    /// frr-conf checks the rules for a switch, and accepts all of these.
    #[test]
    fn every_switch_of_many_shapes_renders() {
        for (racks, spines, num_u) in [(3, 2, 23), (1, 1, 3), (5, 3, 40), (2, 12, 60)] {
            let mut config = Config::default();
            config.topology.racks = racks;
            config.topology.spines = spines;
            config.topology.num_u = num_u;
            let topology = build(&config).unwrap();
            for switch in &topology.switches {
                let conf = topology.switch_conf(switch).unwrap();
                let files = frr_conf::render(&conf).unwrap();
                let served = files.iter().any(|file| file.path == "etc/dnsmasq.conf");
                let odd_leaf = switch.rack.is_some() && switch.number % 2 == 1;
                assert_eq!(served, odd_leaf, "{}", switch.name);
            }
        }
    }

    /// Every subnet of the fabric, of any shape, is refused from servers.
    #[test]
    fn no_server_may_announce_a_subnet_of_the_fabric() {
        let mut config = Config::default();
        config.topology.racks = 5;
        config.bgp.server_allow = vec!["0.0.0.0/0".parse().unwrap()];
        let topology = build(&config).unwrap();
        let leaf = topology.switches.last().unwrap();
        let from = topology.switch_conf(leaf).unwrap().from_servers;
        let refused = from.own_subnets.iter().map(ToString::to_string);
        let third = |third| format!("192.168.{third}.0/24");
        let expected = [96, 98].into_iter().chain(113..=118).chain(110..=112);
        let expected = expected.chain([119, 120]).map(third);
        assert_eq!(refused.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        assert_eq!((from.allow, from.limit), (config.bgp.server_allow, 256));
    }

    #[test]
    fn a_fixed_address_is_served_in_its_rack() {
        let mut config = Config::default();
        config.dhcp.fixed = vec!["rack2:u4=192.168.111.7".parse().unwrap()];
        config.dhcp.options = vec!["42,192.168.96.1".into()];
        let topology = build(&config).unwrap();
        for switch in &topology.switches {
            let Some(dhcp) = topology.switch_conf(switch).unwrap().dhcp else {
                continue;
            };
            let fixed: Vec<_> = dhcp.fixed.iter().map(|it| it.address.to_string()).collect();
            let expected: &[&str] = if switch.name == "leaf3" {
                assert_eq!(
                    dhcp.fixed[0].mac.to_string(),
                    topology.server_mac(2, 4, 1).to_string()
                );
                &["192.168.111.7"]
            } else {
                &[]
            };
            assert_eq!(fixed, expected, "{}", switch.name);
            assert_eq!(dhcp.options.len(), 1);
        }
    }

    #[test]
    fn leaf2_has_the_vlan_networks_and_their_peers_and_internet_the_host() {
        let topology = build(&Config::default()).unwrap();
        for switch in &topology.switches {
            let conf = topology.switch_conf(switch).unwrap();
            let found = (conf.vlan_networks.len(), conf.neighbours.len());
            let expected = match switch.name.as_str() {
                "leaf2" => (6, 2),
                // The host.
                "internet" => (0, 1),
                _ => (0, 0),
            };
            assert_eq!(found, expected, "{}", switch.name);
        }
    }
}

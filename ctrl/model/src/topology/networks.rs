//! The subnets: loopbacks, DHCP at odd leaves, VLAN networks at leaf2.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::check::blames;
use super::error::TopologyError;
use crate::config::{Config, Dhcp, FixedAddress, Location, VlanPeer};

/// The subnets, and the services in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// The subnet of the loopbacks: 192.168.98.0/24.
    pub loopbacks: Ipv4Net,
    /// One DHCP network for each rack, served by its odd leaf.
    pub dhcp: Vec<DhcpNetwork>,
    /// What DHCP offers to clients besides an address.
    pub dhcp_options: DhcpOptions,
    /// The VLAN networks, all at leaf2.
    pub vlans: Vec<VlanNetwork>,
    /// The VLAN on which leaves peer with servers.
    pub server_vlan: u16,
    /// Further addresses and prefixes in the VLAN networks that leaf2 peers with.
    pub vlan_peers: Vec<VlanPeer>,
    /// Prefixes that leaves take from servers although they refuse their like.
    pub server_allow: Vec<IpNet>,
    /// The most prefixes of each family that a leaf takes from a server.
    pub server_limit: u32,
}

/// The untagged network of a rack's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpNetwork {
    /// The rack's number, from 1.
    pub rack: u16,
    /// The leaf that serves it, as index into [`super::Topology::switches`].
    pub switch: usize,
    /// The subnet: 192.168.110.0/24.
    pub subnet: Ipv4Net,
    /// The leaf's own address in the subnet, the first one.
    pub router: Ipv4Addr,
    /// The first leased address.
    pub first: Ipv4Addr,
    /// The last leased address.
    pub last: Ipv4Addr,
}

/// What DHCP offers to clients besides an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpOptions {
    /// The default lease time in seconds.
    pub lease: u32,
    /// The longest lease time in seconds, at least `lease`.
    pub max_lease: u32,
    /// The DNS domain of the clients.
    pub domain: String,
    /// The addresses of the DNS servers.
    pub dns: Vec<Ipv4Addr>,
    /// The address of the boot server.
    pub next_server: Ipv4Addr,
    /// The boot file for each type of client.
    pub boot: BootFiles,
    /// Further options, each as number, comma, values.
    pub more: Vec<String>,
    /// The addresses of positions.
    pub fixed: Vec<FixedAddress>,
}

/// The boot file for each type of client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFiles {
    /// For clients that already run iPXE.
    pub ipxe: String,
    /// For BIOS clients: architecture 0 (RFC 4578).
    pub bios: String,
    /// For UEFI clients: architectures 7 and 9 (RFC 4578).
    pub uefi: String,
    /// For UEFI clients on ARM64: architecture 11.
    pub arm64: String,
    /// For UEFI clients that boot over HTTP: architecture 16.
    pub http: String,
    /// For UEFI clients on ARM64 that boot over HTTP: architecture 19.
    pub http_arm64: String,
    /// For all other clients, except those that boot over HTTP.
    pub other: String,
}

/// A network of all server ports of leaf2, tagged with one VLAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanNetwork {
    /// The VLAN number, 1..=4094.
    pub id: u16,
    /// The bridge inside the leaf: `brvlan11`.
    pub bridge: String,
    /// The leaf, as index into [`super::Topology::switches`].
    pub switch: usize,
    /// The subnet: 192.168.113.0/24.
    pub subnet: Ipv4Net,
    /// The leaf's own address in the subnet, the first one.
    pub router: Ipv4Addr,
}

/// The address `number` places after the subnet's own. `None` if a host cannot have it.
pub(super) fn nth(subnet: Ipv4Net, number: u32) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from(subnet.network()).checked_add(number)?);
    (number > 0 && address < subnet.broadcast()).then_some(address)
}

/// All networks of `config`. Adds to `errors` what is wrong.
pub(super) fn networks(config: &Config, errors: &mut Vec<TopologyError>) -> Networks {
    let vlans = vlans(config, errors);
    Networks {
        loopbacks: config.topology.loopbacks,
        dhcp: dhcp(config, errors),
        dhcp_options: options(&config.dhcp),
        vlans,
        server_vlan: config.bgp.server_vlan,
        vlan_peers: config.bgp.vlan_peers.clone(),
        server_allow: config.bgp.server_allow.clone(),
        server_limit: config.bgp.server_limit,
    }
}

fn options(dhcp: &Dhcp) -> DhcpOptions {
    let fill = |file: &str| file.replace("{next_server}", &dhcp.next_server.to_string());
    DhcpOptions {
        lease: dhcp.lease,
        max_lease: dhcp.max_lease,
        domain: dhcp.domain.clone(),
        dns: dhcp.dns.clone(),
        next_server: dhcp.next_server,
        boot: BootFiles {
            ipxe: fill(&dhcp.boot_ipxe),
            bios: fill(&dhcp.boot_bios),
            uefi: fill(&dhcp.boot_uefi),
            arm64: fill(&dhcp.boot_arm64),
            http: fill(&dhcp.boot_http),
            http_arm64: fill(&dhcp.boot_http_arm64),
            other: fill(&dhcp.boot_other),
        },
        more: dhcp.options.clone(),
        fixed: dhcp.fixed.clone(),
    }
}

fn dhcp(config: &Config, errors: &mut Vec<TopologyError>) -> Vec<DhcpNetwork> {
    let mut found = Vec::new();
    for (rack, subnet) in (1..=config.topology.racks).zip(dhcp_subnets(config)) {
        let Some(subnet) = subnet else {
            let key = if blames(config, "dhcp.subnets", "topology.racks") {
                "dhcp.subnets"
            } else {
                "topology.racks"
            };
            let range = config.topology.range;
            errors.push(TopologyError::NoSubnetLeft { key, rack, range });
            break;
        };
        let (first, last) = (config.dhcp.first, config.dhcp.last);
        let hosts = (nth(subnet, 1), nth(subnet, first), nth(subnet, last));
        let (Some(router), Some(first), Some(last)) = hosts else {
            let key = match config.location("dhcp.last") {
                Location::Default => format!("dhcp.subnets[{}]", rack - 1),
                Location::Set | Location::File { .. } => "dhcp.last".to_owned(),
            };
            errors.push(TopologyError::LeaseOutside {
                key,
                subnet,
                first,
                last,
            });
            break;
        };
        let switch = 1 + config.topology.spines as usize + 2 * (rack as usize - 1);
        found.push(DhcpNetwork {
            rack,
            switch,
            subnet,
            router,
            first,
            last,
        });
    }
    found
}

/// The configured subnets, then each free /24 after the VLAN networks (or after the configured
/// subnets if there are no VLAN networks), then `None`.
fn dhcp_subnets(config: &Config) -> impl Iterator<Item = Option<Ipv4Net>> {
    let (dhcp, vlan) = (&config.dhcp.subnets, &config.vlan.subnets);
    let last = vlan.iter().max_by_key(|net| net.broadcast());
    let last = last.or_else(|| dhcp.iter().max_by_key(|net| net.broadcast()));
    let range = config.topology.range;
    let start = last.map_or(u32::from(range.network()), |net| {
        u32::from(net.broadcast()).saturating_add(1)
    });
    let mut taken = dhcp.clone();
    taken.extend(vlan);
    taken.extend([config.topology.loopbacks, config.host.address.trunc()]);
    let end = u32::from(range.broadcast());
    let free = (start.div_ceil(256)..)
        .take_while(move |block| (*block as u64) * 256 + 255 <= u64::from(end))
        .filter_map(|block| Ipv4Net::new(Ipv4Addr::from(block << 8), 24).ok())
        .filter(move |net| !taken.iter().any(|other| overlap(*net, *other)));
    dhcp.clone()
        .into_iter()
        .chain(free)
        .map(Some)
        .chain(std::iter::repeat(None))
}

fn vlans(config: &Config, errors: &mut Vec<TopologyError>) -> Vec<VlanNetwork> {
    let mut found = Vec::new();
    // Rack 1's even leaf: ikvswitch has these networks only at leaf2.
    let switch = 1 + config.topology.spines as usize + 1;
    for (index, subnet) in config.vlan.subnets.iter().copied().enumerate() {
        let id = u32::from(config.vlan.first) + index as u32;
        let Some(id) = u16::try_from(id).ok().filter(|id| (1..=4094).contains(id)) else {
            errors.push(TopologyError::VlanTooHigh {
                id,
                first: config.vlan.first,
            });
            break;
        };
        let router = Ipv4Addr::from(u32::from(subnet.network()) + 1);
        found.push(VlanNetwork {
            id,
            bridge: format!("brvlan{id}"),
            switch,
            subnet,
            router,
        });
    }
    found
}

/// Whether two subnets share an address; one then contains the other.
pub(super) fn overlap(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}

//! Derives from a checked [`SwitchConf`] what the templates need, and fills them.

use std::iter;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};

use crate::check::{RenderError, check};
use crate::conf::{Dhcp, Link, Nic, Node, SwitchConf, Timers};
use crate::names::{HostName, IfName, Mac, VlanId};

const FRR: &str = include_str!("../templates/frr.conf.j2");
const DNSMASQ: &str = include_str!("../templates/dnsmasq.conf.j2");
const NETWORK: &str = include_str!("../templates/network.batch.j2");
/// `etc/ikv/sysctl.conf`, in the form of sysctl.conf(5), the same for every switch.
pub const SYSCTL: &str = include_str!("../templates/sysctl.conf");
const HOSTS: &str = include_str!("../templates/hosts.j2");
const NICS: &str = include_str!("../templates/nics.j2");
const VTYSH: &str = include_str!("../templates/vtysh.conf");

/// A configuration file of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Path from the root, without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Text, ending in a newline unless empty.
    pub content: String,
}

/// Renders all configuration files of the switch `conf`, sorted by path.
///
/// # Errors
/// [`RenderError`] names the first value in `conf` that breaks a rule.
pub fn render(conf: &SwitchConf) -> Result<Vec<File>, RenderError> {
    let own = check(conf)?;
    let mut files = Vec::new();
    let mut add = |path: &str, content: String| {
        files.push(File {
            path: path.to_owned(),
            mode: 0o644,
            content,
        });
    };
    if let Some(dhcp) = &conf.dhcp {
        add(
            "etc/dnsmasq.conf",
            fill("dnsmasq.conf", DNSMASQ, &Dnsmasq::new(conf, dhcp))?,
        );
    }
    add(
        "etc/frr/frr.conf",
        fill("frr.conf", FRR, &Frr::new(conf, own))?,
    );
    add("etc/frr/vtysh.conf", VTYSH.to_owned());
    add("etc/hostname", format!("{}\n", conf.name));
    add("etc/hosts", fill("hosts", HOSTS, conf)?);
    add(
        "etc/ikv/network.batch",
        fill("network.batch", NETWORK, &Network::new(conf, own))?,
    );
    add("etc/ikv/nics", fill("nics", NICS, conf)?);
    add("etc/ikv/sysctl.conf", SYSCTL.to_owned());
    Ok(files)
}

fn fill(name: &str, template: &str, values: &impl Serialize) -> Result<String, RenderError> {
    let try_fill = || {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_syntax(
            SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .keep_trailing_newline(true)
                .build()?,
        );
        environment.render_named_str(name, template, Serde(values))
    };
    try_fill().map_err(|error| RenderError::Template(format!("{name}: {error:#}")))
}

/// The values of the template frr.conf.
#[derive(Serialize)]
struct Frr<'a> {
    name: &'a HostName,
    asn: NonZeroU32,
    loopback: Ipv4Addr,
    nodes: &'a [Node],
    timers: Timers,
    /// Peers that bgpd finds by router advertisement.
    interfaces: Vec<Neighbour>,
    /// Peer groups that have a peer.
    groups: Vec<&'static str>,
    /// Addresses of the peers that the configuration names.
    addressed: Vec<String>,
    /// The entries of `addressed` that are the host.
    hosts: Vec<String>,
    /// Prefixes in which every speaker that asks becomes a peer of the group leaf.
    ranges: Vec<Ipv4Net>,
    /// The entries of `groups` and `addressed` that are servers. The switch filters what they
    /// announce.
    filtered: Vec<String>,
    /// Own prefixes of the fabric that servers may not announce, nor parts of them.
    own: Vec<Ipv4Net>,
    /// Prefixes that servers may announce in any case.
    allowed: Vec<Ipv4Net>,
    allowed_ipv6: Vec<Ipv6Net>,
    limit: u32,
    has_gateway: bool,
    announced: Vec<Ipv4Net>,
}

#[derive(Serialize)]
struct Neighbour {
    name: String,
    group: &'static str,
}

impl<'a> Frr<'a> {
    fn new(conf: &'a SwitchConf, own: &'a Node) -> Self {
        let mut interfaces: Vec<_> = conf
            .nics
            .iter()
            .filter_map(|nic| neighbour(conf, nic))
            .collect();
        interfaces.extend(conf.vlan_networks.iter().map(|network| Neighbour {
            name: network.bridge.to_string(),
            group: "leaf",
        }));
        let mut groups = vec!["spine", "leaf"];
        groups.retain(|group| interfaces.iter().any(|neighbour| neighbour.group == *group));
        let addressed: Vec<_> = conf.neighbours.iter().map(ToString::to_string).collect();
        let hosts = conf.nics.iter().filter_map(|nic| match nic.link {
            Link::Outside { gateway, .. } => conf
                .neighbours
                .contains(&gateway)
                .then(|| gateway.to_string()),
            _ => None,
        });
        let mut filtered = addressed.clone();
        filtered.extend(conf.server_nics().next().map(|_| "leaf".to_owned()));
        let allow = &conf.from_servers.allow;
        let has_gateway = conf
            .nics
            .iter()
            .any(|nic| matches!(nic.link, Link::Outside { .. }));
        Self {
            name: &conf.name,
            asn: own.asn,
            loopback: own.loopback,
            nodes: &conf.nodes,
            timers: conf.timers,
            announced: announced(conf, own),
            own: own_prefixes(conf),
            allowed: allow.iter().filter_map(|net| ipv4(*net)).collect(),
            allowed_ipv6: allow.iter().filter_map(|net| ipv6(*net)).collect(),
            limit: conf.from_servers.limit,
            interfaces,
            groups,
            addressed,
            hosts: hosts.collect(),
            ranges: conf.neighbour_ranges.iter().map(Ipv4Net::trunc).collect(),
            filtered,
            has_gateway,
        }
    }
}

fn neighbour(conf: &SwitchConf, nic: &Nic) -> Option<Neighbour> {
    let name = nic.name.to_string();
    match nic.link {
        Link::Outside { .. } => None,
        Link::Core => Some(Neighbour {
            name,
            group: "spine",
        }),
        Link::Edge => Some(Neighbour {
            name,
            group: "leaf",
        }),
        Link::Server => Some(Neighbour {
            name: format!("{name}.{}", conf.server_vlan),
            group: "leaf",
        }),
    }
}

fn ipv4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(net) => Some(net.trunc()),
        IpNet::V6(_) => None,
    }
}

fn ipv6(net: IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => Some(net.trunc()),
    }
}

/// The fabric's own subnets, and the loopbacks that are in none of them.
fn own_prefixes(conf: &SwitchConf) -> Vec<Ipv4Net> {
    let subnets = &conf.from_servers.own_subnets;
    let loopbacks = conf.nodes.iter().map(|node| node.loopback);
    let alone = loopbacks.filter(|address| !subnets.iter().any(|net| net.contains(address)));
    let mut own: Vec<_> = subnets.iter().map(Ipv4Net::trunc).collect();
    own.extend(alone.map(Ipv4Net::from));
    own
}

fn announced(conf: &SwitchConf, own: &Node) -> Vec<Ipv4Net> {
    let mut prefixes = vec![Ipv4Net::from(own.loopback)];
    let outside = conf.nics.iter().filter_map(|nic| match nic.link {
        Link::Outside { address, .. } => Some(address.trunc()),
        _ => None,
    });
    // With the host's subnet besides the default route, no server can draw the way to the host by
    // announcing something in between, such as the /16 around it.
    prefixes.extend(outside.flat_map(|subnet| [Ipv4Net::default(), subnet]));
    prefixes.extend(conf.dhcp.iter().map(|dhcp| dhcp.address.trunc()));
    prefixes.extend(
        conf.vlan_networks
            .iter()
            .map(|network| network.address.trunc()),
    );
    prefixes
}

/// The values of the template dnsmasq.conf.
#[derive(Serialize)]
struct Dnsmasq<'a> {
    name: &'a HostName,
    dhcp: &'a Dhcp,
    leases: u32,
    /// User classes with `iPXE` as the first or the second in a list, as dnsmasq matches options.
    ipxe_classes: Vec<String>,
    router: Ipv4Addr,
    netmask: Ipv4Addr,
}

impl<'a> Dnsmasq<'a> {
    fn new(conf: &'a SwitchConf, dhcp: &'a Dhcp) -> Self {
        Self {
            name: &conf.name,
            dhcp,
            ipxe_classes: ipxe_classes(),
            leases: u32::from(dhcp.last) - u32::from(dhcp.first) + 1,
            router: dhcp.address.addr(),
            netmask: dhcp.address.netmask(),
        }
    }
}

/// In an option of user classes each is preceded by its length (RFC 3004). A first class before `iPXE` has
/// up to 15 bytes; dnsmasq has no pattern for more than one of any length.
fn ipxe_classes() -> Vec<String> {
    let ipxe = "04:69:50:58:45";
    let after = |length: usize| format!("{length:02x}{}:{ipxe}", ":*".repeat(length));
    iter::once(ipxe.to_owned())
        .chain((1..16).map(after))
        .collect()
}

/// The values of the template network.batch.
#[derive(Serialize)]
struct Network {
    loopback: Ipv4Addr,
    bridges: Vec<Bridge>,
    nics: Vec<BatchNic>,
}

#[derive(Serialize)]
struct Bridge {
    name: String,
    address: Ipv4Net,
    mac: Mac,
    mtu: u16,
}

#[derive(Serialize)]
struct BatchNic {
    name: String,
    mtu: u16,
    /// The bridge of the untagged port.
    bridge: Option<String>,
    vlans: Vec<SubInterface>,
    address: Option<Ipv4Net>,
    gateway: Option<Ipv4Addr>,
}

#[derive(Serialize)]
struct SubInterface {
    name: String,
    vlan: VlanId,
    bridge: Option<String>,
}

impl Network {
    fn new(conf: &SwitchConf, own: &Node) -> Self {
        let mut nics: Vec<_> = conf
            .nics
            .iter()
            .map(|nic| BatchNic::new(conf, nic))
            .collect();
        // NICs to switches come first: their BGP sessions can start while `ip` still creates
        // the many VLAN sub-interfaces.
        nics.sort_by_key(|nic| !nic.vlans.is_empty());
        Self {
            loopback: own.loopback,
            bridges: bridges(conf),
            nics,
        }
    }
}

/// The bridges, each with all server ports. By default a bridge takes the lowest MAC address of its
/// ports, and its link-local address changes whenever a port with a lower one joins. So each bridge
/// gets the lowest MAC address from the start.
fn bridges(conf: &SwitchConf) -> Vec<Bridge> {
    let mac = conf.server_nics().map(|nic| nic.mac).min();
    let mtu = conf.server_nics().map(|nic| nic.mtu).min();
    let dhcp = conf.dhcp.iter().map(|dhcp| (&dhcp.bridge, dhcp.address));
    let vlans = conf
        .vlan_networks
        .iter()
        .map(|network| (&network.bridge, network.address));
    mac.zip(mtu)
        .into_iter()
        .flat_map(|(mac, mtu)| {
            let bridge = move |(name, address): (&IfName, Ipv4Net)| Bridge {
                name: name.to_string(),
                address,
                mac,
                mtu,
            };
            dhcp.clone().chain(vlans.clone()).map(bridge)
        })
        .collect()
}

impl BatchNic {
    fn new(conf: &SwitchConf, nic: &Nic) -> Self {
        let plain = Self {
            name: nic.name.to_string(),
            mtu: nic.mtu,
            bridge: None,
            vlans: Vec::new(),
            address: None,
            gateway: None,
        };
        let sub = |vlan: VlanId, bridge| SubInterface {
            name: format!("{}.{vlan}", nic.name),
            vlan,
            bridge,
        };
        match nic.link {
            Link::Core | Link::Edge => plain,
            Link::Outside { address, gateway } => Self {
                address: Some(address),
                gateway: Some(gateway),
                ..plain
            },
            Link::Server => Self {
                bridge: conf.dhcp.as_ref().map(|dhcp| dhcp.bridge.to_string()),
                vlans: iter::once(sub(conf.server_vlan, None))
                    .chain(
                        conf.vlan_networks
                            .iter()
                            .map(|network| sub(network.vlan, Some(network.bridge.to_string()))),
                    )
                    .collect(),
                ..plain
            },
        }
    }
}

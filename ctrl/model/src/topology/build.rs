//! Builds a [`Topology`] from a [`Config`]: names, numbers and addresses by ikvswitch's rules.

use std::net::Ipv4Addr;

use super::error::{TopologyError, TopologyErrors};
use super::networks::{networks, nth};
use super::{
    Cable, End, EndOwner, FIRST_U, HostLink, IpmiSegment, MTU, PortKind, Rack, Role, Switch,
    SwitchPort, Topology, check, rewire,
};
use crate::config::{Config, Names};
use crate::mac::Mac;

/// Builds the datacenter that `config` describes.
///
/// # Errors
/// Everything that is wrong with it, all at once, each with its place in the configuration: values
/// out of bounds, names that are too long or used twice, subnets that overlap or do not fit.
pub fn build(config: &Config) -> Result<Topology, TopologyErrors> {
    let bounds = config.problems();
    if !bounds.is_empty() {
        return Err(TopologyErrors::new(
            bounds.into_iter().map(TopologyError::Value).collect(),
            config,
        ));
    }
    let mut errors = Vec::new();
    let mut wiring = Wiring::new(config, &mut errors);
    wiring.cables();
    if config.ipmi.enabled {
        wiring.cables.push(ipmi_cable(config));
    }
    let Wiring {
        mut switches,
        cables,
        ..
    } = wiring;
    number(&mut switches, config, &mut errors);
    let mut topology = Topology {
        racks: racks(config),
        host: host(config, &mut errors),
        ipmi: ipmi(config, &mut errors),
        net: networks(config, &mut errors),
        num_u: config.topology.num_u,
        server_mac: config.mac.server.0,
        switches,
        cables,
    };
    check::check(&topology, config, &mut errors);
    rewire::rewire(&mut topology, config, &mut errors);
    rewire::check(&topology, config, &mut errors);
    if errors.is_empty() {
        Ok(topology)
    } else {
        Err(TopologyErrors::new(errors, config))
    }
}

fn racks(config: &Config) -> Vec<Rack> {
    let leaf = |number: u16| leaf_index(config.topology.spines, number);
    (1..=config.topology.racks)
        .map(|number| Rack {
            number,
            leaves: [leaf(2 * number - 1), leaf(2 * number)],
        })
        .collect()
}

/// The index of leaf `number` among the switches.
fn leaf_index(spines: u16, number: u16) -> usize {
    spines as usize + number as usize
}

fn host(config: &Config, errors: &mut Vec<TopologyError>) -> HostLink {
    let mac = Mac::counted(config.mac.host.0, 1);
    HostLink {
        name: config.host.link.clone(),
        address: config.host.address,
        peer: config.host.internet,
        mac: mac.unwrap_or_else(|| {
            errors.push(TopologyError::MacsExhausted {
                key: "mac.host",
                prefix: config.mac.host,
            });
            Mac([0; 6])
        }),
        range: config.topology.range,
        snat: config.host.snat,
        ipv6_forwarding: config.host.ipv6_forwarding,
        tap_queues: config.host.tap_queues,
        reach: config.host.reach(),
    }
}

/// The counter behind the prefix of this MAC, different from that of the host link.
const IPMI_MAC: u32 = 2;

fn ipmi(config: &Config, errors: &mut Vec<TopologyError>) -> Option<IpmiSegment> {
    if !config.ipmi.enabled {
        return None;
    }
    let mac = Mac::counted(config.mac.host.0, IPMI_MAC);
    Some(IpmiSegment {
        name: config.ipmi.link.clone(),
        address: config.ipmi.address,
        mac: mac.unwrap_or_else(|| {
            errors.push(TopologyError::MacsExhausted {
                key: "mac.host",
                prefix: config.mac.host,
            });
            Mac([0; 6])
        }),
        first_port: config.ipmi.port,
    })
}

/// The host's device has the cable's name, because in ikvswitch one bridge was both.
fn ipmi_cable(config: &Config) -> Cable {
    Cable {
        name: config.ipmi.link.clone(),
        a: End {
            tap: config.ipmi.link.clone(),
            alias: "host:ipmi".into(),
            owner: EndOwner::IpmiHost,
        },
        b: End {
            tap: config.ipmi.tap.clone(),
            alias: "ipmi".into(),
            owner: EndOwner::IpmiPort,
        },
        own: false,
    }
}

/// Adds the switches and the cables between them.
struct Wiring<'c> {
    names: &'c Names,
    link: &'c str,
    racks: u16,
    spines: u16,
    num_u: u16,
    switches: Vec<Switch>,
    cables: Vec<Cable>,
}

impl<'c> Wiring<'c> {
    fn new(config: &'c Config, errors: &mut Vec<TopologyError>) -> Self {
        let shape = &config.topology;
        let leaves = 2 * shape.racks;
        let roles = std::iter::once((Role::Internet, 1))
            .chain((1..=shape.spines).map(|number| (Role::Spine, number)))
            .chain((1..=leaves).map(|number| (Role::Leaf, number)));
        let total = 1 + u32::from(shape.spines) + u32::from(leaves);
        if nth(shape.loopbacks, total).is_none() {
            errors.push(TopologyError::LoopbacksFull {
                subnet: shape.loopbacks,
                switches: total,
            });
        }
        if config
            .bgp
            .as_start
            .checked_add(total - 1)
            .is_none_or(|last| last == u32::MAX)
        {
            errors.push(TopologyError::AsTooHigh {
                first: config.bgp.as_start,
                switches: total,
            });
        }
        let first = u32::from(shape.loopbacks.network());
        let switches = roles.zip(0u32..).map(|((role, number), index)| Switch {
            name: match role {
                Role::Internet => role.to_string(),
                Role::Spine | Role::Leaf => format!("{role}{number}"),
            },
            role,
            number,
            rack: (role == Role::Leaf).then(|| number.div_ceil(2)),
            asn: config.bgp.as_start.saturating_add(index),
            loopback: Ipv4Addr::from(first.saturating_add(1 + index)),
            ports: Vec::new(),
        });
        Self {
            names: &config.names,
            link: &config.host.link,
            racks: shape.racks,
            spines: shape.spines,
            num_u: shape.num_u,
            switches: switches.collect(),
            cables: Vec::new(),
        }
    }

    /// In ikvswitch's order. Every switch gets its ports in the order of their numbers.
    fn cables(&mut self) {
        self.host_cable();
        for spine in 1..=self.spines {
            self.internet_cable(spine);
        }
        for spine in 1..=self.spines.min(RULED_UPLINKS) {
            self.spine_cables(spine);
        }
        let ruled = self.cables.len();
        for leaf in 1..=2 * self.racks {
            for u in FIRST_U..=self.num_u {
                self.server_cable(leaf, u);
            }
        }
        // A leaf's uplinks to further spines are numbered after its servers, but their cables are
        // listed with those of the other spines.
        let servers = self.cables.len() - ruled;
        for spine in RULED_UPLINKS + 1..=self.spines {
            self.spine_cables(spine);
        }
        self.cables[ruled..].rotate_left(servers);
    }

    fn host_cable(&mut self) {
        let name = self.names.host_cable.clone();
        let a = End {
            tap: self.link.to_owned(),
            alias: "host".into(),
            owner: EndOwner::Host,
        };
        let tap = self.names.internet_host.clone();
        let b = self.port(0, 1, tap, "internet:1".into(), &name, PortKind::Host);
        self.cables.push(Cable {
            name,
            a,
            b,
            own: false,
        });
    }

    fn internet_cable(&mut self, spine: u16) {
        let name = format!("{}{spine}", self.names.internet_cable);
        let tap = format!("{}{spine}", self.names.internet_spine);
        let alias = format!("internet:{}", spine + 1);
        let a = self.port(0, spine + 1, tap, alias, &name, PortKind::Spine);
        let tap = format!("{}{spine}", self.names.spine_internet);
        let alias = format!("spine{spine}:1");
        let b = self.port(spine as usize, 1, tap, alias, &name, PortKind::Internet);
        self.cables.push(Cable {
            name,
            a,
            b,
            own: false,
        });
    }

    fn spine_cables(&mut self, spine: u16) {
        for leaf in 1..=2 * self.racks {
            let port = leaf + 1;
            let name = joined(&self.names.spine_cable, spine, port);
            let tap = joined(&self.names.spine_leaf, spine, port);
            let alias = format!("spine{spine}:{port}");
            let a = self.port(spine as usize, port, tap, alias, &name, PortKind::Leaf);
            let tap = joined(&self.names.leaf_spine, leaf, spine);
            let alias = format!("leaf{leaf}:{spine}");
            let index = leaf_index(self.spines, leaf);
            let number = uplink_number(spine, self.num_u);
            let b = self.port(index, number, tap, alias, &name, PortKind::Spine);
            self.cables.push(Cable {
                name,
                a,
                b,
                own: false,
            });
        }
    }

    fn server_cable(&mut self, leaf: u16, u: u16) {
        let name = format!("{}{leaf}-{u}", self.names.server_cable);
        let tap = format!("{}{leaf}-{u}", self.names.leaf_server);
        let alias = format!("leaf{leaf}:u{u}");
        let index = leaf_index(self.spines, leaf);
        let a = self.port(index, u, tap, alias, &name, PortKind::Server { u });
        let (rack, nic) = (leaf.div_ceil(2), if leaf % 2 == 1 { 1 } else { 2 });
        let b = End {
            tap: format!("{}{rack}-{u}-{nic}", self.names.server),
            alias: format!("rack{rack}:u{u}:{nic}"),
            owner: EndOwner::Server { rack, u, nic },
        };
        self.cables.push(Cable {
            name,
            a,
            b,
            own: false,
        });
    }

    /// Adds the next port to a switch. Its MAC is assigned later, when all ports are known.
    fn port(
        &mut self,
        switch: usize,
        number: u16,
        tap: String,
        alias: String,
        cable: &str,
        kind: PortKind,
    ) -> End {
        let ports = &mut self.switches[switch].ports;
        let end = End {
            tap: tap.clone(),
            alias: alias.clone(),
            owner: EndOwner::Switch {
                switch,
                port: ports.len(),
            },
        };
        let mac = Mac([0; 6]);
        ports.push(SwitchPort {
            number,
            tap,
            alias,
            nic: format!("ens{}", number + 3),
            mac,
            link_local: mac.link_local(),
            cable: cable.to_owned(),
            kind,
            mtu: MTU,
        });
        end
    }
}

/// `ikst` 1, 2 -> `ikst12`. If a number has two digits, a dash keeps the name unambiguous.
fn joined(prefix: &str, first: u16, second: u16) -> String {
    let dash = if first > 9 || second > 9 { "-" } else { "" };
    format!("{prefix}{first}{dash}{second}")
}

/// How many uplinks have port numbers below those of the servers.
const RULED_UPLINKS: u16 = FIRST_U - 1;

/// A leaf's port number for its uplink to a spine: 1 and 2 as in ikvswitch, further ones after the
/// highest U.
fn uplink_number(spine: u16, num_u: u16) -> u16 {
    if spine <= RULED_UPLINKS {
        spine
    } else {
        num_u + spine - RULED_UPLINKS
    }
}

/// Assigns every port its MAC: ikvswitch's value where its rule yields one, otherwise the next
/// after the highest that the rule has yielded.
fn number(switches: &mut [Switch], config: &Config, errors: &mut Vec<TopologyError>) {
    let num_u = config.topology.num_u;
    let ruled = |switch: &Switch| -> Vec<Option<u32>> {
        let counter = |port: &SwitchPort| ruled_counter(switch, port.number, num_u);
        switch.ports.iter().map(counter).collect()
    };
    let counters: Vec<_> = switches.iter().map(ruled).collect();
    let mut next = counters
        .iter()
        .flatten()
        .flatten()
        .max()
        .map_or(0, |highest| highest + 1);
    let ports = switches.iter_mut().flat_map(|switch| &mut switch.ports);
    for (port, counter) in ports.zip(counters.into_iter().flatten()) {
        let counter = counter.unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let Some(mac) = Mac::counted(config.mac.switch.0, counter) else {
            let prefix = config.mac.switch;
            errors.push(TopologyError::MacsExhausted {
                key: "mac.switch",
                prefix,
            });
            return;
        };
        port.mac = mac;
        port.link_local = mac.link_local();
    }
}

/// ikvswitch's counter behind the MAC prefix. `None` where its rule yields none, or one that
/// belongs to another port. The rule leaves room for 15 spines at internet and 16 ports at each of
/// two spines; the leaves follow.
fn ruled_counter(switch: &Switch, port: u16, num_u: u16) -> Option<u32> {
    let (number, port) = (u32::from(switch.number), u32::from(port));
    match switch.role {
        Role::Internet if port == 1 => Some(0x10),
        Role::Internet => (port <= 16).then_some(0x10 + port),
        Role::Spine => (number <= 2 && port <= 16).then_some(0x11 + 0x10 * number + port - 1),
        Role::Leaf => {
            let num_u = u32::from(num_u);
            (port <= num_u).then_some(0x41 + (number - 1) * (num_u + 1) + port - 1)
        }
    }
}

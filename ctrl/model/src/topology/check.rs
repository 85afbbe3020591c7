//! Finds collisions inside the plan: of names, MACs, subnets.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::error::TopologyError;
use super::networks::{VlanNetwork, overlap};
use super::{Cable, End, EndOwner, LONGEST_NAME, PortKind, Role, Topology};
use crate::config::{Config, FixedAddress, Listen, Location, Problem, Snat};
use crate::mac::Mac;

/// Reports everything that collides, once per key.
pub(super) fn check(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    names(topology, config, errors);
    macs(topology, errors);
    as_numbers(topology, errors);
    subnets(topology, config, errors);
    vlans(topology, config, errors);
    host(topology, errors);
    leases(config, errors);
    boot_files(topology, errors);
    fixed_addresses(topology, errors);
    displays(config, errors);
    ipmi(topology, config, errors);
}

/// Whether a collision is reported at `key` rather than at `other`: the key that the user wrote is
/// preferred.
pub(super) fn blames(config: &Config, key: &str, other: &str) -> bool {
    config.location(key) != Location::Default || config.location(other) == Location::Default
}

/// The name of every cable and tap, with the key that determines it.
fn keyed_names(topology: &Topology) -> impl Iterator<Item = (&'static str, &str)> {
    let cables = topology
        .cables
        .iter()
        .map(|cable| (cable_key(topology, cable), &*cable.name));
    let ends = topology
        .ends()
        // The cable has the same name.
        .filter(|found| found.end.owner != EndOwner::IpmiHost)
        .map(|found| (end_key(topology, found.end), &*found.end.tap));
    cables.chain(ends)
}

fn cable_key(topology: &Topology, cable: &Cable) -> &'static str {
    if cable.b.owner == EndOwner::IpmiPort {
        return "ipmi.link";
    }
    match topology.port(&cable.b).map(|port| port.kind) {
        Some(PortKind::Host) => "names.host_cable",
        Some(PortKind::Internet) => "names.internet_cable",
        Some(_) => "names.spine_cable",
        None => "names.server_cable",
    }
}

fn end_key(topology: &Topology, end: &End) -> &'static str {
    let EndOwner::Switch { switch, port } = end.owner else {
        return match end.owner {
            EndOwner::Host => "host.link",
            EndOwner::IpmiPort => "ipmi.tap",
            _ => "names.server",
        };
    };
    let switch = &topology.switches[switch];
    match (switch.role, switch.ports[port].kind) {
        (_, PortKind::Host) => "names.internet_host",
        (_, PortKind::Internet) => "names.spine_internet",
        (_, PortKind::Leaf) => "names.spine_leaf",
        (_, PortKind::Server { .. }) => "names.leaf_server",
        (Role::Internet, PortKind::Spine) => "names.internet_spine",
        (_, PortKind::Spine) => "names.leaf_spine",
    }
}

/// With `--switches none` every tap becomes an interface of the host, and a command accepts a
/// cable's name where it accepts an end's. So all names are checked together.
fn names(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let mut longest: Vec<(&'static str, &str)> = Vec::new();
    let mut seen: HashMap<&str, &'static str> = HashMap::new();
    let mut twice: Vec<(&str, &str)> = Vec::new();
    for (key, name) in keyed_names(topology) {
        if name.len() > LONGEST_NAME {
            match longest.iter_mut().find(|(known, _)| *known == key) {
                Some((_, longest)) if longest.len() < name.len() => *longest = name,
                Some(_) => {}
                None => longest.push((key, name)),
            }
        }
        if let Some(other) = seen.insert(name, key)
            && !twice.contains(&(key, other))
        {
            twice.push((key, other));
            let (key, other) = if blames(config, key, other) {
                (key, other)
            } else {
                (other, key)
            };
            errors.push(TopologyError::NameTwice {
                key,
                name: name.to_owned(),
                other,
            });
        }
    }
    let too_long = |(key, name): (_, &str)| TopologyError::NameTooLong {
        key,
        name: name.into(),
    };
    errors.extend(longest.into_iter().map(too_long));
}

/// Reports one pair for each key, because a colliding prefix causes many.
fn macs(topology: &Topology, errors: &mut Vec<TopologyError>) {
    let host = (topology.host.mac, "host", "mac.host");
    let ports = topology.switches.iter().flat_map(|switch| &switch.ports);
    let ports = ports.map(|port| (port.mac, port.alias.as_str(), "mac.switch"));
    let ipmi = topology
        .ipmi
        .iter()
        .map(|it| (it.mac, "host:ipmi", "mac.host"));
    let mut seen: HashMap<Mac, &str> = HashMap::new();
    for (mac, port, key) in ports.chain([host]).chain(ipmi) {
        if mac == Mac([0; 6]) {
            continue; // Already reported: the numbers ended before this port.
        }
        if let Some(other) = seen.insert(mac, port) {
            let (port, other) = (port.to_owned(), other.to_owned());
            errors.push(TopologyError::MacTwice {
                key,
                mac,
                port,
                other,
            });
            return;
        }
    }
    let proposed = |end: &End| match end.owner {
        EndOwner::Server { rack, u, nic } => Some(topology.server_mac(rack, u, nic)),
        EndOwner::IpmiPort => Some(topology.manager_mac()),
        EndOwner::Host | EndOwner::IpmiHost | EndOwner::Switch { .. } | EndOwner::Open => None,
    };
    for found in topology.ends() {
        if let Some(mac) = proposed(found.end)
            && let Some(other) = seen.get(&mac)
        {
            let (port, other) = (found.end.alias.clone(), (*other).to_owned());
            errors.push(TopologyError::MacTwice {
                key: "mac.server",
                mac,
                port,
                other,
            });
            return;
        }
    }
}

fn as_numbers(topology: &Topology, errors: &mut Vec<TopologyError>) {
    for switch in &topology.switches {
        let rfc = match switch.asn {
            23_456 => "RFC 6793, AS_TRANS",
            65_535 => "RFC 7300",
            _ => continue,
        };
        let asn = switch.asn;
        errors.push(TopologyError::AsReserved {
            switch: switch.name.clone(),
            asn,
            rfc,
        });
    }
}

/// Every subnet of the plan, with its key.
fn keyed_subnets(topology: &Topology) -> Vec<(String, Ipv4Net)> {
    let net = &topology.net;
    let mut all = vec![
        ("host.address".to_owned(), topology.host.address.trunc()),
        ("topology.loopbacks".to_owned(), net.loopbacks),
    ];
    let dhcp = net.dhcp.iter();
    all.extend(dhcp.map(|net| (format!("dhcp.subnets[{}]", net.rack - 1), net.subnet)));
    let vlans = net.vlans.iter().enumerate();
    all.extend(vlans.map(|(index, net)| (format!("vlan.subnets[{index}]"), net.subnet)));
    all
}

fn subnets(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let all = keyed_subnets(topology);
    let range = topology.host.range;
    let mut left_out = Vec::new();
    for (index, (key, subnet)) in all.iter().enumerate() {
        if !range.contains(subnet) {
            if blames(config, key, "topology.range") {
                let (key, subnet) = (key.clone(), *subnet);
                errors.push(TopologyError::OutsideRange { key, subnet, range });
            } else {
                left_out.push(format!("{subnet} ({key})"));
            }
        }
        if let Some(other) = all[..index]
            .iter()
            .find(|(_, other)| overlap(*subnet, *other))
        {
            let this = (key.clone(), *subnet);
            errors.push(subnets_overlap(config, this, other.clone()));
        }
    }
    if !left_out.is_empty() {
        let left_out = left_out.join(", ");
        errors.push(TopologyError::RangeLeavesOut { range, left_out });
    }
}

fn subnets_overlap(
    config: &Config,
    mut this: (String, Ipv4Net),
    mut that: (String, Ipv4Net),
) -> TopologyError {
    if !blames(config, &this.0, &that.0) {
        std::mem::swap(&mut this, &mut that);
    }
    let ((key, subnet), (other, other_subnet)) = (this, that);
    TopologyError::SubnetsOverlap {
        key,
        subnet,
        other,
        other_subnet,
    }
}

fn vlans(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let net = &topology.net;
    if let (Some(first), Some(last)) = (net.vlans.first(), net.vlans.last())
        && (first.id..=last.id).contains(&net.server_vlan)
    {
        let (first, last) = (first.id, last.id);
        errors.push(TopologyError::VlanTwice {
            id: net.server_vlan,
            first,
            last,
        });
    }
    for (index, peer) in config.bgp.vlan_peers.iter().enumerate() {
        let around = |vlan: &&VlanNetwork| vlan.subnet.contains(&peer.0);
        let wrong = match (net.vlans.iter().find(around), peer.address()) {
            (None, _) => "is in none of the VLAN networks",
            (Some(_), None) => continue,
            (Some(vlan), Some(address)) if vlan.router == address => "is leaf2's own address",
            (Some(vlan), Some(address)) => match not_a_host(address, vlan.subnet) {
                Some(wrong) => wrong,
                None => continue,
            },
        };
        errors.push(TopologyError::Address {
            key: format!("bgp.vlan_peers[{index}]"),
            address: peer.to_string(),
            wrong: wrong.into(),
            remedy: "choose a host's address in a subnet of vlan.subnets, or remove it".into(),
        });
    }
}

fn not_a_host(address: Ipv4Addr, subnet: Ipv4Net) -> Option<&'static str> {
    let ends = [subnet.network(), subnet.broadcast()];
    ends.contains(&address)
        .then_some("is its subnet's first or last address, which no host can have")
}

fn host(topology: &Topology, errors: &mut Vec<TopologyError>) {
    let host = &topology.host;
    let subnet = host.address.trunc();
    let wrong = if !subnet.contains(&host.peer) {
        Some(format!("is not in {subnet}, the subnet of host.address"))
    } else if host.peer == host.address.addr() {
        Some("is the host's own address (host.address)".to_owned())
    } else {
        not_a_host(host.peer, subnet).map(str::to_owned)
    };
    if let Some(wrong) = wrong {
        errors.push(TopologyError::Address {
            key: "host.internet".into(),
            address: host.peer.to_string(),
            wrong,
            remedy: format!("choose another address of {subnet}"),
        });
    }
    if let Snat::Address(address) = host.snat
        && host.range.contains(&address)
    {
        errors.push(TopologyError::Address {
            key: "host.snat".into(),
            address: address.to_string(),
            wrong: format!("is inside the fabric's own range {}", host.range),
            remedy: "choose an address that the outside can answer to, or \"masquerade\"".into(),
        });
    }
}

fn boot_files(topology: &Topology, errors: &mut Vec<TopologyError>) {
    let boot = &topology.net.dhcp_options.boot;
    let files = [
        ("dhcp.boot_ipxe", &boot.ipxe),
        ("dhcp.boot_bios", &boot.bios),
        ("dhcp.boot_uefi", &boot.uefi),
        ("dhcp.boot_arm64", &boot.arm64),
        ("dhcp.boot_http", &boot.http),
        ("dhcp.boot_http_arm64", &boot.http_arm64),
        ("dhcp.boot_other", &boot.other),
    ];
    for (key, file) in files {
        if let Err(error) = file.parse::<frr_conf::BootFile>() {
            errors.push(TopologyError::BootFile { key, error });
        }
    }
}

/// Each position exists, and its address is free in the DHCP subnet of its rack.
fn fixed_addresses(topology: &Topology, errors: &mut Vec<TopologyError>) {
    let fixed = &topology.net.dhcp_options.fixed;
    for (index, entry) in fixed.iter().enumerate() {
        let key = format!("dhcp.fixed[{index}]");
        let address = entry.address;
        let (net, mac) = match topology.fixed_nic(entry) {
            Ok(found) => found,
            Err(unknown) => {
                let what = unknown.to_string();
                errors.push(TopologyError::Value(Problem { key, what }));
                continue;
            }
        };
        let used = |other: &FixedAddress| {
            let nic = topology.fixed_nic(other);
            other.address == address || nic.is_ok_and(|(_, other)| other == mac)
        };
        let (wrong, remedy) = if !net.subnet.contains(&address)
            || [net.subnet.network(), net.subnet.broadcast()].contains(&address)
        {
            let wrong = format!("is no host's address in {}", net.subnet);
            (wrong, "choose one of that rack's DHCP subnet".to_owned())
        } else if address == net.router {
            ("is the leaf's own".to_owned(), "choose another".to_owned())
        } else if fixed[..index].iter().any(used) {
            let wrong = format!("or its position {} stands here twice", entry.position);
            (wrong, "leave one of the two out".to_owned())
        } else {
            continue;
        };
        errors.push(TopologyError::Address {
            key,
            address: address.to_string(),
            wrong,
            remedy,
        });
    }
}

/// A display needs passwords: root's to log in, and the viewers' if every user of the host could
/// connect.
fn displays(config: &Config, errors: &mut Vec<TopologyError>) {
    let listen = match config.vnc.listen {
        Listen::Off => return,
        Listen::Unix => "unix",
        Listen::Tcp => "tcp",
    };
    let mut needs = |wrong: &str, key: &str| {
        errors.push(TopologyError::Value(Problem {
            key: "vnc.listen".into(),
            what: format!("\"{listen}\" {wrong}; set {key} too"),
        }));
    };
    if config.ssh.root_password.is_none() {
        needs(
            "would show a login that no user can pass",
            "ssh.root_password",
        );
    }
    if config.vnc.listen == Listen::Tcp && config.vnc.password.is_none() {
        needs("is open to every user of the host", "vnc.password");
    }
}

/// Checks the BMCs' users and segment against other keys.
fn ipmi(topology: &Topology, config: &Config, errors: &mut Vec<TopologyError>) {
    let Some(segment) = &topology.ipmi else {
        return;
    };
    let switches = topology.switches.len();
    let mut wrong = |key: &str, what: String| {
        let key = key.into();
        errors.push(TopologyError::Value(Problem { key, what }));
    };
    let subnet = segment.address.trunc();
    if overlap(subnet, topology.host.range) {
        let range = topology.host.range;
        wrong(
            "ipmi.address",
            format!("{subnet} overlaps topology.range {range}; choose a subnet outside of it"),
        );
    }
    let (bmcs, vms) = (u64::from(config.ipmi.uid), u64::from(config.vm.uid));
    if bmcs.abs_diff(vms) < switches as u64 {
        wrong(
            "ipmi.uid",
            format!(
                "{bmcs} and the {switches} uids from there on share some with those from vm.uid {vms} \
                 on; choose one that is {switches} or more away"
            ),
        );
    }
}

fn leases(config: &Config, errors: &mut Vec<TopologyError>) {
    let dhcp = &config.dhcp;
    let mut ordered = |low: (&'static str, u32), high: (&'static str, u32)| {
        if low.1 <= high.1 {
            return;
        }
        let told_at_high = blames(config, high.0, low.0);
        let ((key, value), than, (other, bound)) = if told_at_high {
            (high, "below", low)
        } else {
            (low, "above", high)
        };
        errors.push(TopologyError::Order {
            key,
            value,
            than,
            other,
            bound,
        });
    };
    ordered(("dhcp.first", dhcp.first), ("dhcp.last", dhcp.last));
    ordered(
        ("dhcp.lease", dhcp.lease),
        ("dhcp.max_lease", dhcp.max_lease),
    );
}

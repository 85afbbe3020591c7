//! Facts about ikvswitch's datacenter, independent of the topology's code that is under test.

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) const SWITCHES: [&str; 9] = [
    "internet", "spine1", "spine2", "leaf1", "leaf2", "leaf3", "leaf4", "leaf5", "leaf6",
];

/// Highest U of a rack, and number of ports of a leaf.
const NUM_U: u8 = 23;

/// The loopback address of the switch at this index of [`SWITCHES`].
pub(crate) fn loopback(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 98, index as u8 + 1)
}

pub(crate) fn loopbacks() -> Vec<Ipv4Addr> {
    (0..SWITCHES.len()).map(loopback).collect()
}

/// Number of a switch's sessions with other switches.
pub(crate) fn sessions(node: &str) -> usize {
    match node {
        "internet" => 2,
        spine if spine.starts_with("spine") => 7,
        _ => 2,
    }
}

/// Last octets of a switch's MAC addresses, by port.
fn mac_octets(node: &str) -> Vec<u8> {
    match node {
        "internet" => vec![0x10, 0x12, 0x13],
        "spine1" => (0x21..=0x27).collect(),
        "spine2" => (0x31..=0x37).collect(),
        leaf => {
            let number = leaf.as_bytes()[4] - b'0';
            let first = 0x41 + (number - 1) * (NUM_U + 1);
            (first..first + NUM_U).collect()
        }
    }
}

/// A NIC inside a switch.
pub(crate) struct Nic {
    pub(crate) name: String,
    pub(crate) mac: String,
    pub(crate) link_local: Ipv6Addr,
    /// Whether a server's cable is at the other end.
    pub(crate) server: bool,
}

pub(crate) fn nics(node: &str) -> Vec<Nic> {
    let octets = mac_octets(node).into_iter().enumerate();
    let nic = |(index, octet)| Nic {
        name: nic(index + 1),
        mac: format!("08:00:27:06:ac:{octet:02x}"),
        link_local: Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0x0a00,
            0x27ff,
            0xfe06,
            0xac00 | u16::from(octet),
        ),
        server: node.starts_with("leaf") && index >= 2,
    };
    octets.map(nic).collect()
}

/// The NIC of a port; ports count from 1.
pub(crate) fn nic(port: usize) -> String {
    format!("ens{}", port + 3)
}

/// Every cable between switches, as switch and port of both ends.
pub(crate) fn switch_cables() -> Vec<[(String, usize); 2]> {
    let mut cables = Vec::new();
    for spine in 1..=2 {
        let name = format!("spine{spine}");
        cables.push([("internet".into(), spine + 1), (name.clone(), 1)]);
        for leaf in 1..=6 {
            cables.push([(name.clone(), leaf + 1), (format!("leaf{leaf}"), spine)]);
        }
    }
    cables
}

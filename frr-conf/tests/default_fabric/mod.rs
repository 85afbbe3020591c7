//! ikvswitch's default fabric, as a caller describes it: 1 internet, 2 spines, 6 leaves.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ipnet::Ipv4Net;

use ikv_frr_conf::{
    BootFiles, Dhcp, FromServers, Link, Mac, Nic, Node, SwitchConf, Timers, VlanNetwork,
};

pub(crate) const NAMES: [&str; 9] = [
    "internet", "spine1", "spine2", "leaf1", "leaf2", "leaf3", "leaf4", "leaf5", "leaf6",
];

/// The configuration of one of [`NAMES`].
pub(crate) fn switch(name: &str) -> SwitchConf {
    let index = NAMES.iter().position(|known| *known == name).unwrap();
    let leaf = (index as u8).saturating_sub(2);
    let conf = SwitchConf {
        name: name.parse().unwrap(),
        nodes: nodes(),
        nics: match index {
            0 => internet(),
            1 | 2 => spine(index as u8),
            _ => leaf_nics(leaf),
        },
        server_vlan: 10.try_into().unwrap(),
        dhcp: None,
        vlan_networks: Vec::new(),
        neighbours: Vec::new(),
        neighbour_ranges: Vec::new(),
        from_servers: FromServers {
            own_subnets: own_subnets(),
            ..FromServers::default()
        },
        timers: Timers::default(),
    };
    match leaf {
        0 if index == 0 => SwitchConf {
            neighbours: vec![[192, 168, 96, 1].into()],
            ..conf
        },
        2 => SwitchConf {
            vlan_networks: (11..=16).map(vlan_network).collect(),
            neighbours: vec![[192, 168, 113, 200].into(), [192, 168, 113, 201].into()],
            ..conf
        },
        1 | 3 | 5 => SwitchConf {
            dhcp: Some(dhcp(110 + leaf / 2)),
            ..conf
        },
        _ => conf,
    }
}

/// The host link, the loopbacks, the VLAN networks, the racks' DHCP networks.
fn own_subnets() -> Vec<Ipv4Net> {
    [96, 98]
        .into_iter()
        .chain(113..=118)
        .chain(110..=112)
        .map(|third| Ipv4Net::new([192, 168, third, 0].into(), 24).unwrap())
        .collect()
}

fn nodes() -> Vec<Node> {
    let node = |(index, name): (usize, &&str)| Node {
        name: name.parse().unwrap(),
        asn: NonZeroU32::new(65500 + index as u32).unwrap(),
        loopback: Ipv4Addr::new(192, 168, 98, index as u8 + 1),
    };
    NAMES.iter().enumerate().map(node).collect()
}

fn internet() -> Vec<Nic> {
    let host = Link::Outside {
        address: "192.168.96.2/24".parse().unwrap(),
        gateway: [192, 168, 96, 1].into(),
    };
    vec![
        nic(1, 0x10, 1500, host),
        nic(2, 0x12, 1500, Link::Edge),
        nic(3, 0x13, 1500, Link::Edge),
    ]
}

fn spine(number: u8) -> Vec<Nic> {
    let mac = 0x11 + 0x10 * number;
    let mut nics = vec![nic(1, mac, 1500, Link::Core)];
    nics.extend((2..=7).map(|port| nic(port, mac + port - 1, 1500, Link::Edge)));
    nics
}

fn leaf_nics(number: u8) -> Vec<Nic> {
    let mac = 0x41 + 24 * (number - 1);
    let spines = (1..=2).map(|port| nic(port, mac + port - 1, 1500, Link::Core));
    let servers = (3..=23).map(|u| nic(u, mac + u - 1, 9000, Link::Server));
    spines.chain(servers).collect()
}

fn nic(port: u8, mac: u8, mtu: u16, link: Link) -> Nic {
    Nic {
        name: format!("ens{}", port + 3).parse().unwrap(),
        mac: Mac::try_from([0x08, 0x00, 0x27, 0x06, 0xac, mac]).unwrap(),
        mtu,
        link,
    }
}

fn dhcp(subnet: u8) -> Dhcp {
    Dhcp {
        bridge: "dhcp0".parse().unwrap(),
        address: format!("192.168.{subnet}.1/24").parse().unwrap(),
        first: [192, 168, subnet, 20].into(),
        last: [192, 168, subnet, 250].into(),
        lease: Dhcp::default_lease(),
        lease_max: Dhcp::default_lease_max(),
        domain: "example.com".parse().unwrap(),
        dns: vec![[1, 1, 1, 1].into(), [9, 9, 9, 9].into()],
        next_server: [192, 168, 100, 2].into(),
        boot: BootFiles {
            ipxe: "http://192.168.100.2/oci/ipxe.php".parse().unwrap(),
            bios: "lpxelinux.0".parse().unwrap(),
            uefi: "shimx64.efi.signed".parse().unwrap(),
            arm64: "shimaa64.efi.signed".parse().unwrap(),
            http: "http://192.168.100.2/oci/shimx64.efi.signed"
                .parse()
                .unwrap(),
            http_arm64: "http://192.168.100.2/oci/shimaa64.efi.signed"
                .parse()
                .unwrap(),
            other: "pxelinux.0".parse().unwrap(),
        },
        options: Vec::new(),
        fixed: Vec::new(),
    }
}

fn vlan_network(vlan: u16) -> VlanNetwork {
    VlanNetwork {
        vlan: vlan.try_into().unwrap(),
        bridge: format!("brvlan{vlan}").parse().unwrap(),
        address: format!("192.168.{}.1/24", vlan + 102).parse().unwrap(),
    }
}

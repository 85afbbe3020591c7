use super::*;
use crate::conf::{BootFiles, Fixed, FromServers, Nic, VlanNetwork};

/// A leaf with two server ports, DHCP, one VLAN network and a neighbour in it.
fn leaf() -> SwitchConf {
    let nic = |number: u8, link| Nic {
        name: format!("ens{number}").parse().unwrap(),
        mac: [8, 0, 0x27, 6, 0xac, number].try_into().unwrap(),
        mtu: 9000,
        link,
    };
    let node = |name: &str, number: u8| Node {
        name: name.parse().unwrap(),
        asn: (65500 + u32::from(number)).try_into().unwrap(),
        loopback: [192, 168, 98, number].into(),
    };
    SwitchConf {
        name: "leaf1".parse().unwrap(),
        nodes: vec![node("spine1", 1), node("leaf1", 2)],
        nics: vec![
            nic(4, Link::Core),
            nic(5, Link::Server),
            nic(6, Link::Server),
        ],
        server_vlan: 10.try_into().unwrap(),
        dhcp: Some(Dhcp {
            bridge: "dhcp0".parse().unwrap(),
            address: "192.168.110.1/24".parse().unwrap(),
            first: [192, 168, 110, 20].into(),
            last: [192, 168, 110, 250].into(),
            lease: 600,
            lease_max: 7200,
            domain: "example.com".parse().unwrap(),
            dns: vec![[1, 1, 1, 1].into()],
            next_server: [192, 168, 100, 2].into(),
            boot: BootFiles {
                ipxe: "http://192.168.100.2/oci/ipxe.php".parse().unwrap(),
                bios: "lpxelinux.0".parse().unwrap(),
                uefi: "shimx64.efi.signed".parse().unwrap(),
                arm64: "shimaa64.efi.signed".parse().unwrap(),
                http: "http://192.168.100.2/shimx64.efi".parse().unwrap(),
                http_arm64: "http://192.168.100.2/shimaa64.efi".parse().unwrap(),
                other: "pxelinux.0".parse().unwrap(),
            },
            options: Vec::new(),
            fixed: Vec::new(),
        }),
        vlan_networks: vec![VlanNetwork {
            vlan: 11.try_into().unwrap(),
            bridge: "brvlan11".parse().unwrap(),
            address: "192.168.113.1/24".parse().unwrap(),
        }],
        neighbours: vec![[192, 168, 113, 200].into()],
        neighbour_ranges: vec!["192.168.113.8/29".parse().unwrap()],
        from_servers: FromServers::default(),
        timers: Timers::default(),
    }
}

/// The error of `check` after `spoil` has changed a valid configuration.
fn refusal(spoil: impl FnOnce(&mut SwitchConf)) -> String {
    let mut conf = leaf();
    assert!(check(&conf).is_ok());
    spoil(&mut conf);
    check(&conf).unwrap_err().to_string()
}

fn spoil_dhcp(spoil: impl FnOnce(&mut Dhcp)) -> String {
    refusal(|conf| spoil(conf.dhcp.as_mut().unwrap()))
}

fn fixed(mac: u8, host: u8) -> Fixed {
    Fixed {
        mac: [2, 0x69, 0x6b, 0, 0, mac].try_into().unwrap(),
        address: [192, 168, 110, host].into(),
    }
}

#[test]
fn finds_its_own_entry() {
    let conf = leaf();
    assert_eq!(
        check(&conf).unwrap().loopback,
        Ipv4Addr::new(192, 168, 98, 2)
    );
    let lost = refusal(|conf| conf.name = "leaf9".parse().unwrap());
    assert!(lost.starts_with("leaf9 is not among the nodes"), "{lost}");
}

#[test]
fn what_must_differ_differs() {
    for (spoiled, expected) in [
        (
            refusal(|c| c.nodes[0].name = c.nodes[1].name.clone()),
            "node name leaf1",
        ),
        (
            refusal(|c| c.nodes[0].asn = c.nodes[1].asn),
            "AS number 65502",
        ),
        (
            refusal(|c| c.nodes[0].loopback = c.nodes[1].loopback),
            "loopback 192.168.98.2",
        ),
        (
            refusal(|c| c.nics[0].mac = c.nics[1].mac),
            "MAC address 08:00:27:06:ac:05",
        ),
        (
            refusal(|c| c.nics[0].name = c.nics[1].name.clone()),
            "interface name ens5",
        ),
        (
            refusal(|c| c.vlan_networks[0].bridge = "dhcp0".parse().unwrap()),
            "interface name dhcp0",
        ),
        (
            refusal(|c| c.server_vlan = 11.try_into().unwrap()),
            "VLAN 11",
        ),
        (
            refusal(|c| c.neighbours.push(c.neighbours[0])),
            "neighbour 192.168.113.200",
        ),
        (
            refusal(|c| c.neighbour_ranges.push("192.168.113.9/29".parse().unwrap())),
            "prefix of neighbours 192.168.113.8/29",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.dns.push(dhcp.dns[0])),
            "DNS server 1.1.1.1",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.fixed = vec![fixed(3, 1)]),
            "address 192.168.110.1",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.fixed = vec![fixed(3, 10), fixed(4, 10)]),
            "address 192.168.110.10",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.fixed = vec![fixed(3, 10), fixed(3, 11)]),
            "MAC address 02:69:6b:00:00:03",
        ),
    ] {
        assert_eq!(
            spoiled,
            format!("{expected} is used twice: give each its own")
        );
    }
}

#[test]
fn addresses_lie_where_they_must() {
    for (spoiled, expected) in [
        (
            spoil_dhcp(|dhcp| dhcp.first = [192, 168, 111, 20].into()),
            "start of the DHCP range 192.168.111.20 is not a host's address in 192.168.110.0/24",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.last = [192, 168, 110, 255].into()),
            "end of the DHCP range 192.168.110.255 is not a host's address in 192.168.110.0/24",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.first = [192, 168, 110, 251].into()),
            "DHCP range 192.168.110.251 to 192.168.110.250 is empty: exchange the two",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.first = [192, 168, 110, 1].into()),
            "DHCP range contains the router's own address 192.168.110.1: leave it out",
        ),
        (
            spoil_dhcp(|dhcp| dhcp.address = "192.168.110.0/24".parse().unwrap()),
            "192.168.110.0/24 is not a host's address: use one between the network's and the \
             broadcast address",
        ),
        (
            refusal(|c| c.neighbours[0] = [192, 168, 113, 1].into()),
            "neighbour 192.168.113.1 is in no DHCP or VLAN network of this switch, or is the \
             switch itself",
        ),
        (
            refusal(|c| c.neighbour_ranges[0] = "192.168.114.8/29".parse().unwrap()),
            "the prefix of neighbours 192.168.114.8/29 is inside no DHCP or VLAN network of this \
             switch",
        ),
        (
            refusal(|c| {
                c.nics[0].link = Link::Outside {
                    address: "192.168.96.2/24".parse().unwrap(),
                    gateway: [192, 168, 97, 1].into(),
                };
            }),
            "gateway 192.168.97.1 is not a host's address in 192.168.96.0/24",
        ),
    ] {
        assert_eq!(spoiled, expected);
    }
}

#[test]
fn ports_fit_their_purpose() {
    let mixed = refusal(|c| c.nics[0].link = Link::Edge);
    assert!(
        mixed.starts_with("NIC ens4 leads to a switch, another one to a server"),
        "{mixed}"
    );
    let none = refusal(|c| c.nics.truncate(1));
    assert!(
        none.starts_with("DHCP or VLAN networks without a server port"),
        "{none}"
    );
    let small = refusal(|c| c.nics[0].mtu = 1279);
    assert!(
        small.starts_with("MTU 1279 of ens4 is too small"),
        "{small}"
    );
    let long = refusal(|c| c.nics[1].name = "abcdefghijklm".parse().unwrap());
    assert!(
        long.starts_with("sub-interface abcdefghijklm.11 is longer"),
        "{long}"
    );
}

#[test]
fn times_are_in_order() {
    let short = spoil_dhcp(|dhcp| dhcp.lease = 119);
    assert!(
        short.starts_with("lease of 119 s with a maximum of 7200 s"),
        "{short}"
    );
    let long = spoil_dhcp(|dhcp| dhcp.lease = 7201);
    assert!(
        long.starts_with("lease of 7201 s with a maximum of 7200 s"),
        "{long}"
    );
    for (keepalive, hold, connect, router_advertisement) in [
        (0, 16, 2, 2),
        (5, 14, 2, 2),
        (5, 16, 0, 2),
        (5, 16, 2, 0),
        (5, 16, 2, 1801),
    ] {
        let timers = Timers {
            keepalive,
            hold,
            connect,
            router_advertisement,
        };
        let refused = refusal(|conf| conf.timers = timers);
        assert!(refused.starts_with("BGP timers"), "{refused}");
    }
}

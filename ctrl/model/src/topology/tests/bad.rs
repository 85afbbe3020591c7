//! Bad configurations, each with the exact message it gives.

use crate::config;
use crate::topology::build;

/// What loading `file` (called `f.toml`) with `sets` and building say, if anything.
fn message(file: &str, sets: &[&str]) -> String {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    match config::parse("f.toml", file, &sets) {
        Err(error) => error.to_string(),
        Ok(config) => build(&config)
            .err()
            .map(|errors| errors.to_string())
            .unwrap_or_default(),
    }
}

#[track_caller]
fn bad(file: &str, says: &str) {
    assert_eq!(message(file, &[]), says, "\n{file}");
}

#[track_caller]
fn bad_set(sets: &[&str], says: &str) {
    assert_eq!(message("", sets), says, "\n{sets:?}");
}

#[test]
fn not_toml() {
    bad(
        "[topology\nracks = 3\n",
        "f.toml, line 1, column 10: this is not TOML (unclosed table, expected `]`); a line is KEY = VALUE or [TABLE], texts stand in quotes",
    );
    bad(
        "[topology]\nracks =\n",
        "f.toml, line 2, column 8: this is not TOML (string values must be quoted, expected literal string); a line is KEY = VALUE or [TABLE], texts stand in quotes",
    );
    bad(
        "owner = anna\n",
        "f.toml, line 1, column 9: this is not TOML (string values must be quoted, expected literal string); a line is KEY = VALUE or [TABLE], texts stand in quotes",
    );
    bad(
        "[topology]\nracks = 3\nracks = 4\n",
        "f.toml, line 3, column 1: this is not TOML (duplicate key); keep one of the two",
    );
    bad(
        "[vm]\n\n[vm]\n",
        "f.toml, line 3, column 2: this is not TOML (duplicate key); keep one of the two",
    );
}

#[test]
fn fixed_addresses_and_options_of_dhcp() {
    for (wrong, says) in [
        (
            "fixed = [\"rack1:u3\"]",
            "is not a position and its address",
        ),
        ("fixed = [\"rack9:u3=192.168.110.10\"]", "rack9:u3"),
        ("fixed = [\"leaf1:u3=192.168.110.10\"]", "leaf1:u3"),
        ("fixed = [\"rack1:u3:2=192.168.110.10\"]", "rack1:u3:2"),
        (
            "fixed = [\"rack2:u3=192.168.110.10\"]",
            "is no host's address in 192.168.111.0/24",
        ),
        (
            "fixed = [\"rack1:u3=192.168.110.255\"]",
            "is no host's address in 192.168.110.0/24",
        ),
        ("fixed = [\"rack1:u3=192.168.110.1\"]", "is the leaf's own"),
        (
            "fixed = [\"rack1:u3=192.168.110.9\", \"rack1:u4=192.168.110.9\"]",
            "stands here twice",
        ),
        (
            "options = [\"3,192.168.110.7\"]",
            "is not a valid DHCP option",
        ),
        ("options = [\"42\"]", "is not a valid DHCP option"),
    ] {
        let said = message(&format!("[dhcp]\n{wrong}\n"), &[]);
        assert!(said.contains(says), "{wrong}: {said}");
        assert!(said.starts_with("f.toml, line 2"), "{wrong}: {said}");
    }
}

#[test]
fn keys_that_are_not_there() {
    bad(
        "# five\n\n[topology]\nrack = 5\n",
        "f.toml, line 4: topology.rack: unknown key; did you mean topology.racks?",
    );
    bad(
        "racks = 5\n",
        "f.toml, line 1: racks: unknown key; did you mean topology.racks?",
    );
    bad(
        "[topologi]\nracks = 5\n",
        "f.toml, line 1: topologi: unknown key; did you mean [topology]?",
    );
    bad(
        "[vm]\ndisk = \"10G\"\n",
        "f.toml, line 2: vm.disk: unknown key; [vm] has memory, cpus, accel, warm, nic, cpu, uid",
    );
    bad(
        "colour = \"red\"\n",
        "f.toml, line 1: colour: unknown key; the file has owner, [topology], [names], [mac], [bgp], [dhcp], [vlan], [host], [vm], [vnc], [ipmi], [image], [ssh], [recorder], [impair], [[cable]]",
    );
    bad(
        "topology = 5\n",
        "f.toml, line 1: topology: 5 is not a table; write its keys below [topology]",
    );
    bad(
        "[[vlan]]\nfirst = 3\n",
        "f.toml, line 1: vlan: [{ first = 3 }] is not a table; write its keys below [vlan]",
    );
    bad(
        "[topology]\nracks.odd = 3\n",
        "f.toml, line 2: topology.racks: { odd = 3 } is not a whole number; it takes 1 to 255 racks",
    );
    bad(
        "[dhcp]\nlease = 600\ndmain = \"a\"\n[host]\nlnk = \"x\"\n",
        "f.toml, line 3: dhcp.dmain: unknown key; did you mean dhcp.domain?
f.toml, line 5: host.lnk: unknown key; did you mean host.link?",
    );
}

#[test]
fn wrong_types() {
    bad(
        "[topology]\nracks = \"three\"\n",
        r#"f.toml, line 2: topology.racks: "three" is not a whole number; it takes 1 to 255 racks"#,
    );
    bad(
        "[topology]\nspines = 2.5\n",
        "f.toml, line 2: topology.spines: 2.5 is not a whole number; it takes 1 to 255 spines",
    );
    bad(
        "[host]\nipv6_forwarding = \"yes\"\n",
        r#"f.toml, line 2: host.ipv6_forwarding: "yes" is neither true nor false; write one, without quotes"#,
    );
    bad(
        "[dhcp]\ndns = \"9.9.9.9\"\n",
        r#"f.toml, line 2: dhcp.dns: "9.9.9.9" is not a list; write it in brackets: ["9.9.9.9"]"#,
    );
    bad(
        "[dhcp]\ndns = [\"9.9.9.9\", 8]\n",
        r#"f.toml, line 2: dhcp.dns[1]: 8 is not a text; write one such as "192.168.96.2""#,
    );
    bad(
        "[host]\nlink = 5\n",
        r#"f.toml, line 2: host.link: 5 is not a text; write one such as "ikvm""#,
    );
    bad(
        "owner = true\n",
        r#"f.toml, line 1: owner: true is neither a name nor a number, such as "anna" or 1000"#,
    );
    bad(
        "[ssh]\nroot_password = \"\"\n",
        "f.toml, line 2: ssh.root_password: the text is empty; give a value or remove the key",
    );
}

#[test]
fn out_of_bounds() {
    bad(
        "[topology]\nracks = 0\n",
        "f.toml, line 2: topology.racks: 0 is out of bounds; it takes 1 to 255 racks",
    );
    bad(
        "[topology]\nnum_u = 2\n",
        "f.toml, line 2: topology.num_u: 2 is out of bounds; it takes 3 to 255 as the highest U",
    );
    bad(
        "[topology]\nspines = 256\n",
        "f.toml, line 2: topology.spines: 256 is out of bounds; it takes 1 to 255 spines",
    );
    bad(
        "[bgp]\nas_start = 4294967295\n",
        "f.toml, line 2: bgp.as_start: 4294967295 is out of bounds; it takes 1 to 4294967294 as AS number",
    );
    bad(
        "[bgp]\nserver_vlan = 4095\n",
        "f.toml, line 2: bgp.server_vlan: 4095 is out of bounds; it takes 1 to 4094 as VLAN",
    );
    bad(
        "[vlan]\nfirst = 0\n",
        "f.toml, line 2: vlan.first: 0 is out of bounds; it takes 1 to 4094 as VLAN",
    );
    bad(
        "[dhcp]\nlease = 60\n",
        "f.toml, line 2: dhcp.lease: 60 is out of bounds; it takes 120 to 4294967294 seconds",
    );
    bad(
        "[vm]\ncpus = 0\n",
        "f.toml, line 2: vm.cpus: 0 is out of bounds; it takes 1 to 255 virtual CPUs",
    );
    bad(
        "[vm]\nmemory = \"64M\"\n",
        "f.toml, line 2: vm.memory: 64M is too little for a switch; give it 96M or more",
    );
    bad(
        "[vm]\nmemory = 64\n",
        "f.toml, line 2: vm.memory: 64 is out of bounds; it takes 96 to 16777216 MiB",
    );
    bad(
        "[bgp]\nas_start = -1\n",
        "f.toml, line 2: bgp.as_start: -1 is out of bounds; it takes 1 to 4294967294 as AS number",
    );
}

#[test]
fn wrong_forms() {
    bad(
        "[host]\ninternet = \"192.168.96\"\n",
        r#"f.toml, line 2: host.internet: "192.168.96" is not an IPv4 address such as "192.168.96.2""#,
    );
    bad(
        "[topology]\nrange = \"192.168.96.0\"\n",
        r#"f.toml, line 2: topology.range: "192.168.96.0" is not an IPv4 address with its prefix, such as "192.168.98.0/24""#,
    );
    bad(
        "[topology]\nloopbacks = \"192.168.98.1/24\"\n",
        r#"f.toml, line 2: topology.loopbacks: 192.168.98.1/24 has bits set behind its prefix; write "192.168.98.0/24""#,
    );
    bad(
        "[dhcp]\nsubnets = [\n  \"192.168.110.0/24\",\n  \"192.168.111.0/31\",\n]\n",
        "f.toml, line 4: dhcp.subnets[1]: /31 is out of bounds; it takes /8 to /29",
    );
    bad(
        "[host]\naddress = \"192.168.96.0/24\"\n",
        r#"f.toml, line 2: host.address: "192.168.96.0/24" is not the address of a host in 192.168.96.0/24; choose another"#,
    );
    bad(
        "[mac]\nswitch = \"08:00:27:06\"\n",
        r#"f.toml, line 2: mac.switch: "08:00:27:06" is not 5 octets such as "02:00:00:00:00""#,
    );
    bad(
        "[mac]\nhost = \"01:00:5e:00:00\"\n",
        r#"f.toml, line 2: mac.host: "01:00:5e:00:00" begins multicast addresses; choose an even first octet, such as 02"#,
    );
    bad(
        "[host]\nsnat = \"none\"\n",
        r#"f.toml, line 2: host.snat: "none" is neither "masquerade" nor an IPv4 address"#,
    );
    bad(
        "[vm]\naccel = \"hvf\"\n",
        r#"f.toml, line 2: vm.accel: "hvf" is not one of "auto", "kvm", "tcg""#,
    );
    bad(
        "[vm]\nmemory = \"lots\"\n",
        r#"f.toml, line 2: vm.memory: "lots" is not an amount of memory such as "192M" or "1G""#,
    );
    bad(
        "[names]\nserver = \"vm/\"\n",
        r#"f.toml, line 2: names.server: "vm/" has '/' in it; names are made of letters, digits, "_" and "-""#,
    );
    bad(
        "[names]\nserver = \"1vm\"\n",
        r#"f.toml, line 2: names.server: "1vm" does not begin with a letter; put one in front"#,
    );
    bad(
        "[host]\nlink = \"lo\"\n",
        r#"f.toml, line 2: host.link: "lo" is a name of Linux's own; choose another"#,
    );
    bad(
        "[dhcp]\ndomain = \"my lab\"\n",
        r#"f.toml, line 2: dhcp.domain: "my lab" is not a valid domain: use labels of letters, digits and inner dashes, joined by dots"#,
    );
    bad(
        "[dhcp]\nboot_bios = \"a,b\"\n",
        r#"f.toml, line 2: dhcp.boot_bios: "a,b" is not a valid boot file: use 1 to 127 printable ASCII characters without blanks, commas, quotes, # or \, not beginning with tag: or net:"#,
    );
}

#[test]
fn names_that_collide() {
    bad(
        "[names]\nserver = \"datacentre-vm\"\n",
        r#"f.toml, line 2: names.server: the name "datacentre-vm1-10-1" has 19 characters, Linux allows 15; shorten it by 4"#,
    );
    bad(
        "[host]\nlink = \"a-link-to-the-fabric\"\n",
        r#"f.toml, line 2: host.link: the name "a-link-to-the-fabric" has 20 characters, Linux allows 15; shorten it by 5"#,
    );
    bad(
        "[names]\nspine_cable = \"ikst\"\n",
        r#"f.toml, line 2: names.spine_cable: the name "ikst12" is also what names.spine_leaf makes; give one of them another value"#,
    );
    bad(
        "[names]\nleaf_spine = \"x\"\nspine_leaf = \"x\"\n",
        r#"f.toml, line 2: names.leaf_spine: the name "x12" is also what names.spine_leaf makes; give one of them another value"#,
    );
    bad(
        "[host]\nlink = \"ikvm1-3-1\"\n",
        r#"f.toml, line 2: host.link: the name "ikvm1-3-1" is also what names.server makes; give one of them another value"#,
    );
}

#[test]
fn macs() {
    bad(
        "[mac]\nserver = \"08:00:27\"\nswitch = \"08:00:27:01:03\"\n[topology]\nracks = 5\n",
        "f.toml, line 2: mac.server: 08:00:27:01:04:01 would be the MAC of both rack1:u4:1 and leaf9:1; change the prefix",
    );
    bad(
        "[mac]\nhost = \"08:00:27:06:ad\"\n[topology]\nracks = 5\n",
        "f.toml, line 2: mac.host: 08:00:27:06:ad:01 would be the MAC of both host and leaf9:1; change the prefix",
    );
    bad(
        "[mac]\nswitch = \"08:00:27:ff:ff\"\n[topology]\nracks = 5\n",
        "f.toml, line 2: mac.switch: there are not enough MACs after 08:00:27:ff:ff before the next vendor's begin; choose a prefix with a lower fourth octet",
    );
}

#[test]
fn as_numbers() {
    bad(
        "[bgp]\nas_start = 4294967290\n",
        "f.toml, line 2: bgp.as_start: 9 AS numbers from 4294967290 on exceed 4294967294; start lower",
    );
    bad(
        "[bgp]\nas_start = 65530\n",
        "f.toml, line 2: bgp.as_start: leaf3 would get AS 65535, which is reserved (RFC 7300); start elsewhere, such as at 4200000000",
    );
    bad(
        "[bgp]\nas_start = 23450\n",
        "f.toml, line 2: bgp.as_start: leaf4 would get AS 23456, which is reserved (RFC 6793, AS_TRANS); start elsewhere, such as at 4200000000",
    );
}

#[test]
fn subnets() {
    bad(
        "[topology]\nloopbacks = \"192.168.110.0/24\"\n",
        "f.toml, line 2: topology.loopbacks: 192.168.110.0/24 overlaps 192.168.110.0/24 of dhcp.subnets[0]; choose subnets that share no address",
    );
    bad(
        "[dhcp]\nsubnets = [\"192.168.110.0/24\", \"192.168.110.128/25\"]\nlast = 100\n",
        "f.toml, line 2: dhcp.subnets[1]: 192.168.110.128/25 overlaps 192.168.110.0/24 of dhcp.subnets[0]; choose subnets that share no address",
    );
    bad(
        "[vlan]\nsubnets = [\"10.0.0.0/24\"]\n[bgp]\nvlan_peers = []\n",
        "f.toml, line 2: vlan.subnets[0]: 10.0.0.0/24 is not inside topology.range 192.168.96.0/19; move it there or widen the range",
    );
    bad(
        "[topology]\nrange = \"192.168.96.0/20\"\n",
        "f.toml, line 2: topology.range: 192.168.96.0/20 does not hold 192.168.112.0/24 (dhcp.subnets[2]), 192.168.113.0/24 (vlan.subnets[0]), 192.168.114.0/24 (vlan.subnets[1]), 192.168.115.0/24 (vlan.subnets[2]), 192.168.116.0/24 (vlan.subnets[3]), 192.168.117.0/24 (vlan.subnets[4]), 192.168.118.0/24 (vlan.subnets[5]); widen it, or move them into it",
    );
    bad(
        "[topology]\nracks = 13\n",
        "f.toml, line 2: topology.racks: no free /24 is left in topology.range 192.168.96.0/19 for the DHCP subnet of rack 13; widen the range, or list a subnet for each rack in dhcp.subnets",
    );
    bad(
        "[topology]\nloopbacks = \"192.168.98.0/29\"\n",
        "f.toml, line 2: topology.loopbacks: 192.168.98.0/29 has no room for the loopbacks of 9 switches; make it larger",
    );
    bad(
        "[host]\naddress = \"192.168.98.200/24\"\ninternet = \"192.168.98.201\"\n",
        "f.toml, line 2: host.address: 192.168.98.0/24 overlaps 192.168.98.0/24 of topology.loopbacks; choose subnets that share no address",
    );
}

#[test]
fn addresses() {
    bad(
        "[host]\ninternet = \"192.168.97.2\"\n",
        "f.toml, line 2: host.internet: 192.168.97.2 is not in 192.168.96.0/24, the subnet of host.address; choose another address of 192.168.96.0/24",
    );
    bad(
        "[host]\ninternet = \"192.168.96.1\"\n",
        "f.toml, line 2: host.internet: 192.168.96.1 is the host's own address (host.address); choose another address of 192.168.96.0/24",
    );
    bad(
        "[host]\nsnat = \"192.168.100.1\"\n",
        r#"f.toml, line 2: host.snat: 192.168.100.1 is inside the fabric's own range 192.168.96.0/19; choose an address that the outside can answer to, or "masquerade""#,
    );
    bad(
        "[bgp]\nvlan_peers = [\"192.168.113.200\", \"192.168.119.1\"]\n",
        "f.toml, line 2: bgp.vlan_peers[1]: 192.168.119.1 is in none of the VLAN networks; choose a host's address in a subnet of vlan.subnets, or remove it",
    );
    bad(
        "[bgp]\nvlan_peers = [\"192.168.112.8/29\"]\n",
        "f.toml, line 2: bgp.vlan_peers[0]: 192.168.112.8/29 is in none of the VLAN networks; choose a host's address in a subnet of vlan.subnets, or remove it",
    );
    bad(
        "[bgp]\nvlan_peers = [\"192.168.113.1\"]\n",
        "f.toml, line 2: bgp.vlan_peers[0]: 192.168.113.1 is leaf2's own address; choose a host's address in a subnet of vlan.subnets, or remove it",
    );
}

#[test]
fn dhcp_and_vlan_numbers() {
    bad(
        "[dhcp]\nfirst = 200\nlast = 100\n",
        "f.toml, line 3: dhcp.last: 100 is below dhcp.first = 200; change one of them",
    );
    bad(
        "[dhcp]\nlast = 300\n",
        "f.toml, line 2: dhcp.last: 192.168.110.0/24 has no host numbers 20 to 300, which dhcp.first and dhcp.last lease; use a larger subnet or lower numbers",
    );
    bad(
        "[dhcp]\nsubnets = [\"192.168.110.0/25\"]\n",
        "f.toml, line 2: dhcp.subnets[0]: 192.168.110.0/25 has no host numbers 20 to 250, which dhcp.first and dhcp.last lease; use a larger subnet or lower numbers",
    );
    bad(
        "[dhcp]\nlease = 9000\n",
        "f.toml, line 2: dhcp.lease: 9000 is above dhcp.max_lease = 7200; change one of them",
    );
    bad(
        "[dhcp]\nmax_lease = 300\n",
        "f.toml, line 2: dhcp.max_lease: 300 is below dhcp.lease = 600; change one of them",
    );
    bad(
        "[vlan]\nfirst = 4090\n",
        "f.toml, line 2: vlan.first: the networks from VLAN 4090 on reach VLAN 4095, the highest is 4094; start lower",
    );
    bad(
        "[bgp]\nserver_vlan = 12\n",
        "f.toml, line 2: bgp.server_vlan: VLAN 12 is also one of the VLAN networks, 11 to 16; choose another",
    );
}

#[test]
fn given_by_set() {
    bad_set(
        &["topology.racks"],
        "--set topology.racks: there is no value; write --set topology.racks=VALUE",
    );
    bad_set(
        &["topology.rack=5"],
        "--set topology.rack: unknown key; did you mean topology.racks?",
    );
    bad_set(
        &["topology=5"],
        "--set topology: this is a table; name one of its keys: racks, spines, num_u, range, loopbacks",
    );
    bad_set(
        &["topology.racks=many"],
        r#"--set topology.racks: "many" is not a whole number; it takes 1 to 255 racks"#,
    );
    bad_set(
        &["dhcp.dns=9.9.9.9"],
        r#"--set dhcp.dns: "9.9.9.9" is not a list; write it in brackets: ["9.9.9.9"]"#,
    );
    bad_set(
        &["vlan.first=4090"],
        "--set vlan.first: the networks from VLAN 4090 on reach VLAN 4095, the highest is 4094; start lower",
    );
    bad_set(
        &["topology.racks=5", "topology.racks=0"],
        "--set topology.racks: 0 is out of bounds; it takes 1 to 255 racks",
    );
    bad_set(
        &["topology.loopbacks=192.168.96.0/24"],
        "--set topology.loopbacks: 192.168.96.0/24 overlaps 192.168.96.0/24 of host.address; choose subnets that share no address",
    );
}

#[test]
fn a_boot_file_too_long_with_the_address_in_it() {
    let path = "x".repeat(113);
    bad(
        &format!(
            "[dhcp]\nboot_ipxe = \"{{next_server}}/{path}\"\nnext_server = \"192.168.100.200\"\n"
        ),
        &format!(
            "f.toml, line 2: dhcp.boot_ipxe: \"192.168.100.200/{path}\" is not a valid boot file: use 1 to 127 printable ASCII characters without blanks, commas, quotes, # or \\, not beginning with tag: or net:"
        ),
    );
}

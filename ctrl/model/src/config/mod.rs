//! The TOML file as written, with every default in place.
//!
//! [`Config`] is passive data: what a person may choose, in the tables and under the keys that
//! `example.toml` beside this file shows. Order of loading: defaults, then the file, then `--set`.
//! What the choices *mean together* (names, addresses, collisions) is
//! [`crate::topology::build`]'s work.

mod cable;
mod keys;
mod load;
mod place;
#[cfg(test)]
mod tests;
mod values;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::impairment::{Bytes, Percent};

pub use cable::CableKeys;
pub(crate) use keys::{distance, order, problems};
pub use load::{ConfigError, load, parse};
pub use place::{Origin, Place, Problem};
pub use values::{Accel, Listen, MacPrefix, Memory, Nic, Owner, Snat, ValueError};

/// A complete, commented file that says exactly what the defaults say.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Everything that can be chosen, with ikvswitch 1.0.4's values as defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// User (name or uid) who may use the API socket and plug VMs into the `ikvm…` taps.
    /// Default: none, which means `$SUDO_UID`, else root.
    pub owner: Option<Owner>,
    /// Size and address range of the datacenter.
    pub topology: Shape,
    /// Names of cables and taps.
    pub names: Names,
    /// MAC address prefixes.
    pub mac: Macs,
    /// AS numbers and peerings.
    pub bgp: Bgp,
    /// DHCP and PXE on the odd leaves.
    pub dhcp: Dhcp,
    /// VLAN networks on leaf2.
    pub vlan: Vlan,
    /// The host's end of the fabric.
    pub host: Host,
    /// The switches' virtual machines.
    pub vm: Vm,
    /// The switches' consoles by VNC.
    pub vnc: Vnc,
    /// The switches' BMCs.
    pub ipmi: Ipmi,
    /// The switch image.
    pub image: Image,
    /// How to log in to the switches.
    pub ssh: Ssh,
    /// The flight recorder.
    pub recorder: Recorder,
    /// What cables are like from the start, and cables of one's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cable: Vec<CableKeys>,
    /// Where each value was written, for messages about it.
    #[serde(skip)]
    pub origin: Origin,
}

impl Config {
    /// Where the value of `key` (such as `dhcp.subnets[1]`) was written.
    pub fn place(&self, key: &str) -> Place {
        self.origin.place(key)
    }

    /// Values that are out of their bounds; a [`Config`] from a file has none.
    pub fn problems(&self) -> Vec<Problem> {
        match toml::Table::try_from(self) {
            Ok(table) => keys::problems(&table),
            Err(error) => vec![Problem {
                key: "owner".into(),
                what: error.to_string(),
            }],
        }
    }
}

/// `[topology]`: size and address range of the datacenter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Racks of two leaves each, 1..=255 (the rack is one octet of a server's MAC). Default 3.
    pub racks: u16,
    /// Spines, 1..=255. Default 2.
    pub spines: u16,
    /// Highest server position of a rack, 3..=255; positions start at 3 (U1 and U2 are the
    /// leaves), so 23 gives 21 servers. ikvswitch: `NUM_U`. Default 23.
    pub num_u: u16,
    /// The virtual range: all other subnets lie in it, the host routes it to the fabric.
    /// ikvswitch: `HOST_VIRTUAL_SUBNET_*`. Default 192.168.96.0/19.
    pub range: Ipv4Net,
    /// Subnet of the loopbacks, one /32 per switch from its first address on, in the order
    /// internet, spines, leaves. Default 192.168.98.0/24.
    pub loopbacks: Ipv4Net,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            racks: 3,
            spines: 2,
            num_u: 23,
            range: net([192, 168, 96, 0], 19),
            loopbacks: net([192, 168, 98, 0], 24),
        }
    }
}

/// `[names]`: names of cables and taps, or their beginnings. A letter, then letters, digits, `_` and `-`;
/// with the number behind it a name has at most 15 characters (Linux `IFNAMSIZ`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    /// Cable host – internet. ikvswitch: `HOST_BRIDGE_NAME_PREFIX`. Default `ikhb`.
    pub host_cable: String,
    /// Tap of internet towards the host. ikvswitch: `HOST_VM_TAP_IFNAME_PREFIX`. Default `ikht`.
    pub internet_host: String,
    /// Cables internet – spine. ikvswitch: `INTERNET_TO_SPINE_BRIDGE_PREFIX`. Default `ikib`.
    pub internet_cable: String,
    /// Taps of internet towards the spines. ikvswitch: `INTERNET_TO_SPINE_TAP_IFNAME_PREFIX`.
    /// Default `ikin`.
    pub internet_spine: String,
    /// Taps of the spines towards internet. ikvswitch: `SPINE_TO_INTERNET_TAP_PREFIX`.
    /// Default `ikit`.
    pub spine_internet: String,
    /// Cables spine – leaf. ikvswitch: `SPINE_BRIDGE_PREFIX`. Default `iksb`.
    pub spine_cable: String,
    /// Taps of the spines towards the leaves. ikvswitch: `SPINE_VM_TAP_IFNAME_PREFIX`.
    /// Default `ikst`.
    pub spine_leaf: String,
    /// Taps of the leaves towards the spines. ikvswitch: `LEAF_TO_SPINE_TAP_PREFIX`.
    /// Default `iklt`.
    pub leaf_spine: String,
    /// Cables leaf – server. ikvswitch: `LEAF_TO_SERVER_BRIDGE_PREFIX`. Default `ikeb`.
    pub server_cable: String,
    /// Taps of the leaves towards the servers. ikvswitch: `LEAF_TO_SERVERS_TAP_PREFIX`.
    /// Default `ikls`.
    pub leaf_server: String,
    /// Taps of the servers, where a user's VM plugs in. ikvswitch: `HOST_TAP_NAME_PREFIX`.
    /// Default `ikvm`.
    pub server: String,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            host_cable: "ikhb".into(),
            internet_host: "ikht".into(),
            internet_cable: "ikib".into(),
            internet_spine: "ikin".into(),
            spine_internet: "ikit".into(),
            spine_cable: "iksb".into(),
            spine_leaf: "ikst".into(),
            leaf_spine: "iklt".into(),
            server_cable: "ikeb".into(),
            leaf_server: "ikls".into(),
            server: "ikvm".into(),
        }
    }
}

/// `[mac]`: MAC address prefixes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Macs {
    /// First five octets of the switches' NICs; a counter follows and continues into the fifth
    /// octet when it passes ff. ikvswitch: `GUEST_MAC_ADDRESS_PREFIX`. Default 08:00:27:06:ac.
    pub switch: MacPrefix<5>,
    /// First five octets of the host link. ikvswitch: `MAC_PREFIX`. Default 00:22:22:dd:ee.
    pub host: MacPrefix<5>,
    /// First three octets that `vm-args` gives a server's NICs; rack, U and NIC follow, one octet
    /// each. Default 02:69:6b (locally administered).
    pub server: MacPrefix<3>,
}

impl Default for Macs {
    fn default() -> Self {
        Self {
            switch: MacPrefix([0x08, 0x00, 0x27, 0x06, 0xac]),
            host: MacPrefix([0x00, 0x22, 0x22, 0xdd, 0xee]),
            server: MacPrefix([0x02, 0x69, 0x6b]),
        }
    }
}

/// `[bgp]`: AS numbers and peerings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bgp {
    /// AS number of internet, 1..=4294967294; spines and leaves follow in order. ikvswitch:
    /// `AS_START`. Default 65500.
    pub as_start: u32,
    /// VLAN on which leaves peer with servers, 1..=4094. ikvswitch: `LEAF_TO_VM_VLAN_NUM`.
    /// Default 10.
    pub server_vlan: u16,
    /// Addresses in the VLAN networks that leaf2 peers with as well. Default 192.168.113.200
    /// and .201.
    pub vlan_peers: Vec<Ipv4Addr>,
}

impl Default for Bgp {
    fn default() -> Self {
        Self {
            as_start: 65500,
            server_vlan: 10,
            vlan_peers: vec![
                Ipv4Addr::new(192, 168, 113, 200),
                Ipv4Addr::new(192, 168, 113, 201),
            ],
        }
    }
}

/// `[dhcp]`: DHCP and PXE on the odd leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dhcp {
    /// Subnets of the racks, in order, prefix /8 to /29; racks beyond the list get the free /24s
    /// after the VLAN networks. ikvswitch: `DHCPD_SUBNET_{1,2,3}`. Default 192.168.110.0/24 to
    /// 192.168.112.0/24.
    pub subnets: Vec<Ipv4Net>,
    /// First host number of a subnet that is leased, 2 or more (1 is the leaf). Default 20.
    pub first: u32,
    /// Last host number that is leased. Default 250.
    pub last: u32,
    /// Lease time in seconds, 120..=4294967294 (dnsmasq's bounds). Default 600.
    pub lease: u32,
    /// Longest lease a client may ask for, in seconds, at least `lease`. Default 7200.
    pub max_lease: u32,
    /// Domain handed to the clients. Default `example.com`.
    pub domain: String,
    /// DNS servers handed to the clients; none when empty. Default 1.1.1.1 and 9.9.9.9.
    pub dns: Vec<Ipv4Addr>,
    /// Boot server. ikvswitch: `DHCP_RELAY_DESTINATION`. Default 192.168.100.2.
    pub next_server: Ipv4Addr,
    /// Boot file of clients that already run iPXE; `{next_server}` stands for the address.
    /// Default `http://{next_server}/oci/ipxe.php`.
    pub boot_ipxe: String,
    /// Boot file of BIOS clients (architecture 0, RFC 4578). Default `lpxelinux.0`.
    pub boot_bios: String,
    /// Boot file of UEFI x64 clients (architectures 7 and 9). Default `shimx64.efi.signed`.
    pub boot_uefi: String,
    /// Boot file of all others. Default `pxelinux.0`.
    pub boot_other: String,
}

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            subnets: (110..=112)
                .map(|third| net([192, 168, third, 0], 24))
                .collect(),
            first: 20,
            last: 250,
            lease: 600,
            max_lease: 7200,
            domain: "example.com".into(),
            dns: vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(9, 9, 9, 9)],
            next_server: Ipv4Addr::new(192, 168, 100, 2),
            boot_ipxe: "http://{next_server}/oci/ipxe.php".into(),
            boot_bios: "lpxelinux.0".into(),
            boot_uefi: "shimx64.efi.signed".into(),
            boot_other: "pxelinux.0".into(),
        }
    }
}

/// `[vlan]`: VLAN networks on leaf2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vlan {
    /// VLAN of the first network, 1..=4094; the others follow one by one. ikvswitch:
    /// `VLAN_START`. Default 11.
    pub first: u16,
    /// Subnets of the networks, prefix /8 to /30; as many networks as subnets. ikvswitch:
    /// `VLAN_SUBNETS_NUM`, `VLAN_SBUNETS_START_IP`, `VLAN_SBUNET*_PREFIX`. Default
    /// 192.168.113.0/24 to 192.168.118.0/24.
    pub subnets: Vec<Ipv4Net>,
}

impl Default for Vlan {
    fn default() -> Self {
        Self {
            first: 11,
            subnets: (113..=118)
                .map(|third| net([192, 168, third, 0], 24))
                .collect(),
        }
    }
}

/// `[host]`: the host's end of the fabric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Name of the host link, at most 15 characters. ikvswitch: `HOST_DUMMYNET_IFNAME_PREFIX`.
    /// Default `ikhn`.
    pub link: String,
    /// Address of the host link with its prefix, /1 to /30. Default 192.168.96.1/24.
    pub address: Ipv4Net,
    /// Address of internet on the same link; the host routes the range there. Default
    /// 192.168.96.2.
    pub internet: Ipv4Addr,
    /// Source of traffic that leaves the range: `masquerade`, or an address of the host.
    /// ikvswitch: `MY_IP`. Default `masquerade`.
    pub snat: Snat,
    /// Whether to switch IPv6 forwarding on; the host then ignores router advertisements.
    /// Default false.
    pub ipv6_forwarding: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            link: "ikhn".into(),
            address: net([192, 168, 96, 1], 24),
            internet: Ipv4Addr::new(192, 168, 96, 2),
            snat: Snat::Masquerade,
            ipv6_forwarding: false,
        }
    }
}

/// `[vm]`: the switches' virtual machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vm {
    /// Memory of a switch: `192M`, `1G`, or a whole number of MiB; 96 MiB or more. Default 192M.
    pub memory: Memory,
    /// Virtual CPUs of a switch, 1..=255. Default 1.
    pub cpus: u16,
    /// `kvm`, `tcg`, or `auto`: KVM where it truly works, else TCG. Default `auto`.
    pub accel: Accel,
    /// `vhost-user`: cables end in the VM's memory; or `tap`: in a device on the host for each
    /// NIC. Default `vhost-user`.
    pub nic: Nic,
    /// QEMU's `-cpu` model. Default: none, which means `host` under KVM, `qemu64,+rdrand` under TCG.
    pub cpu: Option<String>,
    /// Under TCG: start switches from a saved state, one for each shape of VM, made when it is
    /// missing; false boots each. Default true.
    pub warm: bool,
    /// First of the uids that switches run as, one each in the order internet, spines, leaves;
    /// 1..=4294900000. Default 70000.
    pub uid: u32,
}

impl Vm {
    /// The uid and gid of a switch, by its place in the topology.
    pub fn uid_of(&self, switch: usize) -> u32 {
        self.uid + switch as u32
    }
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            memory: Memory::from_mib(192),
            cpus: 1,
            accel: Accel::Auto,
            nic: Nic::VhostUser,
            cpu: None,
            warm: true,
            uid: 70_000,
        }
    }
}

/// `[vnc]`: the switches' consoles by VNC. Whoever connects meets a login: only root, and only with
/// `ssh.root_password`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vnc {
    /// `off`; `unix`: a socket for each switch, for the owner alone; `tcp`: a display for each on
    /// 127.0.0.1, for whoever knows `password`. Default `off`.
    pub listen: Listen,
    /// First display of `tcp`, one each in the order internet, spines, leaves; its port is 5900
    /// more. 0..=58000. Default 80, which gives the default fabric's leaf6 port 5988, as
    /// ikvswitch has it.
    pub display: u16,
    /// What viewers of `tcp` must know: 1 to 8 characters (RFC 6143 section 7.2.2). Default:
    /// none, and so no `tcp`.
    pub password: Option<String>,
}

impl Default for Vnc {
    fn default() -> Self {
        Self {
            listen: Listen::Off,
            display: 80,
            password: None,
        }
    }
}

/// `[ipmi]`: a BMC for each switch VM, and a segment from which a VM switches them on and off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipmi {
    /// Whether there are any. Default false.
    pub enabled: bool,
    /// First UDP port, one each in the order internet, spines, leaves, on 127.0.0.1 and on
    /// `address`. 1024..=64000. Default 9080, as ikvswitch has it.
    pub port: u16,
    /// Name of the segment: of its cable, and of the host's device at that. ikvswitch:
    /// `HOST_IPMI_BRIDGE_NAME`. Default `bripmi`.
    pub link: String,
    /// The host's address on the segment with its prefix, /8 to /30; outside of the virtual range.
    /// ikvswitch: `HOST_IPMI_IP`. Default 192.168.200.1/24.
    pub address: Ipv4Net,
    /// The segment's other end, where a VM plugs in. ikvswitch: `VM_TAP_NIC`. Default `ikipmi`.
    pub tap: String,
    /// First of the uids that the BMCs run as, one each in the same order; none of the switches'
    /// own. 1..=4294900000. Default 71000.
    pub uid: u32,
}

impl Ipmi {
    /// The uid and gid of a switch's BMC, by the switch's place in the topology.
    pub fn uid_of(&self, switch: usize) -> u32 {
        self.uid + switch as u32
    }
}

impl Default for Ipmi {
    fn default() -> Self {
        Self {
            enabled: false,
            port: 9080,
            link: "bripmi".into(),
            address: net([192, 168, 200, 1], 24),
            tap: "ikipmi".into(),
            uid: 71_000,
        }
    }
}

/// `[image]`: the switch image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Image {
    /// Folder that caches built images. Default: none, which means `/var/cache/ikv-fabric` for
    /// root, else `$XDG_CACHE_HOME/ikv-fabric`.
    pub dir: Option<PathBuf>,
    /// Debian's code name. ikvswitch: `DEBIAN_RELEASE`. Default: none, which means the host's.
    pub release: Option<String>,
    /// Address of the Debian archive. ikvswitch: `DEBIAN_MIRROR`. Default: none, which means the
    /// host's apt sources.
    pub mirror: Option<String>,
    /// Address of the archive of security updates, which only counts beside `mirror`.
    /// ikvswitch: `DEBIAN_SECURITY_MIRROR`. Default: none, and so no such updates.
    pub security_mirror: Option<String>,
}

/// `[ssh]`: how to log in to the switches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ssh {
    /// Who may log in as root: files in the form of authorized_keys, or key lines. Default:
    /// none, which means the owner's `~/.ssh/authorized_keys` and public keys. The fabric's own
    /// key is always let in.
    pub authorized_keys: Vec<String>,
    /// Root's password in the switches. ikvswitch: `VM_ROOT_PASS`. Default: none, which locks
    /// password login.
    pub root_password: Option<String>,
    /// Folder of the fabric's own key pair. Default: none, which means `ssh` beside the API
    /// socket.
    pub key_dir: Option<PathBuf>,
}

/// `[recorder]`: the flight recorder, which keeps the last frames of every cable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recorder {
    /// Whether there is one. Default true.
    pub enabled: bool,
    /// Memory of all its rings together: `64MiB`; 1 MiB to 64 GiB. Default 64 MiB.
    pub memory: Bytes,
    /// Bytes of each frame that are kept, at most, 64..=65535. Default 256.
    pub snap: u32,
    /// Dumps by itself when a cable goes down. Default true.
    pub cable_down: bool,
    /// Dumps by itself when a BGP session is lost on the wire. Default true.
    pub bgp_down: bool,
    /// Dumps by itself when a frame matches this tcpdump expression. Default: none.
    #[serde(rename = "match")]
    pub matches: Option<String>,
    /// Dumps by itself when a lane drops this share of its frames. Default: none.
    pub drop_rate: Option<Percent>,
    /// Folder of what is dumped by itself. Default: none, which means beside the API socket.
    pub dir: Option<PathBuf>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            enabled: true,
            memory: Bytes(64 << 20),
            snap: 256,
            cable_down: true,
            bgp_down: true,
            matches: None,
            drop_rate: None,
            dir: None,
        }
    }
}

/// For the defaults of this module, whose prefixes are written out above.
const fn net(address: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = address;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

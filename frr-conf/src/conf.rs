//! The description of a switch: decisions only. What follows from them is derived in `render`.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use crate::names::{BootFile, DhcpOption, Domain, HostName, IfName, Mac, VlanId};

/// One switch, and what it must know of the other switches.
///
/// These fields determine the BGP peers, the announced prefixes, the bridges' ports and the VLAN
/// sub-interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchConf {
    /// Which of `nodes` this switch is.
    pub name: HostName,
    /// All switches of the fabric, this one included: /etc/hosts, and what servers may not
    /// announce.
    pub nodes: Vec<Node>,
    /// The network cards, in the order of the ports.
    pub nics: Vec<Nic>,
    /// VLAN on which a leaf peers with servers (ikvswitch: `LEAF_TO_VM_VLAN_NUM`, 10): the
    /// untagged port belongs to the DHCP bridge.
    pub server_vlan: VlanId,
    /// DHCP on the untagged server ports. They are bridged if and only if this is `Some`.
    #[serde(default)]
    pub dhcp: Option<Dhcp>,
    /// Networks that span all server ports, each tagged with its VLAN.
    #[serde(default)]
    pub vlan_networks: Vec<VlanNetwork>,
    /// Speakers inside `dhcp` or `vlan_networks` that this switch peers with by address
    /// (remote-as external), and the `gateway` of [`Link::Outside`], if the host may peer. The host
    /// must ask for that session, and does not get the default route that leads to it.
    #[serde(default)]
    pub neighbours: Vec<Ipv4Addr>,
    /// Prefixes inside `dhcp` or `vlan_networks`: this switch peers with every speaker there that
    /// asks it to, as with a server (peer group `leaf`). Their refused announcements are not logged:
    /// FRR logs by neighbour, and has these only while their sessions last.
    #[serde(default)]
    pub neighbour_ranges: Vec<Ipv4Net>,
    /// What a leaf takes from servers over BGP.
    #[serde(default)]
    pub from_servers: FromServers,
    /// Timers of the BGP sessions.
    #[serde(default)]
    pub timers: Timers,
}

impl SwitchConf {
    pub(crate) fn server_nics(&self) -> impl Iterator<Item = &Nic> + Clone {
        self.nics.iter().filter(|nic| nic.link == Link::Server)
    }
}

/// What every switch knows of a switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Host name, in /etc/hosts of all switches.
    pub name: HostName,
    /// AS number, of which each switch has its own.
    pub asn: NonZeroU32,
    /// Address on `lo` (/32), also the router-id.
    pub loopback: Ipv4Addr,
}

/// A network card of the switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The name that init gives it at boot.
    pub name: IfName,
    /// The address by which init finds it.
    pub mac: Mac,
    /// Bytes of payload a frame may carry, 1280 (RFC 8200 section 5) to 65535.
    pub mtu: u16,
    /// What is at the far end.
    pub link: Link,
}

/// What is at the far end of a network card's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Link {
    /// The host, and the world behind it: a fixed address and the default route, which the switch
    /// announces. BGP only if the gateway is one of `neighbours`.
    Outside {
        /// The switch's own address and prefix length.
        address: Ipv4Net,
        /// Next hop of the default route, inside `address`.
        gateway: Ipv4Addr,
    },
    /// A switch nearer to the outside (peer group `spine`).
    Core,
    /// A switch nearer to the servers (peer group `leaf`).
    Edge,
    /// A server (peer group `leaf`, on the server VLAN).
    Server,
}

/// The DHCP service (dnsmasq) and its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dhcp {
    /// Bridge of the untagged server ports, `dhcp0`.
    pub bridge: IfName,
    /// The switch's address there, which is the clients' router, and the prefix length.
    pub address: Ipv4Net,
    /// First address handed out.
    pub first: Ipv4Addr,
    /// Last address handed out.
    pub last: Ipv4Addr,
    /// Length of a lease in seconds when the client asks for none in particular: 120 (dnsmasq's
    /// minimum) or more. Default 600.
    #[serde(default = "Dhcp::default_lease")]
    pub lease: u32,
    /// The longest lease in seconds that a client may ask for. Default 7200.
    #[serde(default = "Dhcp::default_lease_max")]
    pub lease_max: u32,
    /// The clients' domain (option 15).
    pub domain: Domain,
    /// The clients' DNS servers (option 6).
    pub dns: Vec<Ipv4Addr>,
    /// The clients' TFTP server (`siaddr`).
    pub next_server: Ipv4Addr,
    /// The files that clients boot from it.
    pub boot: BootFiles,
    /// Further options that every client gets if it asks for them.
    #[serde(default)]
    pub options: Vec<DhcpOption>,
    /// Addresses of certain machines, inside `address`.
    #[serde(default)]
    pub fixed: Vec<Fixed>,
}

/// The address of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// The machine, by the NIC that asks.
    pub mac: Mac,
    /// What it always gets, and nobody else.
    pub address: Ipv4Addr,
}

impl Dhcp {
    /// ikvswitch's default-lease-time in seconds.
    pub const fn default_lease() -> u32 {
        600
    }

    /// ikvswitch's max-lease-time in seconds.
    pub const fn default_lease_max() -> u32 {
        7200
    }
}

/// Boot file by kind of client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootFiles {
    /// Clients that are iPXE, on any architecture: their user class is `iPXE`, alone or in a list
    /// (RFC 3004), or they send iPXE's own option 175.
    pub ipxe: BootFile,
    /// Clients of architecture 0 (RFC 4578 section 2.1).
    pub bios: BootFile,
    /// Clients of architecture 7 or 9: UEFI on x64.
    pub uefi: BootFile,
    /// Clients of architecture 11: UEFI on ARM64.
    pub arm64: BootFile,
    /// Clients of architecture 16, which boot over HTTP: UEFI on x64. A URL.
    pub http: BootFile,
    /// Clients of architecture 19, which boot over HTTP: UEFI on ARM64. A URL.
    pub http_arm64: BootFile,
    /// All other clients, unless they boot over HTTP.
    pub other: BootFile,
}

/// A network that spans all server ports in one VLAN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VlanNetwork {
    /// VLAN number of the frames on the server ports.
    pub vlan: VlanId,
    /// Bridge of the ports' sub-interfaces, `brvlan11`. The switch also peers with one server there
    /// whose address it does not know.
    pub bridge: IfName,
    /// The switch's address there and the prefix length. The switch announces the subnet.
    pub address: Ipv4Net,
}

/// What a leaf takes from servers over BGP. A server is whoever is plugged in, so that none may draw
/// the traffic of others: a leaf refuses prefixes shorter than /8 (IPv6: /16), the fabric's own
/// subnets and every part of them, and what a server learned from the fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FromServers {
    /// The fabric's own subnets. The loopbacks of `nodes` are refused in any case.
    pub own_subnets: Vec<Ipv4Net>,
    /// Prefixes that are taken in spite of that, each exactly as it is here: a border node announces
    /// the default route.
    pub allow: Vec<IpNet>,
    /// The most prefixes of each family that a leaf takes from one neighbour, at least 1. With one
    /// more it ends the session, and tries again a minute later.
    pub limit: u32,
}

impl Default for FromServers {
    fn default() -> Self {
        Self {
            own_subnets: Vec::new(),
            allow: Vec::new(),
            limit: 256,
        }
    }
}

/// Timers of the BGP sessions, in seconds.
///
/// A session is lost after `hold` seconds of silence. Nine emulated switches share few CPUs, and
/// all of them are busiest while they boot: the 9 s of FRR's datacenter profile are short for a
/// machine that waits for its CPU. The 180 s of the traditional profile would hide a dead cable
/// for minutes, as a VM does not see that the far end of its cable is gone. The default is
/// therefore three keepalives of 5 s and one second more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timers {
    /// Time between two keepalives, at least 1.
    pub keepalive: u16,
    /// Silence after which the neighbour counts as dead: at least 3 (RFC 4271 section 4.2)
    /// and three times `keepalive`.
    pub hold: u16,
    /// Time between two attempts to connect, at least 1.
    pub connect: u16,
    /// Time between two IPv6 router advertisements, by which neighbours without configured
    /// addresses find each other: 1 to 1800 (RFC 4861 section 6.2.1).
    pub router_advertisement: u16,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            keepalive: 5,
            hold: 16,
            connect: 2,
            router_advertisement: 2,
        }
    }
}

//! `[bgp]`, `[dhcp]`, `[vlan]`, `[host]`: what the switches and the host do at layer 3.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fixed::FixedAddress;
use super::forms::{BootFile, DhcpOption, Domain, HostInterface, InterfaceName, IpPrefix, Subnet};
use super::reach::{HostReach, Service};
use super::values::{Account, Snat, VlanPeer, net};

/// The table `[bgp]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bgp {
    /// AS number of internet; spines and leaves follow in order.
    #[schemars(range(min = 1, max = 4_294_967_294u32), extend("x-unit" = "as AS number"))]
    pub as_start: u32,
    /// VLAN on which leaves peer with servers.
    #[schemars(range(min = 1, max = 4094), extend("x-unit" = "as VLAN"))]
    pub server_vlan: u16,
    /// Addresses in the VLAN networks that leaf2 peers with as well, and prefixes, such as
    /// "192.168.113.8/29": it peers with every speaker there that asks it to.
    #[schemars(extend("x-live" = true))]
    pub vlan_peers: Vec<VlanPeer>,
    /// Prefixes that leaves take from servers although they refuse their like, each exactly as
    /// written: a border node announces "0.0.0.0/0".
    ///
    /// Without this, leaves refuse prefixes shorter than /8 (IPv6: /16), and the subnets of this file
    /// with all of their parts.
    #[schemars(with = "Vec<IpPrefix>")]
    pub server_allow: Vec<IpNet>,
    /// The most prefixes that a leaf takes from a server, of IPv4 and of IPv6 each. With one more the
    /// leaf ends the session with this server, and tries again a minute later.
    #[schemars(range(min = 1, max = 4_294_967_295u32), extend("x-unit" = "prefixes"))]
    pub server_limit: u32,
}

impl Default for Bgp {
    fn default() -> Self {
        Self {
            as_start: 65500,
            server_vlan: 10,
            vlan_peers: vec![
                Ipv4Addr::new(192, 168, 113, 200).into(),
                Ipv4Addr::new(192, 168, 113, 201).into(),
            ],
            server_allow: Vec::new(),
            server_limit: 256,
        }
    }
}

/// The table `[dhcp]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dhcp {
    /// Subnets of the racks, in order; further racks get the free /24s after the VLAN networks.
    #[schemars(with = "Vec<Subnet<29>>")]
    pub subnets: Vec<Ipv4Net>,
    /// First host number that is leased (1 is the leaf).
    #[schemars(range(min = 2, max = 16_777_213), extend("x-unit" = "as host number", "x-live" = true))]
    pub first: u32,
    /// Last host number that is leased.
    #[schemars(range(min = 2, max = 16_777_213), extend("x-unit" = "as host number", "x-live" = true))]
    pub last: u32,
    /// Lease time in seconds.
    ///
    /// The bounds are dnsmasq's.
    #[schemars(range(min = 120, max = 4_294_967_294u32), extend("x-unit" = "seconds", "x-live" = true))]
    pub lease: u32,
    /// The longest lease a client may ask for, in seconds: at least `lease`.
    #[schemars(range(min = 120, max = 4_294_967_294u32), extend("x-unit" = "seconds", "x-live" = true))]
    pub max_lease: u32,
    /// Domain for the clients.
    #[schemars(with = "Domain", extend("x-live" = true))]
    pub domain: String,
    /// DNS servers for the clients; an empty list offers none.
    #[schemars(extend("x-live" = true))]
    pub dns: Vec<Ipv4Addr>,
    /// Boot server.
    #[schemars(extend("x-live" = true))]
    pub next_server: Ipv4Addr,
    /// Boot file of clients that already run iPXE; here and below, {next_server} stands for the
    /// boot server's address.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_ipxe: String,
    /// Boot file of BIOS clients.
    ///
    /// Architecture 0 of RFC 4578.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_bios: String,
    /// Boot file of UEFI x64 clients.
    ///
    /// Architectures 7 and 9 of RFC 4578.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_uefi: String,
    /// Boot file of UEFI ARM64 clients.
    ///
    /// Architecture 11 of RFC 4578.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_arm64: String,
    /// URL of UEFI x64 clients that boot over HTTP.
    ///
    /// Architecture 16 of RFC 4578.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_http: String,
    /// URL of UEFI ARM64 clients that boot over HTTP.
    ///
    /// Architecture 19 of RFC 4578.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_http_arm64: String,
    /// Boot file of all other clients; those of other architectures that boot over HTTP get none.
    #[schemars(with = "BootFile", extend("x-live" = true))]
    pub boot_other: String,
    /// Further options for the clients, each as number, comma, values: "42,192.168.96.1".
    #[schemars(with = "Vec<DhcpOption>", extend("x-live" = true))]
    pub options: Vec<String>,
    /// Addresses of positions: "rack1:u3=192.168.110.10". The first NIC there gets it if it has the MAC
    /// address that `vm-args` prints for it.
    #[schemars(extend("x-live" = true))]
    pub fixed: Vec<FixedAddress>,
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
            boot_arm64: "shimaa64.efi.signed".into(),
            boot_http: "http://{next_server}/oci/shimx64.efi.signed".into(),
            boot_http_arm64: "http://{next_server}/oci/shimaa64.efi.signed".into(),
            boot_other: "pxelinux.0".into(),
            options: Vec::new(),
            fixed: Vec::new(),
        }
    }
}

/// The table `[vlan]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Vlan {
    /// VLAN of the first network; the others follow one by one.
    #[schemars(range(min = 1, max = 4094), extend("x-unit" = "as VLAN"))]
    pub first: u16,
    /// Subnets of the networks: one network for each.
    #[schemars(with = "Vec<Subnet<30>>")]
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

/// The table `[host]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Name of the host link, at most 15 characters.
    #[schemars(with = "InterfaceName")]
    pub link: String,
    /// Address of the host link with its prefix.
    #[schemars(with = "HostInterface")]
    pub address: Ipv4Net,
    /// Address of internet on the same link; the host routes the range there.
    pub internet: Ipv4Addr,
    /// Source of traffic that leaves the range: "masquerade", or an address of the host.
    pub snat: Snat,
    /// Whether to switch IPv6 forwarding on; the host then ignores router advertisements.
    pub ipv6_forwarding: bool,
    /// Queue pairs of a VM's tap. With 2 or more a QEMU has to open it with `queues=` (libvirt: `<driver
    /// queues=…>`) of at least 2, and `vm-args` prints that; with 1 none may.
    #[schemars(range(min = 1, max = 64), extend("x-unit" = "queue pairs"))]
    pub tap_queues: u16,
    /// Group (name or gid) whose members may plug VMs in, too, such as libvirt's QEMU: they open the sockets
    /// beside the taps, and the taps. The kernel then opens a tap for members alone: the owner has to
    /// be one (or root). They may not command the fabric.
    #[schemars(example = &"libvirt-qemu")]
    pub plug_group: Option<Account>,
    /// Services of the host that guests and switches reach, at each of its addresses, such as
    /// "tcp/22" or "udp/53". Besides these they reach nothing of the host: it answers their pings,
    /// and they its own connections.
    #[schemars(extend("x-live" = true))]
    pub allow: Vec<Service>,
    /// Neighbours of the host that reach into the fabric through it, as prefixes such as
    /// "10.0.0.0/8". Others get only answers.
    #[schemars(with = "Vec<IpPrefix>", extend("x-live" = true))]
    pub reachable_from: Vec<IpNet>,
    /// Whether the host filters nothing of all this: guests reach all of its services and send under
    /// any source address; its neighbours reach the fabric and, through the host, each other. The two keys
    /// above then have no effect.
    #[schemars(extend("x-live" = true))]
    pub open: bool,
}

impl Host {
    /// What the host lets through.
    pub fn reach(&self) -> HostReach {
        HostReach {
            open: self.open,
            allow: self.allow.clone(),
            reachable_from: self.reachable_from.clone(),
        }
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            link: "ikhn".into(),
            address: net([192, 168, 96, 1], 24),
            internet: Ipv4Addr::new(192, 168, 96, 2),
            snat: Snat::Masquerade,
            ipv6_forwarding: false,
            tap_queues: 1,
            plug_group: None,
            allow: Vec::new(),
            reachable_from: Vec::new(),
            open: false,
        }
    }
}

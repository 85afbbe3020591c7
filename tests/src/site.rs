//! A machine for a fabric to run on: a namespace with a route to another one, the outside.

use std::net::Ipv4Addr;

use crate::Netns;

/// The host's outside address, which SNAT must give to the switches' packets.
pub const HOST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// The outside's address. The outside has no route to the fabric's range.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// The bridge of the host's default route, as on a machine whose VMs share its LAN.
pub const LAN_BRIDGE: &str = "brlan";

/// The namespaces of a machine and of the outside.
#[derive(Debug)]
pub struct Site {
    /// The namespace where the fabric runs.
    pub host: Netns,
    /// The namespace where the host's default route leads.
    pub outside: Netns,
}

impl Site {
    /// Makes and connects both namespaces. The host's default route leads over a bridge, because
    /// Debian's /etc/qemu-ifup attaches the taps of a QEMU without `script=no` to such a bridge.
    pub fn new(label: &str) -> Self {
        let host = Netns::new(label);
        let outside = Netns::new(&format!("{label}-out"));
        host.ip(&format!(
            "link add lan0 type veth peer name wan0 netns {}",
            outside.name()
        ));
        // Without a MAC address of its own, a bridge takes that of a port, such as a tap.
        host.ip(&format!(
            "link add {LAN_BRIDGE} address 02:00:00:00:99:02 type bridge"
        ));
        for link in ["lan0", LAN_BRIDGE] {
            // Link-local addresses would appear at an unpredictable time.
            host.ip(&format!("link set {link} addrgenmode none"));
        }
        host.ip(&format!("link set lan0 master {LAN_BRIDGE} up"));
        host.ip(&format!("address add {HOST_OUTSIDE}/24 dev {LAN_BRIDGE}"));
        host.ip(&format!("link set {LAN_BRIDGE} up"));
        outside.ip(&format!("address add {OUTSIDE}/24 dev wan0"));
        outside.ip("link set wan0 up");
        host.ip(&format!("route add default via {OUTSIDE}"));
        Site { host, outside }
    }
}

//! The NICs of a server position, by any of its names: where a VM plugs in.

use super::{DhcpNetwork, End, EndOwner, Topology, UnknownName};
use crate::config::FixedAddress;
use crate::mac::Mac;

impl Topology {
    /// The NICs of a server with their MAC addresses: both of a position (`rack1:u3`), or the one
    /// that `place` names (`rack1:u3:1`, `ikvm1-3-1`). `ipmi` names the VM that manages the
    /// switches.
    ///
    /// # Errors
    /// [`UnknownName`], with similar names, if the topology has no such position.
    pub fn server_nics(&self, place: &str) -> Result<Vec<(&End, Mac)>, UnknownName> {
        let named = |end: &End| {
            let position = end.alias.rsplit_once(':').map(|(position, _)| position);
            end.tap == place || end.alias == place || position == Some(place)
        };
        let servers = || {
            self.ends().filter_map(|found| match found.end.owner {
                EndOwner::Server { rack, u, nic } => {
                    Some((found.end, self.server_mac(rack, u, nic)))
                }
                EndOwner::IpmiPort => Some((found.end, self.manager_mac())),
                EndOwner::Host | EndOwner::IpmiHost | EndOwner::Switch { .. } | EndOwner::Open => {
                    None
                }
            })
        };
        let mut found: Vec<_> = servers().filter(|(end, _)| named(end)).collect();
        // The last octet is the number of the NIC.
        found.sort_by_key(|(_, mac)| mac.0[5]);
        if found.is_empty() {
            let positions = servers().filter_map(|(end, _)| end.alias.rsplit_once(':'));
            let positions = positions.map(|(position, _)| position);
            let names = servers().flat_map(|(end, _)| [end.alias.as_str(), end.tap.as_str()]);
            let example = "rack1:u3, rack1:u3:1, ikvm1-3-1";
            return Err(UnknownName::new(
                "server",
                place,
                positions.chain(names),
                example,
            ));
        }
        Ok(found)
    }

    /// The DHCP network of the position's rack, and the MAC address of its NIC there: the first one.
    ///
    /// # Errors
    /// [`UnknownName`], with similar names, if the topology has no such position.
    pub(crate) fn fixed_nic(
        &self,
        fixed: &FixedAddress,
    ) -> Result<(&DhcpNetwork, Mac), UnknownName> {
        let nics = self.server_nics(&fixed.position)?;
        let of_rack = nics.iter().find_map(|(end, mac)| match end.owner {
            EndOwner::Server { rack, nic: 1, .. } => {
                let net = self.net.dhcp.iter().find(|net| net.rack == rack)?;
                Some((net, *mac))
            }
            _ => None,
        });
        of_rack.ok_or_else(|| {
            UnknownName::new("DHCP client", &fixed.position, [].into_iter(), "rack1:u3")
        })
    }
}

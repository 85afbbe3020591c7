//! Where a VM plugs in: the NICs of a position, by any of its names.

use super::{End, EndOwner, Topology, UnknownName};
use crate::mac::Mac;

impl Topology {
    /// The NICs of a server with their MAC addresses: both of a position (`rack1:u3`), or the one
    /// that `place` names (`rack1:u3:1`, `ikvm1-3-1`); `ipmi` for the VM that manages the switches.
    ///
    /// # Errors
    /// [`UnknownName`], with names that are near, if the topology has no such place.
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
        // The last octet is the NIC's number.
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
}

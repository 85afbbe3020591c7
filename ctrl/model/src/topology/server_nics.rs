//! The NICs of a server position, by any of its names: where a VM plugs in.

use super::{End, EndOwner, Topology, UnknownName};
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
}

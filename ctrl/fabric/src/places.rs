//! Where servers plug in, and who is there.

use super::Fabric;
use api::{Position, Positions};
use model::plugging::PlugKind;
use model::topology::{EndOwner, Side};

impl Fabric {
    pub(super) fn all_places(&self) -> Positions {
        let whole = self.whole();
        let mut places: Vec<_> = whole
            .topology
            .ends()
            .filter_map(|found| {
                let EndOwner::Server { rack, u, nic } = found.end.owner else {
                    return None;
                };
                let far = match found.side {
                    Side::A => &found.cable.b,
                    Side::B => &found.cable.a,
                };
                let EndOwner::Switch { switch, .. } = far.owner else {
                    return None;
                };
                let claims = self.plugged.of(&found.end.tap);
                let held = match (claims.front_end, claims.tap) {
                    (true, _) => Some(PlugKind::VhostUser),
                    (false, true) => Some(PlugKind::Tap),
                    (false, false) => None,
                };
                Some(Position {
                    name: found.end.tap.clone(),
                    rack,
                    u,
                    nic,
                    leaf: whole.topology.switches[switch].name.clone(),
                    mac: whole.topology.server_mac(rack, u, nic).to_string(),
                    socket: self.paths.vhost_socket(&found.end.tap),
                    cable: whole.cables.state(found.index),
                    held,
                })
            })
            .collect();
        places.sort_by_key(|place| (place.rack, place.u, place.nic));
        Positions {
            host: whole.topology.host.address.addr(),
            places,
        }
    }
}

//! Where servers plug in, and what is plugged in there.

use crate::live::Live;
use api::{Position, Positions};
use dataplane::Side;
use model::plugging::PlugKind;
use model::topology::EndOwner;

pub(crate) fn list(live: &Live) -> Positions {
    let state = live.state();
    let topology = &state.plan.topology;
    let mut positions: Vec<_> = topology
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
            let occupancy = live.occupancies.of(&found.end.tap);
            let held = match (occupancy.front_end, occupancy.tap) {
                (true, _) => Some(PlugKind::VhostUser),
                (false, true) => Some(PlugKind::Tap),
                (false, false) => None,
            };
            Some(Position {
                name: found.end.tap.clone(),
                rack,
                u,
                nic,
                leaf: topology.switches[switch].name.clone(),
                mac: topology.server_mac(rack, u, nic).to_string(),
                socket: live.paths.vhost_socket(&found.end.tap),
                cable: state.cables.state(found.index),
                held,
            })
        })
        .collect();
    positions.sort_by_key(|position| (position.rack, position.u, position.nic));
    Positions {
        host: topology.host.address.addr(),
        places: positions,
    }
}

//! Where servers plug in, what is plugged in there, and what the leaves have learned of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::learning::{LeafAnswers, Learning};
use crate::live::Live;
use crate::state::FabricState;
use api::{PluggedGuest, Position, Positions};
use dataplane::Side;
use model::plugging::PlugKind;
use model::topology::EndOwner;
use vm::learned::Learned;

/// A position, and the leaf's port at the other end of the cable.
struct Cabled {
    position: Position,
    leaf: usize,
    nic: String,
}

/// What the fabric itself knows.
pub(crate) fn list(live: &Live) -> Positions {
    let state = live.state();
    let positions = cabled(live, &state).into_iter();
    answer(&state, positions.map(|it| it.position).collect())
}

/// What the leaves have learned, too. Only those at which somebody is plugged in are asked.
pub(crate) async fn list_learned(live: &Live, learning: &Learning) -> Positions {
    let state = live.state();
    let cabled = cabled(live, &state);
    let taken = cabled.iter().filter(|it| it.position.held.is_some());
    let leaves: BTreeSet<_> = taken.map(|it| it.leaf).collect();
    if leaves.is_empty() {
        let positions = cabled.into_iter().map(|it| it.position);
        return answer(&state, positions.collect());
    }
    let answers = learning.of(&state, leaves).await;
    let positions = cabled.into_iter().map(|mut it| {
        if it.position.held.is_some() {
            it.position.guest = guest(&answers, &it);
        }
        it.position
    });
    let mut answer = answer(&state, positions.collect());
    answer.notes.clone_from(&answers.notes);
    answer
}

fn answer(state: &FabricState, places: Vec<Position>) -> Positions {
    Positions {
        host: state.plan.topology.host.address.addr(),
        places,
        notes: Vec::new(),
    }
}

fn guest(answers: &LeafAnswers, cabled: &Cabled) -> Option<PluggedGuest> {
    let of_leaf = answers.learned.get(&cabled.position.leaf)?;
    let Some(Learned {
        macs,
        addresses,
        name,
    }) = of_leaf.get(&cabled.nic)
    else {
        return Some(PluggedGuest::default());
    };
    Some(PluggedGuest {
        macs: macs.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().copied().collect(),
        name: name.clone(),
    })
}

/// Every position, ordered by rack, U and NIC.
fn cabled(live: &Live, state: &Arc<FabricState>) -> Vec<Cabled> {
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
            let EndOwner::Switch { switch, port } = far.owner else {
                return None;
            };
            let occupancy = live.occupancies.of(&found.end.tap);
            let held = match (occupancy.front_end, occupancy.tap) {
                (true, _) => Some(PlugKind::VhostUser),
                (false, true) => Some(PlugKind::Tap),
                (false, false) => None,
            };
            let leaf = &topology.switches[switch];
            let position = Position {
                name: found.end.tap.clone(),
                rack,
                u,
                nic,
                leaf: leaf.name.clone(),
                mac: topology.server_mac(rack, u, nic).to_string(),
                socket: live.paths.vhost_socket(&found.end.tap),
                cable: state.cables.state(found.index),
                held,
                since_ns: occupancy.since_ns,
                guest: None,
            };
            Some(Cabled {
                position,
                leaf: switch,
                nic: leaf.ports[port].nic.clone(),
            })
        })
        .collect();
    positions.sort_by_key(|Cabled { position, .. }| (position.rack, position.u, position.nic));
    positions
}

//! What happens at the cables while the fabric runs: front ends connect and leave, ports fail,
//! workers are overloaded.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::cables::event::CableEvent;
use crate::live::Live;
use crate::state::FabricState;
use api::EventKind;
use dataplane::Side;
use model::cable_change::CableState;

/// Intervals between two looks at the workers' load: while frames come, and while none do.
const BUSY: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(2);

/// Follows the cables until dropped. `waiting` is notified when they have events.
pub(crate) async fn follow(live: Arc<Live>, waiting: Arc<Notify>) {
    loop {
        waiting.notified().await;
        // An `apply` may replace the state between two events, so each event reads it again.
        while let (state, Some(event)) = next_event(&live).await {
            match event {
                CableEvent::Notice(notice) => live.notices.add(notice),
                CableEvent::Closed { index, notice } => {
                    let name = state.cables.name(index);
                    live.notices.say(EventKind::Carrier, name, notice);
                    closed(&live, &state, index).await;
                }
                CableEvent::FrontEnd {
                    index,
                    side,
                    plugged,
                } => front_end_changed(&live, &state, (index, side), plugged).await,
            }
        }
    }
}

async fn next_event(live: &Live) -> (Arc<FabricState>, Option<CableEvent>) {
    let panel = live.state().cables.panel().clone();
    // While an `apply` exchanges cables, the state does not contain the new ones yet, and their
    // events would be skipped.
    let _changing = panel.lock_changes().await;
    let state = live.state();
    let event = state.cables.event();
    (state, event)
}

/// Takes the carrier from the ends of a cable that a fault has closed.
async fn closed(live: &Live, state: &FabricState, index: usize) {
    let carrier = |up| Side::BOTH.map(|side| live.set_carrier(state, index, side, up));
    join_all(carrier(false)).await;
    let now = state.cables.condition(index);
    if now.closed.is_none() && now.state != CableState::Down {
        // The user has opened it meanwhile.
        join_all(carrier(true)).await;
    }
}

async fn front_end_changed(
    live: &Live,
    state: &FabricState,
    (index, side): (usize, Side),
    plugged: bool,
) {
    let end = state.plan.topology.cables[index].end(side);
    if !state.is_pluggable(end.owner) {
        // QEMU reports "link up" to its guest whenever it connects, also at an end without carrier.
        let without_carrier = state.cables.state(index) == CableState::Down
            || state.faces_a_switch_without_qemu(index, side);
        if plugged && without_carrier {
            live.set_carrier(state, index, side, false).await;
        }
        return;
    }
    let name = &end.tap;
    let (before, now) = live
        .occupancies
        .change(name, |occupancy| occupancy.front_end = plugged);
    state
        .cables
        .set_accepting(index, side, now.accepts_front_ends());
    live.events.plugging(end, before, now);
    if before.tap_is_idle() && !now.tap_is_idle() {
        live.notices.add(format!(
            "the vhost-user front end at {name} has left: its tap carries the cable now"
        ));
    } else if now.tap_is_idle() && !before.tap_is_idle() {
        live.notices.add(format!(
            "a vhost-user front end carries {name}: the program that holds the tap receives \
             nothing until the front end leaves"
        ));
    }
    live.notices.signal();
}

/// Evens out the workers' load until dropped. Looks less often while no frames come.
pub(crate) async fn balance(live: Arc<Live>) {
    let mut frames = 0;
    let mut pause = IDLE;
    let mut said = false;
    loop {
        sleep(pause).await;
        let state = live.state();
        let (now, ..) = state.cables.traffic();
        pause = if std::mem::replace(&mut frames, now) == now {
            IDLE
        } else {
            BUSY
        };
        match state.cables.panel().balance() {
            Ok(()) => said = false,
            // The worker may go on.
            Err(error) if !std::mem::replace(&mut said, true) => {
                let notice = format!("the workers' load is not evened out: {error}");
                live.notices.add(notice);
            }
            Err(_) => {}
        }
    }
}

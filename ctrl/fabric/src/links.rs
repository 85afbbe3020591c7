//! Follows the fabric's network devices while it runs: VMs open and close taps, and other programs
//! change devices.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::live::Live;
use crate::state::is_host;
use api::EventKind;
use host::watch::{LinkEvent, LinkWatch};

/// Devices that a change adds to the fabric or removes from it.
pub(crate) struct WatchedChange {
    pub(crate) added: Vec<String>,
    pub(crate) removed: Vec<String>,
}

/// Follows the devices until dropped. `apply` sends `changes`.
pub(crate) async fn follow(
    live: Arc<Live>,
    mut watch: LinkWatch,
    mut changes: mpsc::UnboundedReceiver<WatchedChange>,
) {
    let state = live.state();
    // Programs may have opened taps before this task started to listen.
    let ends = state.plan.topology.ends().map(|found| &found.end.tap);
    for tap in ends.filter(|tap| watch.plugged(tap)) {
        tap_changed(&live, tap, true);
    }
    // The loop must not keep an old state alive.
    drop(state);
    loop {
        let event = tokio::select! {
            // Changes first: `apply` reports the devices that it will remove before it removes
            // them. Otherwise their removal would be attributed to another program.
            biased;
            Some(WatchedChange { added, removed }) = changes.recv() => {
                watch.remove(&removed);
                match watch.add(added) {
                    Ok(()) => continue,
                    Err(error) => Err(error),
                }
            }
            event = watch.next() => event,
        };
        match event {
            Ok(event) => take_in(&live, event).await,
            Err(error) => {
                live.notices.add(format!(
                    "the devices are no longer watched: {error}; restart the fabric"
                ));
                return;
            }
        }
    }
}

async fn take_in(live: &Arc<Live>, event: LinkEvent) {
    let (device, notice) = match event {
        LinkEvent::Plugged { name } => return tap_changed(live, &name, true),
        LinkEvent::Unplugged { name } => return tap_changed(live, &name, false),
        LinkEvent::Enslaved {
            name,
            master,
            freed,
        } => {
            let outcome = match freed {
                Ok(()) => "taken off again".into(),
                Err(error) => {
                    format!("it could not be taken off: {error}; `ip link set {name} nomaster`")
                }
            };
            let notice = format!(
                "another program put {name} on {master} (QEMU without script=no does so): {outcome}"
            );
            (name, notice)
        }
        LinkEvent::WentDown { name, raised } => {
            let outcome = raised.map_or_else(|error| error, |()| "set up again".into());
            let notice = format!("another program set {name} down: {outcome}");
            (name, notice)
        }
        LinkEvent::MtuChanged { name, mtu } => {
            let notice = format!(
                "another program set the MTU of {name} to {mtu}: longer frames to it are dropped"
            );
            (name, notice)
        }
        LinkEvent::Renamed { name, to } => {
            let notice =
                format!("another program renamed {name} to {to}: `ip link set {to} name {name}`");
            (name, notice)
        }
        LinkEvent::Deleted { name } => {
            tap_changed(live, &name, false);
            let outcome = make_again(live, &name).await;
            let notice = format!("another program removed {name}: {outcome}");
            (name, notice)
        }
        // `make_again` has created it and reports that.
        LinkEvent::Created { .. } => return,
    };
    live.notices.say(EventKind::Host, &device, notice);
}

/// Records that a program has opened or closed a tap.
fn tap_changed(live: &Live, name: &str, held: bool) {
    let state = live.state();
    let Ok(found) = state.plan.topology.end(name) else {
        return;
    };
    if !state.is_pluggable(found.end.owner) {
        return;
    }
    let (before, now) = live.occupancies.change(name, |end| end.tap = held);
    live.events.plugging(found.end, before, now);
    let accepting = now.accepts_front_ends();
    state
        .cables
        .set_accepting(found.index, found.side, accepting);
    if now.tap_is_idle() && !before.tap_is_idle() {
        live.notices.add(format!(
            "another program opened {name}, but its vhost-user socket carries the cable: the tap \
             receives nothing until that front end leaves"
        ));
    }
    live.notices.signal();
}

/// Creates a device again that another program has removed. Returns the outcome as a clause for a
/// notice.
async fn make_again(live: &Arc<Live>, name: &str) -> String {
    let state = live.state();
    let Ok(found) = state.plan.topology.end(name) else {
        return "it does not belong to this fabric".into();
    };
    // With the device, the kernel has removed its addresses and routes, which only a start sets.
    if is_host(found.end.owner) {
        return "the host is cut off; restart the fabric".into();
    }
    let device = name.to_owned();
    let restored = live.host.change(move |host| host.restore_tap(&device));
    match restored.await {
        Err(_) => return "the fabric is ending".into(),
        Ok(Err(error)) => return error.to_string(),
        Ok(Ok(())) => {}
    }
    match state.cables.replug(found.index, found.side).await {
        Ok(()) => "made anew".into(),
        Err(error) => error.to_string(),
    }
}

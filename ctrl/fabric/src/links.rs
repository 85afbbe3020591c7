//! What happens to the fabric's network devices while it runs: VMs plug in, others meddle.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::cables::CableEvent;
use super::claims::Claims;
use super::whole::Whole;
use super::{Fabric, is_host};
use host::execute::{HostChangeError, HostChanges};
use host::watch::{LinkEvent, LinkWatch};
use model::cable_change::CableState;
use model::topology::Side;

/// Between two looks at the workers' load, while frames come and while none does.
const BUSY: Duration = Duration::from_millis(250);
const IDLE: Duration = Duration::from_secs(2);

/// The host's part, shared with the one who takes it away; `None` once that has begun.
pub(super) type SharedHostChanges = Arc<Mutex<Option<HostChanges>>>;

/// Devices that are ours from now on, and those that are not any more.
pub(super) struct Watched {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// Who is plugged in, by the name of the end. Ends that our own VMs hold are not counted.
#[derive(Default)]
pub(super) struct Plugged(Mutex<BTreeMap<String, Claims>>);

impl Plugged {
    pub(super) fn len(&self) -> usize {
        let claims = self.0.lock().expect("no holder of this lock can panic");
        claims.values().filter(|claims| claims.any()).count()
    }

    pub(super) fn of(&self, end: &str) -> Claims {
        let claims = self.0.lock().expect("no holder of this lock can panic");
        claims.get(end).copied().unwrap_or_default()
    }

    /// Nobody is at an end: it is gone.
    pub(super) fn forget(&self, end: &str) {
        let mut claims = self.0.lock().expect("no holder of this lock can panic");
        claims.remove(end);
    }

    /// Changes who is plugged in at an end; before and after.
    pub(super) fn change(&self, end: &str, change: impl FnOnce(&mut Claims)) -> (Claims, Claims) {
        let mut claims = self.0.lock().expect("no holder of this lock can panic");
        let claims = claims.entry(end.into()).or_default();
        let before = *claims;
        change(claims);
        (before, *claims)
    }
}

impl Fabric {
    /// Attends to the devices for ever.
    pub(super) async fn attend_links(
        self: Arc<Self>,
        (mut watch, mut changes): (LinkWatch, mpsc::UnboundedReceiver<Watched>),
        applied: SharedHostChanges,
    ) {
        let whole = self.whole();
        let ends = whole.topology.ends().map(|found| &found.end.tap);
        for tap in ends.filter(|tap| watch.plugged(tap)) {
            self.tap_changed(tap, true);
        }
        drop(whole);
        loop {
            let event = tokio::select! {
                // First: what is removed now is not meddling.
                biased;
                Some(Watched { added, removed }) = changes.recv() => {
                    watch.remove(&removed);
                    match watch.add(added) {
                        Ok(()) => continue,
                        Err(error) => Err(error),
                    }
                }
                event = watch.next() => event,
            };
            match event {
                Ok(event) => self.take_in(event, &applied),
                Err(error) => {
                    self.notice(format!(
                        "the devices are no longer watched: {error}; restart the fabric"
                    ));
                    return;
                }
            }
        }
    }

    fn take_in(&self, event: LinkEvent, applied: &SharedHostChanges) {
        match event {
            LinkEvent::Plugged { name } => self.tap_changed(&name, true),
            LinkEvent::Unplugged { name } => self.tap_changed(&name, false),
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
                self.notice(format!(
                    "somebody put {name} on {master} (QEMU without script=no does so): {outcome}"
                ));
            }
            LinkEvent::WentDown { name, raised } => {
                let outcome = raised.map_or_else(|error| error, |()| "set up again".into());
                self.notice(format!("somebody set {name} down: {outcome}"));
            }
            LinkEvent::MtuChanged { name, mtu } => {
                self.notice(format!(
                    "somebody set the MTU of {name} to {mtu}: longer frames to it are dropped"
                ));
            }
            LinkEvent::Renamed { name, to } => {
                self.notice(format!(
                    "somebody renamed {name} to {to}: `ip link set {to} name {name}`"
                ));
            }
            LinkEvent::Deleted { name } => {
                self.tap_changed(&name, false);
                let outcome = self.make_anew(&name, applied);
                self.notice(format!("somebody removed {name}: {outcome}"));
            }
            // Ours, made anew just before.
            LinkEvent::Created { .. } => {}
        }
    }

    /// Somebody has opened a tap, or closed it.
    fn tap_changed(&self, name: &str, held: bool) {
        let whole = self.whole();
        let Ok(found) = whole.topology.end(name) else {
            return;
        };
        if !whole.is_pluggable(found.end.owner) {
            return;
        }
        let (before, now) = self.plugged.change(name, |claims| claims.tap = held);
        whole
            .cables
            .set_gate(found.index, found.side, now.gate_is_open());
        if now.tap_is_idle() && !before.tap_is_idle() {
            self.notice(format!(
                "somebody opened {name}, but its vhost-user socket carries the cable: the tap \
                 gets nothing until that front end leaves"
            ));
        }
        self.news.notify_waiters();
    }

    /// Attends to what happens at the cables by itself, for ever.
    pub(super) async fn attend_cables(self: Arc<Self>, bell: Arc<Notify>) {
        loop {
            bell.notified().await;
            // Those that are gone meanwhile have nothing more to tell, so it is taken each time.
            while let (whole, Some(event)) = self.next_event() {
                match event {
                    CableEvent::Notice(notice) => self.notice(notice),
                    CableEvent::FrontEnd {
                        index,
                        side,
                        plugged,
                    } => self.front_end_changed(&whole, index, side, plugged).await,
                }
            }
        }
    }

    fn next_event(&self) -> (Arc<Whole>, Option<CableEvent>) {
        let whole = self.whole();
        let event = whole.cables.event();
        (whole, event)
    }

    async fn front_end_changed(&self, whole: &Whole, index: usize, side: Side, plugged: bool) {
        let cable = &whole.topology.cables[index];
        let end = cable.end(side);
        if !whole.is_pluggable(end.owner) {
            // QEMU says "link up" to its guest whenever it has connected.
            if plugged && whole.cables.state(index) == CableState::Down {
                self.set_carrier(whole, index, side, false).await;
            }
            return;
        }
        let name = &end.tap;
        let (before, now) = self
            .plugged
            .change(name, |claims| claims.front_end = plugged);
        whole.cables.set_gate(index, side, now.gate_is_open());
        if before.tap_is_idle() && !now.tap_is_idle() {
            self.notice(format!(
                "the vhost-user front end at {name} has left: its tap carries the cable now"
            ));
        } else if now.tap_is_idle() && !before.tap_is_idle() {
            self.notice(format!(
                "a vhost-user front end carries {name}: whoever opened the tap gets nothing until \
                 it leaves"
            ));
        }
        self.news.notify_waiters();
    }

    /// Evens out the workers' load, for ever. While no frame comes it hardly looks.
    pub(super) async fn balance(self: Arc<Self>) {
        let mut frames = 0;
        let mut pause = IDLE;
        loop {
            sleep(pause).await;
            let (now, ..) = self.traffic();
            pause = if std::mem::replace(&mut frames, now) == now {
                IDLE
            } else {
                BUSY
            };
            if let Err(error) = self.whole().cables.balance() {
                self.notice(format!("the workers' load is not evened out: {error}"));
                return;
            }
        }
    }

    fn make_anew(&self, name: &str, applied: &SharedHostChanges) -> String {
        let mut applied = applied.lock().expect("no holder of this lock can panic");
        let Some(applied) = applied.as_mut() else {
            return "the fabric is ending".into();
        };
        let whole = self.whole();
        let Ok(found) = whole.topology.end(name) else {
            return "it is none of this fabric".into();
        };
        if is_host(found.end.owner) {
            return "the host is cut off; restart the fabric".into();
        }
        if let Err(error) = applied.restore_tap(name) {
            return error.to_string();
        }
        match whole.cables.replug(found.index, found.side) {
            Ok(()) => "made anew".into(),
            Err(error) => error.to_string(),
        }
    }
}

/// Before a file is made, so that it is removed at the end, come what may.
pub(super) fn write_down(applied: &SharedHostChanges, path: &Path) -> Result<(), HostChangeError> {
    let mut applied = applied.lock().expect("no holder of this lock can panic");
    applied
        .as_mut()
        .map_or(Ok(()), |applied| applied.will_create(path))
}

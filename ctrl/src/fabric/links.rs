//! What happens to the fabric's network devices while it runs: VMs plug in, others meddle.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::Fabric;
use crate::apply::{Applied, ApplyError};
use crate::host::watch::{LinkEvent, LinkWatch};
use crate::topology::EndOwner;

/// The host's part, shared with the one who takes it away; `None` once that has begun.
pub(super) type SharedApplied = Arc<Mutex<Option<Applied>>>;

/// Devices of server ends that somebody holds.
#[derive(Default)]
pub(super) struct Plugged(Mutex<BTreeSet<String>>);

impl Plugged {
    pub(super) fn len(&self) -> usize {
        self.set().len()
    }

    fn set(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().expect("no holder of this lock can panic")
    }
}

impl Fabric {
    /// Attends to the devices for ever.
    pub(super) async fn attend_links(
        self: Arc<Self>,
        mut watch: LinkWatch,
        applied: SharedApplied,
    ) {
        let servers = self
            .topology
            .ends()
            .filter(|found| matches!(found.end.owner, EndOwner::Server { .. }));
        for found in servers {
            if watch.plugged(&found.end.tap) {
                self.plugged.set().insert(found.end.tap.clone());
            }
        }
        loop {
            match watch.next().await {
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

    fn take_in(&self, event: LinkEvent, applied: &SharedApplied) {
        match event {
            LinkEvent::Plugged { name } => self.set_plugged(&name, true),
            LinkEvent::Unplugged { name } => self.set_plugged(&name, false),
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
                self.set_plugged(&name, false);
                let outcome = self.make_anew(&name, applied);
                self.notice(format!("somebody removed {name}: {outcome}"));
            }
            // Ours, made anew just before.
            LinkEvent::Created { .. } => {}
        }
    }

    fn set_plugged(&self, name: &str, plugged: bool) {
        let is_server = self
            .topology
            .end(name)
            .is_ok_and(|found| matches!(found.end.owner, EndOwner::Server { .. }));
        if is_server {
            let mut set = self.plugged.set();
            if plugged {
                set.insert(name.into())
            } else {
                set.remove(name)
            };
            self.news.notify_waiters();
        }
    }

    fn make_anew(&self, name: &str, applied: &SharedApplied) -> String {
        let mut applied = applied.lock().expect("no holder of this lock can panic");
        let Some(applied) = applied.as_mut() else {
            return "the fabric is ending".into();
        };
        let Ok(found) = self.topology.end(name) else {
            return "it is none of this fabric".into();
        };
        if found.end.owner == EndOwner::Host {
            return "the host is cut off; restart the fabric".into();
        }
        if let Err(error) = applied.restore_tap(name) {
            return error.to_string();
        }
        match self.cables.replug(found.index, found.side) {
            Ok(()) => "made anew".into(),
            Err(error) => error.to_string(),
        }
    }
}

/// Before a file is made, so that it is removed at the end, come what may.
pub(super) fn write_down(applied: &SharedApplied, path: &Path) -> Result<(), ApplyError> {
    let mut applied = applied.lock().expect("no holder of this lock can panic");
    applied
        .as_mut()
        .map_or(Ok(()), |applied| applied.will_create(path))
}

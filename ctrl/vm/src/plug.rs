//! Network cards that come and go while the guest runs.
//!
//! A NIC comes into a slot of its own behind a PCI bridge, of which ACPI tells the guest, and leaves
//! once the guest has let go of it. Only the last NICs of [`VmSpec::nics`] do so: the others keep their numbers.
//! What can be done is decided by [`plan`], pure; [`carry_out`] does it through the monitor.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::launch::OpenTap;
use super::process::Seen;
use super::qemu::{BRIDGE, BRIDGE_SLOTS, Place, nic_id, nic_places, socket_path};
use super::qmp::{Qmp, QmpError};
use super::spec::{NicBackend, VmSpec};

/// Time for a monitor command, the first exchange with a vhost-user back end included.
const COMMAND: Duration = Duration::from_secs(5);

/// Time for the guest to let go of a NIC. Idle it takes milliseconds.
const LET_GO: Duration = Duration::from_secs(5);

/// Why a running VM cannot become what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotPlug {
    /// There is no guest that could take part.
    #[error("it is not running")]
    NotRunning,
    /// Something else than NICs.
    #[error("a running QEMU keeps its {0}")]
    Machine(&'static str),
    /// A NIC in the middle.
    #[error("its network card {0} is another one: only the last ones can come and go")]
    Nic(usize),
    /// The card's PCI slot holds others too.
    #[error("its network card {0} shares a slot with others, which would leave with it")]
    Shared(usize),
    /// The bridge is full.
    #[error("it has no free slot for network card {0}: it takes 31 while it runs")]
    Full(usize),
    /// The guest's memory is not shared.
    #[error("it was started without a vhost-user card, so its memory cannot be shared")]
    Memory,
}

/// Why NICs could not be exchanged. What was done until then stays: start the VM again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// It was not tried.
    #[error(transparent)]
    Cannot(#[from] CannotPlug),
    /// QEMU.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// Nobody listens where QEMU would wait for somebody, its guest standing still.
    #[error("network card {index}: no vhost-user socket at {}", .path.display())]
    NoSocket {
        /// Which NIC.
        index: usize,
        /// Where its socket should be.
        path: PathBuf,
    },
    /// A tap.
    #[error("network card {index}: tap {name}: {error}")]
    Tap {
        /// Which NIC.
        index: usize,
        /// The tap.
        name: String,
        /// The system's words.
        error: io::Error,
    },
    /// The guest is busy, or does not want to.
    #[error("the guest did not let go of network card {0} within {LET_GO:?}")]
    Kept(usize),
    /// The supervisor has been stopped.
    #[error("the fabric is being taken down")]
    Stopped,
}

/// What a running QEMU consists of.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) spec: VmSpec,
    /// Where each NIC is.
    pub(super) places: Vec<Where>,
    /// The number that the folder of the NICs' sockets has in QEMU.
    pub(super) folder: Option<RawFd>,
}

/// Where a NIC of a running QEMU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// It was there from the start.
    Start(Place),
    /// It came later, into this slot of the bridge.
    Later(usize),
}

impl Where {
    /// Of the NICs that are there from the start.
    pub(super) fn at_start(count: usize) -> Vec<Self> {
        nic_places(count).into_iter().map(Where::Start).collect()
    }

    fn can_leave(self) -> bool {
        !matches!(self, Where::Start(Place { shared: true, .. }))
    }
}

/// The present QEMU's, for callers from outside.
pub(super) type SharedShape = Arc<Mutex<Option<Shape>>>;

pub(super) fn lock(shape: &SharedShape) -> std::sync::MutexGuard<'_, Option<Shape>> {
    shape.lock().expect("no holder of this lock can panic")
}

/// What is to be done to the NICs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many leave, the last one first.
    leave: usize,
    /// The slots of the bridge for those that come after the rest.
    come: Vec<usize>,
}

/// Decides whether a running VM can become `new`.
pub(super) fn plan(now: &Shape, new: &VmSpec) -> Result<Plan, CannotPlug> {
    let old = &now.spec;
    for (what, same) in [
        ("memory", old.memory_mib == new.memory_mib),
        ("CPUs", (old.vcpus, &old.cpu) == (new.vcpus, &new.cpu)),
        ("accelerator", old.accel == new.accel),
        ("user", old.uid == new.uid),
        (
            "image",
            (&old.image, &old.cmdline) == (&new.image, &new.cmdline),
        ),
        ("display", old.display == new.display),
        ("BMC", old.bmc == new.bmc),
    ] {
        if !same {
            return Err(CannotPlug::Machine(what));
        }
    }
    let pairs = old.nics.iter().zip(&new.nics);
    if let Some(index) = pairs.clone().position(|(old, new)| old != new) {
        return Err(CannotPlug::Nic(index));
    }
    let kept = pairs.len();
    if let Some(index) = (kept..old.nics.len()).find(|index| !now.places[*index].can_leave()) {
        return Err(CannotPlug::Shared(index));
    }
    let shares_memory = now.folder.is_some();
    if !shares_memory && (new.nics[kept..].iter()).any(|nic| nic.backend == NicBackend::VhostUser) {
        return Err(CannotPlug::Memory);
    }
    let taken = |slot| now.places[..kept].contains(&Where::Later(slot));
    let mut free = BRIDGE_SLOTS.filter(|slot| !taken(*slot));
    let come = (kept..new.nics.len()).map(|index| free.next().ok_or(CannotPlug::Full(index)));
    Ok(Plan {
        leave: old.nics.len() - kept,
        come: come.collect::<Result<_, _>>()?,
    })
}

/// Brings a running QEMU to `new`. `shape` tells at every moment what it consists of.
pub(super) async fn carry_out(
    shape: &SharedShape,
    new: &VmSpec,
    monitor: &Qmp,
    seen: watch::Receiver<Seen>,
    open_tap: &OpenTap,
) -> Result<(), PlugError> {
    let now = lock(shape).clone().ok_or(CannotPlug::NotRunning)?;
    let plan = plan(&now, new)?;
    let kept = now.spec.nics.len() - plan.leave;
    for index in (kept..now.spec.nics.len()).rev() {
        remove(monitor, index, seen.clone()).await?;
        if let Some(shape) = &mut *lock(shape) {
            shape.spec.nics.pop();
            shape.places.pop();
        }
    }
    for (index, slot) in (kept..).zip(plan.come) {
        add(monitor, new, index, slot, now.folder, open_tap).await?;
        if let Some(shape) = &mut *lock(shape) {
            shape.spec.nics.push(new.nics[index].clone());
            shape.places.push(Where::Later(slot));
        }
    }
    Ok(())
}

async fn add(
    monitor: &Qmp,
    spec: &VmSpec,
    index: usize,
    slot: usize,
    folder: Option<RawFd>,
    open_tap: &OpenTap,
) -> Result<(), PlugError> {
    let nic = &spec.nics[index];
    let mut device = json!({
        "driver": "virtio-net-pci",
        "id": nic_id(index),
        "netdev": format!("net{index}"),
        "mac": nic.mac.to_string(),
        "disable-legacy": "on",
        "romfile": "",
        "bus": BRIDGE,
        "addr": format!("{slot:02x}.0"),
    });
    let netdev = match &nic.backend {
        NicBackend::VhostUser => {
            if !(spec.nic_socket(index).symlink_metadata())
                .is_ok_and(|found| found.file_type().is_socket())
            {
                let path = spec.nic_socket(index);
                return Err(PlugError::NoSocket { index, path });
            }
            let chardev = chardev(index, folder.ok_or(CannotPlug::Memory)?);
            monitor
                .execute("chardev-add", Some(chardev), COMMAND)
                .await?;
            if !spec.accel.vhost_user_vectors().is_empty() {
                device["vectors"] = 0.into();
            }
            json!({"type": "vhost-user", "id": format!("net{index}"), "chardev": format!("cable{index}")})
        }
        NicBackend::Nobody { .. } => return Err(CannotPlug::Nic(index).into()),
        NicBackend::Tap { name } => {
            let tap = open_tap(name).map_err(|error| PlugError::Tap {
                index,
                name: name.clone(),
                error,
            })?;
            let known_as = format!("tap{index}");
            monitor.hand_over(&known_as, tap.as_fd(), COMMAND).await?;
            json!({"type": "tap", "id": format!("net{index}"), "fd": known_as})
        }
    };
    monitor.execute("netdev_add", Some(netdev), COMMAND).await?;
    monitor.execute("device_add", Some(device), COMMAND).await?;
    Ok(())
}

fn chardev(index: usize, folder: RawFd) -> Value {
    let address = json!({"type": "unix", "data": {"path": socket_path(folder, index)}});
    json!({
        "id": format!("cable{index}"),
        "backend": {"type": "socket", "data": {"addr": address, "server": false, "reconnect": 1}},
    })
}

async fn remove(
    monitor: &Qmp,
    index: usize,
    mut seen: watch::Receiver<Seen>,
) -> Result<(), PlugError> {
    let before = seen.borrow().deletions(index);
    let device = json!({"id": nic_id(index)});
    monitor.execute("device_del", Some(device), COMMAND).await?;
    let gone = seen.wait_for(|seen| seen.deletions(index) > before);
    match timeout(LET_GO, gone).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(QmpError::Closed.into()),
        Err(_) => return Err(PlugError::Kept(index)),
    }
    let netdev = json!({"id": format!("net{index}")});
    monitor.execute("netdev_del", Some(netdev), COMMAND).await?;
    // QEMU 7.2 takes it away with the netdev; a tap has none.
    let chardev = json!({"id": format!("cable{index}")});
    let _ = monitor
        .execute("chardev-remove", Some(chardev), COMMAND)
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::spec::example;
    use super::*;
    use proptest::prelude::*;

    fn shape(nics: usize) -> Shape {
        Shape {
            spec: example(nics),
            places: Where::at_start(nics),
            folder: None,
        }
    }

    #[test]
    fn a_rack_comes_and_goes() {
        let mut seven = shape(7);
        let come = plan(&seven, &example(9)).unwrap();
        assert_eq!((come.leave, come.come), (0, vec![1, 2]));
        assert_eq!(plan(&seven, &example(5)).unwrap().leave, 2);
        assert_eq!(plan(&seven, &example(7)).unwrap().leave, 0);
        // One that went has left its slot to the next.
        seven.spec = example(8);
        seven.places.push(Where::Later(2));
        assert_eq!(plan(&seven, &example(10)).unwrap().come, vec![1, 3]);
    }

    #[test]
    fn says_why_not() {
        let words = |now: &Shape, new: &VmSpec| plan(now, new).unwrap_err().to_string();
        let memory = VmSpec {
            memory_mib: 1,
            ..example(3)
        };
        assert!(words(&shape(3), &memory).contains("keeps its memory"));
        let mut other = example(3);
        other.nics[1].mac.0[0] = 2;
        assert!(words(&shape(3), &other).contains("network card 1 is another one"));
        assert!(words(&shape(40), &example(39)).contains("card 39 shares a slot"));
        assert!(words(&shape(14), &example(46)).contains("no free slot for network card 45"));
        let mut shared = example(4);
        shared.nics[3].backend = NicBackend::VhostUser;
        assert!(words(&shape(3), &shared).contains("memory cannot be shared"));
    }

    proptest! {
        /// Whatever comes and goes, each NIC keeps its place, which is nobody else's.
        #[test]
        fn nobody_is_put_where_somebody_is(first in 0..60_usize, steps in proptest::collection::vec(0..60_usize, 0..12)) {
            let mut now = shape(first);
            for count in steps {
                let Ok(plan) = plan(&now, &example(count)) else { continue };
                now.places.truncate(now.places.len() - plan.leave);
                now.places.extend(plan.come.into_iter().map(Where::Later));
                now.spec = example(count);
                prop_assert_eq!(now.places.len(), count);
                for (index, place) in now.places.iter().enumerate() {
                    prop_assert!(!now.places[..index].contains(place));
                    if let Where::Later(slot) = place {
                        prop_assert!(BRIDGE_SLOTS.contains(slot));
                    }
                }
            }
        }
    }
}

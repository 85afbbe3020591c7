//! Network cards that come and go while the guest runs.
//!
//! A NIC is plugged into a slot of its own behind a PCI bridge; ACPI informs the guest. It is unplugged
//! once the guest has released it. Only the last NICs of [`VmSpec::nics`] can be exchanged, because the
//! others keep their numbers. [`plan`] is pure and decides what to do; [`execute`] does it through the
//! monitor.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::live::{self, LiveSpec, NicSlot, SharedLiveSpec};
use crate::qemu::{BRIDGE, BRIDGE_SLOTS, nic_id, socket_path};
use crate::qmp::{Qmp, QmpError};
use crate::reports::Reports;
use crate::spec::{NicBackend, VmSpec};
use crate::taps::OpenTap;

/// Time for a monitor command, the first exchange with a vhost-user back end included.
const COMMAND: Duration = Duration::from_secs(5);

/// Time for the guest to release a NIC. An idle guest takes milliseconds.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Why a running VM cannot be changed to its new specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CannotPlug {
    /// The guest does not run, so it cannot take part.
    #[error("it is not running")]
    NotRunning,
    /// Something other than the NICs differs, named here.
    #[error("a running QEMU keeps its {0}")]
    Machine(&'static str),
    /// A NIC before the last ones differs.
    #[error("its network card {0} is another one: only the last ones can be exchanged")]
    Nic(usize),
    /// The card's PCI slot holds others too.
    #[error("its network card {0} shares a slot with others, which would be unplugged with it")]
    Shared(usize),
    /// All slots of the bridge are taken.
    #[error("it has no free slot for network card {0}: it takes 31 while it runs")]
    Full(usize),
    /// The guest's memory is not shared with the fabric.
    #[error("it was started without a vhost-user card, so its memory cannot be shared")]
    Memory,
}

/// Why NICs could not be exchanged. Those exchanged before the failure stay exchanged: start the VM
/// again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlugError {
    /// Nothing was attempted.
    #[error(transparent)]
    Cannot(#[from] CannotPlug),
    /// QEMU refused, or did not answer.
    #[error(transparent)]
    Monitor(#[from] QmpError),
    /// The socket does not exist. QEMU would wait for it with its guest stopped.
    #[error("network card {index}: no vhost-user socket at {}", .path.display())]
    NoSocket {
        /// Index of the NIC.
        index: usize,
        /// The path of its socket.
        path: PathBuf,
    },
    /// The tap could not be opened.
    #[error("network card {index}: tap {name}: {error}")]
    Tap {
        /// Index of the NIC.
        index: usize,
        /// The tap's name.
        name: String,
        /// The system's reason.
        error: io::Error,
    },
    /// The guest did not release the NIC in time.
    #[error("the guest did not release network card {0} within {RELEASE_LIMIT:?}")]
    Kept(usize),
    /// The supervisor has been stopped.
    #[error("the fabric is being taken down")]
    Stopped,
}

/// Which NICs to exchange.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PlugPlan {
    /// How many to unplug, from the last one on.
    remove: usize,
    /// The bridge's slots for the NICs to plug in after the kept ones.
    add: Vec<usize>,
}

/// Decides how a running VM can become `new`.
///
/// # Errors
/// Why it cannot.
pub(crate) fn plan(live: &LiveSpec, new: &VmSpec) -> Result<PlugPlan, CannotPlug> {
    let old = &live.spec;
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
    if let Some(index) = (kept..old.nics.len()).find(|index| !live.slots[*index].can_leave()) {
        return Err(CannotPlug::Shared(index));
    }
    if live.nic_folder.is_none()
        && (new.nics[kept..].iter()).any(|nic| nic.backend == NicBackend::VhostUser)
    {
        return Err(CannotPlug::Memory);
    }
    let taken = |slot| live.slots[..kept].contains(&NicSlot::OnBridge(slot));
    let mut free = BRIDGE_SLOTS.filter(|slot| !taken(*slot));
    let add = (kept..new.nics.len()).map(|index| free.next().ok_or(CannotPlug::Full(index)));
    Ok(PlugPlan {
        remove: old.nics.len() - kept,
        add: add.collect::<Result<_, _>>()?,
    })
}

/// Changes a running QEMU to `new`. `live` describes the QEMU correctly at every moment in between.
///
/// # Errors
/// See [`PlugError`].
pub(crate) async fn execute(
    live: &SharedLiveSpec,
    new: &VmSpec,
    monitor: &Qmp,
    reports: watch::Receiver<Reports>,
    open_tap: &OpenTap,
) -> Result<(), PlugError> {
    let before = live::lock(live).clone().ok_or(CannotPlug::NotRunning)?;
    let plan = plan(&before, new)?;
    let kept = before.spec.nics.len() - plan.remove;
    // From the last on: a NIC's index is part of its ids in QEMU.
    for index in (kept..before.spec.nics.len()).rev() {
        remove(monitor, index, reports.clone()).await?;
        if let Some(live) = &mut *live::lock(live) {
            live.spec.nics.pop();
            live.slots.pop();
        }
    }
    for (index, slot) in (kept..).zip(plan.add) {
        add(monitor, new, index, slot, before.nic_folder, open_tap).await?;
        if let Some(live) = &mut *live::lock(live) {
            live.spec.nics.push(new.nics[index].clone());
            live.slots.push(NicSlot::OnBridge(slot));
        }
    }
    Ok(())
}

/// Plugs NIC `index` of `spec` into a slot of the bridge.
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
                // See Accel::vhost_user_vectors().
                device["vectors"] = 0.into();
            }
            json!({"type": "vhost-user", "id": format!("net{index}"), "chardev": format!("cable{index}")})
        }
        NicBackend::Unconnected { .. } => return Err(CannotPlug::Nic(index).into()),
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
    // In this order: the device names the netdev, which names the chardev or the tap.
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

/// Unplugs NIC `index`, and waits until the guest has released it.
async fn remove(
    monitor: &Qmp,
    index: usize,
    mut reports: watch::Receiver<Reports>,
) -> Result<(), PlugError> {
    let before = reports.borrow().deletions(index);
    let device = json!({"id": nic_id(index)});
    monitor.execute("device_del", Some(device), COMMAND).await?;
    let gone = reports.wait_for(|reports| reports.deletions(index) > before);
    match timeout(RELEASE_LIMIT, gone).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(QmpError::Closed.into()),
        Err(_) => return Err(PlugError::Kept(index)),
    }
    let netdev = json!({"id": format!("net{index}")});
    monitor.execute("netdev_del", Some(netdev), COMMAND).await?;
    // Fails where there is none: QEMU 7.2 removes it with the netdev, and a tap has none.
    let chardev = json!({"id": format!("cable{index}")});
    let _ = monitor
        .execute("chardev-remove", Some(chardev), COMMAND)
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;
    use proptest::prelude::*;

    fn live(nics: usize) -> LiveSpec {
        LiveSpec {
            spec: example(nics),
            slots: NicSlot::at_start(nics),
            nic_folder: None,
        }
    }

    #[test]
    fn a_rack_comes_and_goes() {
        let mut seven = live(7);
        let more = plan(&seven, &example(9)).unwrap();
        assert_eq!((more.remove, more.add), (0, vec![1, 2]));
        assert_eq!(plan(&seven, &example(5)).unwrap().remove, 2);
        assert_eq!(plan(&seven, &example(7)).unwrap().remove, 0);
        // The slot of an unplugged NIC is used again.
        seven.spec = example(8);
        seven.slots.push(NicSlot::OnBridge(2));
        assert_eq!(plan(&seven, &example(10)).unwrap().add, vec![1, 3]);
    }

    #[test]
    fn says_why_not() {
        let words = |live: &LiveSpec, new: &VmSpec| plan(live, new).unwrap_err().to_string();
        let memory = VmSpec {
            memory_mib: 1,
            ..example(3)
        };
        assert!(words(&live(3), &memory).contains("keeps its memory"));
        let mut other = example(3);
        other.nics[1].mac.0[0] = 2;
        assert!(words(&live(3), &other).contains("network card 1 is another one"));
        assert!(words(&live(40), &example(39)).contains("card 39 shares a slot"));
        assert!(words(&live(14), &example(46)).contains("no free slot for network card 45"));
        let mut shared = example(4);
        shared.nics[3].backend = NicBackend::VhostUser;
        assert!(words(&live(3), &shared).contains("memory cannot be shared"));
    }

    proptest! {
        /// Through any sequence of changes each NIC keeps its slot, and no two share one.
        #[test]
        fn each_nic_keeps_a_slot_of_its_own(first in 0..60_usize, steps in proptest::collection::vec(0..60_usize, 0..12)) {
            let mut now = live(first);
            for count in steps {
                let Ok(plan) = plan(&now, &example(count)) else { continue };
                now.slots.truncate(now.slots.len() - plan.remove);
                now.slots.extend(plan.add.into_iter().map(NicSlot::OnBridge));
                now.spec = example(count);
                prop_assert_eq!(now.slots.len(), count);
                for (index, slot) in now.slots.iter().enumerate() {
                    prop_assert!(!now.slots[..index].contains(slot));
                    if let NicSlot::OnBridge(slot) = slot {
                        prop_assert!(BRIDGE_SLOTS.contains(slot));
                    }
                }
            }
        }
    }
}

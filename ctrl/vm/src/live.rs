//! What a running QEMU consists of, which may differ from what the VM is to become.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::qemu::{PciAddress, nic_addresses};
use crate::spec::VmSpec;

/// A running QEMU's machine.
#[derive(Debug, Clone)]
pub(crate) struct LiveSpec {
    pub(crate) spec: VmSpec,
    /// Where each NIC of `spec` is.
    pub(crate) slots: Vec<NicSlot>,
    /// The descriptor by which this QEMU reaches the folder of the NICs' sockets. `None` if it was
    /// started without a vhost-user NIC: then its memory is not shared either.
    pub(crate) nic_folder: Option<RawFd>,
}

/// Where a NIC of a running QEMU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NicSlot {
    /// On the first PCI bus, since QEMU's start.
    FromStart(PciAddress),
    /// Plugged in later, into this slot of the bridge.
    OnBridge(usize),
}

impl NicSlot {
    /// Of the NICs that a QEMU starts with, in their order.
    pub(crate) fn at_start(count: usize) -> Vec<Self> {
        let addresses = nic_addresses(count).into_iter();
        addresses.map(Self::FromStart).collect()
    }

    /// Whether the NIC can be unplugged: a slot leaves as a whole.
    pub(crate) fn can_leave(self) -> bool {
        !matches!(self, Self::FromStart(PciAddress { shared: true, .. }))
    }
}

/// The present QEMU's machine, for the supervisor and the handle; `None` without a QEMU.
pub(crate) type SharedLiveSpec = Arc<Mutex<Option<LiveSpec>>>;

pub(crate) fn lock(live: &SharedLiveSpec) -> MutexGuard<'_, Option<LiveSpec>> {
    live.lock().expect("no holder of this lock can panic")
}

//! What a QEMU has reported by itself.

use std::collections::BTreeMap;

use crate::qemu::{AGENT_ID, nic_index};
use crate::qmp::Event;

/// The sum of a QEMU's events. A state instead of a queue: a flood of events takes no memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reports {
    /// The guest has powered itself off.
    pub(crate) guest_shutdown: bool,
    /// The guest agent has its port open.
    pub(crate) agent_open: bool,
    /// How often the guest was reset.
    pub(crate) resets: u64,
    /// How often each NIC was unplugged; a NIC that never was is missing.
    deleted: BTreeMap<usize, u64>,
}

impl Reports {
    pub(crate) fn add(&mut self, event: Event) {
        match event {
            Event::Shutdown { guest } => self.guest_shutdown = guest,
            Event::Reset => self.resets += 1,
            Event::Port { id, open } if id == AGENT_ID => self.agent_open = open,
            Event::Deleted { id } => {
                if let Some(index) = nic_index(&id) {
                    *self.deleted.entry(index).or_default() += 1;
                }
            }
            Event::Port { .. } | Event::Other(_) => {}
        }
    }

    /// How often NIC `index` was unplugged.
    pub(crate) fn deletions(&self, index: usize) -> u64 {
        self.deleted.get(&index).copied().unwrap_or_default()
    }
}

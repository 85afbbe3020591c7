//! The state of one ring, as the front end has set it so far: [`Ring`].

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::port::vhost_user::{QueueSpec, VringBase};

/// Where the three parts of a ring begin, as addresses in the front end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
}

/// One ring. Its messages may come in any order; it runs once it has all it needs, was started
/// (by its kick descriptor) and is enabled. While it runs, its port has the descriptors and the
/// base is out of date.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    pub(crate) size: u32,
    pub(crate) addresses: Option<RingAddresses>,
    pub(crate) base: Option<u32>,
    pub(crate) kick: Option<File>,
    pub(crate) call: Option<File>,
    /// Kept because the protocol has it. On an error we end the session instead of signalling it.
    pub(crate) error: Option<File>,
    pub(crate) started: bool,
    pub(crate) enabled: bool,
    resumed: bool,
}

impl Ring {
    /// Stops it, as GET_VRING_BASE does. The front end sends another kick descriptor to start
    /// it again.
    pub(crate) fn stop(&mut self) {
        self.started = false;
        self.resumed = false;
        self.kick = None;
    }

    /// Whether it can run. `always_enabled`: PROTOCOL_FEATURES was not agreed on.
    pub(crate) fn runs(&self, always_enabled: bool) -> bool {
        let ready = self.size != 0 && self.addresses.is_some();
        ready && self.started && (self.enabled || always_enabled)
    }

    /// Where it begins or has stopped. A packed ring begins with its wrap counter set (virtio 1.2,
    /// 2.8.1), and every buffer that was taken is used by the time a ring stops: so the used half is
    /// the same as the available one, even if the front end gives another (DPDK leaves it out).
    pub(crate) fn base(&self, packed: bool) -> u32 {
        if packed {
            let half = self.base.unwrap_or(1 << 15) & 0xffff;
            half | half << 16
        } else {
            self.base.unwrap_or(0)
        }
    }

    /// Hands its eventfds to a port. `None` when it has no addresses.
    pub(crate) fn lend(&mut self, index: u16, packed: bool) -> Option<QueueSpec> {
        let addresses = self.addresses?;
        Some(QueueSpec {
            index,
            size: self.size.try_into().unwrap_or(u16::MAX),
            descriptors: addresses.descriptors,
            driver: addresses.driver,
            device: addresses.device,
            base: VringBase(self.base(packed)),
            kick: self.kick.take(),
            call: self.call.take(),
            resumed: self.resumed,
        })
    }

    /// Takes back what [`Ring::lend`] gave.
    pub(crate) fn take_back(&mut self, queue: QueueSpec) {
        self.base = Some(queue.base.0);
        self.kick = queue.kick;
        self.call = queue.call;
        self.resumed = queue.resumed;
    }
}

/// The descriptor as an eventfd. `None` when it is not one: a worker signals it, and must not wait for
/// the reader of a pipe or a socket. Whether it blocks is not asked: the front end may change that at
/// any time, so no thread of ours reads it or writes to it.
pub(crate) fn eventfd(file: OwnedFd) -> Option<File> {
    is_eventfd(&file).then(|| file.into())
}

/// Whether it is an eventfd. This query never waits.
pub(crate) fn is_eventfd(file: impl AsFd) -> bool {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    // A path begins with a slash: only the kernel makes a name like this one.
    std::fs::read_link(link).is_ok_and(|name| name.as_os_str() == "anon_inode:[eventfd]")
}

//! One end of a cable: [`Port`] receives frames and sends them.

mod memory;
mod packet;
mod tap;
pub mod vhost_user;

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::frame::Burst;
use crate::frame::Offloads;
use crate::stats::Losses;

#[cfg(test)]
pub(crate) use memory::Fault;
pub use memory::{Memory, MemoryHost, memory, memory_taking};
pub use packet::Packet;
pub use tap::Tap;
pub use vhost_user::VhostUser;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device does not exist.
    #[error(
        "network device `{name}` does not exist in this network namespace; `ip link show` lists those that do"
    )]
    NoSuchDevice {
        /// The name that was asked for.
        name: String,
    },
    /// The kernel's TUN driver is unavailable.
    #[error(
        "cannot open port `{name}`: TUN driver unavailable: /dev/net/tun: {source}; `modprobe tun` loads it"
    )]
    NoTun {
        /// The name that was asked for.
        name: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel refused one step of opening it.
    #[error("cannot open port `{name}`: {action}: {source}")]
    Refused {
        /// The name that was asked for.
        name: String,
        /// The step, as an infinitive: `open`, `set its offloads`.
        action: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// One end of a cable. An enum instead of a trait object: the frame path calls it directly.
#[derive(Debug)]
pub enum Port {
    /// A tap whose descriptor the fabric holds: the network device is the endpoint.
    Tap(Tap),
    /// An existing network device, such as a tap that QEMU opened.
    Packet(Packet),
    /// The rings of a vhost-user front end: a VM, or a DPDK program.
    VhostUser(Box<VhostUser>),
    /// The other half is a [`MemoryHost`] in this process.
    Memory(Memory),
}

impl Port {
    /// Receives the frames that wait, up to a burst, and does not wait for more. Frames that were
    /// lost on the way in are counted in `drops`. `Ok(true)` when more may wait.
    /// The frames may lie in buffers that stay taken until [`Port::release`].
    ///
    /// # Errors
    /// When the port has failed: it will not deliver frames again.
    #[inline]
    pub(crate) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> io::Result<bool> {
        match self {
            Port::VhostUser(port) => Ok(port.receive(burst, drops)),
            Port::Tap(port) => port.receive(burst, drops),
            Port::Packet(port) => port.receive(burst, drops),
            Port::Memory(port) => Ok(port.receive(burst, drops)),
        }
    }

    /// Gives back the buffers of the frames that were received. Their segments are invalid then.
    #[inline]
    pub(crate) fn release(&mut self) {
        if let Port::VhostUser(port) = self {
            port.release();
        }
    }

    /// What the receiver agreed to take as it is.
    #[inline]
    pub(crate) fn takes(&mut self) -> Offloads {
        match self {
            Port::VhostUser(port) => port.takes(),
            Port::Packet(port) => port.takes(),
            Port::Memory(port) => port.takes(),
            Port::Tap(port) => port.takes(),
        }
    }

    /// Sends every frame of the burst from `from` on, in order, or counts why not in
    /// `drops`. Returns the first frame that was not handled: the end of the burst, or a
    /// frame that the port turned out not to take, so that [`Port::takes`] has changed.
    #[inline]
    pub(crate) fn send(&mut self, burst: &Burst, from: usize, drops: &mut Losses) -> usize {
        match self {
            Port::VhostUser(port) => port.send(burst, from, drops),
            Port::Packet(port) => return port.send(burst, from, drops),
            Port::Tap(port) => return port.send(burst, from, drops),
            Port::Memory(port) => port.send(burst, from, drops),
        }
        burst.len()
    }

    /// Drops the frames that came while another port carried the cable.
    pub(crate) fn discard(&mut self) {
        if let Port::Packet(port) = self {
            port.discard();
        }
    }

    /// Whether looking for frames, and each frame, is a system call or a share of one.
    #[inline]
    pub(crate) fn needs_syscall(&self) -> bool {
        matches!(self, Port::Tap(_) | Port::Packet(_))
    }

    /// Asks for a wake-up when frames come. `true` when frames came before that took effect.
    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Port::VhostUser(port) => port.arm(),
            // Edge-triggered, and empty when last polled: the next frame makes an edge.
            Port::Tap(_) | Port::Packet(_) | Port::Memory(_) => false,
        }
    }

    /// Asks not to be woken: the port is being polled.
    pub(crate) fn disarm(&mut self) {
        if let Port::VhostUser(port) = self {
            port.disarm();
        }
    }
}

impl AsRawFd for Port {
    /// The descriptor that becomes readable when frames wait.
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Port::Tap(port) => port.as_raw_fd(),
            Port::Packet(port) => port.as_raw_fd(),
            Port::VhostUser(port) => port.as_raw_fd(),
            Port::Memory(port) => port.as_raw_fd(),
        }
    }
}

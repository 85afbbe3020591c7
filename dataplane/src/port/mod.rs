//! One end of a cable: [`Port`], something frames are received from and sent to.

mod memory;
mod packet;
mod tap;

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::frame::Burst;
use crate::stats::Drops;

pub use memory::{Memory, MemoryHost, memory};
pub use packet::Packet;
pub use tap::Tap;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The device does not exist.
    #[error(
        "network device `{name}` does not exist in this network namespace; `ip link show` lists those that do"
    )]
    NoSuchDevice {
        /// As it was asked for.
        name: String,
    },
    /// The kernel refused.
    #[error("cannot open port `{name}`: {action}: {source}")]
    Refused {
        /// As it was asked for.
        name: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One end of a cable. An enum and no trait object: the frame path calls it directly.
#[derive(Debug)]
pub enum Port {
    /// A tap whose descriptor the fabric holds: the network device is the endpoint.
    Tap(Tap),
    /// A network device that is there already, such as a tap that QEMU opened.
    Packet(Packet),
    /// The other half is a [`MemoryHost`] in this process.
    Memory(Memory),
}

impl Port {
    /// Takes up to a burst of frames that wait, without waiting for more. Frames that were
    /// lost on the way in are counted in `drops`. `Ok(true)` when more may be there.
    ///
    /// # Errors
    /// When the port is of no more use.
    pub(crate) fn receive(&mut self, burst: &mut Burst, drops: &mut Drops) -> io::Result<bool> {
        match self {
            Port::Tap(port) => port.receive(burst, drops),
            Port::Packet(port) => port.receive(burst, drops),
            Port::Memory(port) => Ok(port.receive(burst)),
        }
    }

    /// Sends every frame of the burst, in order, or counts why not in `drops`.
    pub(crate) fn send(&mut self, burst: &Burst, drops: &mut Drops) {
        match self {
            Port::Tap(port) => port.send(burst, drops),
            Port::Packet(port) => port.send(burst, drops),
            Port::Memory(port) => port.send(burst, drops),
        }
    }
}

impl AsRawFd for Port {
    /// What becomes readable when frames wait.
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Port::Tap(port) => port.as_raw_fd(),
            Port::Packet(port) => port.as_raw_fd(),
            Port::Memory(port) => port.as_raw_fd(),
        }
    }
}

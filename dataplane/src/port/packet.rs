//! An existing network device as a port, by a packet socket. This is how a VM plugs in
//! unmodified: QEMU opens the tap by its name, the fabric sees the device behind it.
//!
//! Offloads pass in both directions. What the device's owner did not agree to take (QEMU
//! sets that by TUNSETOFFLOAD for its guest) the kernel segments and checksums on sending.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::frame::{Burst, MAX_BURST};
use crate::port::PortError;
use crate::stats::{DropReason, Drops};
use crate::sys::packet;

/// Frames asked for when the port wakes up: an idle cable carries single frames, and
/// setting up a place for each of 64 costs more than the call itself.
const SMALLEST_ASK: usize = 4;

/// Bursts between two questions for the kernel's count of overruns, on a busy port.
const BURSTS_PER_CHECK: u32 = 256;

/// See the module's text.
#[derive(Debug)]
pub struct Packet {
    socket: OwnedFd,
    name: String,
    ask: usize,
    unchecked_bursts: u32,
}

impl Packet {
    /// Opens a port on the network device `name` of this thread's network namespace.
    ///
    /// # Errors
    /// When there is no such device, or CAP_NET_RAW is missing.
    pub fn open(name: &str) -> Result<Self, PortError> {
        let refused = |action| {
            move |source| PortError::Refused {
                name: name.into(),
                action,
                source,
            }
        };
        let any = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        )
        .map_err(io::Error::from)
        .map_err(refused("open a socket"))?;
        let ifindex = rustix::net::netdevice::name_to_index(any, name)
            .map_err(|_| PortError::NoSuchDevice { name: name.into() })?;
        let socket = packet::open(ifindex).map_err(refused("open a packet socket on it"))?;
        Ok(Packet {
            socket,
            name: name.into(),
            ask: SMALLEST_ASK,
            unchecked_bursts: 0,
        })
    }

    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Drops) -> io::Result<bool> {
        let received = match packet::receive(self.socket.as_fd(), burst, self.ask, drops) {
            Ok(received) => received,
            // Down for now: the socket goes on when the device is up again.
            Err(error) if is_passing(&error) => return Ok(true),
            // A frame was there, but with an offload that virtio-net cannot express.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                drops[DropReason::Malformed as usize] += 1;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let more = received == self.ask;
        self.unchecked_bursts += u32::from(received > 0);
        let drained = !more && self.unchecked_bursts > 0;
        if drained || self.unchecked_bursts >= BURSTS_PER_CHECK {
            self.unchecked_bursts = 0;
            let lost = packet::overruns(self.socket.as_fd()).unwrap_or(0);
            drops[DropReason::ReadTooLate as usize] += lost;
        }
        self.ask = if more {
            (self.ask * 2).min(MAX_BURST)
        } else {
            (self.ask / 2).max(SMALLEST_ASK)
        };
        Ok(more)
    }

    pub(super) fn send(&mut self, burst: &Burst, drops: &mut Drops) {
        let mut next = 0;
        while next < burst.len() {
            match packet::send(self.socket.as_fd(), burst, next) {
                Ok(sent) => next += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let reason = self.why_refused(&error);
                    // Nobody is there to take the others either: spare the calls.
                    let refused = if reason == DropReason::Unplugged {
                        burst.len() - next
                    } else {
                        1
                    };
                    drops[reason as usize] += refused as u64;
                    next += refused;
                }
            }
        }
    }

    /// The kernel says ENOBUFS both when the tap's queue is full and when nobody has the
    /// tap open.
    fn why_refused(&self, error: &io::Error) -> DropReason {
        match Errno::from_io_error(error) {
            Some(Errno::NOBUFS | Errno::AGAIN | Errno::NOMEM) => {
                match packet::is_running(self.socket.as_fd(), &self.name) {
                    Ok(true) => DropReason::ReceiverFull,
                    _ => DropReason::Unplugged,
                }
            }
            Some(Errno::NETDOWN | Errno::NXIO | Errno::NODEV) => DropReason::Unplugged,
            Some(Errno::MSGSIZE) => DropReason::TooLong,
            Some(Errno::INVAL) => DropReason::Malformed,
            _ => DropReason::PortError,
        }
    }
}

impl AsRawFd for Packet {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NETDOWN | Errno::INTR | Errno::NOBUFS)
    )
}

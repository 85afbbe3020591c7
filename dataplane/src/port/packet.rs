//! An existing network device as a port, by a packet socket. This is how a VM plugs in
//! unmodified: QEMU opens the tap by its name, the fabric sees the device behind it.
//!
//! Offloads pass in both directions. What the device's owner did not agree to take (QEMU
//! sets that by TUNSETOFFLOAD for its guest) the kernel checksums and segments on sending;
//! the latter only through the device's queue, so those frames take that way.

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
    /// Opened when the first super-frame has to be cut.
    queue: Option<OwnedFd>,
    ifindex: u32,
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
            queue: None,
            ifindex,
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
            let error = match packet::send(self.socket.as_fd(), burst, next, MAX_BURST) {
                Ok(sent) => {
                    next += sent;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let reason = self.why_refused(&error);
            let mut refused = 1;
            if reason == DropReason::Unplugged {
                // Nobody is there to take the others either: spare the calls.
                refused = burst.len() - next;
            } else if burst.frame(next).0.gso_type() != 0 && self.send_to_be_cut(burst, next) {
                next += 1;
                continue;
            }
            drops[reason as usize] += refused as u64;
            next += refused;
        }
    }

    fn send_to_be_cut(&mut self, burst: &Burst, index: usize) -> bool {
        if self.queue.is_none() {
            self.queue = packet::open_for_sending(self.ifindex).ok();
        }
        let Some(queue) = &self.queue else {
            return false;
        };
        packet::send(queue.as_fd(), burst, index, 1).is_ok()
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

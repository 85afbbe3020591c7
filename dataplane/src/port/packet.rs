//! An existing network device as a port, by a packet socket. This is how a VM plugs in
//! unmodified: QEMU opens the tap by its name, the fabric sees the device behind it.
//!
//! Offloads pass in both directions. What the device's owner did not agree to take (QEMU
//! sets that by TUNSETOFFLOAD for its guest) shows when it is sent: checksums are finished by
//! the kernel, super-frames are refused and cut by the lane.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::frame::{Burst, MAX_BURST};
use crate::offload::Offloads;
use crate::port::PortError;
use crate::stats::{DropReason, Losses};
use crate::sys::packet;

/// Frames asked for when the port wakes up: an idle cable carries single frames, and
/// setting up a place for each of 64 costs more than the call itself.
const SMALLEST_ASK: usize = 4;

/// Bursts between two questions for the kernel's count of overruns, on a busy port.
const BURSTS_PER_CHECK: u32 = 256;

/// Frames that wait in a socket at most, by far: who goes on sending is not waited for.
const MOST_WAITING: usize = 1 << 16;

/// Bursts that are cut before a whole super-frame is tried again: at first, and at most.
const BURSTS_PER_TRY: [u32; 2] = [16, 4096];

/// Whether the device takes super-frames whole. The kernel gives one error for a device that
/// does not and for one whose queue is full: what becomes of the pieces tells them apart. Not
/// for certain, as a queue may get room in between; so each try that fails makes the time to
/// the next one twice as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Taken,
    Suspected,
    Refused { bursts_left: u32 },
}

/// See the module's text.
#[derive(Debug)]
pub struct Packet {
    socket: OwnedFd,
    whole: Whole,
    bursts_per_try: u32,
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
            whole: Whole::Taken,
            bursts_per_try: BURSTS_PER_TRY[0],
            name: name.into(),
            ask: SMALLEST_ASK,
            unchecked_bursts: 0,
        })
    }

    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> io::Result<bool> {
        let received = match packet::receive(self.socket.as_fd(), burst, self.ask, drops) {
            Ok(received) => received,
            // Down for now: the socket goes on when the device is up again.
            Err(error) if is_passing(&error) => return Ok(true),
            // A frame was there, but with an offload that virtio-net cannot express.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                drops.count(DropReason::Malformed, 1);
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
            drops.count(DropReason::ReadTooLate, lost);
        }
        self.ask = if more {
            (self.ask * 2).min(MAX_BURST)
        } else {
            (self.ask / 2).max(SMALLEST_ASK)
        };
        Ok(more)
    }

    /// Drops the frames that wait, as many as the socket has room for.
    pub(super) fn discard(&mut self) {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        for _ in 0..MOST_WAITING {
            if rustix::net::recv(&self.socket, &mut [0; 1], flags).is_err() {
                return;
            }
        }
    }

    /// What the device takes as it is: everything, until it refused a super-frame and took
    /// its pieces. Checksums the kernel finishes itself.
    pub(super) fn takes(&mut self) -> Offloads {
        match &mut self.whole {
            Whole::Taken => Offloads::ALL,
            Whole::Suspected => Offloads::CSUM,
            Whole::Refused { bursts_left } => {
                *bursts_left -= 1;
                if *bursts_left == 0 {
                    // Its owner may have changed its mind: another guest, another driver.
                    self.whole = Whole::Taken;
                }
                Offloads::CSUM
            }
        }
    }

    /// Returns the first frame that was not handled: the end of the burst, or a super-frame
    /// that has to be cut first.
    pub(super) fn send(&mut self, burst: &Burst, from: usize, drops: &mut Losses) -> usize {
        let mut next = from;
        while next < burst.len() {
            let error = match packet::send(self.socket.as_fd(), burst, next) {
                Ok(sent) => {
                    self.learn_from_taken(burst, next..next + sent);
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
            } else if burst.header(next).gso_type() != 0 {
                self.whole = Whole::Suspected;
                return next;
            } else if self.whole == Whole::Suspected {
                // Not even a piece was taken: the queue was full, no more than that.
                self.whole = Whole::Taken;
            }
            drops.lose_all(next..next + refused, reason);
            next += refused;
        }
        next
    }

    fn learn_from_taken(&mut self, burst: &Burst, mut frames: Range<usize>) {
        let [first, most] = BURSTS_PER_TRY;
        if self.whole == Whole::Suspected {
            self.whole = Whole::Refused {
                bursts_left: self.bursts_per_try,
            };
            self.bursts_per_try = (self.bursts_per_try * 2).min(most);
        } else if self.bursts_per_try > first
            && frames.any(|index| burst.header(index).gso_type() != 0)
        {
            self.bursts_per_try = first;
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
            Some(Errno::INVAL | Errno::FAULT) => DropReason::Malformed,
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

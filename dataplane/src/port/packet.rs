//! An existing network device as a port, by a packet socket. This is how a VM plugs in
//! unmodified: QEMU opens the tap by its name, the fabric sees the device behind it.
//!
//! Offloads pass in both directions. What the device's owner agreed to take (QEMU sets that by
//! TUNSETOFFLOAD for its guest) shows only when a frame is sent: the kernel finishes checksums
//! where needed, and refuses super-frames, which the lane then cuts.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::frame::{Burst, MAX_BURST, Offloads, VnetHeader};
use crate::port::PortError;
use crate::stats::{DropReason, Losses};
use crate::sys::packet::{self, Received};

const _: () = assert!(MAX_BURST <= packet::MAX_MESSAGES);

/// Frames to receive in one call when the port wakes up: an idle cable carries single frames, and
/// preparing memory for each of 64 costs more than the call itself.
const SMALLEST_ASK: usize = 4;

/// Bursts after which a busy port asks the kernel for its count of overruns.
const BURSTS_PER_CHECK: u32 = 256;

/// More frames than ever wait in a socket. It bounds [`Packet::discard`] against a sender that does
/// not pause.
const MOST_WAITING: usize = 1 << 16;

/// After how many bursts of cut frames a whole super-frame is tried again: at first, and at most.
const BURSTS_PER_TRY: [u32; 2] = [16, 4096];

/// Whether the device takes super-frames whole. The kernel returns the same error for a device that
/// does not and for one whose queue is full; the difference shows when the pieces are sent. It is
/// not certain, as the queue may drain in between; so each try that fails doubles the time to the
/// next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SuperFrames {
    Taken,
    Suspected,
    Refused { bursts_left: u32 },
}

/// A packet socket bound to a network device.
#[derive(Debug)]
pub struct Packet {
    socket: OwnedFd,
    super_frames: SuperFrames,
    bursts_per_try: u32,
    name: String,
    ask: usize,
    /// Of the frames that were received last; kept for its memory.
    outcomes: Box<[Received]>,
    unchecked_bursts: u32,
}

impl Packet {
    /// Opens a port on the network device `name` of this thread's network namespace.
    ///
    /// # Errors
    /// When the device does not exist, or CAP_NET_RAW is missing.
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
            super_frames: SuperFrames::Taken,
            bursts_per_try: BURSTS_PER_TRY[0],
            name: name.into(),
            ask: SMALLEST_ASK,
            outcomes: vec![Received::default(); MAX_BURST].into(),
            unchecked_bursts: 0,
        })
    }

    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> io::Result<bool> {
        let vacant = burst.vacant_frames();
        let vacant = vacant.map(|(header, memory)| (&mut header.0, memory));
        let outcomes = &mut self.outcomes[..self.ask];
        let received = match packet::receive(self.socket.as_fd(), vacant, outcomes) {
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
        take_in(&self.outcomes[..received], burst, drops);
        let more = received == self.ask;
        self.unchecked_bursts += u32::from(received > 0);
        let drained = !more && self.unchecked_bursts > 0;
        if drained || self.unchecked_bursts >= BURSTS_PER_CHECK {
            self.unchecked_bursts = 0;
            let lost = packet::overruns(self.socket.as_fd()).unwrap_or(0);
            drops.count(DropReason::ReadTooLate, lost);
        }
        self.ask = if burst.is_whole_turn() {
            // What was asked for is there and must be handled: ask for fewer the next time.
            burst.frames_a_turn().clamp(1, self.ask)
        } else if more {
            (self.ask * 2).min(MAX_BURST)
        } else {
            (self.ask / 2).max(SMALLEST_ASK)
        };
        Ok(more)
    }

    /// Drops the frames that wait in the socket.
    pub(super) fn discard(&mut self) {
        let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
        for _ in 0..MOST_WAITING {
            if rustix::net::recv(&self.socket, &mut [0; 1], flags).is_err() {
                return;
            }
        }
    }

    /// What the device takes as it is: everything, until it has refused a super-frame and taken
    /// its pieces. The kernel finishes checksums itself.
    pub(super) fn takes(&mut self) -> Offloads {
        match &mut self.super_frames {
            SuperFrames::Taken => Offloads::ALL,
            SuperFrames::Suspected => Offloads::CSUM,
            SuperFrames::Refused { bursts_left } => {
                *bursts_left -= 1;
                if *bursts_left == 0 {
                    // The device may have another owner by now: another guest, another driver.
                    self.super_frames = SuperFrames::Taken;
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
            let frames = next..burst.len();
            let frames = frames.map(|index| (&burst.header(index).0, burst.segments(index)));
            let error = match packet::send(self.socket.as_fd(), frames) {
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
                // The others would meet the same fate: spare the calls.
                refused = burst.len() - next;
            } else if burst.header(next).gso_type() != 0 {
                self.super_frames = SuperFrames::Suspected;
                return next;
            } else if self.super_frames == SuperFrames::Suspected {
                // Not even a piece was taken: the queue was full, and the device may well take
                // super-frames.
                self.super_frames = SuperFrames::Taken;
            }
            drops.lose_all(next..next + refused, reason);
            next += refused;
        }
        next
    }

    fn learn_from_taken(&mut self, burst: &Burst, mut frames: Range<usize>) {
        let [first, most] = BURSTS_PER_TRY;
        if self.super_frames == SuperFrames::Suspected {
            self.super_frames = SuperFrames::Refused {
                bursts_left: self.bursts_per_try,
            };
            self.bursts_per_try = (self.bursts_per_try * 2).min(most);
        } else if self.bursts_per_try > first
            && frames.any(|index| burst.header(index).gso_type() != 0)
        {
            self.bursts_per_try = first;
        }
    }

    /// The kernel returns ENOBUFS both when the tap's queue is full and when no process has the
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

/// Takes the frames in that were received to the burst's vacant places, or counts why not.
fn take_in(received: &[Received], burst: &mut Burst, drops: &mut Losses) {
    let mut skipped = 0;
    for frame in received {
        let len = frame.bytes.saturating_sub(VnetHeader::LEN);
        let taken = if frame.is_truncated {
            Err(DropReason::TooLong)
        } else {
            burst.take_in(skipped, len, frame.vlan)
        };
        skipped += usize::from(taken.is_err());
        drops.count_refused(taken);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NETDOWN | Errno::INTR | Errno::NOBUFS)
    )
}

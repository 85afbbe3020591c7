//! The load generator's access to an end of a cable.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use dataplane::sys::packet;
use dataplane::sys::tap::{TapFlags, TapOffloads, open_tap, set_offload, set_vnet_little_endian};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, readv, writev};
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index};

use crate::BenchError;
use crate::pattern::{FrameBytes, LONGEST, Pattern, Stamp};
use guest::{Guest, GuestOptions, Incoming, Outgoing};

/// Bytes of a virtio-net header on taps and packet sockets, where it lacks `num_buffers`.
const HEADER: usize = 10;

/// One end of a cable, and how the benchmark plugs into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CableEnd {
    /// A socket on which a vhost-user back end listens. The benchmark is the guest.
    VhostUser(PathBuf),
    /// A tap that no other process has open. The benchmark opens it, as a VM would.
    Tap(String),
    /// A network device. The benchmark uses a packet socket, beside the host's own network stack.
    Netdev(String),
}

impl fmt::Display for CableEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CableEnd::VhostUser(path) => write!(f, "vhost-user:{}", path.display()),
            CableEnd::Tap(name) => write!(f, "tap:{name}"),
            CableEnd::Netdev(name) => write!(f, "netdev:{name}"),
        }
    }
}

impl FromStr for CableEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => {}
            Some(("vhost-user", path)) => return Ok(CableEnd::VhostUser(path.into())),
            Some(("tap", name)) => return Ok(CableEnd::Tap(name.into())),
            Some(("netdev", name)) => return Ok(CableEnd::Netdev(name.into())),
            Some(_) => {}
        }
        Err(format!(
            "\"{text}\" is not an end of a cable: write vhost-user:PATH, tap:NAME or netdev:NAME"
        ))
    }
}

/// An end of a cable that the benchmark has opened.
pub enum Endpoint {
    /// A guest at a vhost-user socket.
    Guest(Box<Guest>),
    /// A tap or a packet socket.
    Device(Box<Device>),
}

impl Endpoint {
    /// Opens an end for frames of up to `size` bytes. The guest at a vhost-user socket has the
    /// properties `guest`, with buffers for that size.
    ///
    /// # Errors
    /// When the end is missing, in use, or not this user's to open.
    pub fn open(end: &CableEnd, size: usize, guest: &GuestOptions) -> Result<Endpoint, BenchError> {
        let failed = |source| BenchError::Open {
            end: end.to_string(),
            source,
        };
        match end {
            CableEnd::VhostUser(path) => {
                let receive_capacity = if guest.mergeable {
                    guest.receive_capacity
                } else {
                    size.max(guest.receive_capacity)
                };
                let options = GuestOptions {
                    send_capacity: size,
                    receive_capacity,
                    ..*guest
                };
                let guest = Guest::connect(path, &options).map_err(|source| BenchError::Guest {
                    end: end.to_string(),
                    source,
                })?;
                Ok(Endpoint::Guest(Box::new(guest)))
            }
            CableEnd::Tap(name) => {
                let flags = TapFlags {
                    vnet_hdr: true,
                    exclusive: false,
                    nonblocking: true,
                    multi_queue: false,
                };
                let tap = open_tap(name, flags).map_err(failed)?;
                set_vnet_little_endian(&tap).map_err(failed)?;
                set_offload(&tap, TapOffloads::TCP).map_err(failed)?;
                Ok(Endpoint::Device(Box::new(Device::new(tap))))
            }
            CableEnd::Netdev(name) => {
                // Any socket will do to look up an interface's index.
                let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
                    .map_err(|errno| failed(errno.into()))?;
                let index = name_to_index(socket, name).map_err(|errno| failed(errno.into()))?;
                Ok(Endpoint::Device(Box::new(Device::new(
                    packet::open(index).map_err(failed)?,
                ))))
            }
        }
    }

    /// Prepares to send the frames of `pattern`.
    pub fn load(&mut self, pattern: &Pattern) {
        match self {
            Endpoint::Guest(guest) => guest.pair().1.load(&pattern.header, &pattern.frame),
            Endpoint::Device(device) => device.load(pattern),
        }
    }

    /// Sends up to `limit` frames, each with the stamp that `next` returns. Returns the number of
    /// frames that the end accepted.
    ///
    /// # Errors
    /// When the end has failed.
    #[inline]
    pub fn send(
        &mut self,
        limit: usize,
        pattern: &Pattern,
        mut next: impl FnMut() -> Stamp,
    ) -> Result<usize, BenchError> {
        match self {
            Endpoint::Guest(guest) => {
                let fill = |frame: &mut Outgoing<'_>| {
                    let (at, words) = pattern.words(next());
                    frame.word(at, words[0]);
                    frame.word(at + 8, words[1]);
                    frame.word(at + 16, words[2]);
                };
                Ok(guest.pair().1.send(limit, fill)?)
            }
            Endpoint::Device(device) => device.send(limit, pattern, next),
        }
    }

    /// Passes up to `limit` received frames to `sink`. Returns the number of frames.
    ///
    /// # Errors
    /// When the end has failed.
    #[inline]
    pub fn receive(&mut self, limit: usize, mut sink: impl FrameSink) -> Result<usize, BenchError> {
        match self {
            Endpoint::Guest(guest) => {
                Ok(guest.pair().0.receive(limit, |frame| sink.accept(frame))?)
            }
            Endpoint::Device(device) => device.receive(limit, sink),
        }
    }

    /// Waits until a frame may have arrived, for at most `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<(), BenchError> {
        match self {
            Endpoint::Guest(guest) => _ = guest.wait(0, limit)?,
            Endpoint::Device(device) => device.wait(limit)?,
        }
        Ok(())
    }

    /// How many frames of `size` bytes may be in flight towards this end without overflowing its
    /// buffers.
    pub(crate) fn in_flight_limit(&self, size: usize) -> usize {
        match self {
            // The guest gives buffers back burst by burst, so some of them are always in use.
            Endpoint::Guest(guest) => guest.receive_capacity(size) * 3 / 4,
            // Half of a tap's default queue of 500 frames.
            Endpoint::Device(_) => 256,
        }
    }
}

/// A consumer of received frames, which lie in a guest's memory or in a slice.
pub trait FrameSink {
    /// Takes the next frame.
    fn accept(&mut self, frame: &impl FrameBytes);
}

impl FrameBytes for Incoming<'_> {
    #[inline]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline]
    fn word(&self, at: usize) -> Option<u64> {
        Incoming::word(self, at)
    }

    fn contains(&self, at: usize, bytes: &[u8]) -> bool {
        Incoming::holds(self, at, bytes)
    }
}

/// A descriptor that carries frames with a virtio-net header: a tap or a packet socket.
pub struct Device {
    descriptor: OwnedFd,
    header: [u8; HEADER],
    frame: Vec<u8>,
    receive_buffer: Vec<u8>,
}

impl Device {
    fn new(descriptor: OwnedFd) -> Device {
        Device {
            descriptor,
            header: [0; HEADER],
            frame: Vec::new(),
            receive_buffer: vec![0; LONGEST + 8],
        }
    }

    fn load(&mut self, pattern: &Pattern) {
        self.header.copy_from_slice(&pattern.header[..HEADER]);
        self.frame.clone_from(&pattern.frame);
    }

    fn send(
        &mut self,
        limit: usize,
        pattern: &Pattern,
        mut next: impl FnMut() -> Stamp,
    ) -> Result<usize, BenchError> {
        for sent in 0..limit {
            let (at, words) = pattern.words(next());
            for (index, word) in words.iter().enumerate() {
                self.frame[at + index * 8..][..8].copy_from_slice(&word.to_ne_bytes());
            }
            let parts = [IoSlice::new(&self.header), IoSlice::new(&self.frame)];
            match writev(self.descriptor.as_fd(), &parts) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => return Ok(sent),
                Err(Errno::MSGSIZE) => return Err(BenchError::TooLong(self.frame.len())),
                Err(errno) => return Err(BenchError::Device(errno.into())),
            }
        }
        Ok(limit)
    }

    fn wait(&self, limit: Duration) -> Result<(), BenchError> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(
            &mut [PollFd::new(&self.descriptor, PollFlags::IN)],
            Some(&limit),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(BenchError::Device(errno.into())),
        }
    }

    fn receive(&mut self, limit: usize, mut sink: impl FrameSink) -> Result<usize, BenchError> {
        let mut header = [0; HEADER];
        for received in 0..limit {
            let mut parts = [
                IoSliceMut::new(&mut header),
                IoSliceMut::new(&mut self.receive_buffer),
            ];
            match readv(self.descriptor.as_fd(), &mut parts) {
                Ok(bytes) => sink.accept(&&self.receive_buffer[..bytes.saturating_sub(HEADER)]),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(received),
                Err(errno) => return Err(BenchError::Device(errno.into())),
            }
        }
        Ok(limit)
    }
}

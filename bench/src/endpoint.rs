//! What a benchmark plugs into the two ends of a cable.

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
use crate::pattern::{Bytes, LONGEST, Pattern, Stamp};
use guest::{Guest, GuestOptions, Incoming};

/// Bytes of a virtio-net header on taps and packet sockets.
const HEADER: usize = 10;

/// One end of a cable, as the benchmark can hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A socket on which a vhost-user back end listens: the benchmark is the guest.
    VhostUser(PathBuf),
    /// A tap that nobody holds: the benchmark holds it, as a VM would.
    Tap(String),
    /// A network device: the benchmark sends and receives beside the host's own stack.
    Netdev(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::VhostUser(path) => write!(f, "vhost-user:{}", path.display()),
            End::Tap(name) => write!(f, "tap:{name}"),
            End::Netdev(name) => write!(f, "netdev:{name}"),
        }
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((_, "")) | None => {}
            Some(("vhost-user", path)) => return Ok(End::VhostUser(path.into())),
            Some(("tap", name)) => return Ok(End::Tap(name.into())),
            Some(("netdev", name)) => return Ok(End::Netdev(name.into())),
            Some(_) => {}
        }
        Err(format!(
            "\"{text}\" is no end of a cable: write vhost-user:PATH, tap:NAME or netdev:NAME"
        ))
    }
}

/// An end that is plugged in.
pub enum Endpoint {
    /// By the driver.
    Guest(Box<Guest>),
    /// By a descriptor that gives and takes frames with a virtio-net header.
    Device(Box<Device>),
}

impl Endpoint {
    /// Plugs in, for frames of up to `size` bytes.
    ///
    /// # Errors
    /// When the end is missing, held by another, or not this process's to open.
    pub fn open(end: &End, size: usize, guest: &GuestOptions) -> Result<Endpoint, BenchError> {
        let failed = |source| BenchError::Open {
            end: end.to_string(),
            source,
        };
        match end {
            End::VhostUser(path) => {
                let room = size.max(guest.receive_room);
                let options = GuestOptions {
                    send_room: size,
                    receive_room: if guest.mergeable {
                        guest.receive_room
                    } else {
                        room
                    },
                    ..*guest
                };
                let guest = Guest::connect(path, &options).map_err(|source| BenchError::Guest {
                    end: end.to_string(),
                    source,
                })?;
                Ok(Endpoint::Guest(Box::new(guest)))
            }
            End::Tap(name) => {
                let flags = TapFlags {
                    vnet_hdr: true,
                    exclusive: false,
                    nonblocking: true,
                };
                let tap = open_tap(name, flags).map_err(failed)?;
                set_vnet_little_endian(&tap).map_err(failed)?;
                set_offload(&tap, TapOffloads::TCP).map_err(failed)?;
                Ok(Endpoint::Device(Box::new(Device::new(tap))))
            }
            End::Netdev(name) => {
                let any = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)
                    .map_err(|errno| failed(errno.into()))?;
                let index = name_to_index(any, name).map_err(|errno| failed(errno.into()))?;
                Ok(Endpoint::Device(Box::new(Device::new(
                    packet::open(index).map_err(failed)?,
                ))))
            }
        }
    }

    /// Gets ready to send frames like these.
    pub fn load(&mut self, pattern: &Pattern) {
        match self {
            Endpoint::Guest(guest) => guest.pair().1.load(&pattern.header, &pattern.frame),
            Endpoint::Device(device) => device.load(pattern),
        }
    }

    /// Sends up to `limit` frames, each with the stamp that comes next. Returns how many there
    /// was room for.
    ///
    /// # Errors
    /// When the end is of no more use.
    #[inline]
    pub fn send(
        &mut self,
        limit: usize,
        pattern: &Pattern,
        mut next: impl FnMut() -> Stamp,
    ) -> Result<usize, BenchError> {
        match self {
            Endpoint::Guest(guest) => {
                let fill = |frame: &mut guest::Outgoing<'_>| {
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

    /// Receives up to `limit` frames. Returns how many came.
    ///
    /// # Errors
    /// When the end is of no more use.
    #[inline]
    pub fn receive(&mut self, limit: usize, take: impl Take) -> Result<usize, BenchError> {
        let mut take = take;
        match self {
            Endpoint::Guest(guest) => {
                Ok(guest.pair().0.receive(limit, |frame| take.frame(frame))?)
            }
            Endpoint::Device(device) => device.receive(limit, take),
        }
    }

    /// Waits until something may have arrived, or the time is up.
    ///
    /// # Errors
    /// When waiting is impossible.
    pub fn wait(&mut self, limit: Duration) -> Result<(), BenchError> {
        match self {
            Endpoint::Guest(guest) => _ = guest.wait(0, limit)?,
            Endpoint::Device(device) => device.wait(limit)?,
        }
        Ok(())
    }

    /// Frames of this size that may be under way to this end without overrunning what it has
    /// room for.
    pub fn room(&self, size: usize) -> usize {
        match self {
            Endpoint::Guest(guest) => guest.receive_room(size) * 3 / 4,
            Endpoint::Device(_) => 256,
        }
    }
}

/// What is done with received frames; generic over where they lie.
pub trait Take {
    /// Takes one in.
    fn frame(&mut self, frame: &impl Bytes);
}

impl Bytes for Incoming<'_> {
    #[inline]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline]
    fn word(&self, at: usize) -> Option<u64> {
        Incoming::word(self, at)
    }

    fn holds(&self, at: usize, bytes: &[u8]) -> bool {
        Incoming::holds(self, at, bytes)
    }
}

/// See [`Endpoint::Device`].
pub struct Device {
    descriptor: OwnedFd,
    header: [u8; HEADER],
    frame: Vec<u8>,
    room: Vec<u8>,
}

impl Device {
    fn new(descriptor: OwnedFd) -> Device {
        Device {
            descriptor,
            header: [0; HEADER],
            frame: Vec::new(),
            room: vec![0; LONGEST + 8],
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

    fn receive(&mut self, limit: usize, mut take: impl Take) -> Result<usize, BenchError> {
        let mut header = [0; HEADER];
        for received in 0..limit {
            let mut parts = [
                IoSliceMut::new(&mut header),
                IoSliceMut::new(&mut self.room),
            ];
            match readv(self.descriptor.as_fd(), &mut parts) {
                Ok(bytes) => take.frame(&&self.room[..bytes.saturating_sub(HEADER)]),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(received),
                Err(errno) => return Err(BenchError::Device(errno.into())),
            }
        }
        Ok(limit)
    }
}

impl From<io::Error> for BenchError {
    fn from(error: io::Error) -> Self {
        BenchError::Device(error)
    }
}

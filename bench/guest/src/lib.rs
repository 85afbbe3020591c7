//! A guest without a VM: a virtio-net driver that plugs into a vhost-user socket.
//!
//! # What is in it
//!
//! | type | part of the driver |
//! |---|---|
//! | [`Guest`] | a connected guest: its session, its memory, its queues |
//! | [`Session`] | the front end's side of the vhost-user protocol |
//! | [`Memory`] | the memory that the back end maps too |
//! | [`QueueLayout`] | where a queue's rings and buffers lie in that memory |
//! | [`Queue`] | one queue: it sends or receives by polling, as fast as DPDK's virtio-user does |
//!
//! # What may use it
//!
//! `bench` loads cables with it, `ikv-fabric probe` gives it an IP stack, and tests plug it in
//! where a VM would be. It depends on the dataplane's names of feature bits and on nothing else
//! of this workspace. `unsafe` is allowed in `memory.rs` alone.
//!
//! # How frames pass through
//!
//! ```text
//!   Queue::send ──> fill (Outgoing) ──> buffer in Memory ──> transmit ring ──> kick ──> back end
//!   Queue::receive <── take (Incoming) <── buffer in Memory <── receive ring <── call <── back end
//! ```
//!
//! [`Queue::send`] lets its caller fill each frame where it lies ([`Outgoing`]);
//! [`Queue::receive`] hands each frame to its caller where the back end wrote it ([`Incoming`])
//! and gives the buffer back. Neither allocates.
//!
//! # Breaking rules on purpose
//!
//! Tests play hostile guests: [`Guest::memory`] and [`Queue::layout`] open every byte of rings
//! and buffers to change, and [`Session::message`] sends any message.

pub mod features;
mod layout;
mod memory;
mod packed;
mod queue;
mod session;
mod split;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;

pub use layout::{DESCRIPTOR, HEADER, QueueLayout};
pub use memory::{GUEST_BASE, Memory, MemoryOptions, Region, USER_BASE};
pub use queue::{Incoming, Outgoing, Queue};
pub use session::Session;

use queue::Rules;

/// Which kind of ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ring {
    /// The one that every device knows.
    #[default]
    Split,
    /// virtio 1.1's.
    Packed,
}

/// How a frame lies in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Header and frame in one.
    #[default]
    Single,
    /// A chain of so many, 2 at least, the first with the header alone.
    Chained(u16),
    /// As before (or, with 1, as [`Shape::Single`]), in an indirect table.
    Indirect(u16),
}

impl Shape {
    /// Descriptors that hold the frame.
    pub fn pieces(self) -> u16 {
        match self {
            Shape::Single => 1,
            Shape::Chained(count) | Shape::Indirect(count) => count,
        }
    }

    /// Entries of the ring that it takes.
    pub fn in_ring(self) -> u16 {
        match self {
            Shape::Single | Shape::Indirect(_) => 1,
            Shape::Chained(count) => count,
        }
    }
}

/// What a guest is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestOptions {
    /// Kind of its rings.
    pub ring: Ring,
    /// Entries of each ring: 2 to 32768, for split rings a power of two.
    pub queue_size: u16,
    /// Pairs of queues.
    pub pairs: u16,
    /// Received frames may lie in several buffers.
    pub mergeable: bool,
    /// Wants buffers used in order.
    pub in_order: bool,
    /// Wants notifications by position.
    pub event_idx: bool,
    /// Other features to agree on where the back end offers them: [`features`].
    pub features: u64,
    /// How frames lie in transmit queues.
    pub send_shape: Shape,
    /// How room for frames lies in receive queues.
    pub receive_shape: Shape,
    /// Longest frame to send, in bytes.
    pub send_room: usize,
    /// Room for a frame in each receive buffer, in bytes.
    pub receive_room: usize,
    /// What the memory is made of.
    pub memory: MemoryOptions,
}

impl Default for GuestOptions {
    fn default() -> Self {
        GuestOptions {
            ring: Ring::Split,
            queue_size: 256,
            pairs: 1,
            mergeable: false,
            in_order: false,
            event_idx: false,
            features: 0,
            send_shape: Shape::Single,
            receive_shape: Shape::Single,
            send_room: 1522,
            receive_room: 1522,
            memory: MemoryOptions::default(),
        }
    }
}

impl GuestOptions {
    fn wanted(&self) -> u64 {
        let mut wanted = self.features | features::VERSION_1;
        for (set, bit) in [
            (self.ring == Ring::Packed, features::RING_PACKED),
            (self.mergeable, features::MRG_RXBUF),
            (self.in_order, features::IN_ORDER),
            (self.event_idx, features::EVENT_IDX),
            (self.pairs > 1, features::MQ),
            (
                matches!(self.send_shape, Shape::Indirect(_))
                    || matches!(self.receive_shape, Shape::Indirect(_)),
                features::INDIRECT_DESC,
            ),
        ] {
            if set {
                wanted |= bit;
            }
        }
        wanted
    }

    /// What the guest cannot do without.
    fn needed(&self) -> u64 {
        self.wanted() & !self.features & !features::IN_ORDER & !features::EVENT_IDX
    }

    fn check(&self) -> Result<(), GuestError> {
        let refused = |why| Err(GuestError::Options(why));
        let size = self.queue_size;
        if !(2..=32768).contains(&size) || self.ring == Ring::Split && !size.is_power_of_two() {
            return refused("queue sizes are 2 to 32768, and powers of two for split rings");
        }
        for shape in [self.send_shape, self.receive_shape] {
            if shape.pieces() == 0 || shape == Shape::Chained(1) || shape.pieces() > size {
                return refused("a chain has 2 descriptors at least, and fits into the queue");
            }
            if self.in_order && !size.is_multiple_of(shape.in_ring()) {
                return refused("in order, the queue size is a multiple of the chain's length");
            }
        }
        if self.pairs == 0 {
            return refused("there is at least one pair of queues");
        }
        Ok(())
    }
}

/// How a back end broke the rules of virtio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackEndFault {
    /// It used more buffers than there are.
    #[error("its used index runs ahead of the available one")]
    UsedIndex,
    /// No buffer has this id.
    #[error("it used a buffer {0} that does not exist")]
    UnknownId(u32),
    /// This buffer is not its.
    #[error("it used buffer {0}, which it did not have")]
    NotOffered(u16),
    /// IN_ORDER was agreed on.
    #[error("it used receive buffers out of order")]
    OutOfOrder,
    /// It wrote more than there was room for.
    #[error("it says that it wrote {0} bytes, more than there is room for")]
    TooLong(u32),
    /// What it wrote is no frame.
    #[error("it wrote a frame without a whole virtio-net header")]
    NoHeader,
}

/// Why a guest does not run.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No such guest can be.
    #[error("this guest cannot be: {0}")]
    Options(&'static str),
    /// The socket failed.
    #[error("the vhost-user socket failed: {0}")]
    Socket(#[source] io::Error),
    /// The back end did not answer as it should.
    #[error("{action} failed: {error}")]
    Protocol {
        /// The message.
        action: &'static str,
        /// What the protocol's crate says.
        error: vhost::Error,
    },
    /// The back end lacks what the guest needs.
    #[error("the back end does not offer the features {0:#x}")]
    Features(u64),
    /// The back end has fewer queues.
    #[error("the back end offers {offered} pairs of queues, not {wanted}")]
    TooFewQueues {
        /// Pairs it has.
        offered: u64,
        /// Pairs asked for.
        wanted: u64,
    },
    /// No memory to share.
    #[error("cannot make memory to share: {0}")]
    Memory(#[source] Errno),
    /// An eventfd failed.
    #[error("cannot ring or make a bell: {0}")]
    Bell(#[source] io::Error),
    /// The back end broke a rule.
    #[error("the back end broke a rule: {0}")]
    BackEnd(#[from] BackEndFault),
}

/// See the module's text.
pub struct Guest {
    session: Session,
    memory: Arc<Memory>,
    queues: Vec<Queue>,
    ring: Ring,
    features: u64,
}

impl Guest {
    /// Plugs into a back end that listens on a socket, and starts every queue.
    ///
    /// # Errors
    /// When the back end cannot be reached, does not answer, or lacks a feature.
    pub fn connect(path: &Path, options: &GuestOptions) -> Result<Guest, GuestError> {
        let socket = UnixStream::connect(path).map_err(GuestError::Socket)?;
        Self::plug(socket, options)
    }

    /// As [`Guest::connect`], on a socket that is connected already.
    ///
    /// # Errors
    /// As [`Guest::connect`].
    pub fn plug(socket: UnixStream, options: &GuestOptions) -> Result<Guest, GuestError> {
        let mut guest = Self::unstarted(socket, options)?;
        for index in 0..guest.queues.len() {
            guest.start(index, guest.first_base())?;
            if index % 2 == 0 {
                guest.queues[index].post()?;
            }
        }
        Ok(guest)
    }

    /// As [`Guest::plug`], but no queue is started, and no receive buffer posted.
    ///
    /// # Errors
    /// As [`Guest::connect`].
    pub fn unstarted(socket: UnixStream, options: &GuestOptions) -> Result<Guest, GuestError> {
        options.check()?;
        let count = options.pairs * 2;
        let mut session = Session::begin(socket, u64::from(count))?;
        let missing = options.needed() & !session.offered();
        if missing != 0 {
            return Err(GuestError::Features(missing));
        }
        let agreed = session.agree(options.wanted())?;
        let mut end = 0;
        let layouts: Vec<_> = (0..count)
            .map(|index| {
                let (shape, room) = if index % 2 == 0 {
                    (options.receive_shape, options.receive_room)
                } else {
                    (options.send_shape, options.send_room)
                };
                let layout = QueueLayout::new(end, options.ring, options.queue_size, shape, room);
                end = layout.end;
                layout
            })
            .collect();
        let memory = Arc::new(Memory::new(end, options.memory).map_err(GuestError::Memory)?);
        session.share(&memory)?;
        let queues = (0..)
            .zip(layouts)
            .map(|(index, layout)| {
                let rules = Rules {
                    writable: index % 2 == 0,
                    in_order: agreed & features::IN_ORDER != 0,
                    event_idx: agreed & features::EVENT_IDX != 0,
                    mergeable: agreed & features::MRG_RXBUF != 0,
                };
                Queue::new(memory.clone(), layout, rules)
            })
            .collect::<Result<_, _>>()?;
        Ok(Guest {
            session,
            memory,
            queues,
            ring: options.ring,
            features: agreed,
        })
    }

    /// The features in force.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The memory shared with the back end.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The protocol's side.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Number of queues.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// One queue: even ones receive, odd ones send.
    pub fn queue(&mut self, index: usize) -> &mut Queue {
        &mut self.queues[index]
    }

    /// The first pair: what receives, what sends.
    pub fn pair(&mut self) -> (&mut Queue, &mut Queue) {
        let [receive, send, ..] = self.queues.as_mut_slice() else {
            unreachable!("a guest has at least one pair of queues");
        };
        (receive, send)
    }

    /// Frames of this size that the first receive queue has room for.
    pub fn receive_room(&self, size: usize) -> usize {
        let layout = self.queues[0].layout();
        let buffers = (HEADER + size).div_ceil(HEADER + layout.capacity);
        layout.slots as usize / buffers
    }

    /// The base of a ring that has not run yet.
    pub fn first_base(&self) -> u32 {
        match self.ring {
            Ring::Split => 0,
            // Both wrap counters are 1 (virtio 1.2, 2.8.1).
            Ring::Packed => 0x8000_8000,
        }
    }

    /// Lets the back end use a ring, from `base` on.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn start(&mut self, index: usize, base: u32) -> Result<(), GuestError> {
        self.session
            .start(index, &self.queues[index], &self.memory, base)
    }

    /// Stops a ring. Returns the base to start it from again.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn stop(&mut self, index: usize) -> Result<u32, GuestError> {
        self.session.stop(index)
    }

    /// Asks for an interrupt on a queue and waits until it comes, or something is there
    /// already. `false` when neither happened in time.
    ///
    /// # Errors
    /// When waiting is impossible.
    pub fn wait(&mut self, index: usize, limit: Duration) -> io::Result<bool> {
        wait_for_queues(&mut [&mut self.queues[index]], limit)
    }
}

/// As [`Guest::wait`], on the first receive queues of several guests at once.
///
/// # Errors
/// When waiting is impossible.
pub fn wait_for_frames<'g>(
    guests: impl IntoIterator<Item = &'g mut Guest>,
    limit: Duration,
) -> io::Result<bool> {
    let mut queues: Vec<_> = guests
        .into_iter()
        .map(|guest| &mut guest.queues[0])
        .collect();
    wait_for_queues(&mut queues, limit)
}

fn wait_for_queues(queues: &mut [&mut Queue], limit: Duration) -> io::Result<bool> {
    for queue in &mut *queues {
        queue.interrupts(true);
    }
    let mut used = queues.iter_mut().any(|queue| queue.has_used());
    if !used {
        used = wait_for_bells(queues, limit)?;
    }
    for queue in queues {
        queue.interrupts(false);
    }
    Ok(used)
}

fn wait_for_bells(queues: &[&mut Queue], limit: Duration) -> io::Result<bool> {
    let mut poll = Poll::new()?;
    for (token, queue) in queues.iter().enumerate() {
        let call = queue.call().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&call), Token(token), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(queues.len().max(1));
    match poll.poll(&mut events, Some(limit)) {
        // A signal is no frame.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
        result => result?,
    }
    let mut rung = false;
    for queue in queues {
        rung |= queue.call().read().is_ok();
    }
    Ok(rung)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused() {
        let good = GuestOptions::default();
        assert!(good.check().is_ok());
        for bad in [
            GuestOptions {
                queue_size: 100,
                ..good
            },
            GuestOptions {
                send_shape: Shape::Chained(1),
                ..good
            },
            GuestOptions {
                receive_shape: Shape::Indirect(0),
                ..good
            },
            GuestOptions {
                in_order: true,
                send_shape: Shape::Chained(3),
                ..good
            },
            GuestOptions { pairs: 0, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert!(
            GuestOptions {
                queue_size: 100,
                ring: Ring::Packed,
                ..good
            }
            .check()
            .is_ok()
        );
    }
}

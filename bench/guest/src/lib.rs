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
pub use memory::{GUEST_BASE, Memory, MemoryOptions};
pub use queue::{Incoming, Outgoing, Queue};
pub use session::Session;

use queue::QueueFeatures;

/// The kind of a queue's ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ring {
    /// A split ring (virtio 1.2, 2.7), which every device supports.
    #[default]
    Split,
    /// A packed ring (virtio 1.2, 2.8).
    Packed,
}

/// The descriptors of a buffer, which holds a virtio-net header and a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// One descriptor for header and frame.
    #[default]
    Single,
    /// A chain of this many descriptors, at least 2. The first one holds only the header.
    Chained(u16),
    /// An indirect table of this many descriptors, at least 1, divided in the same way.
    Indirect(u16),
}

impl Shape {
    /// Number of descriptors that hold header and frame.
    pub fn pieces(self) -> u16 {
        match self {
            Shape::Single => 1,
            Shape::Chained(count) | Shape::Indirect(count) => count,
        }
    }

    /// Number of ring entries that a buffer takes.
    pub(crate) fn ring_entries(self) -> u16 {
        match self {
            Shape::Single | Shape::Indirect(_) => 1,
            Shape::Chained(count) => count,
        }
    }
}

/// Properties of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestOptions {
    /// Kind of the queues' rings.
    pub ring: Ring,
    /// Entries of each ring: 2 to 32768, for split rings a power of two.
    pub queue_size: u16,
    /// Number of queue pairs, at least 1.
    pub pairs: u16,
    /// Whether a received frame may span several buffers (VIRTIO_NET_F_MRG_RXBUF). Required of the
    /// back end.
    pub mergeable: bool,
    /// Whether to ask that buffers are used in order (VIRTIO_F_IN_ORDER).
    pub in_order: bool,
    /// Whether to ask for notifications by ring position (VIRTIO_F_EVENT_IDX).
    pub event_idx: bool,
    /// Further feature bits to negotiate if the back end offers them: [`features`].
    pub features: u64,
    /// Descriptors of the buffers in transmit queues.
    pub send_shape: Shape,
    /// Descriptors of the buffers in receive queues.
    pub receive_shape: Shape,
    /// Longest frame that fits into a transmit buffer, in bytes.
    pub send_capacity: usize,
    /// Longest frame that fits into one receive buffer, in bytes.
    pub receive_capacity: usize,
    /// Properties of the shared memory.
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
            send_capacity: 1522,
            receive_capacity: 1522,
            memory: MemoryOptions::default(),
        }
    }
}

impl GuestOptions {
    /// The feature bits that the guest asks for.
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

    /// The feature bits that the back end must offer.
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
                return refused("a chain needs at least 2 descriptors and must fit into the queue");
            }
            if self.in_order && !size.is_multiple_of(shape.ring_entries()) {
                return refused(
                    "in order, the queue size must be a multiple of the chain's length",
                );
            }
        }
        if self.pairs == 0 {
            return refused("at least one pair of queues is needed");
        }
        Ok(())
    }
}

/// A violation of virtio's rules by the back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackEndFault {
    /// The back end used more buffers than the guest made available.
    #[error("its used index runs ahead of the available one")]
    UsedIndex,
    /// The back end used a buffer with an id beyond the last slot.
    #[error("it used a buffer {0} that does not exist")]
    UnknownId(u32),
    /// The back end used a buffer that belonged to the guest.
    #[error("it used buffer {0}, which was not available to it")]
    NotAvailable(u16),
    /// The back end broke the order that IN_ORDER promises.
    #[error("it used receive buffers out of order")]
    OutOfOrder,
    /// The back end reported more bytes than the buffer has.
    #[error("it reports {0} written bytes, more than the buffer has")]
    TooLong(u32),
    /// The back end wrote less than a header, or a header with an impossible `num_buffers`.
    #[error("it wrote a frame without a valid virtio-net header")]
    NoHeader,
}

/// Why a guest cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The options contradict each other or are out of range.
    #[error("invalid options for a guest: {0}")]
    Options(&'static str),
    /// Connecting to the socket, or using it, failed.
    #[error("the vhost-user socket failed: {0}")]
    Socket(#[source] io::Error),
    /// The back end refused a message or did not answer it in time.
    #[error("{action} failed: {error}")]
    Protocol {
        /// Name of the message.
        action: &'static str,
        /// The error of the vhost crate.
        error: vhost::Error,
    },
    /// The back end does not offer features that the options require.
    #[error("the back end does not offer the features {0:#x}")]
    Features(u64),
    /// The back end offers fewer queues than the options require.
    #[error("the back end offers {offered} pairs of queues, not {wanted}")]
    TooFewQueues {
        /// Pairs that the back end offers.
        offered: u64,
        /// Pairs that the options require.
        wanted: u64,
    },
    /// The kernel provided no memory to share.
    #[error("cannot make memory to share: {0}")]
    Memory(#[source] Errno),
    /// Creating or writing an eventfd failed.
    #[error("an eventfd failed: {0}")]
    Eventfd(#[source] io::Error),
    /// The back end broke a rule of virtio.
    #[error("the back end broke a rule: {0}")]
    BackEnd(#[from] BackEndFault),
}

/// A guest that is plugged into a back end. Dropping it unplugs it.
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
    /// When the options are invalid, or the back end cannot be reached, does not answer, or lacks a
    /// feature or queues.
    pub fn connect(path: &Path, options: &GuestOptions) -> Result<Guest, GuestError> {
        let socket = UnixStream::connect(path).map_err(GuestError::Socket)?;
        Self::plug(socket, options)
    }

    /// Like [`Guest::connect`], on a socket that is already connected.
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

    /// Like [`Guest::plug`], but starts no queue and posts no receive buffer.
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
        let agreed = session.negotiate(options.wanted())?;
        let mut end = 0;
        let layouts: Vec<_> = (0..count)
            .map(|index| {
                let (shape, capacity) = if index % 2 == 0 {
                    (options.receive_shape, options.receive_capacity)
                } else {
                    (options.send_shape, options.send_capacity)
                };
                let layout =
                    QueueLayout::new(end, options.ring, options.queue_size, shape, capacity);
                end = layout.end;
                layout
            })
            .collect();
        let memory = Arc::new(Memory::new(end, options.memory).map_err(GuestError::Memory)?);
        session.share(&memory)?;
        let queues = (0..)
            .zip(layouts)
            .map(|(index, layout)| {
                let negotiated = QueueFeatures {
                    writable: index % 2 == 0,
                    in_order: agreed & features::IN_ORDER != 0,
                    event_idx: agreed & features::EVENT_IDX != 0,
                    mergeable: agreed & features::MRG_RXBUF != 0,
                };
                Queue::new(memory.clone(), layout, negotiated)
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

    /// The negotiated feature bits.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The memory shared with the back end.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The connection to the back end.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Number of queues: two for each pair.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The queue with this index. Queues with even indices receive, those with odd indices send.
    pub fn queue(&mut self, index: usize) -> &mut Queue {
        &mut self.queues[index]
    }

    /// The first pair: its receive queue and its transmit queue.
    pub fn pair(&mut self) -> (&mut Queue, &mut Queue) {
        let [receive, send, ..] = self.queues.as_mut_slice() else {
            unreachable!("a guest has at least one pair of queues");
        };
        (receive, send)
    }

    /// How many frames of `size` bytes fit into the buffers of the first receive queue.
    pub fn receive_capacity(&self, size: usize) -> usize {
        let layout = self.queues[0].layout();
        let buffers = (HEADER + size).div_ceil(HEADER + layout.capacity);
        layout.slots as usize / buffers
    }

    /// The base to start a ring from that has not run yet.
    pub fn first_base(&self) -> u32 {
        match self.ring {
            Ring::Split => 0,
            // Both wrap counters are 1 (virtio 1.2, 2.8.1).
            Ring::Packed => 0x8000_8000,
        }
    }

    /// Lets the back end use the queue's ring, from `base` on.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn start(&mut self, index: usize, base: u32) -> Result<(), GuestError> {
        self.session.start(index, &self.queues[index], base)
    }

    /// Stops the queue's ring. Returns the base to start it from again.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn stop(&mut self, index: usize) -> Result<u32, GuestError> {
        self.session.stop(index)
    }

    /// Waits until the back end has used a buffer of the queue. Returns `false` when `limit` passes
    /// or a signal arrives first.
    ///
    /// # Errors
    /// When the kernel refuses to wait (epoll).
    pub fn wait(&mut self, index: usize, limit: Duration) -> io::Result<bool> {
        wait_for_queues(&mut [&mut self.queues[index]], limit)
    }
}

/// Like [`Guest::wait`], on the first receive queues of several guests together.
///
/// # Errors
/// When the kernel refuses to wait (epoll).
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
        used = wait_for_calls(queues, limit)?;
    }
    for queue in queues {
        queue.interrupts(false);
    }
    Ok(used)
}

/// Waits until the back end signals one of the queues' call eventfds.
fn wait_for_calls(queues: &[&mut Queue], limit: Duration) -> io::Result<bool> {
    let mut poll = Poll::new()?;
    for (token, queue) in queues.iter().enumerate() {
        let call = queue.call().as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&call), Token(token), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(queues.len().max(1));
    match poll.poll(&mut events, Some(limit)) {
        // A signal ended the wait, not a frame.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
        result => result?,
    }
    // Every eventfd is read, so that none ends the next wait at once.
    let mut called = false;
    for queue in queues {
        called |= queue.call().read().is_ok();
    }
    Ok(called)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_options_are_refused() {
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

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
mod options;
mod packed;
mod queue;
mod session;
mod split;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;

pub use layout::{DESCRIPTOR, HEADER, QueueLayout};
pub use memory::{GUEST_BASE, Memory, MemoryOptions};
pub use options::{GuestOptions, Ring, Shape};
pub use queue::{Incoming, Outgoing, Queue};
pub use session::Session;

use queue::QueueFeatures;

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

    /// Does to a queue what a hostile front end may do: it asks for an interrupt, by an eventfd that
    /// makes every thread wait that writes to it, for ever. Keep the result for as long as that is to
    /// last.
    ///
    /// # Errors
    /// When the back end has ended the session.
    pub fn jam(&mut self, index: usize) -> Result<OwnedFd, GuestError> {
        self.queues[index].interrupts(true);
        self.session.jam(index)
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

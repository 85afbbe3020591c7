//! The rings of a vhost-user front end as a port: [`VhostUser`]. The kernel takes no part:
//! frames are copied from one guest's memory straight into another's.
//!
//! The port is passive: a session of `vhost_sockets` talks with the front end, makes a port of the
//! rings that it started, plugs it in, and takes it out again before anything about them changes. So
//! nothing changes under a worker: the memory stays mapped, and the addresses of the rings were
//! checked and translated once.
//!
//! ```text
//!   guest's transmit queue ── receive ─> Burst (the frames stay where they are)
//!                          <─ release ── once the lane has copied or dropped them
//!   guest's receive queue  <── send ──── Burst (the one copy)
//! ```
//!
//! # A guest is not trusted
//! Each field that a guest writes into a ring is copied out once and checked, and only the copy is
//! used; every address is looked up in the memory that the front end shared. The port of a driver
//! that breaks a rule ([`Rule`]) is stopped; a malformed frame is dropped and counted.
//!
//! Only the files that follow pointers into that memory contain `unsafe`.

#![expect(
    clippy::inline_always,
    reason = "once a frame, and measured: a call costs as much as what is called"
)]

#[cfg(any(test, fuzzing))]
pub(crate) mod arbitrary;
mod copy;
mod deliver;
mod descriptor;
mod fault;
pub mod features;
mod fill;
mod gather;
mod handshake;
mod memory;
mod packed;
mod packed_ring;
mod queue;
mod split;
mod split_ring;
mod take;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::epoll;

use crate::frame::Offloads;
use crate::frame::{Burst, MAX_BURST};
use crate::stats::Losses;
use copy::GuestBuffer;
use deliver::Drained;
use descriptor::{Descriptor, INDIRECT, NEXT, WRITE};
pub use fault::{GuestFault, Rule};
pub(crate) use fill::Filled;
pub(crate) use memory::is_memory_file;
pub use memory::{GuestMemory, MAX_REGIONS, MemoryError, RegionSpec};
use packed::Packed;
use packed_ring::PackedRing;
use queue::{Queue, Ring};
use split::Split;
use split_ring::SplitRing;

/// Largest queue (virtio 1.2, 2.7 and 2.8.10.1).
pub const MAX_QUEUE_SIZE: u16 = 32_768;

/// The state of a vring as GET_VRING_BASE and SET_VRING_BASE carry it. Split: the next entry of
/// the available ring. Packed: bits 0 to 14 the next available descriptor and bit 15 its wrap
/// counter; bits 16 to 30 and 31 the same for the next used one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VringBase(pub u32);

/// A ring that a front end started.
#[derive(Debug)]
pub struct QueueSpec {
    /// The vring's index: even ones are the guest's receive queues, odd ones its transmit
    /// queues.
    pub index: u16,
    /// Entries: a power of two in a split ring, at most [`MAX_QUEUE_SIZE`].
    pub size: u16,
    /// The descriptor area, as an address of the front end's (as all three).
    pub descriptors: u64,
    /// The driver area: the available ring.
    pub driver: u64,
    /// The device area: the used ring.
    pub device: u64,
    /// Where the device goes on in the ring.
    pub base: VringBase,
    /// The eventfd by which the driver wakes us: watched, never read. Without one, a sleeping worker
    /// is not woken.
    pub kick: Option<File>,
    /// The eventfd by which we interrupt the driver.
    pub call: Option<File>,
    /// Whether a port served it since the front end started it, and so interrupted its driver for all
    /// that was given back.
    pub resumed: bool,
}

/// Why no port can be made of the rings.
#[derive(Debug, thiserror::Error)]
pub enum VhostUserError {
    /// A part of a ring is not where the front end says.
    #[error(
        "vring {queue}: its {part} at {address:#x} is not aligned, or not all of it is in the \
         memory that the front end shared"
    )]
    OutsideMemory {
        /// The vring's index.
        queue: u16,
        /// Descriptor, driver or device area.
        part: &'static str,
        /// The address in the front end.
        address: u64,
    },
    /// No ring of this kind can have that size.
    #[error("vring {queue} cannot have {size} entries")]
    BadSize {
        /// The vring's index.
        queue: u16,
        /// The value that the front end gave.
        size: u16,
    },
    /// The base is outside the ring.
    #[error("vring {queue} cannot go on at {base:#x}: that is outside the ring")]
    BadBase {
        /// The vring's index.
        queue: u16,
        /// The value that the front end gave.
        base: u32,
    },
    /// The kernel refused to watch the kicks.
    #[error("the kicks of the rings cannot be watched: {0}")]
    Kicks(#[from] io::Error),
}

/// A function that a port calls, once, when it has stopped itself.
#[derive(Clone)]
pub struct Alarm(Arc<dyn Fn() + Send + Sync>);

impl Alarm {
    /// `ring` is called on a worker's thread: it must not block.
    pub fn new(ring: impl Fn() + Send + Sync + 'static) -> Self {
        Alarm(Arc::new(ring))
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alarm")
    }
}

/// The started rings of one guest. See the module's text.
pub struct VhostUser {
    memory: Arc<GuestMemory>,
    terms: Terms,
    /// The guest's transmit queues: we receive from them.
    transmit: Vec<Queue>,
    /// The guest's receive queues: we send to them.
    receive: Vec<Queue>,
    drained: Drained,
    /// The transmit queue to poll next.
    next: usize,
    /// The transmit queue whose buffers are in use as frames.
    held: Option<usize>,
    /// Bytes in each of the receive buffers that were filled and not yet handed over.
    filled: [u32; MAX_BURST],
    filled_len: usize,
    /// Not received from yet.
    fresh: bool,
    fault: Option<GuestFault>,
    alarm: Alarm,
    /// Readable when any transmit queue was kicked.
    kicks: OwnedFd,
}

/// The terms that were agreed on with the driver.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// Bytes of the virtio-net header: 10 or 12.
    header_len: usize,
    /// The offloads that the guest may leave to us.
    granted: Offloads,
    /// The offloads that we may leave to the guest.
    takes: Offloads,
    /// A frame may be spread over several receive buffers.
    mergeable: bool,
}

/// What a queue needs to handle frames.
pub(super) struct Context<'a> {
    memory: &'a GuestMemory,
    header_len: usize,
    granted: Offloads,
    mergeable: bool,
}

impl Context<'_> {
    /// The buffer of a descriptor that is its whole chain (neither NEXT nor INDIRECT), has the right
    /// direction (`direction` is WRITE or 0), and lies in one piece of memory. A buffer of length 0
    /// otherwise: the slow path handles those.
    #[inline(always)]
    fn single_buffer(&self, descriptor: &Descriptor, direction: u16) -> GuestBuffer {
        if descriptor.flags & (NEXT | INDIRECT | WRITE) == direction
            && let Some((start, len)) = self.memory.at(descriptor.address, descriptor.len)
            && len == descriptor.len
        {
            return GuestBuffer { start, len };
        }
        GuestBuffer::NONE
    }
}

impl VhostUser {
    /// Makes a port of rings that were started. `features` are those that the driver took.
    ///
    /// # Errors
    /// When a part of a ring is not in the shared memory, or the ring has an impossible size or base.
    pub fn new(
        memory: Arc<GuestMemory>,
        features: u64,
        queues: Vec<QueueSpec>,
        alarm: Alarm,
    ) -> Result<Self, VhostUserError> {
        let kicks = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let (mut transmit, mut receive) = (Vec::new(), Vec::new());
        for spec in queues {
            let mut queue = start(&memory, features, spec)?;
            // Disarmed: a new port is polled first.
            queue.disarm();
            if queue.spec.index.is_multiple_of(2) {
                receive.push(queue);
                continue;
            }
            if let Some(kick) = &queue.spec.kick {
                let data = epoll::EventData::new_u64(0);
                let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
                epoll::add(&kicks, kick, data, edges).map_err(io::Error::from)?;
            }
            transmit.push(queue);
        }
        Ok(VhostUser {
            memory,
            terms: Terms {
                header_len: features::header_len(features),
                granted: features::granted_to_guest(features),
                takes: features::taken_by_guest(features),
                mergeable: features & features::MRG_RXBUF != 0,
            },
            transmit,
            drained: Drained::new(receive.len()),
            receive,
            next: 0,
            held: None,
            filled: [0; MAX_BURST],
            filled_len: 0,
            fresh: true,
            fault: None,
            alarm,
            kicks,
        })
    }

    /// Takes the rings apart: each with the base where another device goes on, and why the
    /// port stopped, if it did.
    pub fn into_queues(self) -> (Vec<QueueSpec>, Option<GuestFault>) {
        let queues = self.transmit.into_iter().chain(self.receive);
        let specs = queues.map(Queue::retire);
        (specs.collect(), self.fault)
    }

    #[inline]
    pub(super) fn takes(&self) -> Offloads {
        self.terms.takes
    }

    /// Takes frames from one of the guest's transmit queues. `true` when more may wait.
    #[inline]
    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if std::mem::take(&mut self.fresh) {
            let queues = self.transmit.iter_mut().chain(&mut self.receive);
            queues.for_each(Queue::make_up_call);
        }
        let context = context(&self.memory, &self.terms);
        for _ in 0..self.transmit.len() {
            let index = self.next;
            self.next = (index + 1) % self.transmit.len();
            let queue = &mut self.transmit[index];
            match queue.receive(&context, burst, drops) {
                Ok(false) => {}
                Ok(true) => {
                    self.held = Some(index);
                    burst.set_queue(index);
                    return true;
                }
                Err(rule) => {
                    // The burst must not be used: it was not checked to its end.
                    burst.clear();
                    let queue = queue.spec.index;
                    self.stop(GuestFault { queue, rule });
                    return false;
                }
            }
        }
        false
    }

    #[inline]
    pub(super) fn release(&mut self) {
        if let Some(index) = self.held.take() {
            let queue = &mut self.transmit[index];
            queue.release();
            let queue = queue.spec.index;
            self.look_for_lost_memory(queue);
        }
    }

    pub(super) fn arm(&mut self) -> bool {
        let mut some = false;
        for queue in &mut self.transmit {
            some |= queue.arm();
        }
        // A ring in lost memory reads as zeros, that is, as an empty one.
        self.look_for_lost_memory(1);
        some && self.fault.is_none()
    }

    pub(super) fn disarm(&mut self) {
        for queue in &mut self.transmit {
            queue.disarm();
        }
    }

    /// Stops the port: its cable was closed while it may have had buffers in hand.
    pub(crate) fn close(&mut self) {
        let (queue, rule) = (0, Rule::CableClosed);
        self.stop(GuestFault { queue, rule });
    }

    #[inline]
    fn look_for_lost_memory(&mut self, queue: u16) {
        if self.memory.is_lost() {
            let rule = Rule::MemoryLost;
            self.stop(GuestFault { queue, rule });
        }
    }

    #[cold]
    fn stop(&mut self, mut fault: GuestFault) {
        if self.fault.is_none() {
            // Memory that became zeros looks like other rules broken, too.
            if self.memory.is_lost() {
                fault.rule = Rule::MemoryLost;
            }
            self.fault = Some(fault);
            (self.alarm.0)();
        }
    }
}

#[inline(always)]
fn context<'a>(memory: &'a GuestMemory, terms: &Terms) -> Context<'a> {
    Context {
        memory,
        header_len: terms.header_len,
        granted: terms.granted,
        mergeable: terms.mergeable,
    }
}

/// Finds the parts of a ring in the shared memory.
#[allow(unsafe_code)]
fn start(memory: &GuestMemory, features: u64, spec: QueueSpec) -> Result<Queue, VhostUserError> {
    let QueueSpec {
        index: queue, size, ..
    } = spec;
    let has = |feature| features & feature != 0;
    let packed = has(features::RING_PACKED);
    if size == 0 || size > MAX_QUEUE_SIZE || !(packed || size.is_power_of_two()) {
        return Err(VhostUserError::BadSize { queue, size });
    }
    let (lengths, alignments) = if packed {
        (PackedRing::lengths(size), PackedRing::ALIGNMENTS)
    } else {
        (SplitRing::lengths(size), SplitRing::ALIGNMENTS)
    };
    let find = |part, address, which: usize| {
        memory
            .by_user(address, lengths[which], alignments[which])
            .ok_or(VhostUserError::OutsideMemory {
                queue,
                part,
                address,
            })
    };
    let parts = [
        find("descriptor area", spec.descriptors, 0)?,
        find("driver area", spec.driver, 1)?,
        find("device area", spec.device, 2)?,
    ];
    let in_order = has(features::IN_ORDER);
    let ring = if packed {
        // SAFETY: aligned and mapped, as found above; a queue follows its pointers only while the
        // port that owns it holds the memory.
        let ring = unsafe { PackedRing::new(size, parts) };
        let base = spec.base.0;
        let ring = Packed::new(ring, spec.base, in_order);
        Ring::Packed(ring.ok_or(VhostUserError::BadBase { queue, base })?)
    } else {
        // SAFETY: as above, and the size is a power of two.
        let ring = unsafe { SplitRing::new(size, parts) };
        let event_index = has(features::EVENT_IDX);
        Ring::Split(Split::new(ring, spec.base, event_index, in_order))
    };
    Ok(Queue { ring, spec })
}

impl AsRawFd for VhostUser {
    fn as_raw_fd(&self) -> RawFd {
        self.kicks.as_raw_fd()
    }
}

impl fmt::Debug for VhostUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VhostUser")
            .field("transmit", &self.transmit.len())
            .field("receive", &self.receive.len())
            .field("terms", &self.terms)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

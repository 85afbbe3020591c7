//! A port whose other half is in this process: for tests, benchmarks and in-process hosts.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::frame::Offloads;
use crate::frame::{Burst, VnetHeader};
use crate::stats::{DropReason, Losses};

/// A frame between the halves; its memory is reused.
#[derive(Debug, Default)]
struct Slot {
    header: VnetHeader,
    frame: Vec<u8>,
}

/// One direction: full slots, empty ones that go back, and a wake-up.
#[derive(Debug)]
struct Way {
    full: ArrayQueue<Slot>,
    empty: ArrayQueue<Slot>,
    wakeup: OwnedFd,
}

impl Way {
    fn new(capacity: usize) -> io::Result<Self> {
        let way = Way {
            full: ArrayQueue::new(capacity),
            empty: ArrayQueue::new(capacity),
            wakeup: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        };
        for _ in 0..capacity {
            let slot = Slot {
                frame: Vec::with_capacity(2048),
                ..Slot::default()
            };
            way.empty
                .push(slot)
                .expect("as many slots as the queue holds");
        }
        Ok(way)
    }

    fn send(&self, header: VnetHeader, len: usize, fill: impl FnOnce(&mut [u8])) -> bool {
        let Some(mut slot) = self.empty.pop() else {
            return false;
        };
        slot.header = header;
        slot.frame.resize(len, 0);
        fill(&mut slot.frame);
        self.full
            .push(slot)
            .expect("as many slots as the queue holds");
        true
    }

    fn receive(&self, take: impl FnOnce(VnetHeader, &[u8])) -> bool {
        let Some(slot) = self.full.pop() else {
            return false;
        };
        take(slot.header, &slot.frame);
        self.empty
            .push(slot)
            .expect("as many slots as the queue holds");
        true
    }

    fn wake(&self) {
        // It fails when the counter is full: then the other half has been woken already.
        let _ = rustix::io::write(&self.wakeup, &1u64.to_ne_bytes());
    }
}

/// The half that is a port of a cable; made by [`memory`].
#[derive(Debug)]
pub struct Memory {
    takes: Offloads,
    inward: Arc<Way>,
    outward: Arc<Way>,
    #[cfg(test)]
    fault: Option<Fault>,
}

/// What a port does wrong, in tests, once it has received a frame whose first byte is
/// [`Fault::TRIGGER`].
#[cfg(test)]
#[derive(Debug)]
pub(crate) enum Fault {
    Panics,
    /// Until told to go on.
    Hangs(Arc<std::sync::atomic::AtomicBool>),
    /// Says that more frames wait, for ever.
    Lies,
}

#[cfg(test)]
impl Fault {
    pub(crate) const TRIGGER: u8 = 0xee;

    /// Whether more frames wait, according to the port.
    fn act(&self) -> bool {
        match self {
            Fault::Panics => panic!("a fault was injected"),
            Fault::Hangs(released) => {
                while !released.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                false
            }
            Fault::Lies => true,
        }
    }
}

/// The host's half: the frames that it sends enter the cable, and those that leave the cable it
/// receives.
#[derive(Debug)]
pub struct MemoryHost {
    inward: Arc<Way>,
    outward: Arc<Way>,
}

/// Two halves that hold up to `capacity` frames each way. The host's half takes frames with
/// every offload.
///
/// # Errors
/// When the process is out of descriptors.
pub fn memory(capacity: usize) -> io::Result<(Memory, MemoryHost)> {
    memory_taking(Offloads::ALL, capacity)
}

/// As [`memory`], with a host's half that takes only the offloads in `takes`.
///
/// # Errors
/// When the process is out of descriptors.
pub fn memory_taking(takes: Offloads, capacity: usize) -> io::Result<(Memory, MemoryHost)> {
    let (inward, outward) = (Arc::new(Way::new(capacity)?), Arc::new(Way::new(capacity)?));
    let port = Memory {
        takes,
        inward: inward.clone(),
        outward: outward.clone(),
        #[cfg(test)]
        fault: None,
    };
    Ok((port, MemoryHost { inward, outward }))
}

impl Memory {
    pub(super) fn takes(&self) -> Offloads {
        self.takes
    }

    #[cfg(test)]
    pub(crate) fn with_fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(super) fn receive(&mut self, burst: &mut Burst, drops: &mut Losses) -> bool {
        let more = self.take_waiting(burst, drops);
        #[cfg(test)]
        if let Some(fault) = &self.fault
            && (0..burst.len()).any(|index| burst.to_vec(index)[0] == Fault::TRIGGER)
        {
            return fault.act();
        }
        more
    }

    fn take_waiting(&mut self, burst: &mut Burst, drops: &mut Losses) -> bool {
        while burst.has_room() {
            let Some((place, memory)) = burst.vacant(0) else {
                break;
            };
            let mut len = 0;
            let received = self.inward.receive(|header, frame| {
                *place = header;
                // One byte more than the longest frame shows that it is longer.
                len = frame.len().min(memory.len());
                memory[..len].copy_from_slice(&frame[..len]);
            });
            if !received {
                return false;
            }
            drops.count_refused(burst.take_in(0, len, None));
        }
        true
    }

    pub(super) fn send(&mut self, burst: &Burst, from: usize, drops: &mut Losses) {
        for index in from..burst.len() {
            let fill = |frame: &mut [u8]| _ = burst.copy_out(index, frame);
            let (header, len) = (*burst.header(index), burst.frame_len(index));
            if !self.outward.send(header, len, fill) {
                drops.lose(index, DropReason::ReceiverFull);
            }
        }
        self.outward.wake();
    }
}

impl AsRawFd for Memory {
    fn as_raw_fd(&self) -> RawFd {
        self.inward.wakeup.as_raw_fd()
    }
}

impl MemoryHost {
    /// Sends one frame without FCS, of any length: the port counts one that is too short or too long.
    /// `false` when as many frames wait as the queue holds.
    pub fn send(&self, header: VnetHeader, frame: &[u8]) -> bool {
        let sent = self
            .inward
            .send(header, frame.len(), |to| to.copy_from_slice(frame));
        self.inward.wake();
        sent
    }

    /// The next frame, if one comes within `limit`.
    pub fn receive(&self, limit: Duration) -> Option<(VnetHeader, Vec<u8>)> {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let mut received = None;
            if self
                .outward
                .receive(|header, frame| received = Some((header, frame.to_vec())))
            {
                return received;
            }
            let left = deadline.checked_duration_since(std::time::Instant::now())?;
            let left = Timespec::try_from(left).ok()?;
            let wakeup = self.outward.wakeup.as_fd();
            let _ = poll(&mut [PollFd::new(&wakeup, PollFlags::IN)], Some(&left));
            let _ = rustix::io::read(wakeup, &mut [0; 8]);
        }
    }
}

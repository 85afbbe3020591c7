//! The messages of the vhost-user protocol, as its front end sends them.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::write;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use crate::queue::Queue;
use crate::{GuestError, Memory, features};

/// The longest time that a back end may take to answer a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

// Numbers of messages that the vhost crate cannot express.
const SET_VRING_BASE: u32 = 10;
const SET_VRING_CALL: u32 = 13;
const GET_QUEUE_NUM: u32 = 17;

/// Flags of a message: version 1 of the protocol, no reply.
const VERSION: u32 = 1;

/// A connection to a back end. It exists before the rings run and outlives them.
pub struct Session {
    front: Frontend,
    socket: UnixStream,
    offered: u64,
    acked: u64,
    queues: u64,
}

impl Session {
    /// Begins a session with up to `queues` queues on a connected socket, and asks which features
    /// the back end offers.
    ///
    /// # Errors
    /// [`GuestError::Protocol`] when the back end refuses a message or does not answer it in 5 s.
    pub fn begin(socket: UnixStream, queues: u64) -> Result<Session, GuestError> {
        socket
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .map_err(GuestError::Socket)?;
        socket
            .set_write_timeout(Some(ANSWER_TIMEOUT))
            .map_err(GuestError::Socket)?;
        let ours = socket.try_clone().map_err(GuestError::Socket)?;
        let front = Frontend::from_stream(socket, queues);
        front.set_owner().map_err(failed("SET_OWNER"))?;
        let offered = front.get_features().map_err(failed("GET_FEATURES"))?;
        Ok(Session {
            front,
            socket: ours,
            offered,
            acked: 0,
            queues,
        })
    }

    /// The feature bits that the back end offers.
    pub(crate) fn offered(&self) -> u64 {
        self.offered
    }

    /// Accepts the features of `wanted` that the back end offers, and returns them.
    pub(crate) fn negotiate(&mut self, wanted: u64) -> Result<u64, GuestError> {
        let agreed = (wanted | features::PROTOCOL_FEATURES) & self.offered;
        if agreed & features::PROTOCOL_FEATURES != 0 {
            self.negotiate_protocol()?;
        }
        self.acked = agreed;
        self.front
            .set_features(agreed)
            .map_err(failed("SET_FEATURES"))?;
        Ok(agreed & !features::PROTOCOL_FEATURES)
    }

    fn negotiate_protocol(&mut self) -> Result<(), GuestError> {
        let supported = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
        let agreed = self
            .front
            .get_protocol_features()
            .map_err(failed("GET_PROTOCOL_FEATURES"))?
            & supported;
        self.front
            .set_protocol_features(agreed)
            .map_err(failed("SET_PROTOCOL_FEATURES"))?;
        let offered = if agreed.contains(VhostUserProtocolFeatures::MQ) {
            self.queue_pairs().map_err(GuestError::Socket)?
        } else {
            1
        };
        let wanted = self.queues / 2;
        if offered < wanted {
            return Err(GuestError::TooFewQueues { offered, wanted });
        }
        if agreed.contains(VhostUserProtocolFeatures::REPLY_ACK) {
            self.front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        Ok(())
    }

    /// Asks for the number of queue pairs, without the vhost crate: back ends of network devices
    /// answer with a number of pairs (QEMU, DPDK), which the crate takes for a number of queues, so
    /// that it would refuse half of them.
    fn queue_pairs(&self) -> io::Result<u64> {
        self.message(GET_QUEUE_NUM, VERSION, &[], &[])?;
        let mut answer = [0; 20];
        (&self.socket).read_exact(&mut answer)?;
        let (_, number) = answer.split_at(12);
        Ok(u64::from_ne_bytes(
            number.try_into().expect("eight of twenty bytes"),
        ))
    }

    /// Shares the guest's memory with the back end.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn share(&self, memory: &Memory) -> Result<(), GuestError> {
        let regions: Vec<_> = memory
            .regions()
            .iter()
            .map(|region| VhostUserMemoryRegionInfo {
                guest_phys_addr: memory.guest_address(region.at),
                memory_size: region.size as u64,
                userspace_addr: Memory::user_address(region.at),
                mmap_offset: 0,
                mmap_handle: std::os::fd::AsFd::as_fd(region).as_raw_fd(),
            })
            .collect();
        self.front
            .set_mem_table(&regions)
            .map(drop)
            .map_err(failed("SET_MEM_TABLE"))
    }

    /// Starts the queue's ring at `base`, where it has not run yet or where it stopped.
    pub(crate) fn start(
        &mut self,
        index: usize,
        queue: &Queue,
        base: u32,
    ) -> Result<(), GuestError> {
        let layout = queue.layout();
        self.front
            .set_vring_num(index, layout.size)
            .map_err(failed("SET_VRING_NUM"))?;
        // Without the vhost crate, whose base has 16 bits: a packed ring's has 32.
        let body = [index as u32, base].map(u32::to_ne_bytes).concat();
        self.message(SET_VRING_BASE, VERSION, &body, &[])
            .map_err(GuestError::Socket)?;
        let addresses = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: Memory::user_address(layout.descriptors),
            avail_ring_addr: Memory::user_address(layout.driver),
            used_ring_addr: Memory::user_address(layout.device),
            log_addr: None,
        };
        self.front
            .set_vring_addr(index, &addresses)
            .map_err(failed("SET_VRING_ADDR"))?;
        self.front
            .set_vring_call(index, queue.call())
            .map_err(failed("SET_VRING_CALL"))?;
        self.front
            .set_vring_kick(index, queue.kick())
            .map_err(failed("SET_VRING_KICK"))?;
        // Without VHOST_USER_F_PROTOCOL_FEATURES a ring starts enabled (vhost-user, "Ring states").
        if self.acked & features::PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.front
            .set_vring_enable(index, true)
            .map_err(failed("SET_VRING_ENABLE"))
    }

    /// Stops the queue's ring. Returns the base to start it from again.
    pub(crate) fn stop(&self, index: usize) -> Result<u32, GuestError> {
        self.front
            .get_vring_base(index)
            .map_err(failed("GET_VRING_BASE"))
    }

    /// Has the back end signal a queue by an eventfd that blocks and whose counter is full. The flag
    /// that it blocks belongs to the open file, which the back end shares.
    pub(crate) fn jam(&self, index: usize) -> Result<OwnedFd, GuestError> {
        let jam = || -> io::Result<OwnedFd> {
            let call = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            let body = (index as u64).to_ne_bytes();
            self.message(SET_VRING_CALL, VERSION, &body, &[call.as_fd()])?;
            Ok(call)
        };
        let call = jam().map_err(GuestError::Socket)?;
        // Once it has answered, it has taken the eventfd over and may have set flags of its own.
        self.front.get_features().map_err(failed("GET_FEATURES"))?;
        let fill = || -> io::Result<()> {
            let flags = fcntl_getfl(&call)?;
            fcntl_setfl(&call, flags - OFlags::NONBLOCK)?;
            write(&call, &(u64::MAX - 1).to_ne_bytes())?;
            Ok(())
        };
        fill().map_err(GuestError::Socket)?;
        Ok(call)
    }

    /// Whether the back end keeps the connection open.
    pub fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.socket, &mut [0; 1][..], flags) {
            Ok((_, read)) => read > 0,
            Err(errno) => errno == rustix::io::Errno::AGAIN,
        }
    }

    /// Sends any message, valid or not: a header, then `body`, with `descriptors` attached.
    ///
    /// # Errors
    /// The error of sendmsg(2).
    pub fn message(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let header = [request, flags, body.len() as u32]
            .map(u32::to_ne_bytes)
            .concat();
        self.bytes(&[header, body.to_vec()].concat(), descriptors)
    }

    /// Sends any bytes, with `descriptors` attached.
    ///
    /// # Errors
    /// The error of sendmsg(2).
    pub fn bytes(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = vec![std::mem::MaybeUninit::uninit(); 4096];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let parts = [io::IoSlice::new(bytes)];
        sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The connected socket, for tests that read or write it themselves.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

/// Turns the vhost crate's error for a message into [`GuestError::Protocol`].
fn failed(action: &'static str) -> impl Fn(vhost::Error) -> GuestError {
    move |error| GuestError::Protocol { action, error }
}

//! The front end's end of a vhost-user socket: the protocol's messages.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use crate::queue::Queue;
use crate::{GuestError, Memory, features};

/// How long a back end may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Numbers of messages that the crate cannot express.
const SET_VRING_BASE: u32 = 10;
const GET_QUEUE_NUM: u32 = 17;

/// Version 1 of the protocol.
const VERSION: u32 = 1;

/// A connection to a back end, before and after the rings run.
pub struct Session {
    front: Frontend,
    socket: UnixStream,
    offered: u64,
    acked: u64,
    queues: u64,
}

impl Session {
    /// Begins a session on a connected socket and learns what the back end offers.
    ///
    /// # Errors
    /// [`GuestError::Protocol`] when the back end does not answer as it should.
    pub fn begin(socket: UnixStream, queues: u64) -> Result<Session, GuestError> {
        socket
            .set_read_timeout(Some(ANSWER))
            .map_err(GuestError::Socket)?;
        socket
            .set_write_timeout(Some(ANSWER))
            .map_err(GuestError::Socket)?;
        let ours = socket.try_clone().map_err(GuestError::Socket)?;
        let front = Frontend::from_stream(socket, queues);
        let told = |action| move |error| GuestError::Protocol { action, error };
        front.set_owner().map_err(told("SET_OWNER"))?;
        let offered = front.get_features().map_err(told("GET_FEATURES"))?;
        Ok(Session {
            front,
            socket: ours,
            offered,
            acked: 0,
            queues,
        })
    }

    /// The back end's features.
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The features in force.
    pub fn acked(&self) -> u64 {
        self.acked
    }

    /// Agrees on features: those of `wanted` that the back end offers. Returns them.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn agree(&mut self, wanted: u64) -> Result<u64, GuestError> {
        let told = |action| move |error| GuestError::Protocol { action, error };
        let agreed = (wanted | features::PROTOCOL_FEATURES) & self.offered;
        if agreed & features::PROTOCOL_FEATURES != 0 {
            let can = self
                .front
                .get_protocol_features()
                .map_err(told("GET_PROTOCOL_FEATURES"))?;
            let ours = VhostUserProtocolFeatures::MQ
                | VhostUserProtocolFeatures::REPLY_ACK
                | VhostUserProtocolFeatures::RESET_DEVICE
                | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
            let both = can & ours;
            self.front
                .set_protocol_features(both)
                .map_err(told("SET_PROTOCOL_FEATURES"))?;
            if both.contains(VhostUserProtocolFeatures::MQ) {
                let offered = self.queue_pairs().map_err(GuestError::Socket)?;
                if offered * 2 < self.queues {
                    return Err(GuestError::TooFewQueues {
                        offered,
                        wanted: self.queues / 2,
                    });
                }
            } else if self.queues > 2 {
                return Err(GuestError::TooFewQueues {
                    offered: 1,
                    wanted: self.queues / 2,
                });
            }
            if both.contains(VhostUserProtocolFeatures::REPLY_ACK) {
                self.front.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
            }
        }
        self.acked = agreed;
        self.front
            .set_features(agreed)
            .map_err(told("SET_FEATURES"))?;
        Ok(agreed & !features::PROTOCOL_FEATURES)
    }

    /// By hand: for network devices the answer counts pairs of queues (QEMU, DPDK), and the
    /// crate, which takes it for queues, would refuse half of them.
    fn queue_pairs(&self) -> io::Result<u64> {
        self.message(GET_QUEUE_NUM, VERSION, &[], &[])?;
        let mut answer = [0; 20];
        (&self.socket).read_exact(&mut answer)?;
        let (_, number) = answer.split_at(12);
        Ok(u64::from_ne_bytes(
            number.try_into().expect("eight of twenty bytes"),
        ))
    }

    /// Tells the back end where the memory is.
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
                userspace_addr: memory.user_address(region.at),
                mmap_offset: 0,
                mmap_handle: std::os::fd::AsFd::as_fd(region).as_raw_fd(),
            })
            .collect();
        self.front
            .set_mem_table(&regions)
            .map(drop)
            .map_err(|error| GuestError::Protocol {
                action: "SET_MEM_TABLE",
                error,
            })
    }

    /// Starts a ring where it stopped (`base`, as [`Session::stop`] returned it).
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn start(
        &mut self,
        index: usize,
        queue: &Queue,
        memory: &Memory,
        base: u32,
    ) -> Result<(), GuestError> {
        let told = |action| move |error| GuestError::Protocol { action, error };
        let layout = queue.layout();
        self.front
            .set_vring_num(index, layout.size)
            .map_err(told("SET_VRING_NUM"))?;
        // By hand: a packed ring's base has 32 bits, and the crate's only 16.
        let body = [index as u32, base].map(u32::to_ne_bytes).concat();
        self.message(SET_VRING_BASE, VERSION, &body, &[])
            .map_err(GuestError::Socket)?;
        let addresses = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: memory.user_address(layout.descriptors),
            avail_ring_addr: memory.user_address(layout.driver),
            used_ring_addr: memory.user_address(layout.device),
            log_addr: None,
        };
        self.front
            .set_vring_addr(index, &addresses)
            .map_err(told("SET_VRING_ADDR"))?;
        self.front
            .set_vring_call(index, queue.call())
            .map_err(told("SET_VRING_CALL"))?;
        self.front
            .set_vring_kick(index, queue.kick())
            .map_err(told("SET_VRING_KICK"))?;
        self.enable(index, true)
    }

    /// Lets the back end use a started ring, or not.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn enable(&mut self, index: usize, enabled: bool) -> Result<(), GuestError> {
        if self.acked & features::PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.front
            .set_vring_enable(index, enabled)
            .map_err(|error| GuestError::Protocol {
                action: "SET_VRING_ENABLE",
                error,
            })
    }

    /// Stops a ring. Returns where it can be started again.
    ///
    /// # Errors
    /// [`GuestError::Protocol`].
    pub fn stop(&self, index: usize) -> Result<u32, GuestError> {
        self.front
            .get_vring_base(index)
            .map_err(|error| GuestError::Protocol {
                action: "GET_VRING_BASE",
                error,
            })
    }

    /// Whether the back end still holds its end.
    pub fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(&self.socket, &mut [0; 1][..], flags) {
            Ok((_, read)) => read > 0,
            Err(errno) => errno == rustix::io::Errno::AGAIN,
        }
    }

    /// Sends any message, right or wrong: a header and these bytes, with these descriptors.
    ///
    /// # Errors
    /// What the socket says.
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

    /// Sends any bytes.
    ///
    /// # Errors
    /// What the socket says.
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

    /// The socket itself.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

//! The device behind one session: [`Backend`]. It answers messages, keeps the state of the rings that
//! the front end sets up, and makes ports of them. It is independent of sockets and of time.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserMemory, VhostUserMemoryRegion, VhostUserProtocolFeatures,
    VhostUserSingleMemoryRegion, VhostUserU64, VhostUserVringAddr, VhostUserVringState,
};

use crate::panel::PanelError;
use crate::port::vhost_user::{
    Alarm, GuestFault, GuestMemory, MAX_REGIONS, MemoryError, RegionSpec, VhostUser,
    VhostUserError, features,
};
use crate::vhost_sockets::cable_end::{CableEnd, ExchangePort};
use crate::vhost_sockets::message::{Message, MessageError, split};
use crate::vhost_sockets::ring::{Ring, RingAddresses, eventfd};

/// Pairs of a receive and a transmit queue.
const QUEUE_PAIRS: u64 = 8;

/// Rings of all pairs. The control queue is the front end's own.
const RINGS: usize = 2 * QUEUE_PAIRS as usize;

/// The protocol features that are offered. Left out are those for migrating a guest with its device
/// (LOG_SHMFD, RARP, DEVICE_STATE), and RESET_DEVICE, because GET_VRING_BASE and a status of 0
/// do the same.
const PROTOCOL_OFFERED: VhostUserProtocolFeatures = VhostUserProtocolFeatures::MQ
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::MTU)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    .union(VhostUserProtocolFeatures::STATUS);

/// Bit 8 in a message that sets a ring's eventfd: no descriptor comes with it.
const NO_FILE: u64 = 1 << 8;

/// Why a session ends: one sentence that names the rule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("{0:?}: this back end does not offer it")]
    NotOffered(FrontendReq),
    #[error("ring {0}: there are only {RINGS} rings, {QUEUE_PAIRS} queue pairs")]
    NoSuchRing(u64),
    #[error("ring {0}: enable it with 1 or disable it with 0, not with {1}")]
    Enable(u32, u32),
    #[error("ring {0}: its descriptor is not an eventfd")]
    NoEventfd(usize),
    #[error("ring {0}: started without a kick descriptor, and rings are not polled")]
    NoKick(usize),
    #[error("ring {0}: {1} entries are more than a ring can have")]
    RingSize(u32, u32),
    #[error("it wants features {0:#x} that were not offered")]
    Features(u64),
    #[error("it wants protocol features {0:#x} that were not offered")]
    ProtocolFeatures(u64),
    #[error("{0}")]
    Memory(#[from] MemoryError),
    #[error("{0}")]
    Rings(#[from] VhostUserError),
    #[error("{0}")]
    Guest(GuestFault),
    #[error("another port was put in its place")]
    Displaced,
    #[error("{0}")]
    Panel(#[from] PanelError),
}

/// How a request is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No answer, or 0 if the front end asked for the outcome.
    Done,
    /// No answer, or 1 if the front end asked for the outcome.
    Declined,
    Value(u64),
    Ring {
        index: u32,
        value: u32,
    },
}

/// The device that one front end sees.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The longest IP packet that the cable is meant for, in bytes.
    mtu: Option<u16>,
    features: u64,
    protocol: u64,
    status: u64,
    memory: Option<Arc<GuestMemory>>,
    rings: [Ring; RINGS],
    /// The rings of the port that is plugged in, as bits; 0 when none is.
    plugged: u32,
}

impl Backend {
    /// A device as it is before the first message. `mtu` is advertised to the guest.
    pub(crate) fn new(mtu: Option<u16>) -> Self {
        Backend {
            mtu,
            features: 0,
            protocol: 0,
            status: 0,
            memory: None,
            rings: Default::default(),
            plugged: 0,
        }
    }

    /// Whether a port with its rings is plugged in.
    pub(crate) fn is_plugged(&self) -> bool {
        self.plugged != 0
    }

    /// Whether [`Backend::settle`] has nothing to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.running() == self.plugged
    }

    /// Whether the front end may ask for the outcome of its requests.
    pub(crate) fn acknowledges(&self) -> bool {
        self.protocol & VhostUserProtocolFeatures::REPLY_ACK.bits() != 0
    }

    /// Carries out a request. One that changes a running ring or its memory takes the port out first;
    /// [`Backend::settle`] plugs it in again.
    pub(crate) fn handle(
        &mut self,
        mut message: Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        use FrontendReq as Is;
        match message.request {
            Is::SET_VRING_KICK | Is::SET_VRING_CALL | Is::SET_VRING_ERR => {
                return self.set_file(message, cable_end);
            }
            Is::SET_MEM_TABLE => return self.set_memory(message, cable_end),
            Is::ADD_MEM_REG => return self.add_memory(message, cable_end),
            Is::REM_MEM_REG => {
                // Front ends used to send its descriptor along; the protocol says to close it.
                let _ = message.take_files(1);
                return self.remove_memory(&message, cable_end);
            }
            _ => {}
        }
        message.take_files(0)?;
        match message.request {
            Is::SET_OWNER => message
                .is_bare()
                .map(|()| Answer::Done)
                .map_err(SessionError::from),
            Is::RESET_OWNER => self.disable_all(&message, cable_end),
            Is::GET_FEATURES => answer(&message, self.offered()),
            Is::SET_FEATURES => self.set_features(number(&message)?, cable_end),
            Is::GET_PROTOCOL_FEATURES => answer(&message, PROTOCOL_OFFERED.bits()),
            Is::SET_PROTOCOL_FEATURES => self.set_protocol_features(number(&message)?),
            Is::GET_QUEUE_NUM => answer(&message, QUEUE_PAIRS),
            Is::GET_MAX_MEM_SLOTS => answer(&message, MAX_REGIONS as u64),
            Is::GET_STATUS => answer(&message, self.status),
            Is::SET_STATUS => self.set_status(number(&message)?, cable_end),
            Is::NET_SET_MTU => Ok(self.set_mtu(number(&message)?)),
            Is::SET_VRING_NUM => self.set_size(message.body()?, cable_end),
            Is::SET_VRING_ADDR => self.set_addresses(message.body()?, cable_end),
            Is::SET_VRING_BASE => self.set_base(message.body()?, cable_end),
            Is::GET_VRING_BASE => self.stop(message.body()?, cable_end),
            Is::SET_VRING_ENABLE => self.enable(message.body()?, cable_end),
            request => Err(SessionError::NotOffered(request)),
        }
    }

    /// Has the plugged port consist of exactly the rings that run.
    pub(crate) fn settle(
        &mut self,
        cable_end: &mut CableEnd<impl ExchangePort>,
        alarm: &Alarm,
    ) -> Result<(), SessionError> {
        if self.is_settled() {
            return Ok(());
        }
        self.unplug(cable_end)?;
        let running = self.running();
        let Some(memory) = self.memory.clone().filter(|_| running != 0) else {
            return Ok(());
        };
        let packed = self.features & features::RING_PACKED != 0;
        let queues = (0..RINGS)
            .filter(|index| running & 1 << index != 0)
            .map(|index| {
                let queue = self.rings[index].lend(index as u16, packed);
                let queue = queue.expect("a ring without address does not run");
                match queue.kick {
                    Some(_) => Ok(queue),
                    None => Err(SessionError::NoKick(index)),
                }
            })
            .collect::<Result<_, _>>()?;
        let port = VhostUser::new(memory, self.features, queues, alarm.clone())?;
        cable_end.plug(port)?;
        self.plugged = running;
        Ok(())
    }

    /// Takes the port out, if one is plugged in, and takes the state of its rings back.
    pub(crate) fn unplug(
        &mut self,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<(), SessionError> {
        if std::mem::take(&mut self.plugged) == 0 {
            return Ok(());
        }
        let port = cable_end.unplug()?.ok_or(SessionError::Displaced)?;
        let (queues, fault) = port.into_queues();
        for queue in queues {
            self.rings[usize::from(queue.index)].take_back(queue);
        }
        fault.map_or(Ok(()), |fault| Err(SessionError::Guest(fault)))
    }

    fn offered(&self) -> u64 {
        match self.mtu {
            Some(_) => features::OFFERED | features::MTU,
            None => features::OFFERED & !features::MTU,
        }
    }

    fn running(&self) -> u32 {
        if self.memory.is_none() {
            return 0;
        }
        let always_enabled = self.features & features::PROTOCOL_FEATURES == 0;
        (0..RINGS)
            .filter(|index| self.rings[*index].runs(always_enabled))
            .fold(0, |bits, index| bits | 1 << index)
    }

    fn set_features(
        &mut self,
        wanted: u64,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let unknown = wanted & !self.offered();
        if unknown != 0 {
            return Err(SessionError::Features(unknown));
        }
        if wanted != self.features {
            self.unplug(cable_end)?;
            self.features = wanted;
        }
        Ok(Answer::Done)
    }

    fn set_protocol_features(&mut self, wanted: u64) -> Result<Answer, SessionError> {
        let unknown = wanted & !PROTOCOL_OFFERED.bits();
        if unknown != 0 {
            return Err(SessionError::ProtocolFeatures(unknown));
        }
        self.protocol = wanted;
        Ok(Answer::Done)
    }

    /// A status of 0 resets the device: no ring may be touched after that.
    fn set_status(
        &mut self,
        status: u64,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        self.status = status & 0xff;
        if self.status == 0 {
            self.unplug(cable_end)?;
            self.rings.iter_mut().for_each(Ring::stop);
        }
        Ok(Answer::Done)
    }

    /// The guest sets its MTU: at least 68 bytes (RFC 791), at most the cable's MTU.
    fn set_mtu(&self, mtu: u64) -> Answer {
        if (68..=self.mtu.map_or(65_535, u64::from)).contains(&mtu) {
            Answer::Done
        } else {
            Answer::Declined
        }
    }

    fn set_memory(
        &mut self,
        mut message: Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let (table, mut rest) = message.parts::<VhostUserMemory>()?;
        let mut specs = Vec::new();
        for _ in 0..table.num_regions {
            let (region, behind) = split::<VhostUserMemoryRegion>(rest)
                .ok_or(MessageError::Body(FrontendReq::SET_MEM_TABLE))?;
            specs.push(spec(&region));
            rest = behind;
        }
        if !rest.is_empty() {
            return Err(MessageError::Body(FrontendReq::SET_MEM_TABLE).into());
        }
        let files = message.take_files(specs.len())?;
        self.unplug(cable_end)?;
        // Unmapped first, so that the address space need not hold the old and the new memory.
        self.memory = None;
        let regions = specs.into_iter().zip(files.into_iter().map(File::from));
        self.memory = Some(Arc::new(GuestMemory::map(regions.collect())?));
        Ok(Answer::Done)
    }

    /// QEMU 7.2 keeps account of the regions for each queue pair: each pair adds them all when it
    /// starts, and removes those that go. Only the first message of several changes anything.
    fn add_memory(
        &mut self,
        mut message: Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let region = message.body::<VhostUserSingleMemoryRegion>()?;
        let mut files = message.take_files(1)?;
        let (spec, file) = (spec(&region), File::from(files.remove(0)));
        if (self.memory.as_ref()).is_some_and(|memory| memory.has(&spec, &file)) {
            return Ok(Answer::Done);
        }
        self.unplug(cable_end)?;
        let added = match &self.memory {
            Some(memory) => memory.with(spec, &file)?,
            None => GuestMemory::map(vec![(spec, file)])?,
        };
        self.memory = Some(Arc::new(added));
        Ok(Answer::Done)
    }

    fn remove_memory(
        &mut self,
        message: &Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let region = message.body::<VhostUserSingleMemoryRegion>()?;
        if let Some(left) = (self.memory.as_ref()).and_then(|memory| memory.without(&spec(&region)))
        {
            self.unplug(cable_end)?;
            self.memory = Some(Arc::new(left));
        }
        Ok(Answer::Done)
    }

    fn set_file(
        &mut self,
        mut message: Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let request = message.request;
        let value = number(&message)?;
        let index = ring_index(value & 0xff)?;
        let files = message.take_files(usize::from(value & NO_FILE == 0))?;
        let file = match files.into_iter().next() {
            Some(file) => Some(eventfd(file).ok_or(SessionError::NoEventfd(index))?),
            None => None,
        };
        if request == FrontendReq::SET_VRING_ERR {
            self.rings[index].error = file;
            return Ok(Answer::Done);
        }
        let ring = self.stopped_ring(index, cable_end)?;
        if request == FrontendReq::SET_VRING_CALL {
            ring.call = file;
        } else {
            ring.kick = file;
            ring.started = true;
        }
        Ok(Answer::Done)
    }

    fn set_size(
        &mut self,
        state: VhostUserVringState,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        // Whether it must be a power of two depends on features, which may come later: the port
        // checks that.
        if state.num > 32_768 {
            return Err(SessionError::RingSize(state.index, state.num));
        }
        let index = ring_index(state.index.into())?;
        self.stopped_ring(index, cable_end)?.size = state.num;
        Ok(Answer::Done)
    }

    fn set_addresses(
        &mut self,
        address: VhostUserVringAddr,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let index = ring_index(address.index.into())?;
        self.stopped_ring(index, cable_end)?.addresses = Some(RingAddresses {
            descriptors: address.descriptor,
            driver: address.available,
            device: address.used,
        });
        Ok(Answer::Done)
    }

    fn set_base(
        &mut self,
        state: VhostUserVringState,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let index = ring_index(state.index.into())?;
        self.stopped_ring(index, cable_end)?.base = Some(state.num);
        Ok(Answer::Done)
    }

    /// GET_VRING_BASE: stops the ring and answers where it stands.
    fn stop(
        &mut self,
        state: VhostUserVringState,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let index = ring_index(state.index.into())?;
        let packed = self.features & features::RING_PACKED != 0;
        let ring = self.stopped_ring(index, cable_end)?;
        ring.stop();
        Ok(Answer::Ring {
            index: state.index,
            value: ring.base(packed),
        })
    }

    fn enable(
        &mut self,
        state: VhostUserVringState,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        let enabled = match state.num {
            0 => false,
            1 => true,
            other => return Err(SessionError::Enable(state.index, other)),
        };
        let index = ring_index(state.index.into())?;
        if enabled == self.rings[index].enabled {
            return Ok(Answer::Done);
        }
        self.stopped_ring(index, cable_end)?.enabled = enabled;
        Ok(Answer::Done)
    }

    /// RESET_OWNER: old front ends send it to stop a device, new ones do not send it.
    fn disable_all(
        &mut self,
        message: &Message,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<Answer, SessionError> {
        message.is_bare()?;
        self.unplug(cable_end)?;
        for ring in &mut self.rings {
            ring.enabled = false;
        }
        Ok(Answer::Done)
    }

    /// The ring, after its port was taken out.
    fn stopped_ring(
        &mut self,
        index: usize,
        cable_end: &mut CableEnd<impl ExchangePort>,
    ) -> Result<&mut Ring, SessionError> {
        if self.plugged & 1 << index != 0 {
            self.unplug(cable_end)?;
        }
        Ok(&mut self.rings[index])
    }
}

fn answer(message: &Message, value: u64) -> Result<Answer, SessionError> {
    message.is_bare()?;
    Ok(Answer::Value(value))
}

fn ring_index(index: u64) -> Result<usize, SessionError> {
    match usize::try_from(index) {
        Ok(place) if place < RINGS => Ok(place),
        _ => Err(SessionError::NoSuchRing(index)),
    }
}

fn number(message: &Message) -> Result<u64, MessageError> {
    message.body::<VhostUserU64>().map(|body| body.value)
}

fn spec(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest: region.guest_phys_addr,
        size: region.memory_size,
        user: region.user_addr,
        offset: region.mmap_offset,
    }
}

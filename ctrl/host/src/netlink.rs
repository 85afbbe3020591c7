//! A blocking rtnetlink client that sends many requests before it reads the first answer.
//!
//! `rtnetlink`'s own handle waits for one acknowledgement at a time, which takes too long for the 282
//! links of a patch panel. Its message types and sockets are used here.
//!
//! Everything acts in the network namespace of the thread that called [`Netlink::open`].

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Requests in one `send`. The kernel answers all of them before the send returns, so the answers
/// (about 800 bytes each) have to fit in the socket's receive buffer (208 KiB).
const PIPELINE: usize = 64;

/// Twice the 32 KiB that the kernel puts into a datagram of a dump at most.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How often a dump is tried while links change as it runs.
const DUMP_ATTEMPTS: usize = 8;

/// One change to ask for: the message and its flags besides `REQUEST` and `ACK`.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The object, as it should become.
    pub(crate) message: RouteNetlinkMessage,
    /// `NLM_F_CREATE`, `NLM_F_EXCL` and the like; 0 for plain changes.
    pub(crate) flags: u16,
}

impl From<RouteNetlinkMessage> for Request {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self { message, flags: 0 }
    }
}

/// A connection to the kernel's routing socket.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Connects to the kernel in this thread's network namespace.
    ///
    /// # Errors
    /// When the system is out of sockets or has no netlink.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BYTES),
        })
    }

    /// Asks for one change and waits for the answer.
    ///
    /// # Errors
    /// What the kernel answered, as an OS error.
    pub(crate) fn change(&mut self, request: impl Into<Request>) -> io::Result<()> {
        let mut results = self.batch(vec![request.into()])?;
        results
            .pop()
            .unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Asks for many changes. The answers are in the same order. The kernel makes the other changes
    /// even if it refuses one.
    ///
    /// # Errors
    /// Only if the socket itself fails. The kernel's refusals are in the list.
    pub(crate) fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<io::Result<()>>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut count = 0;
            for request in requests.by_ref().take(PIPELINE) {
                self.append(&mut bytes, request.message, request.flags | NLM_F_ACK);
                count += 1;
            }
            self.socket.send(&bytes, 0)?;
            self.read_answers(first, count, &mut results)?;
        }
        Ok(results)
    }

    /// Reads a whole table: links, addresses or routes, depending on the `GET` message.
    ///
    /// # Errors
    /// What the kernel answered; `Interrupted` if the table changed during each of 8 attempts.
    pub(crate) fn dump(
        &mut self,
        get: &RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            self.append(&mut bytes, get.clone(), NLM_F_DUMP);
            self.socket.send(&bytes, 0)?;
            if let Some(entries) = self.read_dump()? {
                return Ok(entries);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the table kept changing while being read",
        ))
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// What the kernel answered.
    pub(crate) fn ask(&mut self, get: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, get, 0);
        self.socket.send(&bytes, 0)?;
        loop {
            self.receive()?;
            for packet in Packets(&self.buffer) {
                let packet = packet?;
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                match packet.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(answer) => return Err(answer.to_io()),
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let start = bytes.len();
        // Each message starts at a multiple of four (NLMSG_ALIGN).
        bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
        packet.serialize(&mut bytes[start..]);
    }

    fn read_answers(
        &mut self,
        first: u32,
        count: usize,
        results: &mut Vec<io::Result<()>>,
    ) -> io::Result<()> {
        let mut missing = count;
        while missing > 0 {
            self.receive()?;
            for packet in Packets(&self.buffer) {
                let packet = packet?;
                // An answer to an earlier batch that failed half-way.
                if packet.header.sequence_number.wrapping_sub(first) as usize >= count {
                    continue;
                }
                if let NetlinkPayload::Error(answer) = packet.payload {
                    results.push(if answer.code.is_some() {
                        Err(answer.to_io())
                    } else {
                        Ok(())
                    });
                    missing -= 1;
                }
            }
        }
        Ok(())
    }

    /// `None` if the kernel reports that the table changed meanwhile.
    fn read_dump(&mut self) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut entries = Vec::new();
        let mut consistent = true;
        loop {
            self.receive()?;
            for packet in Packets(&self.buffer) {
                let packet = packet?;
                if packet.header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= packet.header.flags & NLM_F_DUMP_INTR == 0;
                match packet.payload {
                    NetlinkPayload::InnerMessage(entry) => entries.push(entry),
                    NetlinkPayload::Done(_) => return Ok(consistent.then_some(entries)),
                    NetlinkPayload::Error(answer) if answer.code.is_some() => {
                        return Err(answer.to_io());
                    }
                    _ => {}
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.reserve(RECEIVE_BYTES);
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|_| ()),
            }
        }
    }
}

/// The messages in one datagram.
pub(crate) struct Packets<'a>(pub(crate) &'a [u8]);

impl Iterator for Packets<'_> {
    type Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let parsed = NetlinkMessage::deserialize(self.0)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()));
        let length = parsed
            .as_ref()
            .map_or(0, |p| p.header.length as usize)
            .next_multiple_of(4);
        // A length of 0 would never end; a message cut short ends the datagram.
        self.0 = if length == 0 {
            &[]
        } else {
            self.0.get(length..).unwrap_or(&[])
        };
        Some(parsed)
    }
}

//! A blocking rtnetlink client that sends many requests before it reads the first answer.
//!
//! `rtnetlink`'s own handle waits for one acknowledgement at a time; for the 282 links of a
//! patch panel that is most of the time budget. Its message types and sockets are used here.
//!
//! Everything acts in the network namespace of the thread that called [`Netlink::open`].

use std::io;

use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Requests in one `send`. The kernel answers all of them before the send returns, and the
/// answers have to fit in the socket's receive buffer (about 800 bytes each of 208 KiB).
const PIPELINE: usize = 64;

/// The kernel fills at most 32 KiB per datagram of a dump.
const RECEIVE_BYTES: usize = 64 * 1024;

/// How often a dump is taken again when links changed while it ran.
const DUMP_ATTEMPTS: usize = 8;

/// One change to ask for: the message and its flags besides `REQUEST` and `ACK`.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to change.
    pub message: RouteNetlinkMessage,
    /// `NLM_F_CREATE`, `NLM_F_EXCL` and the like; 0 for plain changes.
    pub flags: u16,
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
    pub fn change(&mut self, request: impl Into<Request>) -> io::Result<()> {
        let mut results = self.batch(vec![request.into()])?;
        results
            .pop()
            .unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Asks for many changes; the answers come in the same order. A refused one does not keep
    /// the others from being made.
    ///
    /// # Errors
    /// Only if the socket itself fails; the kernel's refusals are in the list.
    pub fn batch(&mut self, requests: Vec<Request>) -> io::Result<Vec<io::Result<()>>> {
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

    /// Reads a whole table: links, addresses or routes, by the `GET` message given.
    ///
    /// # Errors
    /// What the kernel answered; `Interrupted` if the table did not hold still for a while.
    pub fn dump(&mut self, get: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
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

    /// `None` if the kernel says that the table changed meanwhile.
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
pub(super) struct Packets<'a>(pub(super) &'a [u8]);

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
        self.0 = if length == 0 {
            &[]
        } else {
            self.0.get(length..).unwrap_or(&[])
        };
        Some(parsed)
    }
}

//! A vhost-user front end driven by hand, and a guest with split rings: what it writes is
//! written through the file, so that no `unsafe` is needed.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ikv_dataplane::port::{MemoryHost, memory};
use ikv_dataplane::vhost_sockets::{Role, SocketEvent, SocketId, SocketSpec, VhostUserSockets};
use ikv_dataplane::{Cable, CableHandle, Panel, PanelOptions, Port, Side};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

pub const SOON: Duration = Duration::from_secs(10);

pub mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_FEATURES: u32 = 2;
    pub const SET_OWNER: u32 = 3;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const SET_VRING_NUM: u32 = 8;
    pub const SET_VRING_ADDR: u32 = 9;
    pub const SET_VRING_BASE: u32 = 10;
    pub const GET_VRING_BASE: u32 = 11;
    pub const SET_VRING_KICK: u32 = 12;
    pub const SET_VRING_CALL: u32 = 13;
    pub const SET_VRING_ERR: u32 = 14;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const SET_PROTOCOL_FEATURES: u32 = 16;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_VRING_ENABLE: u32 = 18;
    pub const SEND_RARP: u32 = 19;
    pub const NET_SET_MTU: u32 = 20;
    pub const GET_MAX_MEM_SLOTS: u32 = 36;
    pub const ADD_MEM_REG: u32 = 37;
    pub const REM_MEM_REG: u32 = 38;
    pub const SET_STATUS: u32 = 39;
    pub const GET_STATUS: u32 = 40;
}

pub const REQUEST: u32 = 1;
pub const ASKING: u32 = 1 | 8;

pub const PROTOCOL_FEATURES: u64 = 1 << 30;
pub const VERSION_1: u64 = 1 << 32;
const REPLY_ACK: u64 = 1 << 3;

/// A panel with one cable: a port in memory at side A, a socket at side B.
pub struct Bench {
    pub panel: Panel,
    pub cable: CableHandle,
    pub host: MemoryHost,
    pub sockets: VhostUserSockets,
    pub socket: SocketId,
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

pub fn bench() -> Bench {
    bench_with(|path| Role::Server(UnixListener::bind(path).unwrap()))
}

pub fn bench_with(role: impl FnOnce(&Path) -> Role) -> Bench {
    let options = PanelOptions {
        workers: 1,
        ..Default::default()
    };
    let panel = Panel::start(&options, || {}).unwrap();
    let (port, host) = memory(64).unwrap();
    let (unused, _) = memory(1).unwrap();
    let cable = panel
        .add(Cable::new(Port::Memory(port), Port::Memory(unused)))
        .wait()
        .unwrap();
    panel.exchange(cable.id, Side::B, None).wait().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let sockets = VhostUserSockets::start(panel.clone(), || {}).unwrap();
    let socket = sockets
        .add(SocketSpec {
            name: "socket1".into(),
            cable: cable.id,
            side: Side::B,
            role: role(&path),
            mtu: Some(1500),
        })
        .wait()
        .unwrap();
    Bench {
        panel,
        cable,
        host,
        sockets,
        socket,
        path,
        _folder: folder,
    }
}

impl Bench {
    pub fn connect(&self) -> FrontEnd {
        FrontEnd::new(UnixStream::connect(&self.path).unwrap())
    }

    pub fn event(&self) -> SocketEvent {
        until("an event", || self.sockets.event())
    }

    pub fn plugged(&self) -> SocketEvent {
        let (cable, side) = (self.cable.id, Side::B);
        SocketEvent::Plugged { cable, side }
    }

    pub fn unplugged(&self) -> SocketEvent {
        let (cable, side) = (self.cable.id, Side::B);
        SocketEvent::Unplugged { cable, side }
    }

    /// The next event is a fault; its sentence.
    pub fn fault(&self) -> String {
        match self.event() {
            SocketEvent::Fault { reason, .. } => reason,
            other => panic!("no fault: {other:?}"),
        }
    }

    pub fn stop(self) {
        self.sockets.stop();
        self.panel.stop();
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::yield_now();
    }
}

pub fn event_file() -> File {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .unwrap()
        .into()
}

pub fn memory_file(bytes: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).unwrap());
    ftruncate(&file, bytes).unwrap();
    file
}

pub fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub fn state(index: u32, value: u32) -> Vec<u8> {
    [index.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// SET_MEM_TABLE's body, of regions as guest address, size, user address, offset.
pub fn table(regions: &[[u64; 4]]) -> Vec<u8> {
    let mut body = state(regions.len() as u32, 0);
    for region in regions {
        body.extend(words(region));
    }
    body
}

pub struct FrontEnd {
    pub stream: UnixStream,
}

impl FrontEnd {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        FrontEnd { stream }
    }

    pub fn raw(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(files)));
        }
        let flags = SendFlags::NOSIGNAL;
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags)
    }

    pub fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [request, flags, body.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(body);
        bytes
    }

    pub fn send(&self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) {
        self.raw(&Self::message(request, REQUEST, body), files)
            .unwrap();
    }

    /// `None` when the back end hung up.
    pub fn answer(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut header = [0; 12];
        self.stream.read_exact(&mut header).ok()?;
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!(word(4), 1 | 4, "flags of a reply");
        let mut body = vec![0; word(8) as usize];
        self.stream.read_exact(&mut body).ok()?;
        Some((word(0), body))
    }

    pub fn ask(&mut self, request: u32, body: &[u8]) -> u64 {
        self.send(request, body, &[]);
        self.number(request)
    }

    /// Sends a request that is acknowledged, and gives the acknowledgement.
    pub fn acknowledged(&mut self, request: u32, body: &[u8], files: &[BorrowedFd<'_>]) -> u64 {
        self.raw(&Self::message(request, ASKING, body), files)
            .unwrap();
        self.number(request)
    }

    fn number(&mut self, request: u32) -> u64 {
        let (answered, body) = self.answer().expect("the session goes on");
        assert_eq!(answered, request);
        u64::from_ne_bytes(body[..8].try_into().unwrap())
    }

    pub fn is_hung_up(&mut self) -> bool {
        // Answers to what came before the end may wait in front of it.
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// What any front end does first.
    pub fn agree(&mut self, features: u64) {
        let offered = self.ask(request::GET_FEATURES, &[]);
        assert_eq!(features & !offered, 0, "offered: {offered:#x}");
        let protocol = self.ask(request::GET_PROTOCOL_FEATURES, &[]);
        self.send(request::SET_PROTOCOL_FEATURES, &words(&[protocol]), &[]);
        assert_ne!(protocol & REPLY_ACK, 0);
        self.send(request::SET_OWNER, &[], &[]);
        self.send(request::SET_FEATURES, &words(&[features]), &[]);
    }

    pub fn share(&mut self, guest: &Guest) -> u64 {
        let body = table(&[Guest::REGION]);
        let files = [guest.file.as_fd()];
        self.acknowledged(request::SET_MEM_TABLE, &body, &files)
    }

    /// Everything about one ring, up to its start.
    pub fn start(&mut self, guest: &Guest, ring: u32, base: u32) {
        let area = |part| Guest::USER + Guest::area(ring, part);
        self.send(
            request::SET_VRING_NUM,
            &state(ring, Guest::SIZE.into()),
            &[],
        );
        self.send(request::SET_VRING_BASE, &state(ring, base), &[]);
        let mut address = state(ring, 0);
        address.extend(words(&[area(0), area(2), area(1), 0]));
        self.send(request::SET_VRING_ADDR, &address, &[]);
        let index = words(&[ring.into()]);
        let call = [guest.calls[ring as usize].as_fd()];
        self.send(request::SET_VRING_CALL, &index, &call);
        let kick = [guest.kicks[ring as usize].as_fd()];
        self.send(request::SET_VRING_KICK, &index, &kick);
    }

    pub fn enable(&mut self, ring: u32, on: u32) -> u64 {
        self.acknowledged(request::SET_VRING_ENABLE, &state(ring, on), &[])
    }

    /// Stops a ring; where it stands.
    pub fn stop(&mut self, ring: u32) -> u32 {
        self.send(request::GET_VRING_BASE, &state(ring, 0), &[]);
        let (answered, body) = self.answer().expect("the session goes on");
        assert_eq!(answered, request::GET_VRING_BASE);
        assert_eq!(body[..4], ring.to_ne_bytes());
        u32::from_ne_bytes(body[4..].try_into().unwrap())
    }

    /// A device with one pair of queues, ready for frames.
    pub fn bring_up(&mut self, guest: &Guest) {
        self.agree(PROTOCOL_FEATURES | VERSION_1);
        assert_eq!(self.share(guest), 0);
        for ring in [0, 1] {
            self.start(guest, ring, 0);
            assert_eq!(self.enable(ring, 1), 0);
        }
    }
}

/// A guest's memory with two split rings in it: 0 receives, 1 transmits.
pub struct Guest {
    pub file: File,
    pub kicks: [File; 2],
    pub calls: [File; 2],
}

impl Guest {
    pub const SIZE: u16 = 64;
    pub const BYTES: u64 = 1 << 20;
    pub const ADDRESS: u64 = 0x4000_0000;
    pub const USER: u64 = 0x7f00_0000_0000;
    pub const REGION: [u64; 4] = [Self::ADDRESS, Self::BYTES, Self::USER, 0];
    const HEADER: usize = 12;

    pub fn new() -> Self {
        Guest {
            file: memory_file(Self::BYTES),
            kicks: [event_file(), event_file()],
            calls: [event_file(), event_file()],
        }
    }

    /// Where part 0 (descriptors), 1 (available) or 2 (used) of a ring begins.
    pub fn area(ring: u32, part: u64) -> u64 {
        u64::from(ring) * 0x4000 + part * 0x1000
    }

    fn buffer(ring: u32, slot: u16) -> u64 {
        0x10000 + u64::from(ring) * 0x40000 + u64::from(slot) * 0x1000
    }

    pub fn number(&self, at: u64) -> u16 {
        let mut bytes = [0; 2];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        u16::from_le_bytes(bytes)
    }

    pub fn set_available(&self, ring: u32, index: u16) {
        let at = Self::area(ring, 1) + 2;
        self.file.write_all_at(&index.to_le_bytes(), at).unwrap();
        rustix::io::write(&self.kicks[ring as usize], &1u64.to_ne_bytes()).unwrap();
    }

    pub fn used(&self, ring: u32) -> u16 {
        self.number(Self::area(ring, 2) + 2)
    }

    /// Puts one buffer into a ring and kicks it.
    fn offer(&self, ring: u32, len: usize, flags: u16) {
        let index = self.number(Self::area(ring, 1) + 2);
        let slot = index % Self::SIZE;
        let mut descriptor = words(&[Self::ADDRESS + Self::buffer(ring, slot)]);
        descriptor.extend((len as u32).to_le_bytes());
        descriptor.extend(flags.to_le_bytes());
        descriptor.extend([0, 0]);
        let at = Self::area(ring, 0) + u64::from(slot) * 16;
        self.file.write_all_at(&descriptor, at).unwrap();
        let at = Self::area(ring, 1) + 4 + u64::from(slot) * 2;
        self.file.write_all_at(&slot.to_le_bytes(), at).unwrap();
        self.set_available(ring, index.wrapping_add(1));
    }

    pub fn transmit(&self, frame: &[u8]) {
        let slot = self.number(Self::area(1, 1) + 2) % Self::SIZE;
        let bytes = [&[0; Self::HEADER], frame].concat();
        self.file
            .write_all_at(&bytes, Self::buffer(1, slot))
            .unwrap();
        self.offer(1, bytes.len(), 0);
    }

    /// The last transmit buffer once more, through descriptors that may be gone.
    pub fn transmit_again(&self) {
        let next = self.number(Self::area(1, 1) + 2).wrapping_add(1);
        self.set_available(1, next);
    }

    pub fn offer_receive_buffer(&self) {
        self.offer(0, 2048, 2);
    }

    /// The frame that came as the `index`-th one.
    pub fn received(&self, index: u16) -> Vec<u8> {
        until("a frame", || (self.used(0) > index).then_some(()));
        let slot = index % Self::SIZE;
        let mut len = [0; 4];
        let at = Self::area(0, 2) + 4 + u64::from(slot) * 8 + 4;
        self.file.read_exact_at(&mut len, at).unwrap();
        let mut frame = vec![0; u32::from_le_bytes(len) as usize - Self::HEADER];
        let at = Self::buffer(0, slot) + Self::HEADER as u64;
        self.file.read_exact_at(&mut frame, at).unwrap();
        frame
    }
}

/// One frame out of the guest and one into it, as the `index`-th of each.
pub fn ping_pong(bench: &Bench, guest: &Guest, index: u16) {
    let frame = |tag: u8| [&[tag; 12], &index.to_be_bytes()[..], &[tag; 50]].concat();
    guest.transmit(&frame(1));
    let (_, got) = bench.host.receive(SOON).expect("a frame from the guest");
    assert_eq!(got, frame(1));
    guest.offer_receive_buffer();
    assert!(
        bench
            .host
            .send(ikv_dataplane::VnetHeader::default(), &frame(2))
    );
    assert_eq!(guest.received(index), frame(2));
}

//! A front end that says what it likes to a session, and changes its memory as it likes.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::message::FrontendReq as Is;

use crate::arbitrary::Bytes;
use crate::command::CableId;
use crate::frame::{Burst, VnetHeader};
use crate::panel::PanelError;
use crate::port::Port;
use crate::port::vhost_user::Alarm;
use crate::port::vhost_user::features::{MTU, OFFERED, RING_PACKED, VERSION_1};
use crate::side::Side;
use crate::stats::Losses;
use crate::vhost_sockets::backend::SessionError;
use crate::vhost_sockets::cable_end::{CableEnd, ExchangePort};
use crate::vhost_sockets::session::Session;

const MEMORY: u64 = 0x20000;
const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;

const REQUEST: u32 = 1;
const ASKING: u32 = REQUEST | 1 << 3;
const REPLY: u32 = REQUEST | 1 << 2;

const ROUNDS: usize = 100;

/// Bytes: what happens, one thing after the other, until the session ends.
pub(crate) fn drive(mut bytes: Bytes<'_>) {
    let mut line = Line::new(bytes.u8() & 1 != 0);
    for _ in 0..ROUNDS {
        if bytes.is_empty() || line.go_on(&mut bytes).is_err() {
            break;
        }
    }
    line.end();
}

/// The cable's end, without a panel.
#[derive(Debug, Clone, Default)]
struct End(Arc<Mutex<Option<Port>>>);

impl End {
    fn with<T>(&self, act: impl FnOnce(&mut Option<Port>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ExchangePort for End {
    fn exchange(
        &self,
        _: CableId,
        _: Side,
        port: Option<Port>,
    ) -> Result<Option<Port>, PanelError> {
        Ok(self.with(|end| std::mem::replace(end, port)))
    }
}

/// A session and its front end.
struct Line {
    front: UnixStream,
    session: Session,
    end: End,
    cable_end: CableEnd<End>,
    alarm: Alarm,
    alarmed: Arc<AtomicBool>,
    memory: File,
    event: File,
    /// The session's answers that are not checked yet.
    answers: Vec<u8>,
    burst: Burst,
}

impl Line {
    fn new(mtu: bool) -> Self {
        let (front, back) = UnixStream::pair().expect("two sockets");
        front.set_nonblocking(true).expect("a socket");
        let memory = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd"));
        ftruncate(&memory, MEMORY).expect("a memfd can grow");
        let event = File::from(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let alarmed = Arc::new(AtomicBool::new(false));
        let raised = alarmed.clone();
        let end = End::default();
        Line {
            front,
            session: Session::new(back, mtu.then_some(1500)),
            cable_end: CableEnd {
                panel: end.clone(),
                cable: CableId(0),
                side: Side::A,
                fallback: None,
            },
            end,
            alarm: Alarm::new(move || raised.store(true, Ordering::Relaxed)),
            alarmed,
            memory,
            event,
            answers: Vec::new(),
            burst: Burst::new(),
        }
    }

    /// One more thing happens.
    fn go_on(&mut self, bytes: &mut Bytes<'_>) -> Result<(), SessionError> {
        match bytes.u8() % 16 {
            0..=5 => self.message(bytes),
            6 => {
                let len = usize::from(bytes.u8() % 64);
                let files = self.files(bytes);
                self.send(bytes.take(len), &files);
                self.serve()
            }
            7..=9 => self.bring_up(bytes),
            10 | 11 => {
                let at = 2 * u64::from(bytes.u8()) + 0x1000 * u64::from(bytes.u8() % 8);
                let len = bytes.u8() % 24;
                let written = self.memory.write_all_at(bytes.take(len.into()), at);
                written.expect("a memfd grows as it is written to");
                self.pass(bytes)
            }
            12 | 13 => self.pass(bytes),
            14 => {
                self.listen();
                Ok(())
            }
            _ => {
                let len = u64::from(bytes.u8()) * 0x1000;
                ftruncate(&self.memory, len).expect("a memfd that is not sealed");
                self.pass(bytes)
            }
        }
    }

    /// As the thread of the sockets does it.
    fn serve(&mut self) -> Result<(), SessionError> {
        while self.session.serve(&mut self.cable_end)? {}
        self.settle()
    }

    fn settle(&mut self) -> Result<(), SessionError> {
        self.session
            .backend
            .settle(&mut self.cable_end, &self.alarm)?;
        assert!(self.session.backend.is_settled());
        let plugged = self.end.with(|end| end.is_some());
        assert_eq!(plugged, self.session.backend.is_plugged());
        Ok(())
    }

    /// As a worker does it.
    fn pass(&mut self, bytes: &mut Bytes<'_>) -> Result<(), SessionError> {
        let how = bytes.u8();
        let burst = &mut self.burst;
        self.end.with(|end| {
            let Some(port) = end else {
                return;
            };
            let mut drops = Losses::default();
            let received = port.receive(burst, &mut drops);
            received.expect("a port of rings reports faults by its alarm");
            for index in 0..burst.len() {
                assert_eq!(burst.to_vec(index).len(), burst.frame_len(index));
            }
            burst.clear();
            port.release();
            for _ in 0..how % 4 {
                burst.push(VnetHeader::default(), &[how; 100]);
            }
            port.send(burst, 0, &mut drops);
            burst.clear();
            if how & 0x80 != 0 {
                port.arm();
                port.disarm();
            }
        });
        if self.alarmed.swap(false, Ordering::Relaxed) {
            // Either the port still has the fault, or the session that took it out has reported it.
            self.session.backend.unplug(&mut self.cable_end)?;
            unreachable!("an alarm without a fault");
        }
        Ok(())
    }

    /// A message that is in order more often than not, in one piece or two.
    fn message(&mut self, bytes: &mut Bytes<'_>) -> Result<(), SessionError> {
        let (how, number) = (bytes.u8(), u32::from(bytes.u8() % 46));
        let (mut body, count) =
            Is::try_from(number).map_or((Vec::new(), 0), |request| body_of(request, bytes));
        if how & 7 == 1 {
            let len = usize::from(bytes.u8());
            body = bytes.take(len).to_vec();
        }
        let flags = match how >> 3 & 7 {
            0 => bytes.u32(),
            1..=3 => ASKING,
            _ => REQUEST,
        };
        let files = if how & 0x40 == 0 {
            let file = if (12..=14).contains(&number) {
                &self.event
            } else {
                &self.memory
            };
            let clone = |_| file.try_clone().expect("a descriptor");
            (0..count).map(clone).collect()
        } else {
            self.files(bytes)
        };
        let message = message(number, flags, &body);
        let cut = match how & 0x80 {
            0 => message.len(),
            _ => usize::from(bytes.u8()) % message.len(),
        };
        self.send(&message[..cut], &files);
        if cut < message.len() {
            self.serve()?;
            self.send(&message[cut..], &[]);
        }
        self.serve()
    }

    /// A device as it should be: all that goes wrong later meets one that runs.
    fn bring_up(&mut self, bytes: &mut Bytes<'_>) -> Result<(), SessionError> {
        let how = bytes.u8();
        let extra = if how & 1 == 0 {
            0
        } else {
            bytes.u64() & OFFERED & !MTU
        };
        let packed = if how & 2 == 0 { 0 } else { RING_PACKED };
        let features = (VERSION_1 | extra) & !RING_PACKED | packed;
        self.request(Is::SET_FEATURES, &words(&[features]), &[]);
        let region = words(&[1, GUEST, MEMORY, USER, 0]);
        self.request(Is::SET_MEM_TABLE, &region, &[self.memory.as_fd()]);
        for ring in 0..2 + 2 * u32::from(how >> 2 & 1) {
            let addresses = USER + 0x4000 * u64::from(ring);
            self.request(Is::SET_VRING_NUM, &state(ring, 64), &[]);
            let address = address(ring, [addresses, addresses + 0x2000, addresses + 0x1000]);
            self.request(Is::SET_VRING_ADDR, &address, &[]);
            self.request(
                Is::SET_VRING_CALL,
                &words(&[ring.into()]),
                &[self.event.as_fd()],
            );
            self.request(
                Is::SET_VRING_KICK,
                &words(&[ring.into()]),
                &[self.event.as_fd()],
            );
            self.request(Is::SET_VRING_ENABLE, &state(ring, 1), &[]);
        }
        self.serve()
    }

    fn request(&self, request: Is, body: &[u8], files: &[BorrowedFd<'_>]) {
        self.send_borrowed(&message(request.into(), REQUEST, body), files);
    }

    /// Any descriptors.
    fn files(&self, bytes: &mut Bytes<'_>) -> Vec<File> {
        let count = match bytes.u8() {
            few @ 0..192 => few % 4,
            many => many - 192,
        };
        let clone = |file: &File| file.try_clone().expect("a descriptor");
        (0..count)
            .map(|_| match bytes.u8() % 4 {
                0 | 1 => clone(&self.memory),
                2 => clone(&self.event),
                _ => File::open("/dev/null").expect("/dev/null"),
            })
            .collect()
    }

    fn send(&self, bytes: &[u8], files: &[File]) {
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        self.send_borrowed(bytes, &files);
    }

    /// What does not fit is lost: then the session gets the wrong bytes, as well it may.
    fn send_borrowed(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(files));
            assert!(fits, "at most 64 descriptors");
        }
        let parts = [IoSlice::new(bytes)];
        let _ = sendmsg(&self.front, &parts, &mut control, SendFlags::NOSIGNAL);
    }

    /// Reads what was answered, which makes sense whatever was asked.
    fn listen(&mut self) {
        let mut part = [0; 4096];
        while let Ok(len @ 1..) = (&self.front).read(&mut part) {
            self.answers.extend(&part[..len]);
        }
        let mut rest = &self.answers[..];
        while !rest.is_empty() {
            let (header, behind) = rest.split_at(12);
            let word =
                |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
            assert!(Is::try_from(word(0)).is_ok());
            assert_eq!((word(4), word(8)), (REPLY, 8));
            rest = &behind[8..];
        }
        self.answers.clear();
    }

    /// Whatever has happened, nothing of it stays in the cable.
    fn end(mut self) {
        let parting = self.session.backend.unplug(&mut self.cable_end);
        if let Err(error) = parting {
            assert!(!error.to_string().is_empty());
        }
        assert!(self.end.with(|end| end.is_none()));
        assert!(!self.session.backend.is_plugged());
        self.listen();
    }
}

/// A body of the right size, and how many descriptors go with it.
fn body_of(request: Is, bytes: &mut Bytes<'_>) -> (Vec<u8>, usize) {
    let ring = u32::from(bytes.u8() % 18);
    match request {
        Is::SET_FEATURES => (words(&[bytes.u64() & OFFERED & !MTU]), 0),
        Is::SET_PROTOCOL_FEATURES => (words(&[bytes.u64() & 0x1_8019]), 0),
        Is::SET_MEM_TABLE => {
            let count = bytes.u8() % 9;
            let mut body = words(&[count.into()]);
            for _ in 0..count {
                body.extend(region(bytes));
            }
            (body, count.into())
        }
        Is::ADD_MEM_REG => ([words(&[0]), region(bytes)].concat(), 1),
        Is::REM_MEM_REG => ([words(&[0]), region(bytes)].concat(), 0),
        Is::SET_VRING_NUM => (state(ring, bytes.pick(&[64, 256, 1, 63, 32_768, 0])), 0),
        Is::SET_VRING_BASE => (state(ring, bytes.u32()), 0),
        Is::GET_VRING_BASE => (state(ring, 0), 0),
        Is::SET_VRING_ENABLE => (state(ring, u32::from(bytes.u8() % 3)), 0),
        Is::SET_VRING_ADDR => {
            let addresses = std::array::from_fn(|_| match bytes.u16() {
                0 => bytes.u64(),
                place => USER + 4 * u64::from(place),
            });
            (address(ring, addresses), 0)
        }
        Is::SET_VRING_KICK | Is::SET_VRING_CALL | Is::SET_VRING_ERR => {
            let none = bytes.u8() < 64;
            let value = u64::from(ring) | u64::from(none) << 8;
            (words(&[value]), usize::from(!none))
        }
        Is::SET_STATUS | Is::NET_SET_MTU => (words(&[bytes.u16().into()]), 0),
        _ => (Vec::new(), 0),
    }
}

fn region(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let place = u64::from(bytes.u8() % 8);
    let size = match bytes.u8() % 4 {
        0 => MEMORY,
        1 => 0x1000,
        2 => bytes.u16().into(),
        _ => bytes.u64(),
    };
    let offset = u64::from(bytes.u8()) * u64::from(bytes.u8());
    words(&[GUEST + place * MEMORY, size, USER + place * MEMORY, offset])
}

fn message(request: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let words = [request, flags, body.len() as u32];
    let header = words.iter().flat_map(|word| word.to_ne_bytes());
    header.chain(body.iter().copied()).collect()
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn state(ring: u32, value: u32) -> Vec<u8> {
    [ring.to_ne_bytes(), value.to_ne_bytes()].concat()
}

/// Descriptor, used and available ring, in the protocol's order.
fn address(ring: u32, [descriptors, used, available]: [u64; 3]) -> Vec<u8> {
    [state(ring, 0), words(&[descriptors, used, available, 0])].concat()
}

//! Two ports on rings that a hostile pair of guests writes to as it likes.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::features::{EVENT_IDX, IN_ORDER, MRG_RXBUF, OFFERED, RING_PACKED, VERSION_1};
use super::{Alarm, GuestMemory, QueueSpec, RegionSpec, VhostUser, VringBase};
use super::{NEXT, WRITE};
use crate::arbitrary::Bytes;
use crate::frame::{Burst, MAX_BURST, MAX_FRAME, MIN_FRAME, VnetHeader};
use crate::stats::Losses;
use crate::sys::pool::Segment;

/// Two regions that touch in the guest only; in the file there is something around each of them
/// that is not shared, though it lies in the same pages.
const FILE: u64 = 0x40000;
const EDGE: u64 = 0x100;
const REGION: u64 = FILE / 2 - 2 * EDGE;
const GUEST: u64 = 0x1_0000_0000;
const USER: u64 = 0x7000_0000_0000;
const OTHER_USER: u64 = 0x7100_0000_0000;

/// From one ring to the next, and to its parts.
const RING: u64 = 0x8000;
const DRIVER: u64 = 0x4000;
const DEVICE: u64 = 0x5000;
const TABLES: u64 = 2 * RING;
const MAX_SIZE: u16 = 1024;

const ROUNDS: usize = 64;

/// Bytes: kind of rings, features, sizes, bases; then what happens, one thing after the other.
pub(crate) fn drive(mut bytes: Bytes<'_>) {
    let Some(mut pair) = Pair::new(&mut bytes) else {
        return;
    };
    for _ in 0..ROUNDS {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 16 {
            0..=5 => pair.offer(&mut bytes),
            6 | 7 => pair.scribble(&mut bytes),
            8..=10 => pair.transmit(&mut bytes),
            11 | 12 => pair.receive(&mut bytes),
            13 => pair.fill(&mut bytes),
            14 => pair.sleep(),
            _ if !pair.reconnect(&mut bytes) => break,
            _ => {}
        }
    }
    pair.check_edges();
}

/// A port that sends and one that receives, each with its own mapping of the same memory.
struct Pair {
    file: File,
    features: u64,
    sides: [Side; 2],
    burst: Burst,
}

struct Side {
    /// None while it is replaced.
    port: Option<VhostUser>,
    memory: Arc<GuestMemory>,
    rung: Arc<AtomicUsize>,
    /// The driver's place.
    ring: u64,
    size: u16,
    next: u16,
    wrap: bool,
    heads: u16,
}

/// The guest's transmit queue and its receive queue.
const FROM: usize = 0;
const TO: usize = 1;

impl Pair {
    fn new(bytes: &mut Bytes<'_>) -> Option<Self> {
        let kind = bytes.u8();
        let mut features = if kind & 0x80 == 0 {
            VERSION_1
        } else {
            bytes.u64() & OFFERED & !RING_PACKED
        };
        for (bit, feature) in [RING_PACKED, EVENT_IDX, IN_ORDER, MRG_RXBUF]
            .into_iter()
            .enumerate()
        {
            features |= if kind & 1 << bit == 0 { 0 } else { feature };
        }
        if kind & 0x10 != 0 {
            features |= OFFERED & !(RING_PACKED | EVENT_IDX | IN_ORDER | MRG_RXBUF);
        }
        let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd"));
        ftruncate(&file, FILE).expect("a memfd can grow");
        let mut sides = [Side::new(&file, 0), Side::new(&file, RING)];
        for (which, side) in sides.iter_mut().enumerate() {
            let packed = features & RING_PACKED != 0;
            let size = bytes.u8();
            side.size = match size & 0xf {
                exponent if !packed || size & 0x80 != 0 => 1 << (exponent % 11),
                _ => bytes.u16() % (MAX_SIZE + 1),
            };
            let mut base = if packed { 1 << 15 | 1 << 31 } else { 0 };
            if kind & 0x60 == 0x60 {
                base = bytes.u32();
            }
            let spec = QueueSpec {
                index: [1, 0][which],
                size: side.size,
                descriptors: USER + side.ring,
                driver: USER + side.ring + DRIVER,
                device: USER + side.ring + DEVICE,
                base: VringBase(base),
                kick: None,
                call: None,
                resumed: false,
            };
            side.heads = base as u16;
            if packed {
                side.next = base as u16 & 0x7fff;
                side.wrap = base & 1 << 15 != 0;
            }
            side.plug(features, spec)?;
        }
        Some(Pair {
            file,
            features,
            sides,
            burst: Burst::new(),
        })
    }

    fn packed(&self) -> bool {
        self.features & RING_PACKED != 0
    }

    /// Writes at an offset of the guest's memory, as far as that reaches.
    fn write(&self, at: u64, bytes: &[u8]) {
        for (start, place) in [(0, EDGE), (REGION, FILE / 2 + EDGE)] {
            // The part of the bytes that is in this region.
            let end = at + bytes.len() as u64;
            let (first, last) = (at.max(start), end.min(start + REGION));
            if first < last {
                let part = &bytes[(first - at) as usize..(last - at) as usize];
                let written = self.file.write_all_at(part, place + first - start);
                written.expect("inside the file");
            }
        }
    }

    /// The driver makes a few buffers available, more or less as it should.
    fn offer(&mut self, bytes: &mut Bytes<'_>) {
        let how = bytes.u8();
        let which = usize::from(how & 1);
        let direction = if which == TO { WRITE } else { 0 };
        let count = if how & 2 == 0 { 1 } else { bytes.u8() % 80 };
        for _ in 0..count {
            let chain = if how & 4 == 0 { 1 } else { bytes.u8() % 8 };
            let first = self.sides[which].next;
            for left in (0..chain).rev() {
                let (address, len) = buffer(bytes, which);
                let mut flags = direction | if left > 0 { NEXT } else { 0 };
                if how & 8 != 0 {
                    flags ^= u16::from(bytes.u8() & 7);
                }
                self.describe(which, address, len, flags);
            }
            if !self.packed() {
                self.make_available(which, first);
            }
        }
    }

    fn describe(&mut self, which: usize, address: u64, len: u32, flags: u16) {
        let packed = self.packed();
        let side = &mut self.sides[which];
        let place = side.next;
        let turn = if side.wrap { 1 << 7 } else { 1 << 15 };
        side.next += 1;
        if side.next >= side.size {
            side.next = 0;
            side.wrap = !side.wrap;
        }
        let (third, fourth) = if packed {
            (place, flags | turn)
        } else {
            (flags, side.next)
        };
        let at = side.ring + 16 * u64::from(place);
        self.write(at, &descriptor(address, len, third, fourth));
    }

    fn make_available(&mut self, which: usize, head: u16) {
        let side = &mut self.sides[which];
        let at = side.ring + DRIVER;
        let entry = at + 4 + 2 * u64::from(side.heads % side.size);
        side.heads = side.heads.wrapping_add(1);
        let heads = side.heads;
        self.write(entry, &head.to_le_bytes());
        self.write(at + 2, &heads.to_le_bytes());
    }

    /// Something somewhere: a table, a number in a ring, a header.
    fn scribble(&mut self, bytes: &mut Bytes<'_>) {
        let how = bytes.u8();
        let ring = self.sides[usize::from(how & 1)].ring;
        let small = u64::from(bytes.u8());
        match how >> 1 & 7 {
            0 => self.write(ring + DRIVER + small % 16, bytes.take(4)),
            1 => self.write(ring + DEVICE + small % 16, bytes.take(8)),
            2 => self.write(ring + 16 * small, bytes.take(16)),
            3 => self.write(ring + DRIVER + 4 + 2 * small, bytes.take(2)),
            4 | 5 => {
                for index in 0..small % 40 {
                    let (address, len) = buffer(bytes, usize::from(how & 1));
                    let flags = bytes.u8();
                    let next = if flags & 0x80 == 0 {
                        index as u16 + 1
                    } else {
                        bytes.u16()
                    };
                    let flags = u16::from(flags & 7);
                    let (third, fourth) = if self.packed() {
                        (next, flags)
                    } else {
                        (flags, next)
                    };
                    let entry = descriptor(address, len, third, fourth);
                    self.write(TABLES + 16 * index, &entry);
                }
            }
            6 => self.write(TABLES + 16 * small, bytes.take(32)),
            _ => {
                let at = u64::from(bytes.u32()) % (2 * REGION);
                self.write(at, bytes.take(small as usize));
            }
        }
    }

    /// From one guest to the other, while memory changes in between.
    fn transmit(&mut self, bytes: &mut Bytes<'_>) {
        let how = bytes.u8();
        let mut drops = Losses::default();
        let mut burst = std::mem::take(&mut self.burst);
        let port = self.sides[FROM].port();
        port.receive(&mut burst, &mut drops);
        let granted = port.terms.granted;
        assert!(burst.len() <= MAX_BURST);
        assert!(port.fault.is_none() || burst.is_empty());
        if how & 1 != 0 {
            self.scribble(bytes);
        }
        let mut whole = 0;
        for index in 0..burst.len() {
            let (header, len) = (burst.header(index), burst.frame_len(index));
            assert!((MIN_FRAME..=MAX_FRAME).contains(&len));
            assert_eq!(burst.to_vec(index).len(), len);
            let segments = burst.segments(index).iter();
            assert_eq!(segments.map(Segment::len).sum::<usize>(), len);
            assert!(granted.contains(header.needs()));
            assert_eq!(header.checked(len, granted), Some(*header));
            whole += len as u64;
        }
        assert_eq!(burst.bytes(), whole);
        if how & 2 != 0 && self.sides[TO].port().takes().contains(burst.needs()) {
            self.send(&burst);
        }
        burst.clear();
        self.sides[FROM].port().release();
        self.sides[FROM].check_alarm();
        self.burst = burst;
    }

    fn send(&mut self, burst: &Burst) {
        let mut drops = Losses::default();
        let side = &mut self.sides[TO];
        side.port().send(burst, 0, &mut drops);
        let dropped: u64 = drops.total();
        assert!(dropped <= burst.len() as u64, "no frame is counted twice");
        side.check_alarm();
    }

    /// Frames of ours to the guest that receives.
    fn receive(&mut self, bytes: &mut Bytes<'_>) {
        let mut burst = std::mem::take(&mut self.burst);
        for _ in 0..bytes.u8() % 70 {
            let (header, frame) = frame(bytes);
            let takes = self.sides[TO].port().takes();
            burst.push(
                header.checked(frame.len(), takes).unwrap_or_default(),
                &frame,
            );
        }
        self.send(&burst);
        burst.clear();
        self.burst = burst;
    }

    /// As a tap would: a packet socket in its place.
    fn fill(&mut self, bytes: &mut Bytes<'_>) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let ends = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (tap, kernel) = ends.expect("two sockets");
        let mut sent = 0;
        for _ in 0..bytes.u8() % 5 {
            let (header, frame) = frame(bytes);
            let packet = [&header.0[..], &frame].concat();
            sent += u64::from(send(&kernel, &packet, SendFlags::empty()).is_ok());
        }
        let mut drops = Losses::default();
        let side = &mut self.sides[TO];
        let mut seen = bytes.u8().is_multiple_of(2).then(Burst::new);
        let filled = side
            .port()
            .fill(tap.as_fd(), &mut self.burst, &mut drops, seen.as_mut());
        let direct = match filled {
            Some(Ok(filled)) => filled.frames,
            Some(Err(error)) => panic!("{error}"),
            None => 0,
        };
        if let Some(seen) = &seen {
            assert_eq!(seen.len() as u64, direct);
            for index in 0..seen.len() {
                assert_eq!(seen.to_vec(index).len(), seen.frame_len(index));
            }
        }
        side.port().settle();
        let dropped: u64 = drops.total();
        assert!(direct + dropped + self.burst.len() as u64 <= sent);
        for index in 0..self.burst.len() {
            assert_eq!(self.burst.to_vec(index).len(), self.burst.frame_len(index));
        }
        self.burst.clear();
        side.check_alarm();
    }

    /// As a worker does that has nothing to do.
    fn sleep(&mut self) {
        for side in &mut self.sides {
            side.port().arm();
            side.check_alarm();
            side.port().disarm();
        }
    }

    /// The rings go to another port, which goes on where the first one was, or elsewhere.
    fn reconnect(&mut self, bytes: &mut Bytes<'_>) -> bool {
        let how = bytes.u8();
        let side = &mut self.sides[usize::from(how & 1)];
        let port = side.port.take().expect("it is there between rounds");
        let (mut queues, fault) = port.into_queues();
        assert_eq!(fault.is_some(), side.rung.load(Ordering::Relaxed) == 1);
        let mut queue = queues.pop().expect("one queue");
        if how & 2 != 0 {
            queue.base = VringBase(bytes.u32());
        }
        side.plug(self.features, queue).is_some()
    }

    /// Nothing was written beside the regions.
    fn check_edges(&self) {
        let half = FILE / 2;
        for at in [0, half - EDGE, half, FILE - EDGE] {
            let mut edge = [1; EDGE as usize];
            let read = self.file.read_exact_at(&mut edge, at);
            read.expect("inside the file");
            assert_eq!(
                edge, [0; EDGE as usize],
                "memory that is not shared, {at:#x}"
            );
        }
    }
}

impl Side {
    fn new(file: &File, ring: u64) -> Self {
        let region = |guest, user, offset| {
            let spec = RegionSpec {
                guest,
                size: REGION,
                user,
                offset,
            };
            (spec, file.try_clone().expect("a descriptor"))
        };
        let regions = vec![
            region(GUEST, USER, EDGE),
            region(GUEST + REGION, OTHER_USER, FILE / 2 + EDGE),
        ];
        Side {
            port: None,
            memory: Arc::new(GuestMemory::map(regions).expect("good regions")),
            rung: Arc::default(),
            ring,
            size: 0,
            next: 0,
            wrap: true,
            heads: 0,
        }
    }

    fn plug(&mut self, features: u64, queue: QueueSpec) -> Option<()> {
        let rung = Arc::new(AtomicUsize::new(0));
        self.rung = rung.clone();
        let alarm = Alarm::new(move || _ = rung.fetch_add(1, Ordering::Relaxed));
        let port = VhostUser::new(self.memory.clone(), features, vec![queue], alarm);
        self.port = port.ok();
        self.port.is_some().then_some(())
    }

    fn port(&mut self) -> &mut VhostUser {
        self.port.as_mut().expect("it is there between rounds")
    }

    /// It rings exactly once, and only for a fault.
    fn check_alarm(&mut self) {
        let rung = self.rung.load(Ordering::Relaxed);
        assert_eq!(rung, usize::from(self.port().fault.is_some()));
    }
}

fn descriptor(address: u64, len: u32, third: u16, fourth: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&third.to_le_bytes());
    bytes[14..].copy_from_slice(&fourth.to_le_bytes());
    bytes
}

/// Where a buffer is and how long. Mostly in the memory.
fn buffer(bytes: &mut Bytes<'_>, which: usize) -> (u64, u32) {
    let how = bytes.u8();
    let short = if which == TO { 1526 } else { 72 };
    let len = match how & 7 {
        0..=2 => short,
        3 => u32::from(bytes.u8()),
        4 => 16 * u32::from(bytes.u8()),
        5 => u32::from(bytes.u16()),
        6 => 65_562,
        _ => bytes.u32(),
    };
    let address = match how >> 3 & 7 {
        0..=3 => GUEST + TABLES + 0x1000 + 2 * u64::from(bytes.u16()),
        4 => GUEST + TABLES + 16 * u64::from(bytes.u8()),
        5 => GUEST + REGION - u64::from(bytes.u8()),
        6 => GUEST + 2 * REGION - u64::from(bytes.u16()),
        _ => bytes.u64(),
    };
    (address, len)
}

fn frame(bytes: &mut Bytes<'_>) -> (VnetHeader, Vec<u8>) {
    let len = bytes.pick(&[60, 14, 1514, 9000, 65_550, MAX_FRAME]);
    let mut header = VnetHeader::default();
    if bytes.u8() < 64 {
        header = VnetHeader(bytes.array());
    }
    (header, vec![0x5a; len])
}

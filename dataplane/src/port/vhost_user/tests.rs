//! Rings driven by a small driver on the same memory, without a front end.
#![allow(unsafe_code)]

mod queues;
mod restart;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::features::{IN_ORDER, MRG_RXBUF, RING_PACKED, VERSION_1};
use super::*;
use crate::frame::VnetHeader;
use crate::stats::DropReason;

const SIZE: u16 = 64;
const MEMORY: u64 = 8 << 20;
/// Guest and front end see the memory at different addresses.
const GUEST: u64 = 0x1_0000_0000;
const USER: u64 = 0x7000_0000_0000;
const BUFFERS: u64 = 0x10_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// One queue's driver side and the memory that it lies in.
struct Driver {
    memory: Arc<GuestMemory>,
    packed: bool,
    /// Descriptors made available so far.
    next: u16,
    wrap: bool,
    /// Entries of the split available ring.
    heads: u16,
    used: u16,
}

impl Driver {
    fn new(packed: bool) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        let region = RegionSpec {
            guest: GUEST,
            size: MEMORY,
            user: USER,
            offset: 0,
        };
        let memory = GuestMemory::map(vec![(region, File::from(file))]).unwrap();
        Driver {
            memory: Arc::new(memory),
            packed,
            next: 0,
            wrap: true,
            heads: 0,
            used: 0,
        }
    }

    fn spec(&self, index: u16) -> QueueSpec {
        let base = if self.packed { 1 << 15 | 1 << 31 } else { 0 };
        QueueSpec {
            index,
            size: SIZE,
            descriptors: USER,
            driver: USER + 0x4000,
            device: USER + 0x8000,
            base: VringBase(base),
            kick: None,
            call: None,
            resumed: false,
        }
    }

    fn port(&self, index: u16, features: u64) -> VhostUser {
        let packed = if self.packed { RING_PACKED } else { 0 };
        let features = features | packed;
        let specs = vec![self.spec(index)];
        VhostUser::new(self.memory.clone(), features, specs, Alarm::new(|| {})).unwrap()
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let (start, len) = self.memory.at(GUEST + at, bytes.len() as u32).unwrap();
        assert_eq!(len as usize, bytes.len());
        // SAFETY: inside the guest's memory, as just looked up.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let (start, found) = self.memory.at(GUEST + at, len as u32).unwrap();
        assert_eq!(found as usize, len);
        let mut bytes = vec![0; len];
        // SAFETY: inside the guest's memory, as just looked up.
        unsafe { std::ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), len) };
        bytes
    }

    fn read_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().unwrap())
    }

    fn raw(&self, at: u64, address: u64, len: u32, third: u16, fourth: u16) {
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &len.to_le_bytes());
        self.write(at + 12, &third.to_le_bytes());
        self.write(at + 14, &fourth.to_le_bytes());
    }

    /// Offers one buffer: a chain of pieces, (offset, length) each.
    fn offer(&mut self, pieces: &[(u64, u32)], flags: u16) {
        let first = (self.next, self.wrap);
        for (index, (at, len)) in pieces.iter().enumerate() {
            let more = if index + 1 < pieces.len() { NEXT } else { 0 };
            self.describe(GUEST + at, *len, flags | more);
        }
        if !self.packed {
            self.write(
                0x4000 + 4 + 2 * u64::from(self.heads % SIZE),
                &first.0.to_le_bytes(),
            );
            self.heads = self.heads.wrapping_add(1);
            self.write(0x4002, &self.heads.to_le_bytes());
        }
    }

    fn describe(&mut self, address: u64, len: u32, flags: u16) {
        let at = 16 * u64::from(self.next);
        if self.packed {
            let turn = if self.wrap { 1 << 7 } else { 1 << 15 };
            self.raw(at, address, len, self.next + 1000, flags | turn);
        } else {
            self.raw(at, address, len, flags, (self.next + 1) % SIZE);
        }
        self.next += 1;
        if self.next == SIZE {
            self.next = 0;
            self.wrap = !self.wrap;
        }
    }

    /// Lengths of the buffers that came back since last asked, in a split ring.
    fn used_lens(&mut self) -> Vec<u32> {
        let index = self.read_u16(0x8002);
        let mut lens = Vec::new();
        while self.used != index {
            let at = 0x8004 + 8 * u64::from(self.used % SIZE) + 4;
            lens.push(u32::from_le_bytes(self.read(at, 4).try_into().unwrap()));
            self.used = self.used.wrapping_add(1);
        }
        lens
    }

    /// Id, length and flags of the descriptor at a place of a packed ring.
    fn packed_at(&self, place: u16) -> (u16, u32, u16) {
        let bytes = self.read(16 * u64::from(place) + 8, 8);
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        ((word >> 32) as u16, word as u32, (word >> 48) as u16)
    }

    fn take_one(&mut self, features: u64) -> Result<Burst, GuestFault> {
        let mut port = self.port(1, features);
        let mut burst = Burst::new();
        let mut drops = Losses::default();
        port.receive(&mut burst, &mut drops);
        assert_eq!(drops, Losses::default());
        port.fault.map_or(Ok(burst), Err)
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|byte| (byte as u8).wrapping_mul(7) ^ seed)
        .collect()
}

/// Puts header and frame at an offset.
fn fill(driver: &Driver, at: u64, frame: &[u8]) {
    driver.write(at, &[0; 12]);
    driver.write(at + 12, frame);
}

#[test]
fn frames_are_taken_where_they_lie_and_given_back_in_order() {
    for packed in [false, true] {
        for features in [VERSION_1, VERSION_1 | IN_ORDER] {
            let mut driver = Driver::new(packed);
            let mut port = driver.port(1, features);
            let (mut burst, mut drops) = (Burst::new(), Losses::default());
            for round in 0..100u8 {
                let count = u64::from(round % 7 + 1);
                for index in 0..count {
                    let at = BUFFERS + index * 0x1000;
                    fill(&driver, at, &frame(60 + index as usize, round));
                    driver.offer(&[(at, 72 + index as u32)], 0);
                }
                assert!(port.receive(&mut burst, &mut drops));
                assert_eq!(burst.len() as u64, count);
                for index in 0..burst.len() {
                    assert_eq!(burst.to_vec(index), frame(60 + index, round));
                }
                burst.clear();
                port.release();
                if !packed {
                    assert_eq!(driver.used_lens().len() as u64, count);
                }
            }
            assert_eq!(drops, Losses::default());
            let base = port.into_queues().0[0].base.0;
            let descriptors = (0..100u32).map(|round| round % 7 + 1).sum::<u32>();
            let (turns, place) = (descriptors / 64, descriptors % 64);
            let expected = place | (1 - turns % 2) << 15;
            assert_eq!(
                base,
                if packed {
                    expected | expected << 16
                } else {
                    descriptors
                }
            );
        }
    }
}

#[test]
fn packed_buffers_come_back_one_by_one_or_one_for_all() {
    for (features, others) in [(VERSION_1, true), (VERSION_1 | IN_ORDER, false)] {
        let mut driver = Driver::new(true);
        let mut port = driver.port(1, features);
        for index in 0..3 {
            let at = BUFFERS + index * 0x1000;
            fill(&driver, at, &frame(60, 1));
            driver.offer(&[(at, 72)], 0);
        }
        let mut burst = Burst::new();
        port.receive(&mut burst, &mut Losses::default());
        burst.clear();
        port.release();
        let used = |place| driver.packed_at(place).2 & 0x8080 == 0x8080;
        assert!(used(0));
        assert_eq!((used(1), used(2)), (others, others));
        let number = if others { 1000 } else { 1002 };
        assert_eq!(driver.packed_at(0).0, number);
    }
}

#[test]
fn a_packed_ring_goes_on_after_its_device_was_killed() {
    let mut driver = Driver::new(true);
    for round in 0..100u8 {
        // The front end knows no better than the beginning.
        let mut port = driver.port(1, VERSION_1);
        let mut burst = Burst::new();
        for index in 0..3 {
            let at = BUFFERS + index * 0x1000;
            fill(&driver, at, &frame(60, round));
            driver.offer(&[(at, 72)], 0);
        }
        port.receive(&mut burst, &mut Losses::default());
        assert_eq!(burst.len(), 3, "round {round}");
        assert_eq!(burst.to_vec(2), frame(60, round));
        burst.clear();
        port.release();
        drop(port);
    }
}

#[test]
fn a_chain_is_one_frame_wherever_its_header_ends() {
    for packed in [false, true] {
        for cut in [1u32, 5, 12, 13, 40] {
            let mut driver = Driver::new(packed);
            fill(&driver, BUFFERS, &frame(60, 3));
            let rest = 72 - cut;
            let pieces = [(BUFFERS, cut), (BUFFERS + u64::from(cut), rest)];
            driver.offer(&pieces, 0);
            let burst = driver.take_one(VERSION_1).unwrap();
            assert_eq!(burst.to_vec(0), frame(60, 3), "{packed} {cut}");
        }
    }
}

#[test]
fn an_indirect_table_is_one_frame() {
    for packed in [false, true] {
        let mut driver = Driver::new(packed);
        fill(&driver, BUFFERS, &frame(60, 4));
        let pieces = [(BUFFERS, 20u32), (BUFFERS + 20, 52)];
        for (index, (at, len)) in pieces.into_iter().enumerate() {
            let table = 0xa000 + 16 * index as u64;
            let more = u16::from(index == 0);
            if packed {
                driver.raw(table, GUEST + at, len, 0, 0);
            } else {
                driver.raw(table, GUEST + at, len, more, 1);
            }
        }
        driver.offer(&[(0xa000, 32)], INDIRECT);
        let burst = driver.take_one(VERSION_1).unwrap();
        assert_eq!(burst.to_vec(0), frame(60, 4));
    }
}

/// DPDK's packed driver leaves the mark on the first entry of its tables.
#[test]
fn a_buffer_to_be_sent_may_be_marked_writable_but_not_the_other_way_round() {
    for packed in [false, true] {
        let mut driver = Driver::new(packed);
        fill(&driver, BUFFERS, &frame(60, 4));
        let pieces = [(BUFFERS, 12u32), (BUFFERS + 12, 60)];
        for (index, (at, len)) in pieces.into_iter().enumerate() {
            let table = 0xa000 + 16 * index as u64;
            let flags = if index == 0 { WRITE | NEXT } else { 0 };
            let (third, fourth) = if packed { (0, flags) } else { (flags, 1) };
            driver.raw(table, GUEST + at, len, third, fourth);
        }
        driver.offer(&[(0xa000, 32)], INDIRECT);
        driver.offer(&pieces, WRITE);
        driver.offer(&[(BUFFERS, 72)], WRITE);
        let burst = driver.take_one(VERSION_1).unwrap();
        let taken: Vec<_> = (0..burst.len()).map(|index| burst.to_vec(index)).collect();
        assert_eq!(taken, [frame(60, 4), frame(60, 4), frame(60, 4)]);

        let mut driver = Driver::new(packed);
        let mut port = driver.port(0, VERSION_1);
        driver.offer(&[(BUFFERS, 1536)], 0);
        let mut burst = Burst::new();
        burst.push(VnetHeader::default(), &frame(60, 1));
        port.send(&burst, 0, &mut Losses::default());
        let fault = port.into_queues().1.unwrap().to_string();
        assert!(fault.contains("receive queue 0: a buffer has the wrong direction"));
    }
}

#[test]
fn a_long_frame_is_spread_over_mergeable_buffers_and_refused_without() {
    for packed in [false, true] {
        for mergeable in [true, false] {
            let mut driver = Driver::new(packed);
            let features = VERSION_1 | if mergeable { MRG_RXBUF } else { 0 };
            let mut port = driver.port(0, features);
            for index in 0..8 {
                driver.offer(&[(BUFFERS + index * 0x1000, 1536)], WRITE);
            }
            let mut burst = Burst::new();
            burst.push(VnetHeader::default(), &frame(60, 1));
            burst.push(VnetHeader::default(), &frame(4000, 2));
            burst.push(VnetHeader::default(), &frame(60, 3));
            let mut drops = Losses::default();
            port.send(&burst, 0, &mut drops);
            let lens: Vec<u32> = if packed {
                (0..8)
                    .map(|place| driver.packed_at(place))
                    .take_while(|(.., flags)| flags & 0x8080 == 0x8080)
                    .map(|(_, len, _)| len)
                    .collect()
            } else {
                driver.used_lens()
            };
            let buffer = |index: u64, at: u64, len| driver.read(BUFFERS + index * 0x1000 + at, len);
            if mergeable {
                assert_eq!(lens, [72, 1536, 1536, 940, 72]);
                assert_eq!(drops, Losses::default());
                assert_eq!(buffer(1, 10, 2), [3, 0], "num_buffers");
                let whole = [buffer(1, 12, 1524), buffer(2, 0, 1536), buffer(3, 0, 940)];
                assert_eq!(whole.concat(), frame(4000, 2));
                assert_eq!(buffer(4, 12, 60), frame(60, 3));
            } else {
                assert_eq!(lens, [72, 72]);
                assert_eq!(drops.of(DropReason::TooLong), 1);
                assert_eq!(buffer(1, 12, 60), frame(60, 3));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_counted_and_the_rest_arrives() {
    for packed in [false, true] {
        let mut driver = Driver::new(packed);
        let mut port = driver.port(0, VERSION_1);
        for index in 0..5 {
            driver.offer(&[(BUFFERS + index * 0x1000, 1536)], WRITE);
        }
        let mut burst = Burst::new();
        for _ in 0..8 {
            burst.push(VnetHeader::default(), &frame(60, 1));
        }
        let mut drops = Losses::default();
        port.send(&burst, 0, &mut drops);
        assert_eq!(drops.of(DropReason::ReceiverFull), 3);
        drops.clear();
        port.send(&burst, 6, &mut drops);
        assert_eq!(drops.of(DropReason::ReceiverFull), 2);
    }
}

type Break<'a> = &'a dyn Fn(&mut Driver);

#[test]
fn each_broken_rule_stops_the_port_and_names_it() {
    for packed in [false, true] {
        let outside = |driver: &mut Driver| driver.describe(GUEST + MEMORY - 10, 72, 0);
        let nested = |driver: &mut Driver| {
            driver.raw(0xa000, GUEST + 0xa000, 16, INDIRECT, INDIRECT);
            driver.describe(GUEST + 0xa000, 16, INDIRECT);
        };
        let cut_table = |driver: &mut Driver| driver.describe(GUEST + 0xa000, 17, INDIRECT);
        let endless = |driver: &mut Driver| {
            for _ in 0..SIZE {
                driver.describe(GUEST + BUFFERS, 72, NEXT);
            }
        };
        let cases: [(Break<'_>, &str); 4] = [
            (&outside, "outside the memory"),
            (&nested, "nested"),
            (&cut_table, "cut off"),
            (&endless, "loop"),
        ];
        for (break_it, expected) in cases {
            let mut driver = Driver::new(packed);
            break_it(&mut driver);
            driver.write(0x4002, &1u16.to_le_bytes()); // split: entry 0 is descriptor 0
            let fault = driver.take_one(VERSION_1).unwrap_err();
            assert_eq!(fault.queue, 1);
            assert!(fault.to_string().contains(expected), "{fault}");
            assert!(fault.to_string().contains("transmit queue 0"), "{fault}");
        }
    }
    let mut driver = Driver::new(false);
    driver.write(0x4002, &(SIZE + 1).to_le_bytes());
    let fault = driver.take_one(VERSION_1).unwrap_err();
    assert_eq!(
        fault.rule,
        Rule::IndexJump {
            ahead: 65,
            size: 64
        }
    );
    driver.write(0x4002, &1u16.to_le_bytes());
    driver.write(0x4004, &SIZE.to_le_bytes());
    let fault = driver.take_one(VERSION_1).unwrap_err();
    let expected = Rule::NoSuchDescriptor {
        number: 64,
        size: 64,
    };
    assert_eq!(fault.rule, expected);
}

#[test]
fn a_stopped_port_rings_once_and_drops_what_is_sent_to_it() {
    let driver = Driver::new(false);
    let rung = Arc::new(AtomicUsize::new(0));
    let alarm = {
        let rung = rung.clone();
        Alarm::new(move || _ = rung.fetch_add(1, Ordering::Relaxed))
    };
    let specs = vec![driver.spec(0)];
    let mut port = VhostUser::new(driver.memory.clone(), VERSION_1, specs, alarm).unwrap();
    driver.write(0x4002, &1000u16.to_le_bytes());
    let mut burst = Burst::new();
    burst.push(VnetHeader::default(), &frame(60, 1));
    let mut drops = Losses::default();
    port.send(&burst, 0, &mut drops);
    drops.clear();
    port.send(&burst, 0, &mut drops);
    assert_eq!(drops.of(DropReason::Unplugged), 1);
    assert_eq!(rung.load(Ordering::Relaxed), 1);
    assert!(port.into_queues().1.is_some());
}

#[test]
fn kicks_are_asked_for_only_while_nobody_polls() {
    for packed in [false, true] {
        let mut driver = Driver::new(packed);
        let mut port = driver.port(1, VERSION_1);
        let wanted = |driver: &Driver| {
            let flags = if packed { 0x8002 } else { 0x8000 };
            driver.read_u16(flags) == 0
        };
        assert!(!wanted(&driver), "it begins by polling");
        assert!(!port.arm());
        assert!(wanted(&driver));
        port.disarm();
        assert!(!wanted(&driver));
        fill(&driver, BUFFERS, &frame(60, 1));
        driver.offer(&[(BUFFERS, 72)], 0);
        assert!(port.arm(), "a buffer that came before is reported");
    }
}

//! A lane between two ports in memory.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::Offloads;
use crate::cable::Cable;
use crate::cable_state::CableState;
use crate::capture::{Record, TapSpec, Verdict, lane_tap, recorder};
use crate::clock;
use crate::frame::{MAX_FRAME, VnetHeader};
use crate::hold::HoldMemory;
use crate::impair::{Chance, Impairment, Limit, Loss};
use crate::lane::{Bursts, Impaired, NumberedTap};
use crate::port::{MemoryHost, Port, memory, memory_taking};
use crate::side::Side;
use crate::stats::{DropReason, LaneSnapshot};

struct Bench {
    cable: Cable,
    left: MemoryHost,
    right: MemoryHost,
    memory: Bursts,
    hold_memory: Arc<HoldMemory>,
}

impl Bench {
    fn new() -> Self {
        Self::taking(Offloads::ALL)
    }

    fn taking(takes: Offloads) -> Self {
        let (a, left) = memory(1024).unwrap();
        let (b, right) = memory_taking(takes, 1024).unwrap();
        Bench {
            cable: Cable::new(Port::Memory(a), Port::Memory(b)),
            left,
            right,
            memory: Bursts::default(),
            hold_memory: Arc::new(HoldMemory::new(Some(64 << 20))),
        }
    }

    fn impair(&mut self, impairment: Option<Impairment>) {
        let impaired = impairment.map(|settings| {
            settings.check().unwrap();
            Impaired::new(settings, &self.hold_memory).unwrap()
        });
        self.cable.lane_mut(Side::A).impair(impaired);
    }

    fn delay(&mut self, delay: Duration) {
        self.impair(Some(Impairment {
            delay,
            ..Impairment::default()
        }));
    }

    fn send(&mut self, frame: &[u8]) {
        assert!(self.left.send(VnetHeader::default(), frame));
    }

    fn forward(&mut self) {
        while self
            .cable
            .forward(Side::A, &mut self.memory)
            .unwrap()
            .received
        {}
    }

    fn release(&mut self, now: u64) {
        while self
            .cable
            .release(Side::A, now, &mut self.memory)
            .0
            .is_some_and(|next| next <= now)
        {}
    }

    fn received(&self) -> Vec<Vec<u8>> {
        let frames = std::iter::from_fn(|| self.right.receive(Duration::ZERO));
        frames.map(|(_, frame)| frame).collect()
    }

    fn stats(&self) -> LaneSnapshot {
        self.cable.stats(Side::A).snapshot()
    }

    fn tap(&mut self, wire: bool) -> crate::capture::LaneCapture {
        let spec = TapSpec {
            filter: None,
            snap: 65_535,
            wire,
            bytes: 1 << 20,
        };
        let (tap, reader) = lane_tap(spec);
        let tap = Box::new(NumberedTap { number: 7, tap });
        assert!(self.cable.lane_mut(Side::A).tap(tap).is_ok());
        reader
    }
}

fn records(capture: &mut crate::capture::LaneCapture) -> Vec<(Record, Vec<u8>)> {
    let mut records = Vec::new();
    capture.read(|record, bytes| records.push((*record, bytes.to_vec())));
    records
}

fn always() -> Chance {
    Chance {
        probability: 1.0,
        correlation: 0.0,
    }
}

fn frame(number: u8) -> [u8; 60] {
    [number; 60]
}

#[test]
fn a_delayed_frame_waits_and_is_counted_as_held() {
    let mut bench = Bench::new();
    bench.delay(Duration::from_secs(1));
    bench.send(&frame(1));
    bench.forward();
    assert!(bench.received().is_empty());
    assert_eq!((bench.stats().frames_in, bench.stats().held), (1, 1));
    assert_eq!(bench.stats().impaired.delayed, 1);
    bench.release(clock::now() + 1_000_000_000);
    assert_eq!(bench.received(), [frame(1)]);
    assert_eq!((bench.stats().frames_out, bench.stats().held), (1, 0));
}

#[test]
fn what_waits_when_the_cable_is_cut_is_lost_and_counted() {
    let mut bench = Bench::new();
    bench.delay(Duration::from_secs(1));
    bench.send(&frame(1));
    bench.forward();
    bench.cable.set_state(CableState::Down);
    assert_eq!(bench.stats().drops[DropReason::CableDown as usize], 1);
    assert_eq!(bench.stats().held, 0);
    bench.cable.set_state(CableState::Up);
    bench.release(u64::MAX);
    assert!(bench.received().is_empty());
}

/// Other keys let frames keep their time. Without any they leave at once, in the order in which they were
/// to leave, and no later frame overtakes them, whatever it is to do.
#[test]
fn frames_leave_at_once_and_in_order_when_the_impairment_is_taken_away() {
    for and_then in [None, Some(Duration::ZERO)] {
        let mut bench = Bench::new();
        bench.delay(Duration::from_secs(60));
        (0..100).for_each(|number| bench.send(&frame(number)));
        bench.forward();
        bench.delay(Duration::from_secs(30));
        // More than leaves in one go.
        (100..200).for_each(|number| bench.send(&frame(number)));
        (0..400).for_each(|_| bench.send(&frame(199)));
        bench.forward();
        bench.release(clock::now());
        assert!(bench.received().is_empty());
        bench.impair(None);
        assert_eq!(bench.cable.lane(Side::A).next_release(), Some(0));
        if let Some(delay) = and_then {
            bench.delay(delay);
        }
        bench.send(&frame(200));
        bench.forward();
        bench.release(clock::now());
        let first: Vec<_> = bench.received().iter().map(|frame| frame[0]).collect();
        let mut wanted: Vec<_> = (100..200).chain([199; 400]).chain(0..100).collect();
        wanted.push(200);
        assert_eq!(first, wanted);
        assert_eq!(bench.stats().held, 0);
        let ended = bench.cable.lane_mut(Side::A).take_ended();
        assert_eq!(ended.is_some(), and_then.is_none());
    }
}

#[test]
fn a_capture_tells_what_an_impairment_did() {
    let mut bench = Bench::new();
    let mut entered = bench.tap(false);
    let mut left = bench.tap(true);
    bench.impair(Some(Impairment {
        drop_nth: Arc::new([2]),
        ..Impairment::default()
    }));
    for number in 1..=3 {
        bench.send(&frame(number));
    }
    bench.forward();
    let entered = records(&mut entered);
    let fates: Vec<_> = entered
        .iter()
        .map(|(record, bytes)| (bytes[0], record.verdict.dropped))
        .collect();
    assert!(fates.contains(&(1, None)));
    assert!(fates.contains(&(2, Some(DropReason::Chosen))));
    assert!(fates.contains(&(3, None)));
    let left = records(&mut left);
    assert_eq!(
        left.iter().map(|(_, bytes)| bytes[0]).collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(bench.stats().drops[DropReason::Chosen as usize], 1);
}

#[test]
fn a_corrupted_frame_is_captured_as_it_came_and_as_it_left() {
    let mut bench = Bench::new();
    let (mut entered, mut left) = (bench.tap(false), bench.tap(true));
    bench.impair(Some(Impairment {
        corrupt: always(),
        ..Impairment::default()
    }));
    bench.send(&frame(0));
    bench.forward();
    let received = bench.received();
    let ones: u32 = received[0].iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(ones, 1);
    let (record, bytes) = &records(&mut entered)[0];
    assert_eq!(bytes[..], frame(0));
    let bit = record.verdict.corrupted.unwrap() as usize;
    assert_eq!(received[0][bit / 8], 1 << (bit % 8));
    assert_eq!(records(&mut left)[0].1, received[0]);
}

#[test]
fn what_the_receiver_has_no_room_for_is_in_the_capture() {
    let (a, left) = memory(1024).unwrap();
    let (b, right) = memory(4).unwrap();
    let mut bench = Bench {
        cable: Cable::new(Port::Memory(a), Port::Memory(b)),
        left,
        right,
        memory: Bursts::default(),
        hold_memory: Arc::new(HoldMemory::new(None)),
    };
    let mut entered = bench.tap(false);
    for number in 0..6 {
        bench.send(&frame(number));
    }
    bench.forward();
    let dropped = records(&mut entered);
    let dropped = dropped
        .iter()
        .filter_map(|(record, _)| record.verdict.dropped);
    assert_eq!(dropped.collect::<Vec<_>>(), [DropReason::ReceiverFull; 2]);
}

#[test]
fn the_recorder_keeps_what_passed() {
    let mut bench = Bench::new();
    let (recorder, reader) = recorder(1 << 16, 256);
    bench
        .cable
        .lane_mut(Side::A)
        .record(Some(Box::new(recorder)));
    for number in 0..5 {
        bench.send(&frame(number));
    }
    bench.forward();
    let mut seen = Vec::new();
    reader.dump(0, |record, bytes| {
        assert_eq!(record.verdict, Verdict::default());
        seen.push(bytes[0]);
    });
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

/// A TCP super-frame of `payload` bytes, to be cut into pieces of `size` bytes.
pub(crate) fn super_frame(payload: usize, size: u16) -> (VnetHeader, Vec<u8>) {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1, 2, 3, 4)
        .write(&mut frame, &vec![7; payload])
        .unwrap();
    // NEEDS_CSUM, TCPv4, 54 bytes of headers, checksum at 34 + 16.
    let mut header = VnetHeader([1, 1, 54, 0, 0, 0, 34, 0, 16, 0]);
    header.0[4..6].copy_from_slice(&size.to_le_bytes());
    (header, frame)
}

#[test]
fn constant_delay_keeps_super_frames_whole_and_loss_cuts_them() {
    let mut bench = Bench::new();
    bench.delay(Duration::from_millis(1));
    let (header, frame) = super_frame(10_000, 1000);
    assert!(bench.left.send(header, &frame));
    bench.forward();
    bench.release(u64::MAX);
    assert_eq!(bench.received().len(), 1);
    bench.impair(Some(Impairment {
        drop_nth: Arc::new([3]),
        ..Impairment::default()
    }));
    assert!(bench.left.send(header, &frame));
    bench.forward();
    let received = bench.received();
    assert_eq!(received.len(), 9);
    assert!(received.iter().all(|frame| frame.len() == 1054));
    let stats = bench.stats();
    assert_eq!((stats.frames_in, stats.frames_out), (11, 10));
}

/// A frame that is too long, or has no place for its checksum, costs itself: it is counted, and
/// captures and the flight recorder go on.
#[test]
fn a_frame_that_is_too_long_is_counted_and_captures_go_on() {
    let mut bench = Bench::taking(Offloads::NONE);
    let (tap, mut capture) = lane_tap(TapSpec {
        filter: None,
        snap: u32::MAX,
        wire: false,
        bytes: 1 << 20,
    });
    let tap = NumberedTap { number: 1, tap };
    bench.cable.lane_mut(Side::A).tap(Box::new(tap)).unwrap();
    let checksum_at = |at: usize| {
        let mut header = VnetHeader([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.0[6..8].copy_from_slice(&40_000u16.to_le_bytes());
        header.0[8..10].copy_from_slice(&((at - 40_000) as u16).to_le_bytes());
        header
    };
    let (longest, longer) = (vec![7; MAX_FRAME], vec![7; MAX_FRAME + 4]);
    for (header, frame) in [
        (VnetHeader::default(), &longest),
        (VnetHeader::default(), &longer),
        (checksum_at(MAX_FRAME - 2), &longest),
        (checksum_at(MAX_FRAME - 1), &longest),
        (checksum_at(MAX_FRAME + 2), &longer),
    ] {
        assert!(bench.left.send(header, frame));
    }
    bench.send(&frame(1));
    bench.forward();
    let stats = bench.stats();
    assert_eq!((stats.frames_in, stats.frames_out, stats.held), (6, 3, 0));
    let drops: Vec<_> = stats.drop_reasons().collect();
    assert_eq!(
        drops,
        [(DropReason::TooLong, 2), (DropReason::Malformed, 1)]
    );
    let mut lengths = Vec::new();
    capture.read(|record, bytes| {
        assert_eq!(record.captured as usize, bytes.len());
        assert_eq!(Record::decode(&record.encode()), Some(*record));
        lengths.push(bytes.len());
    });
    assert_eq!(lengths, [MAX_FRAME, MAX_FRAME, frame(1).len()]);
}

/// A receiver that is full gets no pieces made: they are only counted.
#[test]
fn pieces_for_a_full_receiver_are_counted_and_not_made() {
    let mut bench = Bench::taking(Offloads::NONE);
    let (header, frame) = super_frame(60_000, 1000);
    let mut work = Vec::new();
    for _ in 0..30 {
        assert!(bench.left.send(header, &frame));
        let forwarded = bench.cable.forward(Side::A, &mut bench.memory).unwrap();
        work.push(forwarded.work);
    }
    let stats = bench.stats();
    assert_eq!((stats.frames_in, stats.frames_out), (30 * 60, 1024));
    assert_eq!(
        stats.drops[DropReason::ReceiverFull as usize],
        30 * 60 - 1024
    );
    assert_eq!(bench.received().len(), 1024);
    // The first frames are cut; of the last one no more than the pieces that are tried.
    let (first, last) = (work[0].0, work[29].0);
    assert!(last <= first, "{work:?}");
    // With room again, it is cut again.
    assert!(bench.left.send(header, &frame));
    bench.forward();
    assert_eq!(bench.received().len(), 60);
}

#[derive(Debug, Clone)]
enum Step {
    Send(u8, usize),
    SendSuper(usize),
    Impair(Box<Impairment>),
    Clear,
    State(CableState),
    Release(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    (
        prop::sample::select(vec![0.0, 0.1, 0.5, 1.0]),
        0.0..=0.9_f64,
    )
        .prop_map(|(probability, correlation)| Chance {
            probability,
            correlation,
        })
}

fn impairment() -> impl Strategy<Value = Box<Impairment>> {
    (
        (0_u64..5, 0_u64..3),
        (chance(), chance(), chance(), chance()),
        prop::option::of(2_000_u64..2_000_000),
        any::<u64>(),
    )
        .prop_map(
            |((delay, jitter), (loss, duplicate, corrupt, reorder), limit, seed)| {
                let delay = delay.max(jitter).max(u64::from(reorder.probability > 0.0));
                Box::new(Impairment {
                    delay: Duration::from_millis(delay),
                    jitter: Duration::from_millis(jitter),
                    loss: if loss.probability > 0.0 {
                        Loss::Random {
                            probability: loss.probability,
                            correlation: loss.correlation,
                        }
                    } else {
                        Loss::None
                    },
                    duplicate,
                    corrupt,
                    reorder,
                    limit: limit.map(Limit::Bytes),
                    seed,
                    ..Impairment::default()
                })
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u8..20, 14_usize..3000).prop_map(|(count, len)| Step::Send(count, len)),
        2 => (1_usize..60_000).prop_map(Step::SendSuper),
        3 => impairment().prop_map(Step::Impair),
        1 => Just(Step::Clear),
        1 => prop::sample::select(vec![CableState::Up, CableState::Down, CableState::Blackhole])
            .prop_map(Step::State),
        4 => (0_u64..8_000_000).prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

    /// Whatever is changed in between, no frame is lost without a reason: what the receiver got
    /// is what went out, and in = out + dropped + held.
    #[test]
    fn every_frame_is_sent_held_or_counted(steps in prop::collection::vec(step(), 1..40), all in any::<bool>()) {
        let mut bench = Bench::taking(if all { Offloads::ALL } else { Offloads::NONE });
        let (mut sent, mut got) = (0_u64, 0_u64);
        let mut capture = bench.tap(true);
        let mut wired = 0_u64;
        for step in steps {
            match step {
                Step::Send(count, len) => {
                    for _ in 0..count {
                        bench.send(&vec![1; len]);
                        sent += 1;
                    }
                }
                Step::SendSuper(payload) => {
                    let (header, frame) = super_frame(payload, 1000);
                    assert!(bench.left.send(header, &frame));
                    sent += 1;
                }
                Step::Impair(impairment) => bench.impair(Some(*impairment)),
                Step::Clear => bench.impair(None),
                Step::State(state) => bench.cable.set_state(state),
                Step::Release(ahead) => bench.release(clock::now() + ahead),
            }
            bench.forward();
            got += bench.received().len() as u64;
            wired += capture.read(|_, _| {}) as u64;
            let stats = bench.stats();
            prop_assert_eq!(stats.frames_out, got);
            prop_assert!(stats.frames_in >= sent + stats.impaired.duplicated);
            prop_assert!(stats.held <= stats.frames_in);
        }
        bench.release(u64::MAX);
        got += bench.received().len() as u64;
        wired += capture.read(|_, _| {}) as u64;
        let stats = bench.stats();
        prop_assert_eq!(stats.held, 0);
        prop_assert_eq!(stats.frames_out, got);
        prop_assert_eq!(wired + capture.lost(), got);
        prop_assert_eq!(stats.frames_in, got + stats.dropped());
    }
}

//! Guests that change what they gave while it is looked at: a thread writes whatever it likes
//! into rings, tables or headers while frames flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::Side;
use guest::{DESCRIPTOR, Guest, GuestOptions, Memory, QueueLayout, Ring, Shape, features};
use ikv_tests::Dice;

use crate::bay::{Bay, Line};

/// Each guest's time.
const TIME: Duration = Duration::from_millis(400);

/// What is written over.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    /// Descriptors, their flags and lengths more often than their addresses.
    Descriptors,
    /// Tables of indirect descriptors.
    Tables,
    /// Everything that the driver writes besides: indexes, entries, events.
    Driver,
    /// What only the device writes.
    Device,
    /// Virtio-net headers and the first headers of the frames.
    Headers,
}

fn spoil(memory: &Memory, layout: &QueueLayout, target: Target, dice: &mut Dice) {
    let size = layout.size as usize;
    match target {
        Target::Descriptors | Target::Tables => {
            let pieces = layout.shape.pieces() as usize;
            let (table, entries) = match target {
                Target::Descriptors => (layout.descriptors, size),
                _ => (layout.tables, pieces * layout.slots as usize),
            };
            let at = table + DESCRIPTOR * dice.below(entries);
            let word = memory.u64(at + 8);
            match dice.below(8) {
                0 => memory.u64(at).store(dice.roll(), Ordering::Relaxed),
                1 => memory
                    .u32(at + 8)
                    .store(dice.roll() as u32, Ordering::Relaxed),
                2 => memory
                    .u32(at + 8)
                    .store(dice.below(100) as u32, Ordering::Relaxed),
                _ => _ = word.fetch_xor(1 << (32 + dice.below(32)), Ordering::Relaxed),
            }
        }
        Target::Driver | Target::Device => {
            let (at, split) = match target {
                Target::Driver => (layout.driver, 6 + 2 * size),
                _ => (layout.device, 6 + 8 * size),
            };
            let len = if layout.ring == Ring::Split { split } else { 4 };
            let half = memory.u16(at + 2 * dice.below(len / 2));
            half.store(dice.below(2 * size) as u16, Ordering::Relaxed);
        }
        Target::Headers => {
            let at = layout.header(dice.below(layout.slots as usize) as u16) + dice.below(66);
            memory.u8(at).store(dice.roll() as u8, Ordering::Relaxed);
        }
    }
}

/// Frames flow between two guests while A's memory is written over, until one gives up.
fn spoiled(line: &Line, options: &GuestOptions, target: Target, queue: usize, seed: u64) {
    let mut ends = [Side::A, Side::B].map(|side| line.guest(side, options));
    let layout = *ends[0].queue(queue).layout();
    let memory = ends[0].memory().clone();
    let stop = Arc::new(AtomicBool::new(false));
    let spoiler = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut dice = Dice(seed);
            while !stop.load(Ordering::Relaxed) {
                spoil(&memory, &layout, target, &mut dice);
            }
        })
    };
    let began = Instant::now();
    while began.elapsed() < TIME && ends[0].session().is_open() && exchange(&mut ends).is_ok() {}
    stop.store(true, Ordering::Relaxed);
    spoiler.join().unwrap();
    drop(ends);
    for lane in &line.handle.lanes {
        let lane = lane.snapshot();
        assert_eq!(lane.frames_in, lane.frames_out + lane.held + lane.dropped());
    }
}

/// The driver itself may find nonsense in its rings: that is its own doing.
fn exchange(ends: &mut [Guest; 2]) -> Result<(), guest::GuestError> {
    for end in ends.iter_mut() {
        let (receive, send) = end.pair();
        send.send(32, |_| ())?;
        receive.receive(64, |_| ())?;
    }
    Ok(())
}

fn kinds() -> Vec<GuestOptions> {
    let mut kinds = Vec::new();
    for ring in [Ring::Split, Ring::Packed] {
        for shape in [Shape::Single, Shape::Chained(4), Shape::Indirect(3)] {
            kinds.push(GuestOptions {
                ring,
                send_shape: shape,
                receive_shape: shape,
                event_idx: true,
                mergeable: shape == Shape::Single,
                features: features::OFFLOADS,
                ..GuestOptions::default()
            });
        }
    }
    kinds
}

#[test]
fn rings_may_change_under_our_eyes() {
    let bay = Bay::new();
    let mut seed = 0;
    for options in kinds() {
        for target in [
            Target::Descriptors,
            Target::Tables,
            Target::Driver,
            Target::Device,
        ] {
            if target == Target::Tables && !matches!(options.send_shape, Shape::Indirect(_)) {
                continue;
            }
            for queue in [0, 1] {
                seed += 1;
                let line = bay.line();
                spoiled(&line, &options, target, queue, seed);
                line.check_heals(&options);
            }
        }
    }
    bay.end();
}

/// Headers that change break no rule: frames are dropped, or pass as somebody's nonsense. The
/// receiver takes no offloads, so that super-frames are cut while their headers change.
#[test]
fn headers_may_change_under_our_eyes() {
    let bay = Bay::new();
    for (seed, ring) in [Ring::Split, Ring::Packed].into_iter().enumerate() {
        let line = bay.line();
        let sender = GuestOptions {
            ring,
            features: features::OFFLOADS,
            send_capacity: 30_000,
            ..GuestOptions::default()
        };
        let pattern = bench::pattern::Pattern::new(20_000, 0, 0);
        let mut from = line.guest(Side::A, &sender);
        let mut to = line.guest(Side::B, &GuestOptions::default());
        from.queue(1).load(&pattern.header, &pattern.frame);
        let (memory, layout) = (from.memory().clone(), *from.queue(1).layout());
        let stop = Arc::new(AtomicBool::new(false));
        let spoiler = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut dice = Dice(seed as u64);
                while !stop.load(Ordering::Relaxed) {
                    // Often enough what it was, so that some frames get far.
                    let slot = dice.below(layout.slots as usize) as u16;
                    let mut whole = pattern.header.to_vec();
                    whole.extend(&pattern.frame[..66]);
                    memory.write(layout.header(slot), &whole);
                    spoil(&memory, &layout, Target::Headers, &mut dice);
                }
            })
        };
        let (began, mut received) = (Instant::now(), 0);
        while began.elapsed() < 4 * TIME {
            from.queue(1).send(8, |_| ()).unwrap();
            received += to.queue(0).receive(256, |_| ()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        spoiler.join().unwrap();
        assert!(received > 0, "some came through");
        assert!(from.session().is_open() && to.session().is_open());
        assert_eq!(bay.faults(&line), [""; 0]);
    }
    bay.end();
}

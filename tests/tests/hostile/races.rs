//! Guests that change shared memory while the port reads it: a thread writes random values into
//! rings, tables or headers while frames flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::Side;
use guest::{DESCRIPTOR, Guest, GuestOptions, Memory, QueueLayout, Ring, Shape, features};
use ikv_tests::Dice;

use crate::testbed::{TestCable, Testbed};

/// How long each guest's memory is overwritten.
const TIME: Duration = Duration::from_millis(400);

/// The part of a queue that is overwritten.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Target {
    /// Descriptors; their flags and lengths more often than their addresses.
    Descriptors,
    /// Tables of indirect descriptors.
    Tables,
    /// What else the driver writes: indexes, ring entries, events.
    Driver,
    /// What only the device writes.
    Device,
    /// The virtio-net header and the frame's own first headers.
    Headers,
}

fn overwrite(memory: &Memory, layout: &QueueLayout, target: Target, dice: &mut Dice) {
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

/// Frames flow between two guests while A's memory is overwritten, until its session ends or the
/// driver gives up.
fn flow_while_overwritten(
    cable: &TestCable,
    options: &GuestOptions,
    target: Target,
    queue: usize,
    seed: u64,
) {
    let mut ends = [Side::A, Side::B].map(|side| cable.guest(side, options));
    let layout = *ends[0].queue(queue).layout();
    let memory = ends[0].memory().clone();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut dice = Dice(seed);
            while !stop.load(Ordering::Relaxed) {
                overwrite(&memory, &layout, target, &mut dice);
            }
        })
    };
    let began = Instant::now();
    while began.elapsed() < TIME && ends[0].session().is_open() && exchange(&mut ends).is_ok() {}
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    drop(ends);
    for lane in &cable.handle.lanes {
        let lane = lane.snapshot();
        assert_eq!(lane.frames_in, lane.frames_out + lane.held + lane.dropped());
    }
}

/// Fails when the driver itself finds its rings inconsistent.
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
fn rings_may_change_while_they_are_read() {
    let testbed = Testbed::new();
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
                let cable = testbed.cable();
                flow_while_overwritten(&cable, &options, target, queue, seed);
                cable.assert_works(&options);
            }
        }
    }
    testbed.end();
}

/// Changing headers breaks no rule: a frame is dropped, or passes with nonsense in it. The receiver
/// takes no offloads, so that super-frames are segmented while their headers change.
#[test]
fn headers_may_change_while_they_are_read() {
    let testbed = Testbed::new();
    for (seed, ring) in [Ring::Split, Ring::Packed].into_iter().enumerate() {
        let cable = testbed.cable();
        let sender = GuestOptions {
            ring,
            features: features::OFFLOADS,
            send_capacity: 30_000,
            ..GuestOptions::default()
        };
        let pattern = bench::pattern::Pattern::new(20_000, 0, 0);
        let mut from = cable.guest(Side::A, &sender);
        let mut to = cable.guest(Side::B, &GuestOptions::default());
        from.queue(1).load(&pattern.header, &pattern.frame);
        let (memory, layout) = (from.memory().clone(), *from.queue(1).layout());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut dice = Dice(seed as u64);
                while !stop.load(Ordering::Relaxed) {
                    // Restored often, so that some frames are valid for long enough to arrive.
                    let slot = dice.below(layout.slots as usize) as u16;
                    let mut whole = pattern.header.to_vec();
                    whole.extend(&pattern.frame[..66]);
                    memory.write(layout.header(slot), &whole);
                    overwrite(&memory, &layout, Target::Headers, &mut dice);
                }
            })
        };
        let (began, mut received) = (Instant::now(), 0);
        while began.elapsed() < 4 * TIME {
            from.queue(1).send(8, |_| ()).unwrap();
            received += to.queue(0).receive(256, |_| ()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        assert!(received > 0, "no frame arrived");
        assert!(from.session().is_open() && to.session().is_open());
        assert_eq!(testbed.faults(&cable), [""; 0]);
    }
    testbed.end();
}

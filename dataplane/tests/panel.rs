//! The panel with ports in memory: what goes in comes out or is counted.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ikv_dataplane::port::{MemoryHost, memory};
use ikv_dataplane::{
    Cable, CableHandle, CableState, DropReason, Idle, LaneSnapshot, Panel, PanelOptions, Port,
    Side, VnetHeader,
};

const SOON: Duration = Duration::from_secs(10);

struct Bench {
    panel: Panel,
    cable: CableHandle,
    a: MemoryHost,
    b: MemoryHost,
}

fn bench(idle: Idle) -> Bench {
    let panel = Panel::start(
        &PanelOptions {
            workers: 1,
            idle,
            ..Default::default()
        },
        || {},
    )
    .unwrap();
    let (port_a, a) = memory(256).unwrap();
    let (port_b, b) = memory(256).unwrap();
    let cable = panel
        .add(Cable::new(Port::Memory(port_a), Port::Memory(port_b)))
        .wait()
        .unwrap();
    Bench { panel, cable, a, b }
}

impl Bench {
    fn settled(&self, from: Side, frames: u64) -> LaneSnapshot {
        let deadline = Instant::now() + SOON;
        loop {
            let seen = self.cable.lanes[from as usize].snapshot();
            assert_eq!(seen.frames_in, seen.frames_out + seen.held + seen.dropped());
            if seen.frames_in == frames {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "{frames} frames never arrived: {seen:?}"
            );
            std::thread::yield_now();
        }
    }
}

fn frame(number: u16) -> Vec<u8> {
    let mut frame = vec![0x5a; 60 + usize::from(number) % 1400];
    frame[..2].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn frames_pass_both_ways_in_order_and_unchanged() {
    for idle in [Idle::Sleep, Idle::Spin] {
        let bench = bench(idle);
        let header = VnetHeader([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
        for number in 0..200 {
            assert!(bench.a.send(header, &frame(number)));
            assert!(bench.b.send(VnetHeader::default(), &frame(number + 1000)));
        }
        for number in 0..200 {
            assert_eq!(bench.b.receive(SOON), Some((header, frame(number))));
            assert_eq!(
                bench.a.receive(SOON),
                Some((VnetHeader::default(), frame(number + 1000)))
            );
        }
        let seen = bench.settled(Side::A, 200);
        assert_eq!((seen.frames_out, seen.dropped()), (200, 0));
        assert_eq!(
            seen.bytes_in,
            (0..200)
                .map(|number| frame(number).len() as u64)
                .sum::<u64>()
        );
        bench.panel.stop();
    }
}

#[test]
fn a_cut_cable_and_a_blackhole_count_under_their_own_reason() {
    let bench = bench(Idle::Sleep);
    let mut sent = 0;
    for (state, reason) in [
        (CableState::Down, Some(DropReason::CableDown)),
        (CableState::Blackhole, Some(DropReason::Blackhole)),
        (CableState::Up, None),
    ] {
        bench.panel.set_state(bench.cable.id, state).wait().unwrap();
        let before = bench.settled(Side::A, sent);
        for number in 0..50 {
            assert!(bench.a.send(VnetHeader::default(), &frame(number)));
        }
        sent += 50;
        let after = bench.settled(Side::A, sent);
        match reason {
            Some(reason) => {
                assert_eq!(
                    after.drops[reason as usize] - before.drops[reason as usize],
                    50
                );
                assert_eq!(after.frames_out, before.frames_out);
            }
            None => assert_eq!(after.frames_out, before.frames_out + 50),
        }
    }
    bench.panel.stop();
}

#[test]
fn a_receiver_that_does_not_keep_up_costs_counted_frames() {
    let bench = bench(Idle::Sleep);
    let mut sent = 0;
    while sent < 1000 {
        if bench.a.send(VnetHeader::default(), &frame(0)) {
            sent += 1;
        } else {
            std::thread::yield_now();
        }
    }
    let seen = bench.settled(Side::A, 1000);
    assert_eq!(seen.frames_out, 256, "what the receiver has room for");
    assert_eq!(seen.drops[DropReason::ReceiverFull as usize], 744);
    bench.panel.stop();
}

#[test]
fn a_port_is_replaced_while_frames_flow() {
    let bench = bench(Idle::Sleep);
    bench
        .panel
        .exchange(bench.cable.id, Side::B, None)
        .wait()
        .unwrap();
    assert!(bench.a.send(VnetHeader::default(), &frame(1)));
    let seen = bench.settled(Side::A, 1);
    assert_eq!(seen.drops[DropReason::Unplugged as usize], 1);

    let (port, new) = memory(8).unwrap();
    bench
        .panel
        .exchange(bench.cable.id, Side::B, Some(Port::Memory(port)))
        .wait()
        .unwrap();
    assert!(bench.a.send(VnetHeader::default(), &frame(2)));
    assert_eq!(new.receive(SOON), Some((VnetHeader::default(), frame(2))));
    assert!(new.send(VnetHeader::default(), &frame(3)));
    assert_eq!(
        bench.a.receive(SOON),
        Some((VnetHeader::default(), frame(3)))
    );
    assert_eq!(bench.b.receive(Duration::ZERO), None);
    bench.panel.stop();
}

#[test]
fn cables_spread_over_workers() {
    let options = PanelOptions {
        workers: 3,
        ..Default::default()
    };
    let panel = Panel::start(&options, || {}).unwrap();
    let mut hosts = Vec::new();
    for _ in 0..9 {
        let (port_a, a) = memory(8).unwrap();
        let (port_b, b) = memory(8).unwrap();
        let cable = panel
            .add(Cable::new(Port::Memory(port_a), Port::Memory(port_b)))
            .wait()
            .unwrap();
        hosts.push((a, b, cable));
    }
    for (number, (a, b, _)) in hosts.iter().enumerate() {
        assert!(a.send(VnetHeader::default(), &frame(number as u16)));
        assert_eq!(
            b.receive(SOON),
            Some((VnetHeader::default(), frame(number as u16)))
        );
    }
    assert_eq!(panel.workers(), 3);
    panel.stop();
}

#[test]
fn a_cable_changes_its_worker_under_load_without_loss_or_reordering() {
    const FRAMES: u32 = 200_000;
    /// Fewer than the ports hold: what is lost then is lost by the move.
    const WINDOW: u32 = 200;

    let options = PanelOptions {
        workers: 3,
        ..Default::default()
    };
    let panel = Panel::start(&options, || {}).unwrap();
    let (port_a, a) = memory(256).unwrap();
    let (port_b, b) = memory(256).unwrap();
    let cable = panel
        .add(Cable::new(Port::Memory(port_a), Port::Memory(port_b)))
        .wait()
        .unwrap();
    let arrived = AtomicU32::new(0);
    let moves = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut frame = [0; 60];
            for number in 0..FRAMES {
                while number - arrived.load(Ordering::Acquire) >= WINDOW {
                    std::thread::yield_now();
                }
                frame[..4].copy_from_slice(&number.to_be_bytes());
                assert!(a.send(VnetHeader::default(), &frame));
            }
        });
        let receiver = scope.spawn(|| {
            for number in 0..FRAMES {
                let (_, frame) = b.receive(SOON).expect("no frame is lost");
                assert_eq!(
                    frame[..4],
                    number.to_be_bytes(),
                    "no frame overtakes another"
                );
                arrived.store(number + 1, Ordering::Release);
            }
        });
        let mut moves = 0;
        while !receiver.is_finished() {
            panel.move_cable(cable.id, moves % 3).wait().unwrap();
            moves += 1;
        }
        receiver.join().unwrap();
        moves
    });
    assert!(moves > 10, "{moves} moves");
    let seen = cable.lanes[0].snapshot();
    assert_eq!(seen.frames_out, u64::from(FRAMES));
    assert_eq!(seen.dropped(), 0);
    panel.stop();
    assert!(panel.move_cable(cable.id, 0).wait().is_err());
}

#[test]
fn an_overloaded_worker_gives_a_busy_cable_away() {
    let options = PanelOptions {
        workers: 2,
        ..Default::default()
    };
    let panel = Panel::start(&options, || {}).unwrap();
    let cables: Vec<_> = (0..3)
        .map(|_| {
            let ((port_a, a), (port_b, b)) = (memory(64).unwrap(), memory(64).unwrap());
            let ports = Cable::new(Port::Memory(port_a), Port::Memory(port_b));
            (panel.add(ports).wait().unwrap(), a, b)
        })
        .collect();
    // The first and the third were given to one worker.
    let busy = [&cables[0], &cables[2]];
    let together = || {
        let owner = |index: usize| panel.owner(busy[index].0.id).unwrap();
        owner(0) == owner(1)
    };
    assert!(together());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The receiving host takes no frame out: the worker does all the work.
            while !stop.load(Ordering::Relaxed) {
                for (_, a, _) in busy {
                    a.send(VnetHeader::default(), &[0; 1514]);
                }
            }
        });
        let deadline = Instant::now() + SOON;
        while together() {
            assert!(Instant::now() < deadline, "no cable moved");
            std::thread::sleep(Duration::from_millis(20));
            panel.balance().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    panel.stop();
}

#[test]
fn a_cable_is_taken_out_and_the_others_go_on() {
    let bench = bench(Idle::Sleep);
    let (port_a, a) = memory(256).unwrap();
    let (port_b, b) = memory(256).unwrap();
    let other = bench
        .panel
        .add(Cable::new(Port::Memory(port_a), Port::Memory(port_b)))
        .wait()
        .unwrap();
    assert!(a.send(VnetHeader::default(), &frame(1)));
    assert!(b.receive(SOON).is_some());
    let removed = bench.panel.remove(other.id).wait().unwrap();
    for number in 0..50 {
        assert!(bench.a.send(VnetHeader::default(), &frame(number)));
        assert!(bench.b.receive(SOON).is_some());
    }
    ikv_dataplane::close_cables(vec![*removed]);
    assert!(bench.panel.remove(other.id).wait().is_err(), "it is gone");
    assert_eq!(bench.settled(Side::A, 50).dropped(), 0);
    bench.panel.stop();
}

//! The panel with ports in memory: what goes in comes out or is counted.
#![allow(missing_docs, clippy::unwrap_used)]

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
    let mut panel = Panel::start(
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
            (0..200).map(|number| frame(number).len() as u64).sum()
        );
        bench.panel.stop();
    }
}

#[test]
fn a_cut_cable_and_a_blackhole_count_under_their_own_reason() {
    let mut bench = bench(Idle::Sleep);
    let mut sent = 0;
    for (state, reason) in [
        (CableState::Down, Some(DropReason::CableDown)),
        (CableState::Blackhole, Some(DropReason::Blackhole)),
        (CableState::Up, None),
    ] {
        bench.panel.set_state(bench.cable.id, state).unwrap();
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
    let mut bench = bench(Idle::Sleep);
    bench
        .panel
        .replace_port(bench.cable.id, Side::B, None)
        .unwrap();
    assert!(bench.a.send(VnetHeader::default(), &frame(1)));
    let seen = bench.settled(Side::A, 1);
    assert_eq!(seen.drops[DropReason::PortError as usize], 1);

    let (port, new) = memory(8).unwrap();
    bench
        .panel
        .replace_port(bench.cable.id, Side::B, Some(Port::Memory(port)))
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
    let mut panel = Panel::start(&options, || {}).unwrap();
    let mut hosts = Vec::new();
    for _ in 0..9 {
        let (port_a, a) = memory(8).unwrap();
        let (port_b, b) = memory(8).unwrap();
        let cable = panel
            .add(Cable::new(Port::Memory(port_a), Port::Memory(port_b)))
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

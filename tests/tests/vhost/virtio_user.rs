//! DPDK's virtio-user in its variants, over the real program.

use std::time::Instant;

use guest::{Guest, GuestOptions, HEADER, Ring};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Testpmd, VhostWire, say};

/// Frames of one exchange.
const FRAMES: usize = 2_000;

/// Every variant of the rings that virtio-user has: packed, in order, mergeable, size.
fn variants() -> impl Iterator<Item = (bool, bool, bool, u16)> {
    let both = [false, true];
    both.into_iter().flat_map(move |packed| {
        both.into_iter().flat_map(move |in_order| {
            both.into_iter().flat_map(move |mergeable| {
                [64, 256, 1024].map(|size| (packed, in_order, mergeable, size))
            })
        })
    })
}

fn options((packed, in_order, mergeable, size): (bool, bool, bool, u16)) -> String {
    let [packed, in_order, mergeable] = [packed, in_order, mergeable].map(u8::from);
    format!(",packed_vq={packed},in_order={in_order},mrg_rxbuf={mergeable},queue_size={size}")
}

fn frame(number: usize) -> Vec<u8> {
    let len = 60 + number * 37 % (1514 - 60);
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 3 + number) as u8).collect();
    // Unicast, and of an EtherType for experiments.
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0x0d, 0, 2, 0, 0, 0, 0x0e, 0, 0x88, 0xb5]);
    frame
}

/// Waits until the far end sends frames back: what comes before it is ready is dropped.
fn warm_up(guest: &mut Guest) {
    until("the first echo", SOON, || {
        let (receive, send) = guest.pair();
        send.send(1, |out| {
            out.header(&[0; HEADER]);
            out.frame(&[0x55; 60]);
        })
        .unwrap();
        ensure(receive.receive(64, |_| ()).unwrap() > 0, String::new)
    });
}

/// Sends frames of many lengths and takes them back, in order and byte for byte.
fn every_frame_comes_back(guest: &mut Guest, what: &str) {
    let (mut sent, mut received) = (0, 0);
    let began = Instant::now();
    while received < FRAMES {
        let (receive, send) = guest.pair();
        if sent < FRAMES && sent - received < 24 {
            sent += send
                .send(1, |out| {
                    out.header(&[0; HEADER]);
                    out.frame(&frame(sent));
                })
                .unwrap();
        }
        receive
            .receive(32, |incoming| {
                // Echoes of the warming up may still come.
                if received == 0 && incoming.len() == 60 && incoming.holds(0, &[0x55; 60]) {
                    return;
                }
                assert_eq!(
                    incoming.to_vec(),
                    frame(received),
                    "{what}: frame {received}"
                );
                received += 1;
            })
            .unwrap();
        assert!(
            began.elapsed() < SOON,
            "{what}: {received} of {sent} frames came back"
        );
    }
}

#[test]
fn every_variant_gives_back_what_a_guest_sends() {
    if !Testpmd::is_there() {
        return;
    }
    let wire = VhostWire::start();
    for variant in variants() {
        let (packed, in_order, mergeable, _) = variant;
        let what = options(variant);
        let mut echo = Testpmd::start(wire.folder(), &[wire.socket("b")], &what, &[]);
        echo.tell("start");
        // The other kind of ring at the other end, now and then.
        let guest = GuestOptions {
            ring: if packed == mergeable {
                Ring::Split
            } else {
                Ring::Packed
            },
            in_order: !in_order,
            mergeable,
            event_idx: true,
            ..GuestOptions::default()
        };
        let mut guest = Guest::connect(&wire.socket("a"), &guest).unwrap();
        warm_up(&mut guest);
        let before = wire.quiet();
        every_frame_comes_back(&mut guest, &what);
        let after = wire.quiet();
        for (before, after) in before.iter().zip(after) {
            assert_eq!(
                after.frames_out - before.frames_out,
                FRAMES as u64,
                "{what}"
            );
            assert_eq!(after.dropped, before.dropped, "{what}");
        }
        drop(guest);
        echo.quit();
    }
    say(&format!("{} variants of virtio-user", variants().count()));
    wire.end();
}

/// Two virtio-user ports send each other the same frames round and round. One that is lost
/// would be missed for ever.
#[test]
fn a_closed_loop_loses_nothing() {
    if !Testpmd::is_there() {
        return;
    }
    let wire = VhostWire::start();
    for (variant, queues) in [
        ((false, false, false, 256), 1),
        ((false, true, true, 1024), 2),
        ((true, false, true, 256), 2),
        ((true, true, false, 64), 1),
    ] {
        let what = format!("{},queues={queues}", options(variant));
        let sockets = ["a", "b"].map(|end| wire.socket(end));
        let count = format!("--rxq={queues}");
        let more = [count.as_str(), &format!("--txq={queues}")];
        let mut loop_ = Testpmd::start(wire.folder(), &sockets, &what, &more);
        let before = wire.lanes();
        loop_.tell("start tx_first 1");
        until("frames to go round", SOON, || {
            let now = wire.lanes();
            let rounds = |lane: usize| now[lane].frames_out - before[lane].frames_out;
            ensure(rounds(0).min(rounds(1)) > 20_000, || {
                format!("{what}: {now:?}")
            })
        });
        // It quits once nothing is on its way any more: frames to a port that is gone are lost.
        loop_.tell("stop");
        let after = wire.quiet();
        let said = loop_.quit();
        for (before, after) in before.iter().zip(after) {
            assert_eq!(after.dropped, before.dropped, "{what}: {said}");
        }
    }
    wire.end();
}

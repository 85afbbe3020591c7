//! DPDK's virtio-user ports in all their variants on a real wire.

use std::time::Instant;

use guest::{Guest, GuestOptions, HEADER, Ring};
use ikv_tests::patience::{SOON, ensure, until};
use ikv_tests::{Testpmd, VhostWire, say};

/// Frames that each variant sends back.
const FRAMES: usize = 2_000;

/// Every variant of virtio-user's rings: packed, in order, mergeable buffers, size.
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
    // Unicast addresses, and the EtherType for local experiments.
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0x0d, 0, 2, 0, 0, 0, 0x0e, 0, 0x88, 0xb5]);
    frame
}

/// Waits until the far end sends frames back: until it is ready, frames are dropped.
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
                // Late echoes of the warm-up.
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
fn every_variant_sends_all_frames_back() {
    if !Testpmd::is_there() {
        return;
    }
    let wire = VhostWire::start();
    for variant in variants() {
        let (packed, in_order, mergeable, _) = variant;
        let what = options(variant);
        let mut echo = Testpmd::start(wire.folder(), &[wire.socket("b")], &what, &[]);
        echo.type_line("start");
        // Both combinations of equal and different rings at the two ends.
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

/// Two virtio-user ports send each other the same frames in a loop. Nothing would replace a lost
/// frame.
#[test]
fn a_loop_loses_no_frame() {
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
        loop_.type_line("start tx_first 1");
        until("frames to go round", SOON, || {
            let now = wire.lanes();
            let rounds = |lane: usize| now[lane].frames_out - before[lane].frames_out;
            ensure(rounds(0).min(rounds(1)) > 20_000, || {
                format!("{what}: {now:?}")
            })
        });
        // It may quit only when no frame is on its way: frames to a port that is gone are lost.
        loop_.type_line("stop");
        let after = wire.quiet();
        let said = loop_.quit();
        for (before, after) in before.iter().zip(after) {
            assert_eq!(after.dropped, before.dropped, "{what}: {said}");
        }
    }
    wire.end();
}

//! Front ends that leave, or change what they share, in the middle of a burst.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dataplane::Side;
use guest::{Guest, GuestOptions, HEADER, MemoryOptions, Ring};
use ikv_tests::patience::{SOON, wait_until};

use crate::testbed::{TestCable, Testbed};

fn options(ring: Ring) -> GuestOptions {
    GuestOptions {
        ring,
        ..GuestOptions::default()
    }
}

/// Sends as much as there is room for in both directions, and takes what has arrived.
fn exchange(ends: &mut [Guest; 2]) {
    for end in ends.iter_mut() {
        let (receive, send) = end.pair();
        send.send(64, |out| out.frame(&[0x66; 200])).unwrap();
        receive.receive(64, |_| ()).unwrap();
    }
}

fn carried(cable: &TestCable) -> u64 {
    cable
        .handle
        .lanes
        .iter()
        .map(|lane| lane.snapshot().frames_out)
        .sum()
}

#[test]
fn leaving_in_the_middle_of_a_burst_does_no_harm() {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        let cable = testbed.cable();
        for _ in 0..30 {
            let before = carried(&cable);
            let mut ends = cable.guests(&options(ring));
            wait_until("frames to flow", SOON, || {
                exchange(&mut ends);
                carried(&cable) > before + 200
            });
            let [mut left, mut right] = ends;
            left.session().socket().shutdown(Shutdown::Both).unwrap();
            right
                .queue(1)
                .send(64, |out| out.frame(&[0x66; 200]))
                .unwrap();
            drop(left);
            right
                .queue(1)
                .send(64, |out| out.frame(&[0x66; 200]))
                .unwrap();
        }
        cable.assert_works(&options(ring));
        assert_eq!(testbed.faults(&cable), [""; 0], "leaving is no fault");
    }
    testbed.end();
}

/// A flow of numbered frames from A to B, which must arrive in order.
struct Numbered {
    ends: [Guest; 2],
    sent: u64,
    seen: u64,
}

impl Numbered {
    fn on(cable: &TestCable, options: &GuestOptions) -> Self {
        Numbered {
            ends: cable.guests(options),
            sent: 0,
            seen: 0,
        }
    }

    fn step(&mut self) {
        let [from, to] = &mut self.ends;
        let sent = &mut self.sent;
        let room = (128 - (*sent - self.seen)) as usize;
        let fill = |out: &mut guest::Outgoing<'_>| {
            out.header(&[0; HEADER]);
            let mut frame = [0x77; 64];
            frame[16..24].copy_from_slice(&sent.to_ne_bytes());
            out.frame(&frame);
            *sent += 1;
        };
        from.queue(1).send(room.min(32), fill).unwrap();
        let seen = &mut self.seen;
        let take = |frame: &guest::Incoming<'_>| {
            assert_eq!(frame.word(16), Some(*seen), "frames come in order");
            *seen += 1;
        };
        to.queue(0).receive(64, take).unwrap();
    }

    fn run(&mut self, frames: u64) {
        let (began, goal) = (Instant::now(), self.seen + frames);
        while self.seen < goal {
            self.step();
            assert!(
                began.elapsed() < SOON,
                "{} of {} arrived",
                self.seen,
                self.sent
            );
        }
    }

    fn finish(&mut self) {
        let began = Instant::now();
        while self.seen < self.sent {
            let seen = &mut self.seen;
            self.ends[1].queue(0).receive(64, |_| *seen += 1).unwrap();
            assert!(
                began.elapsed() < SOON,
                "{} of {} arrived",
                self.seen,
                self.sent
            );
        }
    }
}

/// Interrupts a flow again and again, with frames on their way, and asserts that it loses none.
fn assert_lossless(interrupt: impl Fn(&mut Numbered)) {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        let cable = testbed.cable();
        let mut flow = Numbered::on(&cable, &options(ring));
        let dropped = cable.all_dropped();
        for round in 0..40 {
            flow.run(100 + round);
            flow.step();
            interrupt(&mut flow);
        }
        flow.finish();
        assert_eq!(testbed.faults(&cable), [""; 0]);
        assert_eq!(cable.all_dropped(), dropped);
    }
    testbed.end();
}

/// The front end stops a ring with GET_VRING_BASE and continues it from there, as QEMU does when it
/// pauses a guest.
#[test]
fn stopping_and_continuing_a_ring_loses_no_frame() {
    assert_lossless(|flow| {
        let base = flow.ends[0].stop(1).unwrap();
        flow.step();
        flow.ends[0].start(1, base).unwrap();
    });
}

/// SET_MEM_TABLE with the same memory, as when a memory module is plugged in: it is mapped again.
#[test]
fn sharing_the_memory_again_loses_no_frame() {
    assert_lossless(|flow| {
        let memory = flow.ends[0].memory().clone();
        flow.ends[0].session().share(&memory).unwrap();
    });
}

/// SET_MEM_TABLE with memory that does not contain the rings.
#[test]
fn rings_do_not_outlive_their_memory() {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        let cable = testbed.cable();
        let mut flow = Numbered::on(&cable, &options(ring));
        flow.run(1000);
        let small = guest::Memory::new(4096, MemoryOptions::default()).unwrap();
        flow.step();
        // The session may end before it answers.
        let _ = flow.ends[0].session().share(&small);
        testbed.expect_fault(
            &cable,
            "not all of it is in the memory that the front end shared",
        );
        drop(flow);
        cable.assert_works(&options(ring));
    }
    testbed.end();
}

/// A front end truncates its memory file while a worker writes frames into it or reads descriptors
/// from it.
#[test]
fn truncating_the_memory_ends_only_its_own_session() {
    let testbed = Testbed::new();
    let unsealed = |ring| GuestOptions {
        memory: MemoryOptions {
            sealed: false,
            ..MemoryOptions::default()
        },
        ..options(ring)
    };
    for ring in [Ring::Split, Ring::Packed] {
        for reading in [false, true] {
            for _ in 0..5 {
                let cable = testbed.cable();
                let [mut victim, mut peer] = cable.guests(&unsealed(ring));
                // After the truncation, touching the victim's memory would raise SIGBUS here, too.
                if reading {
                    let kick = victim.queue(1).kick().try_clone().unwrap();
                    victim
                        .queue(1)
                        .send(200, |out| out.frame(&[0x66; 200]))
                        .unwrap();
                    victim.memory().truncate(0).unwrap();
                    kick.write(1).unwrap();
                } else {
                    peer.queue(1)
                        .send(32, |out| out.frame(&[0x66; 200]))
                        .unwrap();
                    victim.memory().truncate(0).unwrap();
                    peer.queue(1)
                        .send(32, |out| out.frame(&[0x66; 200]))
                        .unwrap();
                }
                testbed.expect_fault(&cable, "truncated the memory that it shares");
                drop((victim, peer));
                cable.assert_works(&options(ring));
            }
        }
    }
    testbed.end();
}

/// Front ends that connect and disconnect as fast as they can.
#[test]
fn reconnecting_leaves_nothing_behind() {
    let testbed = Testbed::new();
    let cable = testbed.cable();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let socket = UnixStream::connect(cable.socket(Side::A)).unwrap();
        let guest = Guest::unstarted(socket, &options(Ring::Packed));
        // The front end before may still be connected: then this one is refused.
        drop(guest);
    }
    wait_until("the socket to be free", SOON, || {
        Guest::connect(cable.socket(Side::A), &options(Ring::Split)).is_ok()
    });
    testbed.end();
}

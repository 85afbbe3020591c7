//! Front ends that leave, or change what they share, in the midst of a burst.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dataplane::Side;
use guest::{Guest, GuestOptions, HEADER, MemoryOptions, Ring};
use ikv_tests::patience::{SOON, wait_until};

use crate::bay::{Bay, Line};

fn options(ring: Ring) -> GuestOptions {
    GuestOptions {
        ring,
        ..GuestOptions::default()
    }
}

/// Sends what there is room for, both ways, and takes what has come.
fn exchange(ends: &mut [Guest; 2]) {
    for end in ends.iter_mut() {
        let (receive, send) = end.pair();
        send.send(64, |out| out.frame(&[0x66; 200])).unwrap();
        receive.receive(64, |_| ()).unwrap();
    }
}

fn carried(line: &Line) -> u64 {
    line.handle
        .lanes
        .iter()
        .map(|lane| lane.snapshot().frames_out)
        .sum()
}

#[test]
fn whoever_leaves_in_the_midst_of_a_burst_is_gone_and_no_more() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        let line = bay.line();
        for _ in 0..30 {
            let before = carried(&line);
            let mut ends = line.guests(&options(ring));
            wait_until("frames to flow", SOON, || {
                exchange(&mut ends);
                carried(&line) > before + 200
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
        line.check_heals(&options(ring));
        assert_eq!(bay.faults(&line), [""; 0], "leaving is no fault");
    }
    bay.end();
}

/// Numbered frames flow from A to B, and those that come are compared with what was sent.
struct Numbered {
    ends: [Guest; 2],
    sent: u64,
    seen: u64,
}

impl Numbered {
    fn on(line: &Line, options: &GuestOptions) -> Self {
        Numbered {
            ends: line.guests(options),
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
                "{} of {} came",
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
                "{} of {} came",
                self.seen,
                self.sent
            );
        }
    }
}

/// GET_VRING_BASE, and again from there: what a guest does that is stopped and continued.
#[test]
fn a_ring_that_stops_and_goes_on_in_the_midst_of_a_burst_loses_nothing() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        let line = bay.line();
        let mut flow = Numbered::on(&line, &options(ring));
        let dropped = line.all_dropped();
        for round in 0..40 {
            flow.run(100 + round);
            // Frames are under way in both.
            flow.step();
            let base = flow.ends[0].stop(1).unwrap();
            flow.step();
            flow.ends[0].start(1, base).unwrap();
        }
        flow.finish();
        assert_eq!(bay.faults(&line), [""; 0]);
        assert_eq!(line.all_dropped(), dropped);
    }
    bay.end();
}

/// SET_MEM_TABLE with the same memory, as when a module is plugged in: mapped anew.
#[test]
fn memory_may_be_shared_anew_in_the_midst_of_a_burst() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        let line = bay.line();
        let mut flow = Numbered::on(&line, &options(ring));
        let dropped = line.all_dropped();
        for _ in 0..40 {
            flow.run(100);
            flow.step();
            let memory = flow.ends[0].memory().clone();
            flow.ends[0].session().share(&memory).unwrap();
        }
        flow.finish();
        assert_eq!(bay.faults(&line), [""; 0]);
        assert_eq!(line.all_dropped(), dropped);
    }
    bay.end();
}

/// SET_MEM_TABLE with memory in which the rings are not.
#[test]
fn rings_do_not_outlive_their_memory() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        let line = bay.line();
        let mut flow = Numbered::on(&line, &options(ring));
        flow.run(1000);
        let small = guest::Memory::new(4096, MemoryOptions::default()).unwrap();
        flow.step();
        // Whether it still gets an answer does not matter.
        let _ = flow.ends[0].session().share(&small);
        bay.expect_fault(
            &line,
            "not all of it is in the memory that the front end shared",
        );
        drop(flow);
        line.check_heals(&options(ring));
    }
    bay.end();
}

/// A front end cuts its memory file off while a worker writes frames into it, or reads
/// descriptors from it.
#[test]
fn memory_that_is_cut_off_in_use_ends_its_own_session_only() {
    let bay = Bay::new();
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
                let line = bay.line();
                let [mut victim, mut peer] = line.guests(&unsealed(ring));
                // From here on nobody here may touch the victim's memory: SIGBUS.
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
                bay.expect_fault(&line, "truncated the memory that it shares");
                drop((victim, peer));
                line.check_heals(&options(ring));
            }
        }
    }
    bay.end();
}

/// Front ends that come and go as fast as they can.
#[test]
fn coming_and_going_leaves_nothing_behind() {
    let bay = Bay::new();
    let line = bay.line();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let socket = UnixStream::connect(line.socket(Side::A)).unwrap();
        let guest = Guest::unstarted(socket, &options(Ring::Packed));
        // The one before may still be there: then this one is turned away.
        drop(guest);
    }
    wait_until("a place at the socket", SOON, || {
        Guest::connect(line.socket(Side::A), &options(Ring::Split)).is_ok()
    });
    bay.end();
}

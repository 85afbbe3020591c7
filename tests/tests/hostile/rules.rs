//! One case for each rule of virtio that a driver can break, in both kinds of ring and both
//! directions.

use dataplane::Side;
use guest::{GUEST_BASE, GuestOptions, Ring};
use ikv_tests::patience::{SOON, wait_until};

use crate::raw::{Descriptor, INDIRECT, NEXT, Raw, WRITE};
use crate::testbed::Testbed;

const SIZE: u16 = 256;

/// How a queue breaks a rule, and the reason that the port reports.
struct Case {
    rule: &'static str,
    reason: &'static str,
    break_rule: fn(&Raw, u16),
    /// Whether only split rings have what it overwrites.
    split_only: bool,
    /// Whether it is a rule of receive queues alone.
    receive_only: bool,
}

const fn case(rule: &'static str, reason: &'static str, break_rule: fn(&Raw, u16)) -> Case {
    Case {
        rule,
        reason,
        break_rule,
        split_only: false,
        receive_only: false,
    }
}

const fn split_case(rule: &'static str, reason: &'static str, break_rule: fn(&Raw, u16)) -> Case {
    Case {
        split_only: true,
        ..case(rule, reason, break_rule)
    }
}

const ENDLESS: &str = "a loop or longer than";
const OUTSIDE: &str = "are outside the memory that the front end shared";
const TABLE: &str = "empty, cut off, nested or chained";

/// `flags` has the bit of the queue's direction.
const CASES: [Case; 17] = [
    case("a chain has no loop", ENDLESS, |raw, flags| {
        let entry = |number| Descriptor {
            flags: flags | NEXT,
            number,
            ..frame_buffer(raw, 0)
        };
        let chain: Vec<_> = (0..SIZE).map(|index| entry((index + 1) % SIZE)).collect();
        raw.offer(&chain);
    }),
    split_case(
        "a descriptor does not follow itself",
        ENDLESS,
        |raw, flags| {
            raw.offer(&[frame_buffer(raw, flags | NEXT)]);
        },
    ),
    split_case("empty descriptors do not loop", ENDLESS, |raw, flags| {
        let nothing = |number| Descriptor {
            len: 0,
            number,
            ..frame_buffer(raw, flags | NEXT)
        };
        raw.offer(&[nothing(1), nothing(0)]);
    }),
    case(
        "addresses are not below the guest's memory",
        OUTSIDE,
        |raw, flags| {
            raw.offer(&[at(0x1000, 72, flags)]);
        },
    ),
    case(
        "addresses are not above the guest's memory",
        OUTSIDE,
        |raw, flags| {
            raw.offer(&[at(GUEST_BASE + raw.memory.size() as u64, 72, flags)]);
        },
    ),
    case("addresses do not wrap", OUTSIDE, |raw, flags| {
        raw.offer(&[at(u64::MAX - 16, 72, flags)]);
    }),
    case(
        "buffers end where the memory does",
        OUTSIDE,
        |raw, flags| {
            let end = GUEST_BASE + raw.memory.size() as u64;
            raw.offer(&[at(end - 64, 4096, flags)]);
        },
    ),
    case("lengths are not negative", OUTSIDE, |raw, flags| {
        raw.offer(&[at(GUEST_BASE, u32::MAX, flags)]);
    }),
    split_case(
        "the index advances by at most the queue's size",
        "jumped by 257",
        |raw, _| {
            raw.make_available(&[0], SIZE + 1);
        },
    ),
    split_case("the index does not go back", "jumped by 65535", |raw, _| {
        raw.make_available(&[0], u16::MAX);
    }),
    split_case(
        "a head is in the table",
        "descriptor 256 does not exist",
        |raw, _| {
            raw.make_available(&[SIZE], 1);
        },
    ),
    split_case(
        "a next descriptor is in the table",
        "descriptor 65535 does not exist",
        |raw, flags| {
            let number = u16::MAX;
            raw.offer(&[Descriptor {
                number,
                len: 12,
                ..frame_buffer(raw, flags | NEXT)
            }]);
        },
    ),
    case("a table is not in another table", TABLE, |raw, _| {
        let table = table(raw, &[at(raw.buffer(8), 16, INDIRECT)]);
        raw.offer(&[at(table, 16, INDIRECT)]);
    }),
    case("a table has whole entries", TABLE, |raw, flags| {
        let table = table(raw, &[frame_buffer(raw, flags)]);
        raw.offer(&[at(table, 24, INDIRECT)]);
    }),
    case("a table is not empty", TABLE, |raw, flags| {
        let table = table(raw, &[frame_buffer(raw, flags)]);
        raw.offer(&[at(table, 0, INDIRECT)]);
    }),
    case("a table is in the guest's memory", OUTSIDE, |raw, _| {
        let end = GUEST_BASE + raw.memory.size() as u64;
        raw.offer(&[at(end, 64, INDIRECT)]);
    }),
    Case {
        receive_only: true,
        ..case(
            "a buffer to receive into may be written to",
            "wrong direction",
            |raw, _| {
                raw.offer(&[frame_buffer(raw, 0)]);
            },
        )
    },
];

/// A descriptor of a complete frame's buffer.
fn frame_buffer(raw: &Raw, flags: u16) -> Descriptor {
    at(raw.buffer(0), 72, flags)
}

fn at(address: u64, len: u32, flags: u16) -> Descriptor {
    Descriptor {
        address,
        len,
        flags,
        number: 0,
    }
}

/// Writes a table of indirect descriptors into an unused buffer. Returns its guest address.
fn table(raw: &Raw, entries: &[Descriptor]) -> u64 {
    let offset = raw.layout.frame(4);
    for (index, entry) in (0..).zip(entries) {
        raw.put(offset, index, *entry);
    }
    raw.memory.guest_address(offset)
}

fn options(ring: Ring) -> GuestOptions {
    GuestOptions {
        ring,
        queue_size: SIZE,
        features: guest::features::INDIRECT_DESC,
        ..GuestOptions::default()
    }
}

#[test]
fn breaking_a_rule_stops_only_its_own_port() {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        for case in CASES
            .iter()
            .filter(|case| ring == Ring::Split || !case.split_only)
        {
            let queues: &[usize] = if case.receive_only { &[0] } else { &[0, 1] };
            for &queue in queues {
                let what = format!("{ring:?}, queue {queue}: {}", case.rule);
                println!("{what}");
                let cable = testbed.cable();
                let mut guest = cable.empty_guest(Side::A, &options(ring));
                let mut peer = cable.guest(Side::B, &options(ring));
                let raw = Raw::of(&mut guest, queue);
                (case.break_rule)(&raw, if queue == 0 { WRITE } else { 0 });
                guest.queue(1).kick().write(1).unwrap();
                wait_until("the session to end", SOON, || {
                    if queue == 0 {
                        // The port reads the receive queue only when a frame arrives, and drops
                        // frames until the peer's rings are plugged in.
                        peer.queue(1).send(4, |out| out.frame(&[0x55; 60])).unwrap();
                    }
                    !guest.session().is_open()
                });
                testbed.expect_fault(&cable, case.reason);
                assert!(
                    peer.session().is_open(),
                    "{what}: the other end was disconnected"
                );
                cable.all_dropped();
                drop((guest, peer));
                cable.assert_works(&options(ring));
            }
        }
    }
    testbed.end();
}

/// Empty buffers break no rule: the port returns them, and frames do not wait for them.
#[test]
fn empty_buffers_cost_little() {
    let testbed = Testbed::new();
    for ring in [Ring::Split, Ring::Packed] {
        let cable = testbed.cable();
        let large = GuestOptions {
            queue_size: 32_768,
            mergeable: true,
            receive_capacity: 60,
            send_capacity: 60,
            ..options(ring)
        };
        let mut guest = cable.empty_guest(Side::A, &large);
        let mut peer = cable.guest(Side::B, &options(ring));
        // A chain of empty descriptors as long as the ring, made available in every entry.
        let raw = Raw::of(&mut guest, 0);
        let chain: Vec<_> = (0..32_768u16)
            .map(|index| Descriptor {
                len: 0,
                number: (index + 1) % 32_768,
                ..frame_buffer(&raw, WRITE | if index == 32_767 { 0 } else { NEXT })
            })
            .collect();
        raw.offer(&chain);
        if ring == Ring::Split {
            raw.make_available(&vec![0; 32_768], 32_768);
        }
        for _ in 0..8 {
            peer.queue(1)
                .send(32, |out| out.frame(&[0x55; 60]))
                .unwrap();
        }
        wait_until("frames without a usable buffer to be dropped", SOON, || {
            cable.handle.lanes[Side::B as usize].snapshot().frames_in == 256
        });
        drop((guest, peer));
        cable.assert_works(&options(ring));
    }
    testbed.end();
}

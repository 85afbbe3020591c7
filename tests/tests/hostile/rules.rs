//! One test for each rule of virtio that a driver may break, in either kind of ring and in
//! either direction.

use bench::guest::{GUEST_BASE, GuestOptions, Ring};
use dataplane::Side;
use ikv_tests::patience::{SOON, wait_until};

use crate::bay::Bay;
use crate::raw::{Descriptor, INDIRECT, NEXT, Raw, WRITE};

const SIZE: u16 = 256;

/// How a queue is spoiled, and what the port says of it.
struct Case {
    rule: &'static str,
    reason: &'static str,
    spoil: fn(&Raw, u16),
    /// Only split rings have what it spoils.
    split_only: bool,
}

const fn case(rule: &'static str, reason: &'static str, spoil: fn(&Raw, u16)) -> Case {
    Case {
        rule,
        reason,
        spoil,
        split_only: false,
    }
}

const fn split_case(rule: &'static str, reason: &'static str, spoil: fn(&Raw, u16)) -> Case {
    Case {
        split_only: true,
        ..case(rule, reason, spoil)
    }
}

const ENDLESS: &str = "a loop or longer than";
const OUTSIDE: &str = "are outside the memory that the front end shared";
const TABLE: &str = "empty, cut off, nested or chained";

/// `flags` in every case is that of the right direction.
const CASES: [Case; 17] = [
    case("a chain is no loop", ENDLESS, |raw, flags| {
        let entry = |number| Descriptor {
            flags: flags | NEXT,
            number,
            ..whole(raw, 0)
        };
        let chain: Vec<_> = (0..SIZE).map(|index| entry((index + 1) % SIZE)).collect();
        raw.offer(&chain);
    }),
    split_case(
        "a descriptor does not follow itself",
        ENDLESS,
        |raw, flags| {
            raw.offer(&[whole(raw, flags | NEXT)]);
        },
    ),
    split_case("chains of nothing end too", ENDLESS, |raw, flags| {
        let nothing = |number| Descriptor {
            len: 0,
            number,
            ..whole(raw, flags | NEXT)
        };
        raw.offer(&[nothing(1), nothing(0)]);
    }),
    case("addresses are the guest's: below", OUTSIDE, |raw, flags| {
        raw.offer(&[at(0x1000, 72, flags)]);
    }),
    case("addresses are the guest's: above", OUTSIDE, |raw, flags| {
        raw.offer(&[at(GUEST_BASE + raw.memory.len() as u64, 72, flags)]);
    }),
    case("addresses do not wrap", OUTSIDE, |raw, flags| {
        raw.offer(&[at(u64::MAX - 16, 72, flags)]);
    }),
    case(
        "buffers end where the memory does",
        OUTSIDE,
        |raw, flags| {
            let end = GUEST_BASE + raw.memory.len() as u64;
            raw.offer(&[at(end - 64, 4096, flags)]);
        },
    ),
    case("lengths are no negative numbers", OUTSIDE, |raw, flags| {
        raw.offer(&[at(GUEST_BASE, u32::MAX, flags)]);
    }),
    split_case(
        "the index goes on by a queue at most",
        "jumped by 257",
        |raw, _| {
            raw.make_available(&[0], SIZE + 1);
        },
    ),
    split_case("the index does not go back", "jumped by 65535", |raw, _| {
        raw.make_available(&[0], u16::MAX);
    }),
    split_case(
        "heads are in the table",
        "descriptor 256 does not exist",
        |raw, _| {
            raw.make_available(&[SIZE], 1);
        },
    ),
    split_case(
        "so are those that follow",
        "descriptor 65535 does not exist",
        |raw, flags| {
            let number = u16::MAX;
            raw.offer(&[Descriptor {
                number,
                len: 12,
                ..whole(raw, flags | NEXT)
            }]);
        },
    ),
    case("a table is in no other", TABLE, |raw, _| {
        let table = table(raw, &[at(raw.buffer(8), 16, INDIRECT)]);
        raw.offer(&[at(table, 16, INDIRECT)]);
    }),
    case("a table is whole", TABLE, |raw, flags| {
        let table = table(raw, &[whole(raw, flags)]);
        raw.offer(&[at(table, 24, INDIRECT)]);
    }),
    case("a table is not empty", TABLE, |raw, flags| {
        let table = table(raw, &[whole(raw, flags)]);
        raw.offer(&[at(table, 0, INDIRECT)]);
    }),
    case("a table is the guest's", OUTSIDE, |raw, _| {
        let end = GUEST_BASE + raw.memory.len() as u64;
        raw.offer(&[at(end, 64, INDIRECT)]);
    }),
    case(
        "a buffer has its queue's direction",
        "wrong direction",
        |raw, flags| {
            raw.offer(&[whole(raw, flags ^ WRITE)]);
        },
    ),
];

/// A frame's buffer, whole.
fn whole(raw: &Raw, flags: u16) -> Descriptor {
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

/// A table of indirect descriptors in a buffer of its own.
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
        features: bench::guest::features::INDIRECT_DESC,
        ..GuestOptions::default()
    }
}

#[test]
fn a_rule_that_is_broken_stops_its_port_alone() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        for case in CASES
            .iter()
            .filter(|case| ring == Ring::Split || !case.split_only)
        {
            for queue in [0, 1] {
                let what = format!("{ring:?}, queue {queue}: {}", case.rule);
                println!("{what}");
                let line = bay.line();
                let mut guest = line.empty_guest(Side::A, &options(ring));
                let mut peer = line.guest(Side::B, &options(ring));
                let raw = Raw::of(&mut guest, queue);
                (case.spoil)(&raw, if queue == 0 { WRITE } else { 0 });
                guest.queue(1).kick().write(1).unwrap();
                wait_until("the session to end", SOON, || {
                    if queue == 0 {
                        // To be received; what comes before its rings are plugged in is dropped.
                        peer.queue(1).send(4, |out| out.frame(&[0x55; 60])).unwrap();
                    }
                    !guest.session().is_open()
                });
                bay.expect_fault(&line, case.reason);
                assert!(peer.session().is_open(), "{what}: the other end stays");
                line.all_dropped();
                drop((guest, peer));
                line.check_heals(&options(ring));
            }
        }
    }
    bay.end();
}

/// Buffers of no use break no rule: they are given back, and nobody waits for them.
#[test]
fn buffers_of_nothing_cost_little() {
    let bay = Bay::new();
    for ring in [Ring::Split, Ring::Packed] {
        let line = bay.line();
        let large = GuestOptions {
            queue_size: 32_768,
            mergeable: true,
            receive_room: 60,
            send_room: 60,
            ..options(ring)
        };
        let mut guest = line.empty_guest(Side::A, &large);
        let mut peer = line.guest(Side::B, &options(ring));
        // A chain as long as the ring, of descriptors without a byte, available all over.
        let raw = Raw::of(&mut guest, 0);
        let chain: Vec<_> = (0..32_768u16)
            .map(|index| Descriptor {
                len: 0,
                number: (index + 1) % 32_768,
                ..whole(&raw, WRITE | if index == 32_767 { 0 } else { NEXT })
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
        wait_until("frames for nobody to be dropped", SOON, || {
            line.handle.lanes[Side::B as usize].snapshot().frames_in == 256
        });
        drop((guest, peer));
        line.check_heals(&options(ring));
    }
    bay.end();
}

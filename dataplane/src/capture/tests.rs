//! Records there and back. Rings and recorders are tested in their own files.

use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::bpf::{Instruction, Program};
use crate::frame::{Burst, MAX_BURST};

pub(super) fn any_verdict() -> impl Strategy<Value = Verdict> {
    let reason = proptest::option::of(proptest::sample::select(&DropReason::ALL));
    let (delay, bit) = (any::<Option<u64>>(), any::<Option<u32>>());
    (reason, any::<u16>(), delay, bit, any::<[bool; 4]>()).prop_map(
        |(dropped, lost_pieces, delay, corrupted, [duplicated, copy, reordered, marked])| Verdict {
            dropped,
            lost_pieces,
            delay,
            duplicated,
            copy,
            corrupted,
            reordered,
            marked,
        },
    )
}

proptest! {
    #[test]
    fn records_survive_their_bytes(
        (time, len, header, verdict) in (any::<[u64; 1]>(), any::<u32>(), any::<[u8; 10]>(), any_verdict())
    ) {
        let record = Record {
            time: time[0],
            len,
            captured: len / 2,
            header: VnetHeader(header),
            verdict,
        };
        let mut bytes = record.encode().to_vec();
        assert_eq!(Record::decode(&bytes[1..]), None, "too few");
        bytes.push(1);
        assert_eq!(Record::decode(&bytes), Some(record));
    }

    #[test]
    fn any_bytes_are_a_record_or_none(bytes in any::<[u8; Record::LEN]>()) {
        if let Some(record) = Record::decode(&bytes) {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }
}

/// The bytes on the API's stream: a change here needs the reader's, too.
#[test]
fn the_layout_is_fixed() {
    let record = Record {
        time: 0x0807_0605_0403_0201,
        len: 0x0c0b_0a09,
        captured: 0x05,
        header: VnetHeader([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        verdict: Verdict {
            dropped: Some(DropReason::Blackhole),
            lost_pieces: 0x0203,
            delay: Some(0x11),
            duplicated: true,
            copy: false,
            corrupted: Some(0x22),
            reordered: true,
            marked: false,
        },
    };
    let mut expected = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 5, 0, 0, 0];
    expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 2, 0b01_1011, 3, 2, 0, 0]);
    expected.extend([0x11, 0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(record.encode()[..], expected);
}

#[test]
fn what_this_version_does_not_know_is_no_record() {
    let good = Record::default().encode();
    assert_eq!(Record::decode(&good), Some(Record::default()));
    for (at, value) in [(26, 200), (27, 0x40), (27, 0x80), (30, 1), (12, 1)] {
        let mut bad = good;
        bad[at] = value;
        assert_eq!(Record::decode(&bad), None, "byte {at}");
    }
    let last = DropReason::ALL.len() as u8;
    for index in 0..=last {
        let reason = DropReason::from_index(index);
        assert_eq!(
            reason.map(DropReason::index),
            (index < last).then_some(index)
        );
    }
}

/// Not a check: prints what a frame costs its worker. For a release build, by hand.
#[test]
#[ignore = "a measurement"]
fn cost() {
    for len in [60, 64, 256, 1514] {
        let mut burst = Burst::new();
        while burst.push(VnetHeader::default(), &vec![0; len]) {}
        let verdict = black_box(Verdict::default());
        for kib in [225, 64 << 10] {
            let (mut recorder, _reader) = recorder(kib << 10, 256);
            let ns = best_frame(|time| {
                for index in 0..burst.len() {
                    let frame = black_box(burst.frame(index));
                    recorder.see(time, burst.header(index), &frame, &verdict);
                }
            });
            println!("{len} B: recorder of {kib} KiB {ns:.1} ns");
        }
        for (what, filter) in [
            ("a tap", None),
            ("a tap whose filter says no", Some(nothing())),
        ] {
            let (mut tap, mut capture) = lane_tap(TapSpec {
                filter,
                snap: 65_535,
                wire: false,
                bytes: 1 << 18,
            });
            let ns = best_frame(|time| {
                for index in 0..burst.len() {
                    let frame = black_box(burst.frame(index));
                    tap.see(time, burst.header(index), &frame, &verdict);
                }
                capture.read(|record, bytes| _ = black_box((record, bytes)));
            });
            println!("{len} B: {what} {ns:.1} ns, read as well");
        }
    }
}

/// A filter that frames of zeros do not match.
fn nothing() -> Program {
    let instructions = [
        (0x28, 0, 0, 12),
        (0x15, 2, 0, 0),
        (0x15, 1, 0, 0x86dd),
        (6, 0, 0, 1),
        (6, 0, 0, 0),
    ];
    let instructions = instructions.map(|(code, jt, jf, k)| Instruction { code, jt, jf, k });
    Program::new(instructions.to_vec()).expect("a good program")
}

/// The shortest time of a frame in several turns of many bursts, in ns.
fn best_frame(mut burst: impl FnMut(u64)) -> f64 {
    const BURSTS: u64 = 50_000;
    let turn = |_| {
        let start = Instant::now();
        (0..BURSTS).for_each(&mut burst);
        start.elapsed().as_nanos() as f64 / (BURSTS * MAX_BURST as u64) as f64
    };
    (0..7).map(turn).fold(f64::MAX, f64::min)
}

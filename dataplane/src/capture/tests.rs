//! Records there and back. Rings and recorders are tested in their own files.

use proptest::prelude::*;

use super::*;

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

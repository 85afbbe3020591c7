use proptest::prelude::*;

use super::*;
use crate::offload::{Cut, finish_checksum};

const TAG: VlanTag = VlanTag {
    tpid: 0x8100,
    tci: 10,
};

#[test]
fn a_stripped_vlan_tag_goes_back_behind_the_addresses() {
    let mut burst = Burst::new();
    let bare: Vec<u8> = (0..60).collect();
    let (header, memory) = burst.vacant(0).unwrap();
    memory[..60].copy_from_slice(&bare);
    header.0 = [1, 1, 54, 0, 0, 0, 34, 0, 16, 0]; // NEEDS_CSUM, TCPv4
    let tag = VlanTag { tci: 0x200a, ..TAG };
    assert_eq!(burst.take_in(0, 60, Some(tag)), Ok(()));

    let (header, frame) = (burst.header(0), burst.to_vec(0));
    assert_eq!(frame.len(), 64);
    assert_eq!(frame[..12], bare[..12]);
    assert_eq!(frame[12..16], [0x81, 0x00, 0x20, 0x0a]);
    assert_eq!(frame[16..], bare[12..]);
    assert_eq!(u16::from_ne_bytes([header.0[2], header.0[3]]), 58);
    assert_eq!(u16::from_ne_bytes([header.0[6], header.0[7]]), 38);
}

#[test]
fn plain_headers_have_no_offsets_to_shift() {
    let plain = VnetHeader::default();
    assert_eq!(plain.shifted_for_vlan_tag(), Some(plain));
    assert!(plain.is_plain());
}

#[test]
fn a_place_left_out_closes_up_and_stays_usable() {
    let mut burst = Burst::new();
    for (ahead, byte) in [(0, 1), (1, 2), (2, 3)] {
        burst.vacant(ahead).unwrap().1[..60].fill(byte);
    }
    assert_eq!(burst.take_in(0, 60, None), Ok(()));
    assert_eq!(burst.take_in(1, 60, None), Ok(())); // the one in the middle was no good
    assert_eq!(
        (0..burst.len())
            .map(|index| burst.to_vec(index)[0])
            .collect::<Vec<_>>(),
        [1, 3]
    );
    while burst.push(VnetHeader::default(), &[9; 60]) {}
    assert_eq!(
        (0..3)
            .map(|index| burst.to_vec(index)[0])
            .collect::<Vec<_>>(),
        [1, 3, 9]
    );
}

#[test]
fn a_full_burst_takes_no_more() {
    let mut burst = Burst::new();
    for _ in 0..MAX_BURST {
        assert!(burst.push(VnetHeader::default(), &[0; 60]));
    }
    assert!(!burst.push(VnetHeader::default(), &[0; 60]));
    assert_eq!((burst.len(), burst.bytes()), (64, 64 * 60));
    burst.clear();
    assert!(!burst.push(VnetHeader::default(), &vec![0; MAX_FRAME + 1]));
    assert!(burst.push(VnetHeader::default(), &vec![0; MAX_FRAME]));
}

#[test]
fn a_frame_is_measured_with_the_tag_that_goes_back() {
    let mut burst = Burst::new();
    let mut take_in = |len, tag| {
        burst.clear();
        let taken = burst.take_in(0, len, tag);
        assert_eq!(burst.len(), usize::from(taken.is_ok()));
        taken
    };
    for whole in [
        65_535,
        65_535 + 14,
        65_535 + 14 + VLAN_TAG,
        MAX_FRAME - 1,
        MAX_FRAME,
    ] {
        assert_eq!(take_in(whole, None), Ok(()), "{whole}");
        assert_eq!(take_in(whole - VLAN_TAG, Some(TAG)), Ok(()), "{whole}");
    }
    for untagged in MAX_FRAME - VLAN_TAG + 1..=OFFERED {
        let too_long = Err(DropReason::TooLong);
        assert_eq!(take_in(untagged, Some(TAG)), too_long, "{untagged}");
    }
    assert_eq!(take_in(OFFERED, None), Err(DropReason::TooLong));
    assert_eq!(take_in(MIN_FRAME - 1, None), Err(DropReason::Malformed));
    assert_eq!(
        take_in(MIN_FRAME - 1, Some(TAG)),
        Err(DropReason::Malformed)
    );
}

#[test]
fn a_checksum_outside_the_frame_is_refused_where_the_frame_comes_in() {
    let mut burst = Burst::new();
    let mut take_in = |start: u16, offset: u16, tag| {
        burst.clear();
        let (header, _) = burst.vacant(0).unwrap();
        header.0 = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        header.0[6..8].copy_from_slice(&start.to_le_bytes());
        header.0[8..10].copy_from_slice(&offset.to_le_bytes());
        burst.take_in(0, 65_000, tag)
    };
    assert_eq!(take_in(40_000, 24_998, None), Ok(()));
    assert_eq!(take_in(40_000, 24_998, Some(TAG)), Ok(()));
    assert_eq!(take_in(40_000, 24_999, None), Err(DropReason::Malformed));
    assert_eq!(
        take_in(40_000, 24_999, Some(TAG)),
        Err(DropReason::Malformed)
    );
    // Four bytes further it would begin at 3.
    assert_eq!(take_in(65_535, 0, Some(TAG)), Err(DropReason::Malformed));
}

/// Lengths at which a check may be one too many or one too few: with and without each tag.
fn lengths() -> impl Strategy<Value = usize> {
    let near = |len: usize| len - 5..=len + 5;
    let edges = prop_oneof![near(MAX_FRAME), near(65_535 + 14), near(65_535), near(20)];
    prop_oneof![4 => edges, 1 => 0..=OFFERED].prop_map(|len| len.min(OFFERED))
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 1000 })
    })]

    /// Whatever the kernel hands over: it is refused, or all that is done with a frame stays inside.
    #[test]
    fn what_is_taken_in_can_be_finished(
        len in lengths(),
        tag in any::<bool>(),
        start in prop_oneof![any::<u16>(), 65_500u16..=u16::MAX, 39_990u16..40_010],
        from_end in -6isize..70,
        kind in prop_oneof![Just([1, 0]), any::<[u8; 2]>()],
        hint in any::<[u8; 4]>(),
        takes in 0u8..32,
    ) {
        let end = len.saturating_add_signed(-from_end);
        let offset = end.saturating_sub(start.into()).min(65_535) as u16;
        let mut burst = Burst::new();
        let (header, memory) = burst.vacant(0).unwrap();
        memory.fill(0x5a);
        header.0[..2].copy_from_slice(&kind);
        header.0[2..6].copy_from_slice(&hint);
        header.0[6..8].copy_from_slice(&start.to_le_bytes());
        header.0[8..10].copy_from_slice(&offset.to_le_bytes());
        if burst.take_in(0, len, tag.then_some(TAG)).is_err() {
            prop_assert!(burst.is_empty());
            return Ok(());
        }
        prop_assert!((MIN_FRAME..=MAX_FRAME).contains(&burst.frame_len(0)));
        let (header, mut frame) = (*burst.header(0), burst.to_vec(0));
        finish_checksum(&header, &mut frame);
        if let Some(mut cut) = Cut::new(&burst, 0, Offloads(takes)) {
            let mut out = Burst::new();
            while cut.len() > 0 {
                if !out.has_room() {
                    out.clear();
                }
                cut.add_next(&mut out);
                prop_assert!(out.frame_len(out.len() - 1) <= MAX_FRAME);
            }
        }
    }
}

use super::*;

#[test]
fn a_stripped_vlan_tag_goes_back_behind_the_addresses() {
    let mut burst = Burst::new();
    let bare: Vec<u8> = (0..60).collect();
    let (header, memory) = burst.vacant(0).unwrap();
    memory[..60].copy_from_slice(&bare);
    header.0 = [1, 1, 54, 0, 0, 0, 34, 0, 16, 0]; // NEEDS_CSUM, TCPv4
    burst.take_in(
        0,
        60,
        Some(VlanTag {
            tpid: 0x8100,
            tci: 0x200a,
        }),
    );

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
    let mut header = VnetHeader::default();
    header.shift_for_vlan_tag();
    assert_eq!(header, VnetHeader::default());
    assert!(header.is_plain());
}

#[test]
fn a_place_left_out_closes_up_and_stays_usable() {
    let mut burst = Burst::new();
    for (ahead, byte) in [(0, 1), (1, 2), (2, 3)] {
        burst.vacant(ahead).unwrap().1[..60].fill(byte);
    }
    burst.take_in(0, 60, None);
    burst.take_in(1, 60, None); // the one in the middle was no good
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

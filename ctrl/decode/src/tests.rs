use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpOptionElement};
use proptest::prelude::*;

use super::*;

const A: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const B: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

fn v4(ttl: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    PacketBuilder::ethernet2(A, B).ipv4([10, 0, 0, 1], [10, 0, 0, 2], ttl)
}

fn v6() -> PacketBuilderStep<etherparse::IpHeaders> {
    let address = |last| Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last).octets();
    PacketBuilder::ethernet2(A, B).ipv6(address(1), address(2), 255)
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    v4(64).udp(from, to).write(&mut frame, payload).unwrap();
    frame
}

fn tcp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = v6().tcp(from, to, 1000, 500).ack(7);
    let builder = builder
        .options(&[TcpOptionElement::Timestamp(1, 2)])
        .unwrap();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn icmpv6(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (head, rest) = body.split_first_chunk().unwrap();
    let builder = v6().icmpv6_raw(kind, 0, *head);
    builder.write(&mut frame, rest).unwrap();
    frame
}

fn raw(destination: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let ether_type = ether_type.to_be_bytes();
    [&destination[..], &A, &ether_type, payload].concat()
}

fn bgp_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len() as u16).to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

/// An UPDATE that withdraws 10.1.3.0/24.
fn withdraw() -> Vec<u8> {
    bgp_message(2, &[0, 4, 24, 10, 1, 3, 0, 0])
}

fn dhcp_request() -> Vec<u8> {
    let mut message = vec![0; 236];
    message[0] = 1;
    message[28..34].copy_from_slice(&A);
    message.extend([99, 130, 83, 99, 53, 1, 3, 50, 4, 10, 0, 0, 9]);
    message.extend([12, 5, b'h', 0x1b, b'[', b'2', b'J', 255]);
    udp(68, 67, &message)
}

fn arp(operation: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(A);
    body.extend([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    raw([0xff; 6], 0x0806, &body)
}

fn neighbour_advertisement() -> Vec<u8> {
    let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets();
    let option = [&[2, 1][..], &A].concat();
    icmpv6(136, &[&[0; 4][..], &target, &option].concat())
}

fn lldp() -> Vec<u8> {
    let mut body = vec![2, 7, 4, 1, 2, 3, 4, 5, 6];
    body.extend([4, 5, 5, b'e', b'n', b's', b'5', 6, 2, 0, 120]);
    body.extend([10, 5, b'l', b'e', b'a', b'f', b'1', 0, 0]);
    raw([1, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &body)
}

fn lacp() -> Vec<u8> {
    let mut body = vec![1, 1, 1, 20, 0xff, 0xff];
    body.extend(A);
    body.extend([0, 9, 0xff, 0xff, 0, 2, 0b0011_1101, 0, 0, 0]);
    raw([1, 0x80, 0xc2, 0, 0, 2], 0x8809, &body)
}

fn stp() -> Vec<u8> {
    let mut body = vec![0x42, 0x42, 3, 0, 0, 2, 2, 0x3c, 0x80, 0];
    body.extend(A);
    body.extend([0, 0, 0, 4, 0x80, 1]);
    body.extend(B);
    raw([1, 0x80, 0xc2, 0, 0, 0], 38, &body)
}

fn bfd() -> Vec<u8> {
    let mut control = vec![0x21, 0x48, 3, 24, 0, 0, 0, 1, 0, 0, 0, 2];
    control.extend(50_000_u32.to_be_bytes());
    control.extend([0; 8]);
    udp(49152, 3784, &control)
}

fn tagged() -> Vec<u8> {
    let ping = echo(64);
    [&ping[..12], &[0x81, 0, 0x20, 7], &ping[12..]].concat()
}

fn echo(ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = v4(ttl).icmpv4_echo_request(3, 4);
    builder
        .write(&mut frame, &[1, 2, 3, 4, 5, 6, 7, 8])
        .unwrap();
    frame
}

fn frames() -> Vec<Vec<u8>> {
    let two = [withdraw(), bgp_message(4, &[])].concat();
    vec![
        arp(1),
        arp(2),
        echo(64),
        tagged(),
        neighbour_advertisement(),
        icmpv6(133, &[0; 4]),
        icmpv6(134, &[64, 0, 0, 30, 0, 0, 0, 0, 0, 0, 0, 0]),
        icmpv6(135, &[0; 20]),
        icmpv6(143, &[0; 4]),
        tcp(179, 40232, &two),
        tcp(179, 40232, &bgp_message(3, &[4, 0])),
        tcp(40232, 179, &[]),
        tcp(50000, 80, b"GET"),
        bfd(),
        dhcp_request(),
        udp(1000, 53, &[0; 30]),
        lldp(),
        lacp(),
        stp(),
        raw(B, 0x1234, &[0; 46]),
    ]
}

#[test]
fn each_frame_is_a_line_to_read() {
    let lines: Vec<_> = frames().iter().map(|frame| summary(frame)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn summaries_leave_out_what_was_truncated() {
    assert_eq!(summary(&[]), "0 bytes, too few for a frame");
    let frame = tcp(179, 40232, &withdraw());
    assert_eq!(
        summary(&frame[..frame.len() - 6]),
        "fe80::1 > fe80::2 BGP 179 > 40232: UPDATE …"
    );
    assert_eq!(summary(&frame[..60]), "fe80::1 > fe80::2 TCP, 59 bytes");
}

#[test]
fn a_packet_has_the_same_key_on_every_cable() {
    let sent = packet_key(&echo(64)).unwrap();
    assert_eq!(packet_key(&echo(61)), Some(sent));
    let mut elsewhere = echo(64);
    elsewhere[..12].fill(7);
    assert_eq!(packet_key(&elsewhere), Some(sent));
    assert_eq!(packet_key(&tagged()), Some(sent));
    let last = elsewhere.len() - 1;
    elsewhere[last] ^= 1;
    assert_ne!(packet_key(&elsewhere), Some(sent));
    assert_eq!(sent.source, Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(packet_key(&arp(1)), None);
}

proptest! {
    #[test]
    fn any_bytes_make_one_printable_line(frame in prop::collection::vec(any::<u8>(), 0..300)) {
        check_line(&frame)?;
    }

    #[test]
    fn damaged_frames_make_one_printable_line(
        which in 0..frames().len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let mut frame = frames().swap_remove(which);
        for (at, byte) in flips {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if !whole {
            frame.truncate(cut.index(frame.len()));
        }
        check_line(&frame)?;
    }
}

fn check_line(frame: &[u8]) -> Result<(), TestCaseError> {
    let line = summary(frame);
    prop_assert!(!line.chars().any(char::is_control), "{line:?}");
    prop_assert!(line.len() < 1000, "{} bytes", line.len());
    packet_key(frame);
    Ok(())
}
